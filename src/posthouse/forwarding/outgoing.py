"""What connections to next hops need beside the configuration: passwords and authorities from files, and a memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from posthouse.config import Config, ConfigError
from posthouse.config_forwarding import Credentials, Forwarding, UnusablePassword
from posthouse.forwarding.dial import ClientTls, Dialer
from posthouse.forwarding.hosts import DeadHosts
from posthouse.forwarding.logins import FindLogin, nobodys
from posthouse.forwarding.pool import Pool
from posthouse.forwarding.relay import Relay
from posthouse.forwarding.routes import Router
from posthouse.mail.world import Clock
from posthouse.net.connect import Connector
from posthouse.net.smtp_connection import SmtpTimeouts
from posthouse.net.tls import CertificateUnusable
from posthouse.storage.interfaces import Content

DATA_S = 120.0
"""The answer to DATA; RFC 5321 §4.5.3.2.4 asks for less than for other commands."""


class Remembered:
    """What lives as long as the house: hosts that did not answer, connections that wait."""

    def __init__(self, clock: Clock) -> None:
        self.hosts = DeadHosts(clock)
        self.pool = Pool(clock)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What was read from files."""

    tls: ClientTls
    credentials: Mapping[str, Credentials]

    @classmethod
    def of(cls, terms: Forwarding) -> Outgoing:
        """Read them. Raises ConfigError."""
        try:
            return cls(ClientTls(terms.tls_authorities), terms.read_credentials())
        except UnusablePassword as exc:
            raise ConfigError(f"forwarding.login: {exc}") from exc
        except CertificateUnusable as exc:
            raise ConfigError(f"forwarding.tls_authorities: {exc}") from exc

    def relay(
        self,
        config: Config,
        router: Router,
        connector: Connector,
        content: Content,
        clock: Clock,
        memory: Remembered,
        logins: FindLogin = nobodys,
    ) -> Relay:
        """The relay of a house, as it is configured. `logins`: those that identities have of their own."""
        terms = config.forwarding
        memory.hosts.keep_within(terms.retry)
        return Relay(
            router=router,
            dialer=Dialer(connector=connector, timeouts=timeouts_of(terms), tls=self.tls),
            content=content,
            clock=clock,
            hello_name=terms.hello_name or config.hostname,
            hosts=memory.hosts,
            pool=memory.pool,
            terms=terms,
            credentials=self.credentials,
            logins=logins,
        )


def timeouts_of(terms: Forwarding) -> SmtpTimeouts:
    """The time limits as they are configured."""
    return SmtpTimeouts(
        connect_s=terms.connect_timeout,
        greeting_s=terms.greeting_timeout,
        handshake_s=terms.connect_timeout,
        command_s=terms.command_timeout,
        data_s=min(terms.command_timeout, DATA_S),
        block_s=terms.content_timeout,
        final_s=terms.final_timeout,
        transaction_s=terms.transaction_timeout,
    )
