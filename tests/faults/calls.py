"""What strace wrote, as operations of the crash tests' `Disk`, with what was said to peers between them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.storage.crash.disk import (
    FolderSynced,
    MadeFile,
    MadeFolder,
    Operation,
    Removed,
    Synced,
    SyncFailed,
    Truncated,
    Wrote,
)

ARGUMENTS = ("-y", "-s", "200", "-e")
TRACED = "trace=openat,mkdir,unlink,ftruncate,write,writev,pwrite64,sendto,sendmsg,fsync,fdatasync"
_LINE = re.compile(r"(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))")
_FILE = re.compile(r"(\d+)<([^>]*)>")
_RESULT = re.compile(r"\) += (-?\d+)")
_UNFINISHED = " <unfinished ...>"


@dataclass(frozen=True, slots=True)
class Said:
    """Octets on their way to a peer, as strace writes them."""

    text: str


Event: TypeAlias = Operation | Said


@dataclass(frozen=True, slots=True)
class Call:
    """`begun` and `ended` are the lines of the log: another thread's calls may stand between."""

    name: str
    arguments: str
    result: int
    begun: int
    ended: int
    thread: str


def calls(log: Path) -> list[Call]:
    """Those that came to an end, in the order in which they began."""
    waiting: dict[str, tuple[str, str, int]] = {}
    found = []
    for number, line in enumerate(log.read_text().splitlines()):
        matched = _LINE.match(line)
        if matched is None:
            continue
        thread, name, rest, resumed, more = matched.groups()
        if resumed:
            name, rest, begun = waiting.pop(thread)
            rest += more
        else:
            begun = number
        if rest.endswith(_UNFINISHED):
            waiting[thread] = name, rest.removesuffix(_UNFINISHED), begun
            continue
        if result := _RESULT.search(rest):
            found.append(Call(name, rest, int(result[1]), begun, number, thread))
    return sorted(found, key=lambda call: call.begun)


def most_in_one_thread(log: Path) -> Counter[str]:
    """For each name of a call, how many the busiest thread made."""
    counted = Counter((call.thread, call.name) for call in calls(log))
    most: Counter[str] = Counter()
    for (_thread, name), count in counted.items():
        most[name] = max(most[name], count)
    return most


def events(log: Path, folder: Path) -> Iterator[Event]:
    """Writes count from their beginning, syncs from their end. What was there before is taken as synced."""
    inodes: dict[str, int] = {}
    places = [
        (call.ended if call.name in ("fsync", "fdatasync", "openat") else call.begun, call) for call in calls(log)
    ]
    for _, call in sorted(places, key=lambda each: each[0]):
        yield from _events_of(call, folder, inodes)


def _events_of(call: Call, folder: Path, inodes: dict[str, int]) -> Iterator[Event]:
    named = _FILE.match(call.arguments)
    path = named[2] if named else _quoted(call.arguments)
    if named and path.startswith(("socket:", "TCP:", "TCPv6:")):
        yield Said(call.arguments)
        return
    if not path.startswith(f"{folder}/") and path != str(folder):
        return
    inside = str(Path(path).relative_to(folder))
    if call.name == "openat":
        if "O_CREAT" in call.arguments and call.result >= 0:
            yield from _known(inside, inodes, is_new="O_EXCL" in call.arguments)
        return
    if call.name in ("mkdir", "unlink"):
        if call.result == 0:
            inodes.pop(inside, None)
            yield MadeFolder(inside) if call.name == "mkdir" else Removed(inside)
        return
    if call.name in ("fsync", "fdatasync") and Path(path).is_dir():
        yield FolderSynced(inside)
        return
    yield from _known(inside, inodes, is_new=False)
    inode = inodes[inside]
    match call.name:
        case "fsync" | "fdatasync":
            yield Synced(inode) if call.result == 0 else SyncFailed(inode)
        case "ftruncate":
            yield Truncated(inode, 0)
        case _ if call.result > 0:
            # Where and what it wrote does not matter here.
            yield Wrote(inode, 0, b"x")
        case _:
            pass


def _known(path: str, inodes: dict[str, int], *, is_new: bool) -> Iterator[Event]:
    if path in inodes:
        return
    inodes[path] = max(inodes.values(), default=0) + 1
    yield MadeFile(path, inodes[path])
    if not is_new:
        yield FolderSynced(str(Path(path).parent))


def _quoted(arguments: str) -> str:
    found = re.search(r'"([^"]*)"', arguments)
    return found[1] if found else ""
