"""Do most peers share one private address? Then something on the way hides who they are, such as NAT.

A house behind a router that rewrites addresses, or in a container network that does, sees all the world as one
neighbour. If that neighbour is in a trusted network, the house relays for everybody.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from posthouse.log import Log
from posthouse.mail.world import Clock
from posthouse.net.address_scope import is_public, plain_address

WINDOW_S = 3600.0
ENOUGH_SESSIONS = 50
"""With fewer in an hour, one busy neighbour is nothing to wonder at."""
ENOUGH_OF_A_WORKER = 10
"""The least that one of many processes judges by."""
COUNTED_ADDRESSES = 64
"""Private addresses that are counted at once; one that has more than half of all is among them for certain."""
NOTE_NAME = "crowd.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowded:
    """What was seen at the doors for other houses, up to `at` (Unix seconds)."""

    at: float
    address: str
    sessions: int
    of_sessions: int


class Crowd:
    """Counts the sessions of an hour. `enter` costs the same for the first and for the millionth."""

    def __init__(self, clock: Clock, enough: int = ENOUGH_SESSIONS) -> None:
        self._clock = clock
        self._enough = enough
        self._begin()

    def _begin(self) -> None:
        self._began_at = self._clock.monotonic()
        self._sessions = 0
        self._told = False
        self._private: Counter[str] = Counter()

    def enter(self, address: str) -> Crowded | None:
        """Count a session; once in an hour at most, that more than half of them come from one private address."""
        if self._clock.monotonic() - self._began_at >= WINDOW_S:
            self._begin()
        self._sessions += 1
        if not _is_private(address):
            return None
        self._count(plain_address(address))
        seen = self._private[plain_address(address)]
        if self._told or self._sessions < self._enough or 2 * seen <= self._sessions:
            return None
        self._told = True
        return Crowded(at=self._clock.now(), address=plain_address(address), sessions=seen, of_sessions=self._sessions)

    def _count(self, address: str) -> None:
        if address in self._private or len(self._private) < COUNTED_ADDRESSES:
            self._private[address] += 1
            return
        # As Misra and Gries: each loses one, so what has the majority stays.
        self._private = Counter({each: number - 1 for each, number in self._private.items() if number > 1})


class CrowdWatch:
    """Tells the log, and keeps a note for `posthouse check`.

    Each of `workers` processes sees its own sessions only, which are a share of all, taken at random: so each needs
    that share of what is enough. Its counts are its own then, and an hour may have a line from each.
    """

    def __init__(self, folder: Path, clock: Clock, log: Log, *, workers: int = 1) -> None:
        self._crowd = Crowd(clock, max(ENOUGH_SESSIONS // workers, ENOUGH_OF_A_WORKER))
        self._folder = folder
        self._log = log

    def enter(self, address: str, *, trusted: bool) -> None:
        """A session begins at a door for other houses. `trusted`: it may relay without a login."""
        if not trusted and address.startswith(("127.", "::1")):
            # Programs of this machine: they can do what anybody can.
            return
        seen = self._crowd.enter(address)
        if seen is None:
            return
        mend = (
            "if it is a router or a container's gateway, anybody can relay here: take it out of trusted_networks"
            if trusted
            else "if it is a router or a container's gateway, let it pass addresses on, or let a proxy tell them"
        )
        self._log.warning(
            "most sessions come from one private address",
            peer=seen.address,
            trusted=trusted,
            sessions=seen.sessions,
            of_sessions=seen.of_sessions,
            mend=mend,
        )
        try:
            write_note(self._folder, seen)
        except OSError as exc:
            self._log.warning("not noted for posthouse check", reason=exc.strerror)


def _is_private(address: str) -> bool:
    """An address that routers and container networks give."""
    try:
        return not is_public(address)
    except ValueError:
        # A peer that has gone already has none.
        return False


def write_note(folder: Path, seen: Crowded) -> None:
    """Keep it for `posthouse check`. Raises OSError."""
    partial = folder / f"{NOTE_NAME}.{os.getpid()}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(seen), file)
        partial.rename(folder / NOTE_NAME)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_note(folder: Path) -> Crowded | None:
    """What was kept last; None without a note, or with one that cannot be read."""
    try:
        fields = json.loads((folder / NOTE_NAME).read_bytes())
        return Crowded(
            at=float(fields["at"]),
            address=plain_address(fields["address"]),
            sessions=int(fields["sessions"]),
            of_sessions=int(fields["of_sessions"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
