"""Content in BDAT chunks, the moment before its end, and the limits of a peer, against scripted peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from posthouse.mail.address import parse_address
from posthouse.net.smtp_connection import ConnectionBroke, ContentUnfit, SmtpTimeouts
from posthouse.protocol.smtp_client import ClientRecipient, ClientTransaction
from posthouse.protocol.smtp_client_content import CHUNK_OCTETS
from tests.net.test_smtp_connection import ENVELOPE, MAIL, connected, content, greeted
from tests.protocol.test_smtp_client_content import SECOND, SMUGGLING
from tests.scripted_peer import (
    Close,
    Deaf,
    Expect,
    Hang,
    Reset,
    Send,
    Step,
    TakeContent,
    TakeOctets,
)

CHUNKING = (Send("220 peer.test"), Expect("EHLO"), Send("250-peer.test", "250-PIPELINING", "250 CHUNKING"))
ONE_BY_ONE = (Send("220 peer.test"), Expect("EHLO"), Send("250-peer.test", "250 CHUNKING"))
WANTED = (Expect("MAIL"), Expect("RCPT"), Send("250 ok", "250 ok"))
LINES = b"x" * 62 + b"\r\n"
BIG = LINES * (CHUNK_OCTETS * 2 // len(LINES)) + b"end\r\n"
FULL_CHUNK = (Expect(f"BDAT {CHUNK_OCTETS}\r\n"), TakeOctets(CHUNK_OCTETS))


def recipients(*addresses: str) -> ClientTransaction:
    paths = tuple(ClientRecipient(parse_address(address)) for address in addresses)
    return ClientTransaction(reverse_path=None, recipients=paths, size_octets=7)


async def test_chunks_are_pipelined_but_the_last_waits_for_all() -> None:
    steps = (*FULL_CHUNK, *FULL_CHUNK, Send("250 ok"), Send("250 ok"), Expect("BDAT 5 LAST"), TakeOctets(5))
    async with connected(*CHUNKING, *WANTED, *steps, Send("250 taken"), Expect("QUIT"), Send("221 x"), Hang()) as (
        ours,
        peer,
    ):
        await ours.start()
        ended = await ours.deliver(MAIL, content(BIG))
        assert ended.final is not None
        assert ended.final.text == "taken"
        await ours.quit()
    peer.check()
    assert ours.transcript[7:-2] == [
        "S: 250 ok",
        "S: 250 ok",
        f"C: BDAT {CHUNK_OCTETS} (content)",
        f"C: BDAT {CHUNK_OCTETS} (content)",
        "S: 250 ok",
        "S: 250 ok",
        "C: (content) BDAT 5 LAST",
        "S: 250 taken",
    ]


@pytest.mark.conformance("C159")
@pytest.mark.parametrize("pieces", [(BIG,), (BIG[:CHUNK_OCTETS], BIG[CHUNK_OCTETS:-3], BIG[-3:]), (BIG[:-1], b"\n")])
async def test_without_pipelining_each_chunk_waits(pieces: tuple[bytes, ...]) -> None:
    envelope = (Expect("MAIL"), Send("250 ok"), Expect("RCPT"), Send("250 ok"))
    steps = (*FULL_CHUNK, Send("250 ok"), *FULL_CHUNK, Send("250 ok"), Expect("BDAT 5 LAST"), TakeOctets(5))
    async with connected(*ONE_BY_ONE, *envelope, *steps, Send("250 taken"), Hang()) as (ours, peer):
        await ours.start()
        assert (await ours.deliver(MAIL, content(*pieces))).final is not None
    peer.check()
    assert [line[:6] for line in ours.transcript[-6:]] == ["C: BDA", "S: 250"] * 2 + ["C: (co", "S: 250"]


@pytest.mark.parametrize("refusal", ["552 5.3.4 too large", "451 4.3.0 later"])
async def test_a_refused_chunk_stops_the_content(refusal: str) -> None:
    """And the connection is good for the next message."""
    again = (Expect("RSET"), Send("250 ok"), *WANTED, Expect("BDAT 3 LAST"), TakeOctets(3), Send("250 taken"), Hang())
    async with connected(*CHUNKING, *WANTED, *FULL_CHUNK, Send(refusal), *again) as (ours, peer):
        await ours.start()

        async def until_refused() -> AsyncGenerator[bytes, None]:
            yield BIG[: CHUNK_OCTETS + 64]
            while not ours.stream.has_input:
                await asyncio.sleep(0)
            yield b"no more of it\r\n"

        ended = await ours.deliver(MAIL, until_refused(), before_end=unexpected)
        assert str(ended.final) == refusal
        assert ours.may_carry_another
        assert (await ours.reset()).is_positive
        assert (await ours.deliver(MAIL, content(b"x\r\n"))).final is not None
    peer.check()
    assert b"LAST" not in peer.octets.split(b"RSET")[0]


async def unexpected() -> None:
    raise AssertionError("the message cannot arrive")


@pytest.mark.parametrize("last", [Close(), Reset(), Hang()])
@pytest.mark.parametrize("sent", [False, True])
async def test_losses_among_chunks(last: Step, sent: bool) -> None:
    """Whether the message may have arrived is known exactly."""
    steps: tuple[Step, ...] = FULL_CHUNK
    if sent:
        steps = (*FULL_CHUNK, *FULL_CHUNK, Send("250 ok", "250 ok"), Expect("BDAT 5 LAST"))
    marks: list[bool] = []

    async def mark() -> None:
        marks.append(True)

    async with connected(*CHUNKING, *WANTED, *steps, last) as (ours, peer):
        await ours.start()
        ours.timeouts = SmtpTimeouts(final_s=0.2)
        with pytest.raises(ConnectionBroke) as raised:
            await ours.deliver(MAIL, content(BIG), before_end=mark)
        assert raised.value.final_dot_sent is sent
        assert bool(marks) is sent
        assert not ours.may_carry_another
    peer.check()


@pytest.mark.parametrize("chunking", [False, True])
async def test_before_the_end_all_but_the_end_has_left(chunking: bool) -> None:
    taken = asyncio.Event()
    if chunking:
        steps = (*CHUNKING, *WANTED, *FULL_CHUNK, Send("250 ok"), Hang())
        whole, seen = BIG[: CHUNK_OCTETS + 64], CHUNK_OCTETS
    else:
        steps = (Send("220 x"), Expect("EHLO"), Send("250-x", "250 PIPELINING"), *ENVELOPE, Hang())
        whole = seen_all = b"a: b\r\n\r\nx\r\n"
        seen = len(seen_all)
    async with connected(*steps) as (ours, peer):
        await ours.start()

        async def failing() -> None:
            # The peer has the rest; it would have the end, too, if that had left.
            while len(peer.octets) < seen:
                await asyncio.sleep(0)
            taken.set()
            raise OSError("the mark could not be written")

        with pytest.raises(OSError, match="mark"):
            await ours.deliver(MAIL, content(whole), before_end=failing)
        assert ours.stream.is_lost
    assert taken.is_set()
    assert b"LAST" not in peer.octets
    assert b"\r\n.\r\n" not in peer.octets


async def test_no_mark_where_nothing_can_arrive() -> None:
    steps = (Expect("MAIL"), Expect("RCPT"), Expect("DATA"))
    async with greeted(*steps, Send("250 ok", "550 no", "554 no"), Hang()) as (ours, _peer):
        assert (await ours.deliver(MAIL, content(), before_end=unexpected)).final is None


async def test_a_peer_that_leaves_while_the_mark_is_written() -> None:
    async with greeted(*ENVELOPE, TakeOctets(3), Close()) as (ours, _peer):

        async def slowly() -> None:
            while not ours.stream.has_input:
                await asyncio.sleep(0)

        with pytest.raises(ConnectionBroke) as raised:
            await ours.deliver(MAIL, content(b"x\r\n"), before_end=slowly)
        assert not raised.value.final_dot_sent


@pytest.mark.conformance("C278", "S1", "S2")
@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("sequence", SMUGGLING)
async def test_nothing_is_smuggled_out(chunking: bool, sequence: bytes) -> None:
    """Whatever stands in the store, and however it is cut: raw octets as the peer got them."""
    hello = CHUNKING if chunking else (*CHUNKING[:2], Send("250-peer.test", "250 PIPELINING"))
    envelope = WANTED if chunking else ENVELOPE
    evil = b"Subject: x\r\n\r\n" + LINES * 3000 + b"hello" + sequence + SECOND
    for size in (1 << 20, 100_003):
        async with connected(
            *hello, *envelope, *((Hang(),) if not chunking else (*FULL_CHUNK, Send("250 ok"), Hang()))
        ) as (
            ours,
            peer,
        ):
            await ours.start()
            with pytest.raises(ContentUnfit):
                await ours.deliver(MAIL, content(*(evil[at : at + size] for at in range(0, len(evil), size))))
            assert ours.stream.is_lost
        raw = peer.octets
        assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
        assert b"\r\n.\r\n" not in raw
        assert b"LAST" not in raw
        assert raw.count(b"MAIL FROM") == 1


@pytest.mark.conformance("C278", "S2")
@pytest.mark.parametrize(
    "whole",
    [
        b".\r\n",
        b".\r\n.\r\n.",
        b"..\r\n.x\r\n",
        b"no header section\r\n.\r\nMAIL FROM:<evil@x.test>\r\n",
        b"a: b\r\nX-Last: " + b"y" * 300_000 + b"\r\n.\r\n",
        b"a: b\r\n\r\n.",
    ],
)
async def test_dots_are_stuffed_or_counted(whole: bytes) -> None:
    dotted = (*ENVELOPE, TakeContent(), Send("250 ok"), Hang())
    async with greeted(*dotted) as (ours, peer):
        await ours.deliver(MAIL, content(whole[:1], whole[1:3], whole[3:]))
    sent = peer.octets.partition(b"DATA\r\n")[2]
    ended = whole if whole.endswith(b"\r\n") else whole + b"\r\n"
    assert sent == (b"\r\n" + ended).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    full = len(whole) // CHUNK_OCTETS * (*FULL_CHUNK, Send("250 ok"))
    rest = len(whole) % CHUNK_OCTETS
    last = (Expect(f"BDAT {rest} LAST"), TakeOctets(rest), Send("250 ok"), Hang())
    async with connected(*CHUNKING, *WANTED, *full, *last) as (ours, peer):
        await ours.start()
        await ours.deliver(MAIL, content(whole[:1], whole[1:3], whole[3:]))
    peer.check()
    assert peer.octets.endswith(whole[-min(rest, 1000) :])


LIMITED = (
    Send("220 x"),
    Expect("EHLO"),
    Send("250-x", "250-PIPELINING", "250-CHUNKING", "250 LIMITS RCPTMAX=2 MAILMAX=2 FUTUREMAX=1"),
)
TAKEN = (Expect("BDAT 3 LAST"), TakeOctets(3), Send("250 taken"))


@pytest.mark.conformance("C176")
async def test_the_limits_of_a_peer_are_kept() -> None:
    """Two recipients for each transaction, two transactions for the session; who was not asked is told so."""
    first = (Expect("MAIL"), Expect("RCPT TO:<a@"), Expect("RCPT TO:<b@"), Send("250 ok", "250 ok", "550 no"), *TAKEN)
    second = (Expect("MAIL"), Expect("RCPT TO:<c@"), Send("250 ok", "250 ok"), *TAKEN)
    async with connected(*LIMITED, *first, *second, Expect("QUIT"), Send("221 x"), Hang()) as (ours, peer):
        await ours.start()
        assert (ours.limits.recipients_max, ours.limits.mail_max) == (2, 2)
        ended = await ours.deliver(recipients("a@y.test", "b@y.test", "c@y.test"), content(b"x\r\n"))
        assert [reply.code if reply else None for reply in ended.recipients] == [250, 550, None]
        assert ended.final is not None
        assert ours.may_carry_another
        ended = await ours.deliver(recipients("c@y.test"), content(b"x\r\n"))
        assert ended.final is not None
        assert not ours.may_carry_another
        with pytest.raises(ConnectionBroke, match="no more") as raised:
            await ours.deliver(recipients("d@y.test"), content(b"x\r\n"), before_end=unexpected)
        assert not raised.value.final_dot_sent
        await ours.quit()
    peer.check()


async def test_a_peer_that_takes_chunks_and_says_nothing() -> None:
    async with connected(*CHUNKING, *WANTED, *FULL_CHUNK, *FULL_CHUNK, Deaf()) as (ours, _peer):
        await ours.start()
        ours.timeouts = SmtpTimeouts(final_s=0.2)
        with pytest.raises(ConnectionBroke, match="no answer") as raised:
            await ours.deliver(MAIL, content(BIG), before_end=unexpected)
        assert not raised.value.final_dot_sent
