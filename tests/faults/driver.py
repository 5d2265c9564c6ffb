"""A process under strace that does one act after the other on a real disk, each in a fork of its own.

strace counts the calls of each process apart, and is told once which one to strike: the `number_struck(name)`th. So
before its act a fork makes as many harmless calls as it takes for the n-th call of the act to be that one. The engine
runs inline, on one thread, so that every call of an act is counted, and in the same order each time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import apsw

from posthouse.mail.ids import AccountId
from posthouse.storage.errors import StorageError
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.schema import open_database
from posthouse.storage.upkeep import Order
from tests.faults.told import hear, tell
from tests.storage.crash.acts import accept_file, accept_pages, accept_small, expunge, expunge_and_sweep, mark
from tests.storage.crash.house import (
    LOGINS,
    Died,
    House,
    SeededRandom,
    SetClock,
    open_storage,
    recording,
)
from tests.storage.crash.ledger import Step
from tests.storage.crash.migrating import NOW, REBUILDS

PAGES_STRUCK, OTHERS_STRUCK = 400, 60
"""More than the page writes, and the calls of any other name, that an act makes. Each harmless call takes its time."""
SEED = 20_261_201
BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class Job:
    """Do this act in that folder, and let its `nth` call (from 1; 0: none) of this name be struck."""

    act: str
    folder: str
    call: str
    nth: int
    now: float
    already: int = 0
    """Calls of this name before the act begins: those of opening the storage, each time as many."""


def _calls() -> dict[str, Callable[[], object]]:
    """Each call that is struck, as it harms nobody."""
    memory = os.memfd_create("harmless")

    def refused(call: Callable[[], object]) -> Callable[[], None]:
        def make() -> None:
            with suppress(FileNotFoundError, PermissionError):
                call()

        return make

    return {
        "pwrite64": lambda: os.pwrite(memory, b"x", 0),
        "write": lambda: os.write(memory, b""),
        "fsync": lambda: os.fsync(memory),
        "fdatasync": lambda: os.fdatasync(memory),
        "ftruncate": lambda: os.ftruncate(memory, 0),
        "openat": lambda: os.close(os.open(os.devnull, os.O_RDONLY)),
        "unlink": refused(lambda: os.unlink(NOWHERE)),
        "rename": refused(lambda: os.rename(NOWHERE, NOWHERE + "-too")),
        "linkat": refused(lambda: os.link(NOWHERE, NOWHERE + "-too", follow_symlinks=False)),
        "mkdir": refused(lambda: os.mkdir(NOWHERE + "/at all")),
    }


CALLS = tuple(_calls())


class ToldHouse(House):
    """Says what it is asked before it begins, and what came of it when that is known."""

    to: socket.socket

    async def _ask(self, step: Step, begun: int, call: Callable[[], Awaitable[bool]]) -> bool:
        tell(self.to, ("begun", step))
        try:
            granted = await call()
        except StorageError:
            tell(self.to, ("answered", False))
            raise
        tell(self.to, ("answered", granted))
        return granted


async def settle_delivered(house: House) -> None:
    await house.settle(await house.claim(), "delivered")


async def settle_with_report(house: House) -> None:
    await house.settle(await house.claim(limit=1), "failed")


async def checkpoint(house: House) -> None:
    """A passive one and a truncating one, beside the engine's own connections."""
    connection = apsw.Connection(str(house.recorder.folder / DATABASE), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # (What has read nothing yet does not know of the WAL.)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        for mode in (apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_TRUNCATE):
            with suppress(apsw.Error):
                connection.wal_checkpoint(mode=mode)
    finally:
        connection.close()


async def back_up(house: House) -> None:
    await house.storage.backup(house.recorder.folder / BACKUP, Order(hostname="mx.house.test"))


ACTS: Mapping[str, Callable[[House], Awaitable[object]]] = {
    act.__name__: act
    for act in (
        accept_small,
        accept_pages,
        accept_file,
        settle_delivered,
        settle_with_report,
        mark,
        expunge,
        expunge_and_sweep,
        checkpoint,
        back_up,
    )
}
OPENING, UPGRADE = "open", "upgrade"
"""Acts without a house that is open."""
BEFORE: Mapping[str, Callable[[House], Awaitable[object]]] = {checkpoint.__name__: accept_pages}
"""What is done before an act, and is not struck."""
NOWHERE = "/proc/nowhere"
BEGINS, ENDS = f"{NOWHERE}/begins", f"{NOWHERE}/ends"
"""Files that an act which is only counted would rename before and after it, so that the log says so."""


def number_struck(call: str) -> int:
    """Which call of this name strace strikes."""
    return PAGES_STRUCK if call == "pwrite64" else OTHERS_STRUCK


async def _with_house(job: Job, bump: Callable[[], None], over: Callable[[], None], to: socket.socket) -> None:
    folder = Path(job.folder)
    clock = SetClock(job.now)
    with recording(folder) as recorder:
        if job.act == OPENING:
            bump()
        storage = await open_storage(folder, clock, SEED)
        house = ToldHouse(storage, (), clock, SeededRandom(SEED + 1), recorder)
        house.to = to
        accounts: list[AccountId] = []
        for login in LOGINS:
            account = await storage.directory.account(login)
            assert account is not None
            accounts.append(account.account)
        house.accounts = tuple(accounts)
        if job.act != OPENING:
            if (before := BEFORE.get(job.act)) is not None:
                await before(house)
            bump()
            await ACTS[job.act](house)
        over()
        # And life goes on, whatever was refused.
        await house.accept(1_000, to=(0, 1))
        os._exit(0)


def _upgrade(job: Job, bump: Callable[[], None], over: Callable[[], None]) -> None:
    bump()
    path = Path(job.folder) / DATABASE
    open_database(
        path,
        vfs=None,
        create=False,
        file_system=RealFileSystem(),
        now=NOW,
        on_migrated=lambda _: None,
        known=REBUILDS,
    )
    over()


def _mark(place: str) -> None:
    with suppress(FileNotFoundError):
        os.rename(place, place)


def _do(job: Job, to: socket.socket) -> None:
    """In the fork. Tells what was asked and answered, and whether the strike came within the act."""
    harmless = _calls()[job.call]

    def bump() -> None:
        if not job.nth:
            _mark(BEGINS)
            return
        for _ in range(number_struck(job.call) - job.already - job.nth):
            harmless()

    def over() -> None:
        """Where the strike has not come in the act, it comes in one of these."""
        if not job.nth:
            _mark(ENDS)
        tell(to, ("over", tuple(sys.modules)))
        try:
            for _ in range(job.nth):
                harmless()
        except OSError:
            tell(to, ("missed",))
        else:
            tell(to, ("hit",))

    try:
        if job.act == UPGRADE:
            _upgrade(job, bump, over)
        else:
            asyncio.run(_with_house(job, bump, over, to))
    except (StorageError, Died, apsw.Error, OSError) as exc:
        tell(to, ("refused", type(exc).__name__, str(exc)))
        over()
    except BaseException:
        tell(to, ("bug", traceback.format_exc()))
    os._exit(0)


def main() -> None:
    """Until the other side is gone."""
    os.umask(0o077)
    with socket.socket(fileno=int(sys.argv[1])) as demands:
        tell(demands, ("ready",))
        while True:
            try:
                job = hear(demands)
            except EOFError:
                return
            pid = os.fork()
            if not pid:
                _do(job, demands)
            _pid, status = os.waitpid(pid, 0)
            tell(demands, ("ended", os.waitstatus_to_exitcode(status), pid))
            for name in hear(demands):
                import_module(name)


if __name__ == "__main__":
    main()
