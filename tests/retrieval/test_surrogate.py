"""What a session gets of an internationalised message, with and without UTF8 (RFC 6856 §2.1, §4, §5)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from email import message_from_bytes, policy

import pytest

from posthouse.mail.acceptance import Acceptance, Placement
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentScanner
from posthouse.mail.ids import AccountId, QueueId, Uid
from posthouse.mail.maildrop import Listing
from posthouse.retrieval import surrogate
from posthouse.retrieval.downgrade import NOTE, downgraded
from posthouse.retrieval.surrogate import Surrogates
from posthouse.storage.interfaces import Storage
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

ALICE, JURGEN = "alice@here.test", "jürgen@here.test"
ACCOUNT = AccountId(1)
LETTERS = [
    "From: Jürgen <jürgen@far.test>\r\nTo: alice@here.test\r\nSubject: Grüße\r\n\r\n.Köln\r\nzwei\r\ndrei\r\n",
    "Subject: nothing special\r\n\r\nKöln\r\n",
    "From: a@far.test\r\nX-Many: " + "ü " * 300 + "\r\n\r\n" + "ö" * 60_000 + "\r\n" * 3,
    "Subject: ü\r\n",
    "\r\nno header\r\n",
]


JUST_SENT = "Subject: Grüße\r\n\r\nx\r\n"


class Entries:
    """Maildrops that hold these octets, and count how often they are read."""

    def __init__(self, entries: Mapping[int, bytes], chunk_octets: int) -> None:
        self._entries = entries
        self._chunk_octets = chunk_octets
        self.reads = 0

    async def read(self, account: AccountId, uid: Uid, folder: str = "Inbox") -> AsyncGenerator[bytes, None]:
        self.reads += 1
        if uid not in self._entries:
            raise KeyError(uid)
        octets = self._entries[uid]
        for at in range(0, len(octets), self._chunk_octets):
            yield octets[at : at + self._chunk_octets]


def surrogates(entries: Mapping[int, bytes], chunk_octets: int = 7) -> tuple[Surrogates, Entries, Listing]:
    drop = Entries(entries, chunk_octets)
    uids = tuple(map(Uid, entries))
    sizes = tuple(map(len, entries.values()))
    listing = Listing(uids=uids, sizes_octets=sizes, internationalised=frozenset(uids[:-1]))
    return Surrogates(drop), drop, listing  # type: ignore[arg-type]


@pytest.mark.conformance("C204")
@pytest.mark.parametrize("chunk_octets", [1, 2, 3, 7, 1000, 1 << 20])
async def test_the_size_is_what_is_read(chunk_octets: int) -> None:
    entries = {
        n: letter.encode() for n, letter in enumerate([*LETTERS, "", "Subject: ü\r\n\r\n", "ü", "last: ü\r\n"], 1)
    }
    made, _, listing = surrogates(entries, chunk_octets)
    sizes = (await made.sizes(ACCOUNT, listing)).sizes_octets
    for uid, size in zip(listing.uids[:-1], sizes, strict=False):
        octets = b"".join([chunk async for chunk in made.read(ACCOUNT, uid)])
        assert len(octets) == size
        header, empty, body = entries[uid].partition(b"\r\n\r\n")
        assert octets == (
            downgraded(header + b"\r\n") + b"\r\n" + body if empty and header else downgraded(entries[uid])
        )
    assert sizes[-1] == len(entries[9]), "it needs no surrogate"


async def test_a_size_is_computed_once_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogate, "REMEMBERED", 2)
    made, drop, listing = surrogates({n: f"Subject: ü{n}\r\n\r\n".encode() for n in range(3)})
    first = await made.sizes(ACCOUNT, listing)
    assert drop.reads == 2
    assert await made.sizes(ACCOUNT, listing) == first
    assert drop.reads == 2


async def test_an_entry_that_is_gone_keeps_its_size() -> None:
    made, _, _ = surrogates({})
    gone = Listing(uids=(Uid(5),), sizes_octets=(9,), internationalised=frozenset({Uid(5)}))
    assert (await made.sizes(ACCOUNT, gone)).sizes_octets == (9,)


async def test_no_header_is_gathered_without_end() -> None:
    octets = "X: ü".encode() + b"x" * 600_000
    made, _, listing = surrogates({1: octets, 2: b""}, 1 << 16)
    assert (await made.sizes(ACCOUNT, listing)).sizes_octets == (len(octets), 0)
    assert b"".join([chunk async for chunk in made.read(ACCOUNT, Uid(1))]) == octets


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path_factory.mktemp("house"), (ALICE, JURGEN)) as house:
        house.ask(_fill)
        yield house


async def _fill(storage: Storage) -> None:
    """Both maildrops hold the letters as sent with SMTPUTF8, and one that was just sent with 8 bits."""
    for number, letter in enumerate([*LETTERS, JUST_SENT]):
        for person in (ALICE, JURGEN):
            account = await storage.directory.account(parse_address(person).key)
            assert account is not None
            scanner, draft = ContentScanner(), await storage.content.draft()
            scanner.feed(letter.encode())
            await draft.write(letter.encode())
            entry = Placement(
                account=account.account,
                forward_path=parse_address(person),
                prefix=f"Return-Path: <sænder@far.test>\r\nDelivered-To: {person}\r\n".encode(),
            )
            await storage.accept(
                Acceptance(
                    queue_id=QueueId(f"{person[0]}{number}".rjust(26, "0")),
                    accepted_at=1.0,
                    reverse_path=None,
                    prefix=f"Received: by here.test for <{person}>; now\r\n".encode(),
                    content=await draft.seal(scanner.facts()),
                    placements=(entry,),
                    smtputf8=letter != JUST_SENT,
                )
            )


def entered(house: RunningHouse, person: str, *before: str) -> Wire:
    wire = Wire(house.ports["pop3"])
    assert wire.line().startswith(b"+OK")
    for line in (*before, f"USER {person}", f"PASS {PASSWORD}"):
        assert wire.pop3(line).startswith(b"+OK")
    return wire


def sizes(wire: Wire) -> list[int]:
    assert wire.pop3("LIST").startswith(b"+OK")
    return [int(line.split()[1]) for line in wire.multi_line().split(b"\r\n")[:-1]]


@pytest.mark.conformance("C204", "C206", "C243")
@pytest.mark.parametrize("person", [ALICE, JURGEN])
def test_sizes_are_what_retr_sends_in_both_modes(house: RunningHouse, person: str) -> None:
    for before in ((), ("UTF8",)):
        with entered(house, person, *before) as wire:
            told = sizes(wire)
            messages = [wire.retrieve(number) for number in range(1, len(told) + 1)]
            assert [len(message) for message in messages] == told
            assert wire.pop3("STAT") == b"+OK %d %d" % (len(told), sum(told))
            assert wire.pop3("LIST 1") == b"+OK 1 %d" % told[0]
            for letter, message in zip(LETTERS, messages, strict=False):
                if before:
                    assert message.endswith(letter.encode())
                else:
                    header, _, body = message.partition(b"\r\n\r\n")
                    assert header.isascii()
                    assert header.strip().endswith(NOTE.strip())
                    assert letter.encode().endswith(body)
            assert messages[-1].endswith(JUST_SENT.encode()), "it never was internationalised mail"
            assert wire.pop3("QUIT").startswith(b"+OK")


@pytest.mark.conformance("C206")
def test_a_surrogate_can_be_read_and_top_counts_its_body_lines(house: RunningHouse) -> None:
    with entered(house, ALICE) as wire:
        message = message_from_bytes(wire.retrieve(1), policy=policy.default)
        assert message["Subject"] == "Grüße"
        assert message["From"].addresses[0].display_name == "Jürgen jürgen@far.test"
        assert message["To"] == "alice@here.test"
        assert "Return-Path" not in message
        assert not message.defects
        assert message["X-Posthouse-Downgraded"]
        assert wire.pop3("TOP 1 2").startswith(b"+OK")
        assert wire.multi_line().endswith(b"\r\n\r\n" + ".Köln\r\nzwei\r\n".encode())
        assert wire.pop3("TOP 1 0").startswith(b"+OK")
        assert wire.multi_line().endswith(NOTE + b"\r\n")
        assert wire.pop3("DELE 1").startswith(b"+OK")
        assert wire.pop3("RSET").startswith(b"+OK")
        assert wire.pop3("QUIT").startswith(b"+OK")
