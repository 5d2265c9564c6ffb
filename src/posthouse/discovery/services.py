"""What DNS says of a domain's servers: SRV records in the order of RFC 2782 (RFC 6186 §3, RFC 8314 §5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.discovery.candidate import Candidate, How, is_inside
from posthouse.mail.source import Protection, Server
from posthouse.mail.world import Random
from posthouse.net.dns import Service

POP3 = (("_pop3s._tcp", Protection.IMPLICIT), ("_pop3._tcp", Protection.STARTTLS))
SUBMISSION = (("_submissions._tcp", Protection.IMPLICIT), ("_submission._tcp", Protection.STARTTLS))
MOST = 4
"""So many servers of one service are tried."""


def candidates(services: Sequence[Service], protection: Protection, domain: str, random: Random) -> list[Candidate]:
    """The servers of one service, best first; none where it is not offered."""
    return [
        Candidate(
            server=Server(service.host, service.port, protection),
            how=How.DNS,
            vouched=is_inside(service.host, domain),
        )
        for service in in_order(services, random)
        if service.host and service.port
    ][:MOST]


def is_denied(services: Sequence[Service]) -> bool:
    """Whether the domain says that it does not offer the service (RFC 6186 §3.4)."""
    return bool(services) and not any(service.host for service in services)


def in_order(services: Sequence[Service], random: Random) -> list[Service]:
    """The lowest priority first; of those alike, by weighted chance."""
    ordered: list[Service] = []
    for priority in sorted({service.priority for service in services}):
        left = sorted((each for each in services if each.priority == priority), key=lambda each: each.weight)
        while left:
            chosen = random.uniform(0, sum(service.weight for service in left))
            running = 0
            for service in left:
                running += service.weight
                if running >= chosen:
                    break
            left.remove(service)
            ordered.append(service)
    return ordered
