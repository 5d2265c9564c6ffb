"""Every kind of damage is found and named, with what to do; a sound store has no flaws, busy or not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from posthouse.mail.address import parse_address
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.upkeep import Flaw, Progress
from tests.storage.contract.world import House, SeededRandom, SetClock, accepted, alice

LARGE = b"x" * 200_000


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = SetClock()
    storage = await SqliteStorage.open(tmp_path, clock=clock, random=SeededRandom(1), create=True)
    house = House(storage, clock, SeededRandom(2), pytest.fail)
    account = await house.account()
    await house.accept(to=[account], forwards=1)
    await house.accept(LARGE, to=[account])
    await house.storage.administration.add_identity(parse_address("alice@far.test"), str(alice), "mail.far.test:587")
    await house.storage.journey.append([accepted(await house.accept(to=[account]))])
    yield house
    await storage.close()


async def flaws(house: House, *, mend: bool = False) -> list[Flaw]:
    return [flaw async for flaw in house.storage.check(mend=mend)]


def meddle(folder: Path, sql: str) -> None:
    """What no program of ours does."""
    connection = apsw.Connection(str(folder / DATABASE))
    connection.execute(f"PRAGMA ignore_check_constraints=ON; {sql}")
    connection.close()


def content_file(folder: Path) -> Path:
    (file,) = (folder / "content").rglob("*-*")
    return file


async def test_a_sound_store_has_no_flaws_and_progress_is_told(house: House) -> None:
    told: list[Progress] = []
    assert [flaw async for flaw in house.storage.check(told.append)] == []
    steps = list(dict.fromkeys(progress.step for progress in told))
    rows = ["entries", "folders", "messages", "spool", "events"]
    assert steps == ["structure", "content of 3 messages", *rows, "journeys", "files"]
    assert all(progress.done <= progress.total for progress in told if progress.total)


DAMAGES: dict[str, tuple[str, str, str]] = {
    "inline octets": ("content", "other octets", "UPDATE contents SET octets = zeroblob(21) WHERE file IS NULL"),
    "inline size": ("content", "instead of", "UPDATE contents SET octets = x'00' WHERE content = 1"),
    "codec": ("content", "codec", "UPDATE contents SET codec = 'zip' WHERE content = 1"),
    "entry size": ("entries", "is listed with", "UPDATE entries SET size_octets = 1 WHERE uid = 1"),
    "entry account": ("entries", "contradicts", "UPDATE entries SET account = 77 WHERE uid = 1"),
    "entry uid": ("entries", "contradicts", "UPDATE folders SET next_uid = 2"),
    "uidl": ("entries", "UIDL", "UPDATE entries SET uidl = 'a b' WHERE uid = 1"),
    "counter": ("counters", "counts 9 entries", "UPDATE folders SET message_count = 9"),
    "octets used": ("counters", "octets and has", "UPDATE folders SET used_octets = used_octets + 1"),
    "claim": ("spool", "claimed by nobody", "UPDATE spool SET claim_token = 'x', claim_incarnation = 'y'"),
    "mark": ("spool", "may have been sent already", "UPDATE spool SET sending_at = 1.0"),
    "event": ("journey", "cannot be read", "UPDATE events SET fields = '{'"),
    "kind": ("journey", "cannot be read", "UPDATE events SET kind = 'nonsense'"),
    "dangling": (
        "references",
        "names a row of messages",
        "DELETE FROM messages WHERE queue_id IN (SELECT queue_id FROM spool)",
    ),
    "identity of nobody": (
        "references",
        "a row of identities names a row of accounts",
        "INSERT INTO identities(address_key, local_part, domain, account, via)"
        " VALUES ('x@far.test', 'x', 'far.test', 77, '')",
    ),
    "identity of a removed account": (
        "identities",
        "alice@far.test belongs to a removed account",
        "UPDATE accounts SET removed_at = 1.0",
    ),
    "identity at home": ("identities", "alice@far.test", "INSERT INTO domains VALUES ('far.test')"),
    "constraint": ("structure", "CHECK constraint", "UPDATE contents SET octets = NULL WHERE content = 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_each_damage_is_found_and_named(house: House, tmp_path: Path, damage: str) -> None:
    check, words, sql = DAMAGES[damage]
    meddle(tmp_path, sql)
    found = [flaw for flaw in await flaws(house) if flaw.check == check]
    assert found, damage
    assert words in found[0].what
    assert found[0].mend


def missing(file: Path) -> None:
    file.unlink()


def short(file: Path) -> None:
    os.truncate(file, 1_000)


def changed(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(150_000)
        opened.write(b"y")


def replaced_by_a_link(file: Path) -> None:
    other = file.with_name("other")
    file.rename(other)
    file.symlink_to(other)


@pytest.mark.parametrize("harm", [missing, short, changed, replaced_by_a_link])
async def test_each_damage_of_a_content_file_is_found(
    house: House, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    file = content_file(tmp_path)
    harm(file)
    found = [flaw for flaw in await flaws(house) if not flaw.note]
    assert [flaw.check for flaw in found] == ["content"]
    assert file.name in found[0].what
    assert "from a backup" in found[0].mend


async def test_a_damaged_page_is_told_and_the_rest_is_still_looked_at(house: House, tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / DATABASE))
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'contents'").fetchall()[0]
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    with (tmp_path / DATABASE).open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    (tmp_path / "a.key").touch(0o644)
    checks = {flaw.check for flaw in await flaws(house)}
    assert {"structure", "permissions"} <= checks


async def test_a_file_without_a_row_is_noted(house: House, tmp_path: Path) -> None:
    (content_file(tmp_path).parent / "0badbadbadbadbad-1").write_bytes(b"x")
    (flaw,) = await flaws(house)
    assert (flaw.check, flaw.note) == ("files", True)


@pytest.mark.conformance("S39")
async def test_what_others_may_read_is_found(house: House, tmp_path: Path) -> None:
    (tmp_path / "self-signed.key").touch(0o640)
    (tmp_path / DATABASE).chmod(0o644)
    assert [(flaw.check, flaw.mend.rpartition("/")[2]) for flaw in await flaws(house)] == [
        ("permissions", DATABASE),
        ("permissions", "self-signed.key"),
    ]


async def test_what_follows_from_the_rest_is_mended(house: House, tmp_path: Path) -> None:
    meddle(tmp_path, "UPDATE folders SET message_count = 9, used_octets = 1")
    meddle(tmp_path, "UPDATE spool SET claim_token = 'x', claim_incarnation = 'y'")
    meddle(
        tmp_path,
        "INSERT INTO messages SELECT '0LEFT', content, accepted_at, reverse_local_part, reverse_domain, "
        "prefix, ret, envelope_id, smtputf8, body, longest_line_octets, eight_bit_header, eight_bit_body, dot_lines, "
        "received_fields, message_id FROM messages LIMIT 1",
    )
    assert {flaw.check for flaw in await flaws(house, mend=True)} == {"counters", "spool", "messages"}
    assert await flaws(house) == []


async def test_what_may_have_been_sent_is_held_when_mended(house: House, tmp_path: Path) -> None:
    meddle(tmp_path, "UPDATE spool SET sending_at = 1.0")
    assert [flaw.check for flaw in await flaws(house, mend=True)] == ["spool"]
    assert [row.may_have_arrived for row in await house.storage.spool.list()] == [True]
    assert await flaws(house) == []


async def test_a_store_that_is_written_to_meanwhile_has_no_flaws(house: House) -> None:
    account = (await house.storage.administration.accounts())[0].account
    stop = asyncio.Event()

    async def write() -> None:
        lock = await house.storage.maildrops.lock(account)
        while not stop.is_set():
            await house.accept(LARGE, to=[account])
            await house.accept(to=[account], forwards=1)
            listing = await house.storage.maildrops.list(account)
            await house.storage.maildrops.expunge(lock, listing.uids[:1], [])  # type: ignore[arg-type]
            await house.storage.sweep(house.clock.now() + 200_000)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        for _ in range(5):
            assert [flaw for flaw in await flaws(house) if not flaw.note] == []
        stop.set()
