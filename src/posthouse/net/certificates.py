"""The certificates of a house, by server name, always those that the files hold now.

Files are looked at when somebody shakes hands, once a second at most: who renews a certificate has nothing to restart.
A new pair that cannot be used is told once, and the old one stays. Sessions keep what they began with.
"""

from __future__ import annotations

import copy
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from posthouse.log import Log
from posthouse.mail.world import Clock
from posthouse.net.certificate_facts import certificate_facts
from posthouse.net.handshake import DoorContext
from posthouse.net.tls import CertificateUnusable, server_context

LOOK_EVERY_S = 1.0
RENEW_EVERY_S = 86400.0
"""Contexts are made anew so often, since OpenSSL keeps the keys of a context's tickets as long as the context."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pair for everybody, and those for certain names: `host.example.org`, or `*.example.org` for one label."""

    default: Pair
    named: Mapping[str, Pair]

    def pair(self, server_name: str | None) -> Pair:
        """The pair for a server name; the default one where there is none for it."""
        if server_name is None or not self.named:
            return self.default
        wildcard = "*." + server_name.partition(".")[2]
        return self.named.get(server_name) or self.named.get(wildcard) or self.default

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Each pair once."""
        return tuple(dict.fromkeys((self.default, *self.named.values())))


_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(slots=True)
class _Loaded:
    """One pair as it was last usable. `seen` is what its files looked like when they were last looked at."""

    contexts: dict[str, ssl.SSLContext]
    seen: _Stamp
    made_at: float


class Certificates:
    """One context for each door and each pair: no ticket is good at another door, or for another certificate."""

    def __init__(self, pairs: PairSet, services: Mapping[str, tuple[str, ...]], clock: Clock, log: Log) -> None:
        """`services`: the doors, and the ALPN names of each. Raises CertificateUnusable."""
        self._services = services
        self._clock = clock
        self._log = log
        self._pairs = pairs
        self._loaded = self._load_all(pairs)
        self._looked_at = clock.monotonic()

    def door(self, name: str) -> DoorContext:
        """The context that a door uses from now on, whatever becomes of the files."""
        return DoorContext(lambda server_name: self._context(name, server_name), self._services[name])

    def configure(self, pairs: PairSet) -> None:
        """Use these pairs, read anew. Raises CertificateUnusable, and nothing has changed then."""
        loaded = self._load_all(pairs)
        self._pairs, self._loaded = pairs, loaded

    def inherited(self, log: Log) -> Certificates:
        """The same with a log of its own, for a process that was forked; what it has is what was last usable."""
        heir = copy.copy(self)
        heir._log = log
        heir._loaded = {pair: replace(loaded) for pair, loaded in self._loaded.items()}
        return heir

    def is_for(self, pairs: PairSet) -> bool:
        """Whether these are the pairs in use."""
        return self._pairs == pairs

    def look(self) -> None:
        """Use what was renewed; files are looked at once a second at most."""
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._look(now)

    def _context(self, door: str, server_name: str | None) -> ssl.SSLContext:
        self.look()
        return self._loaded[self._pairs.pair(server_name)].contexts[door]

    def _look(self, now: float) -> None:
        for pair, loaded in self._loaded.items():
            stamp = _stamp(pair)
            if stamp == loaded.seen and now - loaded.made_at < RENEW_EVERY_S:
                continue
            changed = stamp != loaded.seen
            loaded.seen, loaded.made_at = stamp, now
            try:
                loaded.contexts = self._load(pair)
            except CertificateUnusable as exc:
                self._log.error("certificate not reloaded; the one before stays in use", reason=str(exc))
                continue
            if changed:
                self._log.info("certificate reloaded", certificate=str(pair.certificate))

    def _load_all(self, pairs: PairSet) -> dict[Pair, _Loaded]:
        now = self._clock.monotonic()
        # Looked at before they are read: what changes in between is seen the next time.
        return {pair: _Loaded(seen=_stamp(pair), contexts=self._load(pair), made_at=now) for pair in pairs.pairs}

    def _load(self, pair: Pair) -> dict[str, ssl.SSLContext]:
        contexts = {
            door: server_context(pair.certificate, pair.key, protocols) for door, protocols in self._services.items()
        }
        facts = certificate_facts(pair.certificate)
        if not facts.begins_at <= self._clock.now() < facts.expires_at:
            # Other houses encrypt with it all the same: better than no TLS, and no reason to stay closed.
            self._log.warning("certificate is not valid now; renew it", certificate=str(pair.certificate))
        return contexts


def _stamp(pair: Pair) -> _Stamp:
    """What changes when a file is written or replaced."""
    found: list[tuple[int, int, int] | None] = []
    for path in (pair.certificate, pair.key):
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
