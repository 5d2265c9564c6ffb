"""Opening: what is missing, foreign, newer or damaged is refused in one clear line; the dead are taken over."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from posthouse.mail.ids import QueueId
from posthouse.storage.errors import StorageBusy, StorageDamaged
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite import connection as settings_of
from posthouse.storage.sqlite import schema
from posthouse.storage.sqlite.schema import open_database
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.test_journey import answered
from tests.storage.contract.world import House, SeededRandom, SetClock, settlement, whole


async def open_it(data: Path, *, create: bool = False, seed: int = 1) -> SqliteStorage:
    return await SqliteStorage.open(
        data, clock=SetClock(), random=SeededRandom(seed), create=create, inline_writer=True
    )


async def refused(data: Path) -> str:
    """The line that opening fails with."""
    with pytest.raises(StorageDamaged) as caught:
        await open_it(data)
    line = str(caught.value)
    assert "\n" not in line
    assert "posthouse.db" in line
    return line


async def founded(data: Path) -> Path:
    storage = await open_it(data, create=True)
    await storage.close()
    return data / "posthouse.db"


async def test_a_missing_database_is_not_made(tmp_path: Path) -> None:
    assert "posthouse init" in await refused(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_an_empty_file_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "posthouse.db").touch()
    assert "empty" in await refused(tmp_path)


async def test_a_file_of_noise_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "posthouse.db").write_bytes(b"mail " * 1000)
    assert "not a database" in await refused(tmp_path)


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "posthouse.db"))
    other.execute("CREATE TABLE theirs(x)")
    other.close()
    assert "another program" in await refused(tmp_path)


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = await founded(tmp_path)
    newer = apsw.Connection(str(path))
    newer.execute("PRAGMA user_version=999")
    newer.close()
    assert "newer" in await refused(tmp_path)


async def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    path = await founded(tmp_path)
    with path.open("r+b") as file:
        file.seek(3 * settings_of.PAGE_OCTETS)
        file.write(b"\xff" * settings_of.PAGE_OCTETS)
    assert "damaged" in await refused(tmp_path)


async def test_a_cut_off_database_is_found(tmp_path: Path) -> None:
    path = await founded(tmp_path)
    os.truncate(path, 5 * settings_of.PAGE_OCTETS)
    assert "damaged" in await refused(tmp_path)


async def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.46.1")
    with pytest.raises(StorageDamaged, match=r"SQLite 3\.46\.1"):
        await open_it(tmp_path, create=True)


@pytest.mark.conformance("C313")
async def test_a_database_is_durable_by_its_settings(tmp_path: Path) -> None:
    await founded(tmp_path)
    connection = open_database(tmp_path / "posthouse.db", vfs=None, create=False, file_system=RealFileSystem(), now=0.0)
    found = {name: connection.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum")}
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "auto_vacuum": 2}
    assert connection.pragma("wal_autocheckpoint") == 0
    assert connection.pragma("page_size") == settings_of.PAGE_OCTETS
    connection.close()
    assert (tmp_path / "posthouse.db").stat().st_mode & 0o777 == 0o600


async def test_claims_and_drafts_of_the_dead_are_taken_over(tmp_path: Path) -> None:
    first = await open_it(tmp_path, create=True)
    house = House(first, SetClock(), SeededRandom(5), lambda: open_it(tmp_path, seed=2))
    await house.accept(b"x" * 200_000, forwards=1)
    claim = await house.claim()
    await house.content(b"y" * 200_000)
    second = await open_it(tmp_path, seed=2)
    living = sorted((tmp_path / "content").rglob("*-*"))
    assert len(living) == 2
    assert await second.spool.claim(claim.rows[0].destination, 1, house.clock.now()) is None
    first.abandon()
    await second.sweep(house.clock.now())
    assert sorted((tmp_path / "content").rglob("*-*")) == living[:1]
    again = await second.spool.claim(claim.rows[0].destination, 1, house.clock.now())
    assert again is not None
    assert again.rows[0].attempts == 2
    assert len(await whole(second.content.open(again.rows[0].message.content_id))) == 200_000
    assert not await second.settle(settlement(claim, None))
    assert await second.settle(settlement(again, None))
    assert len(list((tmp_path / "incarnations").iterdir())) == 1
    await second.close()
    assert list((tmp_path / "incarnations").iterdir()) == []


async def test_drafts_over_the_budget_go_on_in_files(tmp_path: Path) -> None:
    storage = await open_it(tmp_path, create=True)
    storage.content.budget_octets = 1_000
    drafts = [await storage.content.draft() for _ in range(5)]
    for _ in range(3):
        for draft in drafts:
            await draft.write(b"x" * 400)
            assert storage.content.waiting_octets <= 1_000
    for draft in drafts:
        await draft.discard()
    assert storage.content.waiting_octets == 0
    assert list((tmp_path / "content").rglob("*-*")) == []
    await storage.close()


async def test_a_missing_or_short_content_file_is_damage(tmp_path: Path) -> None:
    storage = await open_it(tmp_path, create=True)
    house = House(storage, SetClock(), SeededRandom(5), lambda: open_it(tmp_path))
    account = await house.account()
    await house.accept(b"x" * 200_000, to=[account])
    content_id = (await storage.maildrops.list(account)).content_ids[0]
    (file,) = (tmp_path / "content").rglob("*-*")
    os.truncate(file, 70_000)
    with pytest.raises(StorageDamaged, match="too short"):
        await whole(storage.content.open(content_id))
    file.unlink()
    with pytest.raises(StorageDamaged, match="missing"):
        await whole(storage.content.open(content_id))
    await storage.close()


def held(folder: Path) -> tuple[list[str], list[str]]:
    """What this process has open of a folder: descriptors, and threads of any."""
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        # (One of them was the listing's own.)
        with suppress(FileNotFoundError):
            descriptors.append(os.readlink(f"/proc/self/fd/{name}"))
    threads = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("sqlite"))
    return sorted(path for path in descriptors if path.startswith(str(folder))), threads


async def test_a_file_that_is_no_database_is_closed(tmp_path: Path) -> None:
    (tmp_path / "posthouse.db").write_bytes(b"mail " * 1000)
    with pytest.raises(StorageDamaged) as caught:
        await open_it(tmp_path)
    # Whoever keeps the error keeps what its frames hold.
    assert caught.value is not None
    assert held(tmp_path) == ([], [])


@pytest.mark.parametrize("missing", ["writer.lock", "incarnations"])
async def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path, missing: str) -> None:
    await founded(tmp_path)
    path = tmp_path / missing
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to("nowhere/at/all")
    with pytest.raises(StorageBusy, match=missing):
        await SqliteStorage.open(tmp_path, clock=SetClock(), random=SeededRandom(2))
    assert held(tmp_path) == ([], [])
    assert missing == "incarnations" or list((tmp_path / "incarnations").iterdir()) == []


@pytest.mark.parametrize("problem", [apsw.FullError("full"), apsw.BusyError("busy")])
async def test_a_full_disk_does_not_keep_a_storage_open(tmp_path: Path, problem: apsw.Error) -> None:
    await founded(tmp_path)
    storage = await SqliteStorage.open(tmp_path, clock=SetClock(), random=SeededRandom(2))
    draft = await storage.content.draft()
    await draft.write(b"x" * 200_000)

    def refuse(_connection: apsw.Connection, _now: float) -> None:
        raise problem

    storage._incarnation.end = refuse  # type: ignore[method-assign]
    await storage.close()
    assert held(tmp_path) == ([], [])
    assert [file for file in (tmp_path / "content").rglob("*") if file.is_file()] == []
    again = await open_it(tmp_path, seed=3)
    assert await again._readers.query(again._incarnation.others) == []
    await again.close()


async def test_a_draft_that_cannot_be_removed_keeps_nothing_open(tmp_path: Path) -> None:
    await founded(tmp_path)
    storage = await SqliteStorage.open(tmp_path, clock=SetClock(), random=SeededRandom(2))

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    storage.content.remove_drafts = refuse  # type: ignore[method-assign]
    with pytest.raises(StorageBusy, match="Input/output"):
        await storage.close()
    assert held(tmp_path) == ([], [])


@pytest.mark.parametrize("quickly", [schema.QUICK_CHECK_OCTETS, -1])
async def test_a_sound_store_of_any_size_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quickly: int
) -> None:
    await founded(tmp_path)
    monkeypatch.setattr(schema, "QUICK_CHECK_OCTETS", quickly)
    storage = await open_it(tmp_path)
    await storage.close()


async def test_a_damaged_index_of_words_keeps_nobody_from_their_mail(tmp_path: Path) -> None:
    storage = await open_it(tmp_path, create=True)
    await storage.journey.append([answered(QueueId("01MCC5RM016W6SW9GE4W9PB8X6"), "450 4.7.1 later")])
    await storage.close()
    connection = apsw.Connection(str(tmp_path / "posthouse.db"))
    connection.execute("UPDATE reply_words_data SET block = x'00' WHERE id > 100")
    assert connection.execute("PRAGMA quick_check").fetchall() != [("ok",)]
    connection.close()
    storage = await open_it(tmp_path)
    assert [flaw async for flaw in storage.check(mend=True)]
    assert await storage.journey.find(reply="later") == ("01MCC5RM016W6SW9GE4W9PB8X6",)
    await storage.close()
