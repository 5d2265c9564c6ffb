"""The outgoing connection against scripted peers: exact knowledge of the final dot, deadlines, no secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from posthouse.mail.address import parse_address
from posthouse.net.connect import TcpConnector
from posthouse.net.smtp_connection import (
    TRANSCRIPT_LINES,
    ConnectionBroke,
    ConnectionFailed,
    ContentUnfit,
    LoginImpossible,
    SmtpConnection,
    SmtpTimeouts,
)
from posthouse.protocol.smtp_client import ClientRecipient, ClientTransaction
from tests.scripted_peer import (
    Close,
    Deaf,
    Drip,
    Expect,
    Hang,
    Raw,
    Reset,
    ScriptedPeer,
    Send,
    Step,
    TakeContent,
    TakeOctets,
    scripted_peer,
)

GREET = (Send("220 peer.test"), Expect("EHLO house.test"), Send("250-peer.test", "250-PIPELINING", "250 AUTH PLAIN"))
ENVELOPE = (Expect("MAIL"), Expect("RCPT"), Expect("DATA"), Send("250 ok", "250 ok", "354 go"))
PROMPT = SmtpTimeouts(command_s=0.2, greeting_s=0.2, block_s=0.2, final_s=0.2, quit_s=0.2)
"""For peers that say nothing more: these limits are always reached, however slow the machine is."""
SILENT_AT_THE_END = SmtpTimeouts(final_s=0.2)
"""The same where all that goes before must have its time."""
MAIL = ClientTransaction(
    reverse_path=parse_address("a@x.test"),
    recipients=(ClientRecipient(parse_address("b@y.test")),),
    size_octets=7,
)


async def content(*chunks: bytes) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        yield chunk


@asynccontextmanager
async def connected(
    *steps: Step, timeouts: SmtpTimeouts | None = None
) -> AsyncIterator[tuple[SmtpConnection, ScriptedPeer]]:
    """A connection that is not started yet."""
    async with scripted_peer(*steps) as peer:
        stream = await TcpConnector().connect("127.0.0.1", peer.port)
        try:
            yield SmtpConnection(stream, "house.test", timeouts), peer
        finally:
            stream.abort()


@asynccontextmanager
async def greeted(
    *steps: Step, timeouts: SmtpTimeouts | None = None
) -> AsyncIterator[tuple[SmtpConnection, ScriptedPeer]]:
    """A connection past EHLO; the limits hold from there."""
    async with connected(*GREET, *steps) as (connection, peer):
        await connection.start()
        connection.timeouts = timeouts or SmtpTimeouts()
        yield connection, peer


async def broken(*steps: Step, chunks: tuple[bytes, ...] = (b"x\r\n",)) -> ConnectionBroke:
    """How a delivery breaks at a peer that plays `steps` after EHLO."""
    async with greeted(*steps, timeouts=SILENT_AT_THE_END) as (connection, peer):
        with pytest.raises(ConnectionBroke) as raised:
            await connection.deliver(MAIL, content(*chunks))
        with pytest.raises(ConnectionBroke) as later:
            await connection.reset()
        assert not later.value.final_dot_sent
    peer.check()
    return raised.value


async def test_two_messages_and_a_farewell() -> None:
    answer = (TakeContent(), Send("250 2.0.0 taken"))
    async with greeted(*ENVELOPE, *answer, *ENVELOPE, *answer, Expect("QUIT"), Send("221 bye"), Hang()) as (ours, peer):
        for _message in range(2):
            ended = await ours.deliver(MAIL, content(b"a: b\r\n", b"\r\n", b".dot\r\n"))
            assert ended.final is not None
            assert ended.final.code == 250
        await ours.quit()
    peer.check()
    assert peer.octets.count(b"a: b\r\n\r\n..dot\r\n.\r\n") == 2
    assert ours.transcript[:3] == ["S: 220 peer.test", "C: EHLO house.test", "S: 250-peer.test"]
    assert ours.transcript[-2:] == ["C: QUIT", "S: 221 bye"]


async def test_greeting_and_answer_in_one_read() -> None:
    async with connected(Send("220 x", "250-x", "250 SIZE 9"), Hang()) as (ours, _peer):
        assert (await ours.start()).code == 250
        assert ours.extensions == {"SIZE": "9"}


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((Send("554 no"), Hang()), 554),
        ((Send("421 busy"), Close()), 421),
        ((Send("220 x"), Expect("EHLO"), Send("450 later"), Hang()), 450),
        ((Send("220 x"), Expect("EHLO"), Send("502 what"), Expect("HELO"), Send("550 no"), Hang()), 550),
        ((Close(),), None),
        ((Reset(),), None),
        ((Raw(b"HTTP/1.1 400 Bad\r\n"), Hang()), None),
        ((Raw(b"22"), Close()), None),
        ((Raw(b"220-" + b"x" * 100_000), Hang()), None),
    ],
)
async def test_sessions_that_never_begin(steps: tuple[Step, ...], code: int | None) -> None:
    async with connected(*steps) as (ours, _peer):
        with pytest.raises(ConnectionFailed) as raised:
            await ours.start()
    assert (raised.value.reply.code if raised.value.reply else None) == code


@pytest.mark.parametrize("steps", [(Hang(),), (Send("220 x"), Hang())])
async def test_peers_that_say_nothing(steps: tuple[Step, ...]) -> None:
    async with connected(*steps, timeouts=PROMPT) as (ours, _peer):
        with pytest.raises(ConnectionFailed) as raised:
            await ours.start()
    assert raised.value.reply is None


@pytest.mark.parametrize(
    "steps",
    [
        (Close(),),
        (Reset(),),
        (Hang(),),
        (Expect("MAIL"), Send("250 ok"), Close()),
        (*ENVELOPE[:3], Send("250 ok", "250 ok", "354 go", "250 already?"), Hang()),
        (*ENVELOPE, TakeOctets(3), Close()),
        (*ENVELOPE[:3], Send("250 ok", "250 ok", "354 go"), Close()),
        (*ENVELOPE[:3], Send("250 ok", "nonsense"), Hang()),
    ],
)
async def test_before_the_final_dot_nothing_can_have_arrived(steps: tuple[Step, ...]) -> None:
    """The content is endless here, so that the peer's part comes first."""
    async with greeted(*steps, timeouts=PROMPT) as (ours, _peer):

        async def endless() -> AsyncGenerator[bytes, None]:
            while True:
                yield b"x\r\n"
                await asyncio.sleep(0)

        with pytest.raises(ConnectionBroke) as raised:
            await ours.deliver(MAIL, endless())
        assert not raised.value.final_dot_sent
        assert ours.stream.is_lost or ours.stream.has_input


@pytest.mark.parametrize(
    "last", [Close(), Reset(), Hang(), Raw(b"25"), Send("nonsense"), Drip(b"250-x\r\n" * 100, 0.01)]
)
async def test_after_the_final_dot_it_may_have_arrived(last: Step) -> None:
    assert (
        await broken(*ENVELOPE, TakeContent(), last, Hang() if not isinstance(last, Close | Reset) else Close())
    ).final_dot_sent


async def test_an_answer_that_came_with_354_is_not_the_answer_to_the_dot() -> None:
    """Else content that nobody took would count as delivered."""
    early = Send("250 ok", "250 ok", "354 go", "250 taken")
    assert not (await broken(*ENVELOPE[:3], early, Hang())).final_dot_sent


@pytest.mark.parametrize("last", [Close(), Reset()])
async def test_no_dot_to_a_connection_that_is_gone(last: Step) -> None:
    async with greeted(*ENVELOPE, TakeOctets(3), last) as (ours, _peer):

        async def outlasting() -> AsyncGenerator[bytes, None]:
            yield b"x\r\n"
            while not ours.stream.has_input:
                await asyncio.sleep(0)

        with pytest.raises(ConnectionBroke) as raised:
            await ours.deliver(MAIL, outlasting())
        assert not raised.value.final_dot_sent


async def test_a_refusal_in_the_middle_of_the_content_is_heard() -> None:
    """Else the message would be tried for days: the loss hides why."""
    async with greeted(*ENVELOPE, TakeOctets(3), Send("552 5.3.4 too large"), Close()) as (ours, peer):

        async def endless() -> AsyncGenerator[bytes, None]:
            while True:
                yield b"x\r\n"
                await asyncio.sleep(0)

        ended = await ours.deliver(MAIL, endless())
        assert ended.final is not None
        assert ended.final.code == 552
    peer.check()
    assert [line for line in ours.transcript if line.endswith("x")] == []


@pytest.mark.conformance("C95")
@pytest.mark.parametrize(
    ("timeouts", "text"), [(PROMPT, "nothing was taken"), (SmtpTimeouts(transaction_s=0.2, block_s=60), "took longer")]
)
async def test_a_peer_that_takes_no_content(timeouts: SmtpTimeouts, text: str) -> None:
    async with greeted(*ENVELOPE, Deaf(), timeouts=timeouts) as (ours, _peer):

        async def endless() -> AsyncGenerator[bytes, None]:
            while True:
                yield b"x\r\n" * 20_000

        with pytest.raises(ConnectionBroke, match=text) as raised:
            # Nobody waits for the time of a block when that of the transaction is over.
            async with asyncio.timeout(10):
                await ours.deliver(MAIL, endless())
        assert not raised.value.final_dot_sent


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The deadline of each read, in order."""
    seen: list[float] = []
    real = asyncio.timeout_at

    def noting(when: float | None) -> asyncio.Timeout:
        assert when is not None
        seen.append(when)
        return real(when)

    monkeypatch.setattr(asyncio, "timeout_at", noting)
    return seen


async def test_a_dripping_reply_has_one_deadline(deadlines: list[float]) -> None:
    """Each octet used to begin a new one."""
    async with greeted(Expect("MAIL"), Drip(b"250-x\r\n" * 50), Close()) as (ours, _peer):
        deadlines.clear()
        with pytest.raises(ConnectionBroke, match="closed"):
            await ours.deliver(MAIL, content(b"x\r\n"))
    assert len(deadlines) > 1
    assert len(set(deadlines)) == 1


async def test_each_reply_of_a_group_has_its_own_deadline(deadlines: list[float]) -> None:
    transaction = ClientTransaction(
        reverse_path=None,
        recipients=tuple(ClientRecipient(parse_address(f"r{n}@y.test")) for n in range(20)),
        size_octets=1,
    )
    # With a pause the clock has gone on before each reply; how long it is does not matter.
    slow = Drip(b"250 ok\r\n", 0.001)
    steps = (Expect("MAIL"), *(slow for _ in range(21)), Send("554 no"), Hang())
    async with greeted(*steps) as (ours, _peer):
        deadlines.clear()
        assert (await ours.deliver(transaction, content())).data is not None
    # The reply to DATA has less time than those to MAIL and RCPT.
    envelope = [when for when in deadlines if when > deadlines[-1] + 60]
    assert envelope == sorted(envelope)
    assert len(set(envelope)) > 10


async def test_a_transaction_has_a_deadline_in_all() -> None:
    timeouts = SmtpTimeouts(transaction_s=0.05)
    async with greeted(Expect("MAIL"), Send("250 ok"), Hang(), timeouts=timeouts) as (ours, _peer):
        with pytest.raises(ConnectionBroke, match="took longer") as raised:
            await ours.deliver(MAIL, content(b"x\r\n"))
        assert not raised.value.final_dot_sent


@pytest.mark.parametrize(
    "chunks",
    [
        (b"a\nb\r\n",),
        (b"a\rb\r\n",),
        (b"a\r\n.\n", b"MAIL\r\n"),
        (b"a\r", b"b\r\n"),
        (b"a\r", b"\r\n"),
        (b"a\r",),
        (b"a", b"\n"),
        (b"a\r\n", b"\n"),
        (b"a\r", b"", b"b"),
    ],
)
@pytest.mark.conformance("S1")
async def test_bare_line_ends_never_leave(chunks: tuple[bytes, ...]) -> None:
    async with greeted(*ENVELOPE, Hang()) as (ours, peer):
        with pytest.raises(ContentUnfit):
            await ours.deliver(MAIL, content(*chunks))
        assert ours.stream.is_lost
    sent = peer.octets
    assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    assert b"\r\n.\r\n" not in sent


async def test_a_line_end_may_be_cut_in_two() -> None:
    async with greeted(*ENVELOPE, TakeContent(), Send("250 ok"), Hang()) as (ours, peer):
        await ours.deliver(MAIL, content(b"a\r", b"", b"\n", b"\r", b"\n.\r", b"\n"))
    assert peer.octets.endswith(b"DATA\r\na\r\n\r\n..\r\n.\r\n")


async def test_content_that_breaks_off_is_never_completed() -> None:
    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"a: b\r\n"
        raise ValueError("storage")

    async with greeted(*ENVELOPE, Hang()) as (ours, peer):
        with pytest.raises(ValueError, match="storage"):
            await ours.deliver(MAIL, failing())
        assert ours.stream.is_lost
        await ours.quit()
    assert b"\r\n.\r\n" not in peer.octets
    assert b"QUIT" not in peer.octets


async def test_quit_inside_a_transaction_drops_the_connection() -> None:
    async with greeted(Expect("MAIL"), Hang()) as (ours, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ours.deliver(MAIL, content())
        await ours.quit()
        assert ours.stream.is_lost
    assert b"QUIT" not in peer.octets


async def test_quit_is_not_patient() -> None:
    async with greeted(Deaf(), timeouts=PROMPT) as (ours, _peer):
        await ours.quit()
        assert ours.stream.is_lost


async def test_after_421_there_is_no_second_transaction() -> None:
    async with greeted(Expect("MAIL"), Send("421 closing"), Hang()) as (ours, _peer):
        assert (await ours.deliver(MAIL, content())).mail.code == 421
        with pytest.raises(ConnectionBroke) as raised:
            await ours.deliver(MAIL, content())
        assert not raised.value.final_dot_sent


async def test_what_the_peer_does_not_offer_is_no_bug() -> None:
    abroad = ClientTransaction(
        reverse_path=parse_address("ä@x.test"), recipients=(ClientRecipient(parse_address("b@y.test")),), size_octets=1
    )
    async with connected(Send("220 x"), Expect("EHLO"), Send("250 x"), Hang()) as (ours, _peer):
        await ours.start()
        with pytest.raises(LoginImpossible, match="offers none"):
            await ours.login("me", "secret", in_clear=True)
        with pytest.raises(ConnectionBroke, match="internationalised"):
            await ours.deliver(abroad, content())


async def test_an_international_reverse_path_asks_for_smtputf8() -> None:
    abroad = ClientTransaction(
        reverse_path=parse_address("ä@x.test"), recipients=(ClientRecipient(parse_address("b@y.test")),), size_octets=1
    )
    steps = (
        Send("220 x"),
        Expect("EHLO"),
        Send("250-x", "250 SMTPUTF8"),
        Expect("MAIL FROM:<ä@x.test> SMTPUTF8"),
    )
    async with connected(*steps, Send("550 no"), Hang()) as (ours, peer):
        await ours.start()
        assert (await ours.deliver(abroad, content())).mail.code == 550
    assert b" SMTPUTF8\r\n" in peer.octets


@pytest.mark.parametrize("login", ["me", "me" * 120])
async def test_the_transcript_keeps_no_secret(login: str) -> None:
    """A long response goes on a line of its own, which does not begin with AUTH."""
    challenge = (Send("334 "), TakeOctets(20)) if len(login) > 100 else ()
    async with greeted(Expect("AUTH PLAIN"), *challenge, Send("235 welcome"), Hang()) as (ours, _peer):
        assert (await ours.login(login, "tell-nobody" * 20, in_clear=True)).code == 235
        after = ours.transcript[5:]
    assert after[0] == ("C: AUTH PLAIN" if challenge else "C: AUTH PLAIN (secret)")
    assert [line for line in after[1:] if line.startswith("C:") and line != "C: (secret)"] == []
    assert max(map(len, after)) < 30


@pytest.mark.parametrize("password", ["", "with\0nul"])
async def test_a_password_that_cannot_be_sent(password: str) -> None:
    async with greeted(Hang()) as (ours, _peer):
        with pytest.raises(LoginImpossible):
            await ours.login("me" if password else "", password, in_clear=True)


async def test_a_reply_cut_in_two_is_one_line() -> None:
    async with connected(Drip(b"220 peer.test\r\n", 0.001), Expect("EHLO"), Send("250 \x1b[2Jx"), Hang()) as (
        ours,
        _peer,
    ):
        await ours.start()
    assert ours.transcript == ["S: 220 peer.test", "C: EHLO house.test", "S: 250 ?[2Jx"]


async def test_the_transcript_is_bounded_for_each_transaction() -> None:
    lines, more = (tuple(f"{code}-" + "x" * 2000 for _ in range(150)) for code in (250, 550))
    chatty = (*ENVELOPE[:3], Send(*lines, "250 ok", *more, "550 no", "503 what"))
    async with greeted(*chatty, Expect("RSET"), Expect("MAIL"), Send("250 ok", "550 x", "550 x", "550 x"), Hang()) as (
        ours,
        _,
    ):
        await ours.deliver(MAIL, content())
        seen = len(ours.transcript)
        assert seen <= TRANSCRIPT_LINES + 6
        assert max(map(len, ours.transcript)) <= 515
        await ours.deliver(MAIL, content())
        assert "S: 550 x" in ours.transcript[seen:]
