"""No `250` leaves before the commit that holds the message is on disk, no `+OK` of QUIT before the deletion is.

The real house, as everybody starts it; strace says in which order it wrote, synced and answered.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.calls import ARGUMENTS, TRACED, Said, events
from tests.faults.strace import Attached
from tests.house.served import ServedHouse
from tests.house.wire import Wire, stored
from tests.peers.programs import Program
from tests.storage.crash.disk import Disk, MadeFile, MadeFolder, NameChange, Removed, Wrote

pytestmark = [pytest.mark.long, pytest.mark.peers]

ADA = "ada@here.test"
SMALL = b"Subject: small\r\n\r\nhello\r\n"
LARGE = b"Subject: large\r\n\r\n" + (b"y" * 70 + b"\r\n") * 4_000
ROUNDS = 3


def work(house: ServedHouse) -> None:
    """Letters that need no forwarding, one after the other: nothing else is written meanwhile."""
    for _ in range(ROUNDS):
        with Wire(house.ports["smtp"]) as wire:
            wire.greet()
            for content in (SMALL, LARGE):
                wire.envelope(ADA)
                stored(wire.content(content))
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login(ADA).startswith(b"+OK")
            assert wire.pop3("DELE 1").startswith(b"+OK")
            assert wire.pop3("DELE 2").startswith(b"+OK")
            assert wire.pop3("QUIT").startswith(b"+OK")


def unsynced(disk: Disk, made: dict[int, str]) -> list[str]:
    """Changes that a power cut now would lose: not removals, nor what is made anew at each start."""
    found = []
    for change in disk.uncertain():
        operation = change.operation
        if isinstance(operation, Removed):
            continue
        path = operation.path if isinstance(operation, NameChange) else made[operation.inode]
        if not path.endswith("-shm") and not path.startswith("incarnations/"):
            found.append(f"{type(operation).__name__} {path}")
    return found


@pytest.mark.conformance("C313", "S6")
def test_nothing_is_answered_before_it_is_on_disk(tmp_path: Path, strace: Program) -> None:
    log = tmp_path / "strace.log"
    folder = tmp_path / "house"
    folder.mkdir()
    with ServedHouse(folder, (ADA,), doors=("smtp", "pop3")) as house:
        house.start()
        with Attached(strace.path, house.pid, log, [*ARGUMENTS, TRACED]):
            work(house)
            house.stop()
    disk, wrong, stored_said, deleted_said = Disk(), list[str](), 0, 0
    made: dict[int, str] = {}
    content_files: set[str] = set()
    wrote_log = False
    for event in events(log, folder):
        match event:
            case Said(text=text):
                is_stored, is_deleted = "250 2.0.0 Stored" in text, wrote_log and "+OK" in text
                if is_stored or is_deleted:
                    assert wrote_log, f"answered, and nothing was written: {text}"
                    wrong += [f"{text[:60]} left before {what} was on disk" for what in unsynced(disk, made)]
                    wrote_log = False
                stored_said += is_stored
                deleted_said += is_deleted
                continue
            case MadeFile(path=path, inode=inode):
                made[inode] = path
                if path.startswith("content/"):
                    content_files.add(path)
            case Wrote(inode=inode) if made[inode].endswith("-wal"):
                # And what the commit names was there before it.
                of_content = [what for what in unsynced(disk, made) if " content" in what]
                wrong += [f"a commit began before {what} was on disk" for what in of_content]
                wrote_log = True
            case MadeFolder() | _:
                pass
        disk.play(event)
    assert wrong == []
    assert (stored_said, deleted_said, len(content_files)) == (2 * ROUNDS, ROUNDS, ROUNDS)
