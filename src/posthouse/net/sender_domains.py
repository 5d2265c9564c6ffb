"""Whether the domain of a sender says that it takes no mail: a null MX (RFC 7505 §4.2).

Asked at MAIL, of everybody, so it must cost next to nothing and hold nobody up: answers and failures are remembered,
one look-up is waited for a second at most, only so many run at once, and name servers that do not answer at all are
left alone for a while. Whatever is not known for certain says nothing against a sender.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from posthouse.mail.world import Clock
from posthouse.net.dns import MxHost, NoSuchName, Resolver, TemporaryDnsFailure

WAIT_S = 1.0
"""How long a peer waits at MAIL."""
KEEP_S = 300.0
"""How long an answer is believed."""
KEEP_FAILURE_S = 60.0
"""How long a domain is not asked about again after no answer came."""
DEAD_AFTER = 2
"""So many look-ups in a row without any answer, and the name servers are thought dead."""
DEAD_S = 60.0
"""How long nobody is asked then. One look-up tries again afterwards."""
AT_ONCE = 32
"""Look-ups under way; each has a socket of its own. Senders beyond that are not asked about."""
CACHE_ENTRIES = 8192


class SenderDomains:
    """What name servers said of senders' domains."""

    def __init__(self, resolver: Resolver, clock: Clock) -> None:
        self._resolver = resolver
        self._clock = clock
        self._known: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._silences = 0
        self._dead_until = 0.0
        self._running = 0

    def known(self, domain: str) -> bool | None:
        """Whether it takes no mail, if that is remembered; None: `takes_no_mail` would have to ask."""
        found = self._known.get(domain)
        return found[0] if found is not None and self._clock.monotonic() < found[1] else None

    async def takes_no_mail(self, domain: str) -> bool:
        """Whether it certainly has a null MX. Waits a second at most, raises nothing."""
        known = self.known(domain)
        if known is not None:
            return known
        if self._running >= AT_ONCE or self._clock.monotonic() < self._dead_until:
            return False
        if self._silences >= DEAD_AFTER:
            # They may still be dead: one sender waits to find out, the others do not.
            self._dead_until = self._clock.monotonic() + DEAD_S
        self._running += 1
        try:
            return await self._ask(domain)
        finally:
            self._running -= 1

    async def _ask(self, domain: str) -> bool:
        keep_s = KEEP_S
        hosts: tuple[MxHost, ...] = ()
        try:
            async with asyncio.timeout(WAIT_S):
                hosts = await self._resolver.mail_exchangers(domain)
        except TimeoutError:
            self._note_silence()
            return self._remember(domain, False, KEEP_FAILURE_S)
        except TemporaryDnsFailure:
            # Said at once, it holds nobody up, and so it counts as an answer.
            keep_s = KEEP_FAILURE_S
        except NoSuchName:
            pass
        self._silences = 0
        self._dead_until = 0.0
        # Beside other records the null MX means nothing (RFC 7505 §3).
        return self._remember(domain, bool(hosts) and not any(host.name for host in hosts), keep_s)

    def _note_silence(self) -> None:
        self._silences += 1
        if self._silences >= DEAD_AFTER:
            self._dead_until = self._clock.monotonic() + DEAD_S

    def _remember(self, domain: str, takes_no_mail: bool, keep_s: float) -> bool:
        self._known[domain] = (takes_no_mail, self._clock.monotonic() + keep_s)
        self._known.move_to_end(domain)
        if len(self._known) > CACHE_ENTRIES:
            self._known.popitem(last=False)
        return takes_no_mail
