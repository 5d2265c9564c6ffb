"""The configured part of policy."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from posthouse.admission.routing import ip_spelling
from posthouse.config import Config
from posthouse.mail.address import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says about accepting. `roles`, `literals`: as in `routing.Home`."""

    hostname: str
    postmaster: Address | None
    max_recipients: int
    expire_after_s: float
    recipients_per_hour: int = 0
    """Elsewhere, of an account; 0: any number."""
    roles: frozenset[str] = frozenset({"abuse"})
    literals: frozenset[str] = frozenset()
    routed_domains: frozenset[str] = frozenset()
    """Domains with a next hop of their own, which may be short names such as `intranet`."""

    @classmethod
    def of(cls, config: Config) -> Rules:
        """The rules of a configuration."""
        listen = config.listen
        doors = (*listen.smtp, *listen.submission, *listen.submissions)
        listening = {ipaddress.ip_address(endpoint.host) for endpoint in doors}
        return cls(
            hostname=config.hostname,
            postmaster=config.postmaster,
            max_recipients=config.reception.recipients,
            expire_after_s=config.forwarding.expire_after,
            recipients_per_hour=config.reception.recipients_per_hour,
            roles=frozenset(config.reception.roles),
            literals=frozenset(ip_spelling(str(ip)) or "" for ip in listening if not ip.is_unspecified),
            routed_domains=frozenset(config.forwarding.routes),
        )
