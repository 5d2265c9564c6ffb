"""The search for an address's servers: all ways at once, within one time limit, the best that answers wins.

Best are servers that the domain vouches for: SRV records that lead into the domain itself, then its autoconfig; then
SRV records that lead elsewhere, then usual names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from posthouse.discovery.autoconfig import DOCUMENT_OCTETS, BadAutoconfig, Servers, addresses_of, parse_autoconfig
from posthouse.discovery.candidate import (
    POP3_CLEAR,
    POP3_TLS,
    SUBMISSION_CLEAR,
    SUBMISSION_TLS,
    Candidate,
    How,
    Offer,
    protection_of,
)
from posthouse.discovery.services import POP3, SUBMISSION, candidates, is_denied
from posthouse.discovery.trial import NO_SUCH_HOST, Trial, Unusable
from posthouse.mail.address import Address
from posthouse.mail.source import Protection, Server
from posthouse.mail.world import Random
from posthouse.net.dns import Service, TemporaryDnsFailure
from posthouse.net.https import HttpsClient, NoDocument

ASKING_S = 5.0
"""For what DNS and HTTPS say."""
WHOLE_S = 15.0
USUAL_POP3 = ("pop", "pop3", "mail")
USUAL_SUBMISSION = ("smtp", "mail")


class ServiceResolver(Protocol):
    """Raises TemporaryDnsFailure."""

    async def services(self, name: str) -> tuple[Service, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The servers that answered; None: none did. `denied`: services that DNS denies.

    `tried` says of the others why not, by service; "" is what holds for both. Hosts that do not exist are left out.
    """

    pop3: Offer | None
    smtp: Offer | None
    tried: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    denied: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Side:
    """POP3, or submission."""

    service: str
    records: Sequence[tuple[str, Protection]]
    hosts: Sequence[str]
    ports: Sequence[int]
    try_one: Callable[[Candidate], Awaitable[Offer]]
    found: list[Candidate] = field(default_factory=list)
    offer: Offer | None = None
    denied: bool = False
    tried: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Looks for the servers of addresses."""

    resolver: ServiceResolver
    https: HttpsClient
    trial: Trial
    random: Random

    async def find(
        self, address: Address, *, pop3: Server | None = None, smtp: Server | None = None, sends: bool = True
    ) -> Found:
        """Both servers, within WHOLE_S seconds; one that is given is only tried. Not `sends`: POP3 alone."""
        receiving = _Side("POP3", POP3, USUAL_POP3, (POP3_TLS, POP3_CLEAR), self.trial.pop3)
        sending = _Side("submission", SUBMISSION, USUAL_SUBMISSION, (SUBMISSION_TLS, SUBMISSION_CLEAR), self.trial.smtp)
        sides = [receiving, sending] if sends else [receiving]
        for side, given in ((receiving, pop3), (sending, smtp)):
            if given is not None:
                side.found = [Candidate(server=given, how=How.GIVEN, vouched=True)]
        documents: list[str] = []
        try:
            async with asyncio.timeout(WHOLE_S):
                if wanting := [side for side in sides if not side.found]:
                    await self._gather(address, wanting, documents)
                async with asyncio.TaskGroup() as group:
                    for side in sides:
                        group.create_task(_choose(side))
        except TimeoutError:
            pass
        return Found(
            pop3=receiving.offer,
            smtp=sending.offer,
            tried={"": tuple(documents), **{side.service: tuple(side.tried) for side in sides}},
            denied=frozenset(side.service for side in sides if side.denied),
        )

    async def _gather(self, address: Address, sides: Sequence[_Side], tried: list[str]) -> None:
        """What is to be tried, the best first."""
        documents: dict[str, Servers] = {}
        answers: dict[str, tuple[Service, ...]] = {}
        async with asyncio.TaskGroup() as group:
            for url in addresses_of(address):
                group.create_task(self._document(url, address, documents, tried))
            for side in sides:
                for record, _ in side.records:
                    group.create_task(self._services(f"{record}.{address.domain}", answers))
        said = next((documents[url] for url in addresses_of(address) if url in documents), Servers())
        for side in sides:
            each = [(answers.get(f"{record}.{address.domain}", ()), how) for record, how in side.records]
            told = [
                candidate
                for services, protection in each
                for candidate in candidates(services, protection, address.domain, self.random)
            ]
            side.denied = not told and any(is_denied(services) for services, _ in each)
            named = said.pop3 if side.service == "POP3" else said.smtp
            usual = [] if side.denied else _usual(side, address.domain)
            side.found = [
                *(candidate for candidate in told if candidate.vouched),
                *named,
                *(candidate for candidate in told if not candidate.vouched),
                *usual,
            ]

    async def _document(self, url: str, address: Address, documents: dict[str, Servers], tried: list[str]) -> None:
        try:
            octets = await self.https.get(url, limit_octets=DOCUMENT_OCTETS, timeout_s=ASKING_S)
            documents[url] = parse_autoconfig(octets, address)
        except (NoDocument, BadAutoconfig) as exc:
            tried.append(f"autoconfig at {url.partition('?')[0]}: {exc}")

    async def _services(self, name: str, answers: dict[str, tuple[Service, ...]]) -> None:
        try:
            async with asyncio.timeout(ASKING_S):
                answers[name] = await self.resolver.services(name)
        except (TemporaryDnsFailure, TimeoutError):
            answers[name] = ()


async def _choose(side: _Side) -> None:
    """Try all at once; the first in their order that can be used is chosen as soon as all before it have failed."""
    distinct: dict[Server, Candidate] = {}
    for candidate in side.found:
        distinct.setdefault(candidate.server, candidate)
    async with asyncio.TaskGroup() as group:
        trials = [group.create_task(_try(side, candidate)) for candidate in distinct.values()]
        for trial in trials:
            offer = await trial
            if offer is not None:
                side.offer = offer
                break
        for trial in trials:
            trial.cancel()


async def _try(side: _Side, candidate: Candidate) -> Offer | None:
    try:
        return await side.try_one(candidate)
    except Unusable as exc:
        if str(exc) != NO_SUCH_HOST or candidate.how is not How.USUAL:
            side.tried.append(f"{candidate.server}: {exc}")
        return None


def _usual(side: _Side, domain: str) -> list[Candidate]:
    return [
        Candidate(server=Server(f"{host}.{domain}", port, protection_of(port)), how=How.USUAL, vouched=True)
        for port in side.ports
        for host in side.hosts
    ]
