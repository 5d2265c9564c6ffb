"""Letters that are written here: durable with their writer's own copy, or refused whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from posthouse.admission.admission import Admission, Seams
from posthouse.admission.letters import RefusedLetter, take_letter
from posthouse.admission.rules import Rules
from posthouse.mail.acceptance import Acceptance
from posthouse.mail.account import Account
from posthouse.mail.address import parse_address
from posthouse.mail.folders import INBOX, SENT
from posthouse.mail.ids import Uid
from posthouse.mail.journey import Accepted
from posthouse.mail.letter import Attachment, Letter
from posthouse.mail.mailboxes import Mailbox
from posthouse.storage.errors import StorageFull
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.world import SeededRandom, SetClock

HOST = "house.test"


@dataclass(slots=True)
class Desk:
    """Somebody who writes."""

    storage: SqliteStorage
    admission: Admission
    account: Account

    async def take(self, letter: Letter) -> Acceptance | tuple[RefusedLetter, ...]:
        return await take_letter(self.admission, self.storage, self.account, letter)

    async def read(self, folder: str, number: int = 0) -> bytes:
        listing = await self.storage.maildrops.list(self.account.account, folder)
        read = self.storage.maildrops.read(self.account.account, Uid(listing.uids[number]), folder)
        octets = b"".join([chunk async for chunk in read])
        assert len(octets) == listing.sizes_octets[number]
        return octets

    async def is_empty(self) -> bool:
        folders = [await self.storage.maildrops.list(self.account.account, folder) for folder in (INBOX, SENT)]
        return not any(folders) and not await self.storage.spool.list()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock, chance = SetClock(), SeededRandom(3)
    storage = await SqliteStorage.open(tmp_path / "data", clock=clock, random=chance, inline_writer=True, create=True)
    await storage.administration.add_domain(HOST)
    for login in ("ada", "bob"):
        await storage.administration.add_account(
            parse_address(f"{login}@{HOST}"), verifier="$argon2id$x", quota_octets=None, now=clock.now()
        )
    await storage.administration.add_identity(
        parse_address("ada@provider.test"), f"ada@{HOST}", "smtp.provider.test:587"
    )
    seams = Seams(directory=storage.directory, maildrops=storage.maildrops, administration=storage.administration)
    rules = Rules(hostname=HOST, postmaster=None, max_recipients=100, expire_after_s=60.0)
    account = await storage.directory.account(f"ada@{HOST}")
    assert account is not None
    yield Desk(storage, Admission(seams, rules, clock, chance), account)
    await storage.close()


def letter(
    *to: str, author: str = f"ada@{HOST}", bcc: tuple[str, ...] = (), attachments: tuple[Attachment, ...] = ()
) -> Letter:
    return Letter(
        author=Mailbox(parse_address(author)),
        to=tuple(Mailbox(parse_address(address)) for address in to),
        bcc=tuple(Mailbox(parse_address(address)) for address in bcc),
        subject="Hello",
        text="Hello\n",
        attachments=attachments,
        message_id="<one@house.test>",
        date=1_800_000_000.0,
    )


async def test_a_letter_waits_for_others_and_stands_in_sent(desk: Desk) -> None:
    taken = await desk.take(letter("x@far.test", "y@far.test"))
    assert isinstance(taken, Acceptance)
    assert [str(row.forward_path) for row in await desk.storage.spool.list()] == ["x@far.test", "y@far.test"]
    (first, *_) = await desk.storage.journey.read(taken.queue_id)
    assert isinstance(first, Accepted)
    assert (first.source, first.login, first.protocol) == ("written", f"ada@{HOST}", "")
    assert first.message_id == "<one@house.test>"
    own = await desk.read(SENT)
    assert own.startswith(b"Received: by house.test id ")
    assert own.endswith(b"\r\n\r\nHello\r\n")
    listing = await desk.storage.maildrops.list(desk.account.account, SENT)
    assert listing.flags == ("\\Seen",)


async def test_a_blind_copy_is_named_in_its_writers_copy_only(desk: Desk) -> None:
    await desk.take(letter(f"bob@{HOST}", bcc=(f"ada@{HOST}", "secret@far.test")))
    assert (await desk.read(SENT)).startswith(b"Bcc: ada@house.test,\r\n secret@far.test\r\n")
    inbox = await desk.read(INBOX)
    assert b"secret" not in inbox
    assert b"\r\nBcc:" not in inbox


async def test_a_letter_to_oneself_is_in_both_folders(desk: Desk) -> None:
    await desk.take(letter(f"ada@{HOST}"))
    inbox, sent = [await desk.storage.maildrops.list(desk.account.account, folder) for folder in (INBOX, SENT)]
    assert (len(inbox), len(sent)) == (1, 1)
    assert inbox.queue_ids == sent.queue_ids
    assert set(inbox.uidls).isdisjoint(sent.uidls)


async def test_an_identitys_letter_leaves_through_its_own_server(desk: Desk) -> None:
    await desk.take(letter("x@far.test", author="ada@provider.test"))
    (row,) = await desk.storage.spool.list()
    assert row.destination.via == "smtp.provider.test:587"
    assert row.identity == "ada@provider.test"


@pytest.mark.parametrize(
    ("wanted", "about"),
    [
        (letter("x@far.test", author=f"bob@{HOST}"), [f"bob@{HOST}"]),
        (letter("x@far.test", f"nobody@{HOST}", f"none@{HOST}"), [f"nobody@{HOST}", f"none@{HOST}"]),
    ],
)
async def test_what_is_refused_is_refused_whole(desk: Desk, wanted: Letter, about: list[str]) -> None:
    refused = await desk.take(wanted)
    assert isinstance(refused, tuple)
    assert [str(each.address) for each in refused] == about
    assert all(each.reply.is_permanent for each in refused)
    assert await desk.is_empty()


async def test_a_large_file_goes_with_it(desk: Desk) -> None:
    data = bytes(range(256)) * 4096
    await desk.take(letter("x@far.test", attachments=(Attachment("x.bin", data),)))
    assert len(await desk.read(SENT)) > len(data) * 4 // 3
    assert not [flaw async for flaw in desk.storage.check()]


async def test_nothing_is_left_when_it_cannot_be_stored(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(_acceptance: Acceptance) -> None:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(desk.storage, "accept", full)
    wanted = letter("x@far.test", attachments=(Attachment("x.bin", b"x" * 300_000),))
    with pytest.raises(StorageFull):
        await desk.take(wanted)
    assert await desk.is_empty()
    assert not [path for path in desk.storage.content.folder.rglob("*") if path.is_file()]
