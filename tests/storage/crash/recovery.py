"""Open a house on what a power cut left, and say what is wrong with it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
from tests.storage.crash.disk import Disk, PowerCut, Removed, states, write_out
from tests.storage.crash.house import DAY_S, SMALL_OCTETS, House, SeededRandom, SetClock, open_storage
from tests.storage.crash.ledger import Housekeeping, Ledger, Picture, difference, draw

from posthouse.mail.ids import AccountId
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.storage import SqliteStorage


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in memory where there is one, since thousands of states are written to it."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None, prefix="posthouse-") as path:
        yield Path(path)


async def complaints(house: House, cuts: Iterable[PowerCut], at_most: int = 5) -> list[str]:
    """Recover from each power cut; the first things found wrong."""
    found: list[str] = []
    with scratch_folder() as scratch:
        for cut, files in states(house.recorder.log, cuts):
            folder = scratch / "left"
            folder.mkdir()
            write_out(files, folder)
            found += [f"{cut}: {complaint}" for complaint in await recover(house, folder, cut.position)]
            shutil.rmtree(folder)
            if len(found) >= at_most:
                break
    return found


async def recover(house: House, folder: Path, position: int) -> list[str]:
    try:
        storage = await open_storage(folder, SetClock(house.clock.time + 60), position)
    except Exception as error:  # a house that does not open is a finding, whatever it raises
        return [f"does not open: {error!r}"]
    try:
        return await _examine(house, storage, folder, position)
    except Exception as error:
        return [f"cannot be read: {error!r}"]
    finally:
        await storage.close()


async def _examine(house: House, storage: SqliteStorage, folder: Path, position: int) -> list[str]:
    seen = await draw(storage, house.accounts, house.queue_ids)
    wrong = min((difference(seen, allowed) for allowed in house.ledger.allowed(position)), key=len)
    wrong += check_database(folder)
    wrong += [f"{flaw.check}: {flaw.what}" async for flaw in storage.check() if not flaw.note]
    wrong += await _check_accounts(storage, house.ledger, position)
    wrong += await _check_uids(storage, house.ledger, house.accounts, position)
    if not wrong:
        wrong += await _check_life_goes_on(house, storage, seen, position)
        wrong += check_orphans(folder)
    return wrong


def check_database(folder: Path) -> list[str]:
    """What SQLite itself finds wrong, and rows whose content file is missing or of another size."""
    connection = apsw.Connection(str(folder / DATABASE), flags=apsw.SQLITE_OPEN_READWRITE)
    quick = connection.execute("PRAGMA quick_check").fetchall()
    dangling = connection.execute("PRAGMA foreign_key_check").fetchall()
    files = _content_files(connection)
    connection.close()
    wrong = [str(found) for found in (quick, dangling) if found not in ([("ok",)], [])]
    return wrong + [
        f"content file {name} of {size} octets is missing or different"
        for name, size in files.items()
        if not (path := folder / "content" / name).exists() or path.stat().st_size != size
    ]


def _content_files(connection: apsw.Connection) -> dict[str, int]:
    rows: list[Any] = connection.execute("SELECT file, size_octets FROM contents WHERE file IS NOT NULL").fetchall()
    return dict(rows)


def check_orphans(folder: Path) -> list[str]:
    """Content files that no row names, after a sweep."""
    connection = apsw.Connection(str(folder / DATABASE), flags=apsw.SQLITE_OPEN_READWRITE)
    known = _content_files(connection)
    connection.close()
    there = {str(path.relative_to(folder / "content")) for path in (folder / "content").rglob("*") if path.is_file()}
    return [f"content file {name} was left behind" for name in sorted(there - set(known))]


async def _check_accounts(storage: SqliteStorage, ledger: Ledger, position: int) -> list[str]:
    added = [login for login, since in ledger.accounts.items() if since <= position]
    return [f"{login} is gone" for login in added if await storage.directory.account(login) is None]


async def _check_uids(
    storage: SqliteStorage, ledger: Ledger, accounts: Iterable[AccountId], position: int
) -> list[str]:
    """No uid that was shown before the power cut may mean another entry now."""
    wrong = []
    for account in accounts:
        listing = await storage.maildrops.list(account)
        for uid, uidl in zip(listing.uids, listing.uidls, strict=True):
            if ledger.uidl_of(account, uid, position) not in (None, uidl):
                wrong.append(f"uid {uid} of account {account} was used again, for {uidl}")
    return wrong


async def _check_life_goes_on(house: House, storage: SqliteStorage, before: Picture, position: int) -> list[str]:
    """The house takes new mail with uids of its own, clears up, and loses nothing by that."""
    clock = SetClock(house.clock.time + 60)
    # A recorder that nothing goes through: the next day is not cut short.
    successor = House(storage, house.accounts, clock, SeededRandom(position), house.recorder)
    acceptance = await successor.accept(SMALL_OCTETS, to=tuple(range(len(house.accounts))), forwards=1)
    wrong = await _check_uids(storage, house.ledger, house.accounts, position)
    await storage.sweep(clock.time + 2 * DAY_S)
    wanted = before
    wanted.take(successor.ledger.asked[-1].step)
    after = await draw(storage, house.accounts, [*house.queue_ids, acceptance.queue_id])
    return wrong + [f"the day after: {line}" for line in difference(after, wanted)]


def unsynced_answers(house: House) -> list[str]:
    """Steps that were granted while a change they had made was not yet durable; removals of files may be."""
    wrong = []
    disk = Disk()
    for asked in house.ledger.asked:
        if asked.answered is None or not asked.granted or isinstance(asked.step, Housekeeping):
            continue
        while disk.position < asked.answered:
            disk.play(house.recorder.log[disk.position])
        changes = [change.operation for change in disk.uncertain() if change.number >= asked.begun]
        loose = [operation for operation in changes if not isinstance(operation, Removed)]
        wrong += [f"{type(asked.step).__name__} answered before {_brief(operation)} was durable" for operation in loose]
    return wrong


def _brief(operation: object) -> str:
    return repr(operation)[:120]
