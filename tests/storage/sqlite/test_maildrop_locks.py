"""The maildrop lock between processes: exclusive, and gone with the process that held it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import posthouse
from posthouse.mail.ids import AccountId
from posthouse.mail.maildrop import MaildropLock
from posthouse.storage.sqlite.maildrop_locks import LOCK_FILE, MaildropLocks
from tests.storage.contract.world import SeededRandom

SRC = Path(posthouse.__file__).parents[1]
ONE, TWO, LAST = AccountId(1), AccountId(2), AccountId(2**62)
OTHER = """
import sys
from pathlib import Path
from posthouse.world import SystemRandom
from posthouse.storage.sqlite.maildrop_locks import MaildropLocks
locks, held = MaildropLocks(Path(sys.argv[1]), SystemRandom()), {}
for line in sys.stdin:
    word, account = line.split()[0], int(line.split()[1])
    match word:
        case "take":
            held[account] = locks.take(account)
            print(held[account] is not None, flush=True)
        case "release":
            locks.release(held[account])
            print("released", flush=True)
"""


class OtherProcess:
    """Another process with the same lock file, which does as it is told."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SRC)},
            text=True,
            bufsize=1,
        )

    def tell(self, word: str, account: AccountId) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word} {account}\n")
        return self.process.stdout.readline().strip()

    def takes(self, account: AccountId) -> bool:
        return self.tell("take", account) == "True"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LOCK_FILE


@pytest.fixture
def locks(path: Path) -> Iterator[MaildropLocks]:
    locks = MaildropLocks(path, SeededRandom(1))
    yield locks
    locks.close()


@pytest.fixture
def other(path: Path) -> Iterator[OtherProcess]:
    other = OtherProcess(path)
    yield other
    other.kill()


def taken(locks: MaildropLocks, account: AccountId) -> MaildropLock:
    lock = locks.take(account)
    assert lock is not None
    return lock


@pytest.mark.conformance("C240", "S31", "S37")
def test_one_of_two_processes_has_the_lock(locks: MaildropLocks, other: OtherProcess) -> None:
    lock = taken(locks, ONE)
    assert not other.takes(ONE)
    assert other.takes(TWO)
    assert other.takes(LAST)
    assert locks.take(TWO) is None
    assert locks.take(LAST) is None
    locks.release(lock)
    assert not locks.holds(lock)
    assert other.takes(ONE)
    assert locks.take(ONE) is None
    assert other.tell("release", TWO) == "released"
    assert locks.holds(taken(locks, TWO))


@pytest.mark.conformance("C240", "S37")
def test_the_death_of_a_process_frees_its_locks_and_no_others(locks: MaildropLocks, other: OtherProcess) -> None:
    mine = taken(locks, TWO)
    assert other.takes(ONE)
    assert locks.take(ONE) is None
    other.kill()
    assert locks.holds(taken(locks, ONE))
    assert locks.holds(mine)


def test_a_refusal_takes_nothing_from_the_holder(locks: MaildropLocks, other: OtherProcess, path: Path) -> None:
    """Closing a descriptor of the file would release all: nobody but the lock itself may open it."""
    lock = taken(locks, ONE)
    assert locks.take(ONE) is None
    assert locks.take(TWO) is not None
    assert locks.holds(lock)
    assert not other.takes(ONE)
    assert path.stat().st_size == 0
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.conformance("S31")
def test_a_lock_file_that_was_taken_away_guards_nothing(locks: MaildropLocks, path: Path, other: OtherProcess) -> None:
    lock = taken(locks, ONE)
    path.unlink()
    assert not locks.holds(lock)
    assert other.takes(ONE)
    assert not locks.holds(lock)
    locks.release(lock)


@pytest.mark.conformance("S31")
def test_a_token_of_before_is_worth_nothing(locks: MaildropLocks) -> None:
    before = taken(locks, ONE)
    locks.release(before)
    now = taken(locks, ONE)
    assert not locks.holds(before)
    locks.release(before)
    assert locks.holds(now)
    assert not locks.holds(MaildropLock(ONE, ""))


def test_what_is_no_lock_file_is_an_error(path: Path, locks: MaildropLocks) -> None:
    path.symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        locks.take(ONE)
