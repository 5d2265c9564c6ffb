"""The outgoing connection and peers that are old, strange or hostile: bounded, believed in nothing, left in time."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import suppress

import pytest

from posthouse.mail.address import parse_address
from posthouse.net.connect import TcpConnector
from posthouse.net.smtp_connection import (
    TRANSCRIPT_LINES,
    ClosedAtHello,
    ConnectionBroke,
    ConnectionFailed,
    SmtpConnection,
    SmtpTimeouts,
)
from posthouse.protocol.smtp_client import ClientRecipient, ClientTransaction
from tests.net.test_smtp_connection import ENVELOPE, GREET, MAIL, connected, content, greeted
from tests.scripted_peer import (
    Close,
    Drip,
    Expect,
    Hang,
    Raw,
    Reset,
    Send,
    Step,
    TakeContent,
    scripted_peer,
    scripted_peers,
)


@pytest.mark.conformance("C91")
@pytest.mark.parametrize("end", [Close(), Reset()])
async def test_a_peer_that_goes_away_at_ehlo_gets_helo_on_a_new_connection(end: Step) -> None:
    first = (Send("220 old.test"), Expect("EHLO"), end)
    second = (Send("220 old.test"), Expect("HELO house.test"), Send("250 old.test"), Expect("MAIL FROM:<a@x.test>\r\n"))
    async with scripted_peers(first, (*second, Send("550 no"), Hang())) as peer:
        stream = await TcpConnector().connect("127.0.0.1", peer.port)
        with pytest.raises(ClosedAtHello):
            await SmtpConnection(stream, "house.test").start()
        stream.abort()
        stream = await TcpConnector().connect("127.0.0.1", peer.port)
        ours = SmtpConnection(stream, "house.test", extended=False)
        assert (await ours.start()).code == 250
        assert (await ours.deliver(MAIL, content())).mail.code == 550
        ours.abort()
    peer.check()


@pytest.mark.conformance("C91")
@pytest.mark.parametrize(
    "steps",
    [
        (Close(),),
        (Send("220 x"), Expect("EHLO"), Send("421 bye"), Close()),
        (Send("220 x"), Expect("EHLO"), Send("500 what"), Expect("HELO"), Close()),
    ],
)
async def test_others_that_go_away_know_what_they_do(steps: tuple[Step, ...]) -> None:
    async with connected(*steps) as (ours, _peer):
        with pytest.raises(ConnectionFailed) as raised:
            await ours.start()
        assert not isinstance(raised.value, ClosedAtHello)


@pytest.mark.conformance("C92")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mx.house.test", "mx.house.test"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("localhost", "[127.0.0.1]"),
        ("laptop", "[127.0.0.1]"),
        ("laptop.localdomain", "[127.0.0.1]"),
        ("x.test\r\nMAIL FROM:<evil@x.test>", "[127.0.0.1]"),
    ],
)
async def test_the_name_that_we_say(name: str, said: str) -> None:
    """A name that means nothing elsewhere is replaced by our address (RFC 5321 §4.1.1.1)."""
    async with scripted_peer(Send("220 x"), Expect("EHLO"), Send("250 x"), Hang()) as peer:
        ours = SmtpConnection(await TcpConnector().connect("127.0.0.1", peer.port), name)
        await ours.start()
        ours.abort()
    assert peer.octets == f"EHLO {said}\r\n".encode()


@pytest.mark.conformance("C93")
@pytest.mark.parametrize(
    ("replies", "final"),
    [
        (("299 odd", "250", "354"), "250"),
        (("250-", "250-", "250 ", "259", "354-", "354 "), "299 odd"),
        (("250 5.9.9 lie", "250 ok", "354 go"), "459 odd"),
        (("250 ok", "250 ok", "354 go"), "599 odd"),
    ],
)
async def test_odd_replies_are_taken_by_their_first_digit(replies: tuple[str, ...], final: str) -> None:
    answer = (TakeContent(), Send(final), Hang())
    async with greeted(*ENVELOPE[:3], Send(*replies), *answer) as (ours, peer):
        ended = await ours.deliver(MAIL, content(b"x\r\n"))
        assert ended.mail.is_positive
        assert ended.final is not None
        assert ended.final.code == int(final[:3])
        assert (ended.final.is_positive, ended.final.is_transient, ended.final.is_permanent) == tuple(
            final[0] == digit for digit in "245"
        )
    peer.check()


@pytest.mark.conformance("C93", "C94", "S22")
@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n",
        b"\r\n",
        b"250-a\r\n\r\n250 b\r\n",
        b"250-a\r\n550 b\r\n",
        b"199 x\r\n",
        b"999 x\r\n",
        b"250x\r\n",
        b"354 go\r\n",
        b"250 a\nMAIL FROM:<evil@x.test>\r\n",
        b"250 ok\r\n" * 9,
        b"250-x\r\n" * 1000,
        b"250-" + b"x" * 5000 + b"\r\n250 x\r\n",
        (b"250-" + b"x" * 4000 + b"\r\n") * 140 + b"250 x\r\n",
    ],
)
async def test_garbage_ends_the_session_and_is_no_refusal(garbage: bytes) -> None:
    """Nothing was sent, nothing was refused: another attempt may find better words."""
    async with greeted(Expect("MAIL"), Expect("RCPT"), Expect("DATA"), Raw(garbage), Hang()) as (ours, peer):
        with pytest.raises(ConnectionBroke, match="broke the protocol") as raised:
            await ours.deliver(MAIL, content(b"x\r\n"))
        assert not raised.value.final_dot_sent
        assert ours.stream.is_lost
    assert peer.octets.endswith(b"DATA\r\n")


@pytest.mark.conformance("C94", "C158")
@pytest.mark.parametrize(
    ("replies", "sent"),
    [
        ((Send("250 ok", "550 no", "354 go"), Expect("."), Send("250 taken")), b"DATA\r\n.\r\n"),
        ((Send("550 no", "503 no", "354 go"), Expect("."), Send("554 no")), b"DATA\r\n.\r\n"),
        ((Send("250 ok", "550 no", "554 no"),), b"DATA\r\n"),
        ((Send("250 ok", "250 ok", "451 no"),), b"DATA\r\n"),
    ],
)
async def test_content_goes_to_nobody_but_accepted_recipients(replies: tuple[Step, ...], sent: bytes) -> None:
    async with greeted(*ENVELOPE[:3], *replies, Hang()) as (ours, peer):
        ended = await ours.deliver(MAIL, content(b"secret\r\n"))
        answer = ended.recipients[0]
        assert answer is None or not answer.is_positive or ended.final is None
    peer.check()
    assert peer.octets.endswith(sent)


@pytest.mark.conformance("S22")
@pytest.mark.parametrize("octets", [b"x" * 10_000, b"250-x\r\n" * 1500, (b"250-" + b"x" * 4000 + b"\r\n") * 3])
async def test_an_endless_reply_costs_little(octets: bytes) -> None:
    """It would go on for a gigabyte; hardly any is read, and hardly any of that is kept."""
    said = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        writer.write(b"220 x\r\n250 x\r\n250-")
        with suppress(ConnectionError):
            while said < 1 << 30:
                writer.write(octets)
                said += len(octets)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        ours = SmtpConnection(await TcpConnector().connect(*server.sockets[0].getsockname()), "house.test")
        await ours.start()
        tracemalloc.start()
        try:
            with pytest.raises(ConnectionBroke, match="broke the protocol"):
                await ours.deliver(MAIL, content())
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # What lies in the buffers of two sockets is said, too.
    assert said < 64 << 20
    assert peak < 4 << 20
    assert sum(map(len, ours.transcript)) < 200 * 520


@pytest.mark.conformance("C174", "S22")
async def test_what_a_peer_says_is_shown_without_harm() -> None:
    evil = "550 5.1.1 \x1b[2J\x07no\x00\x7f\x85 \u202e" + "y" * 3000
    async with greeted(*ENVELOPE[:3], Send("250 ok", evil, "503 x"), Hang()) as (ours, _peer):
        answer = (await ours.deliver(MAIL, content())).recipients[0]
    assert answer is not None
    assert answer.text.isprintable()
    assert all(line.isprintable() and len(line) < 520 for line in ours.transcript)


PHASES: list[tuple[str, tuple[Step, ...]]] = [
    ("greeting_s", (Hang(),)),
    ("greeting_s", (Raw(b"220-x\r\n22"), Hang())),
    ("command_s", (Send("220 x"), Expect("EHLO"), Hang())),
    ("command_s", (*GREET, Expect("MAIL"), Hang())),
    ("command_s", (*GREET, Expect("MAIL"), Send("250 ok"), Hang())),
    ("data_s", (*GREET, Expect("MAIL"), Send("250 ok", "250 ok"), Hang())),
    ("final_s", (*GREET, *ENVELOPE, TakeContent(), Hang())),
    ("final_s", (*GREET, *ENVELOPE, TakeContent(), Raw(b"250-x\r\n25"), Hang())),
]


@pytest.mark.conformance("C95")
@pytest.mark.parametrize(("phase", "steps"), PHASES)
async def test_each_phase_has_its_own_time(phase: str, steps: tuple[Step, ...]) -> None:
    async with connected(*steps, timeouts=SmtpTimeouts(**{phase: 0.05})) as (ours, _peer):
        with pytest.raises((ConnectionFailed, ConnectionBroke), match="no answer within 0 s"):
            await _everything(ours)
        assert ours.stream.is_lost


async def _everything(ours: SmtpConnection) -> None:
    await ours.start()
    await ours.deliver(MAIL, content(b"x\r\n"))


@pytest.mark.conformance("C95")
def test_nobody_is_given_less_time_than_the_rfc_asks_for() -> None:
    """RFC 5321 §4.5.3.2."""
    given = SmtpTimeouts()
    assert given.greeting_s >= 300
    assert given.command_s >= 300
    assert given.data_s >= 120
    assert given.block_s >= 180
    assert given.final_s >= 600


@pytest.mark.conformance("C95", "S22")
async def test_a_dripping_peer_does_not_hold_a_slot_for_ever() -> None:
    """Each reply in time, and yet the transaction has an end."""
    many = ClientTransaction(
        reverse_path=None,
        recipients=tuple(ClientRecipient(parse_address(f"r{n}@y.test")) for n in range(100)),
        size_octets=1,
    )
    drip = Drip(b"250 ok\r\n" * 200, 0.001)
    async with greeted(Expect("MAIL"), drip, Hang(), timeouts=SmtpTimeouts(transaction_s=0.1)) as (ours, _peer):
        with pytest.raises(ConnectionBroke, match="took longer") as raised:
            await ours.deliver(many, content())
        assert not raised.value.final_dot_sent


async def test_a_peer_that_repeats_our_password_is_not_quoted() -> None:
    async def play(echo: str) -> tuple[str, list[str]]:
        async with greeted(Expect("AUTH"), Send(echo), Hang()) as (ours, _peer):
            reply = await ours.login("ada", "tell-nobody", in_clear=True)
            return reply.text, ours.transcript

    for echo in ("500 AUTH PLAIN AGFkYQB0ZWxsLW5vYm9keQ== what?", "535 5.7.8 tell-nobody is wrong"):
        text, transcript = await play(echo)
        assert "(secret)" in text
        for line in (text, *transcript):
            assert "tell-nobody" not in line
            assert "AGFkYQB0ZWxsLW5vYm9keQ" not in line


async def test_of_a_long_dialogue_beginning_and_end_are_kept() -> None:
    many = ClientTransaction(
        reverse_path=None,
        recipients=tuple(ClientRecipient(parse_address(f"r{n}@y.test")) for n in range(300)),
        size_octets=1,
    )
    async with greeted(Expect("MAIL"), Send("250 ok", *["550 no"] * 300, "554 nobody"), Hang()) as (ours, _peer):
        before = len(ours.transcript)
        await ours.deliver(many, content())
        part = ours.transcript[before:]
    assert len(part) == TRANSCRIPT_LINES
    assert part[0] == "C: MAIL FROM:<>"
    assert part[-1] == "S: 554 nobody"
    # 302 commands and 302 replies were said.
    assert f"C: ({604 - TRANSCRIPT_LINES + 1} lines are left out here)" in part


async def test_a_cancelled_login_leaves_no_secret_behind() -> None:
    async with greeted(Expect("AUTH"), Hang()) as (ours, _peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await ours.login("ada", "tell-nobody", in_clear=True)
        assert ours.transcript[-1] == "C: AUTH PLAIN (secret)"
