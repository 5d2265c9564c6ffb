"""What a house is handed from outside: time, chance, the way to other hosts, its disk. Every command needs it."""

from __future__ import annotations

import os
import random as random_module
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posthouse.mail.world import Clock, Random

if TYPE_CHECKING:
    from posthouse.net.connect import Connector
    from posthouse.net.dns import Resolver
    from posthouse.storage.filesystem import FileSystem


class SystemClock:
    """The machine's time."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class SystemRandom:
    """The machine's chance."""

    def __init__(self) -> None:
        self._chance = random_module.SystemRandom()

    def octets(self, count: int) -> bytes:
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        return self._chance.uniform(low, high)


def _connector() -> Connector:
    from posthouse.net.connect import TcpConnector

    return TcpConnector()


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Where the store keeps its octets, and how it works there, where that is not the machine's disk with threads."""

    file_system: FileSystem
    vfs: str
    """SQLite's own way to the disk, by the name that it is registered under."""
    on_fatal: Callable[[str], None]
    """Called where the process must end without another answer; what it leads to must not be answered from either."""
    inline: bool = True
    """No threads: each commit is made on the loop, before the call returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a house is handed from outside. Tests and simulation hand in their own."""

    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=SystemRandom)
    connector: Connector = field(default_factory=_connector)
    resolver: Resolver | None = None
    disk: Disk | None = None
    """None: the machine's."""
