"""A session with one host: connection, greeting, TLS as the policy wants it (RFC 3207 §4.1), login (RFC 4954).

Where TLS is opportunistic and fails, the mail goes in clear over a fresh connection: after a handshake that broke,
nobody knows what the other side thinks it is in. Where it is required, nothing is sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, assert_never

from posthouse.config_forwarding import Credentials, TlsMode
from posthouse.config_values import Endpoint
from posthouse.forwarding.routes import Hop
from posthouse.forwarding.transaction import RECIPIENTS_LIMIT, by_reply
from posthouse.mail.outcome import Deferred, Outcome
from posthouse.mail.reply import Reply, reply
from posthouse.net.connect import Connector
from posthouse.net.smtp_connection import (
    ClosedAtHello,
    ConnectionBroke,
    ConnectionFailed,
    HandshakeFailed,
    LoginImpossible,
    PeerUntrusted,
    SmtpConnection,
    SmtpTimeouts,
    TlsNotOffered,
    TlsRefused,
)
from posthouse.net.smtp_transcript import Dialogue
from posthouse.net.stream import Stream
from posthouse.net.tls import client_context

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One address of a host, and how it is spoken to. Connections of one target are alike."""

    hop: Hop
    address: str
    mode: TlsMode = TlsMode.NEVER
    credentials: Credentials | None = None
    source_address: str | None = None
    hello_name: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """The address with its port."""
        return Endpoint(self.address, self.hop.port)

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return ipaddress.ip_address(self.address).is_loopback

    def __str__(self) -> str:
        return self.hop.at(self.address)


class ClientTls:
    """Two ways to encrypt: to whoever is there, and to the host that the certificate names.

    The system's authorities are read when they are needed first; it takes a while.
    """

    def __init__(self, authorities: Path | None = None) -> None:
        """Raises CertificateUnusable for the file of authorities."""
        self.any_certificate = client_context(verified=False)
        self._verified = client_context(verified=True, authorities=authorities) if authorities is not None else None

    @property
    def verified(self) -> ssl.SSLContext:
        """The context that looks at certificates."""
        if self._verified is None:
            self._verified = client_context(verified=True)
        return self._verified


@dataclass(slots=True)
class OpenConnection:
    """A host that has greeted us and waits for MAIL.

    `fresh`: nothing was asked of it yet.
    `clean`: the last message was taken; after any other end, the next transaction begins with RSET.
    `by_helo`: it was lost at EHLO and answers HELO; what it would have offered, nobody knows.
    """

    connection: SmtpConnection
    target: Target
    fresh: bool = True
    by_helo: bool = False
    clean: bool = False
    recipients_limit: int = RECIPIENTS_LIMIT

    @property
    def is_quiet(self) -> bool:
        """Whether the other server has neither spoken nor left since the last reply."""
        return not (self.connection.stream.has_input or self.connection.stream.is_lost)


class NoConnection(Exception):
    """No session. `dead`: nobody answered there at all. `greeting` is the host's own refusal, if it said one."""

    def __init__(self, outcome: Outcome, *, dead: bool = False, greeting: Reply | None = None) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome
        self.dead = dead
        self.greeting = greeting


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialer:
    """Opens sessions."""

    connector: Connector
    timeouts: SmtpTimeouts = field(default_factory=SmtpTimeouts)
    tls: ClientTls = field(default_factory=ClientTls)

    async def dial(self, target: Target, transcript: Dialogue) -> OpenConnection:
        """A session, ready for MAIL. Notes the dialogue. Raises NoConnection."""
        match target.mode:
            case TlsMode.NEVER:
                opened = await self._greeted(target, transcript)
            case TlsMode.OPPORTUNISTIC:
                opened = await self._encrypted_or_not(target, transcript)
            case TlsMode.REQUIRED:
                opened = await self._greeted(target, transcript)
                await self._step(opened, transcript, _start_tls(opened.connection, target, self.tls.verified))
            case TlsMode.IMPLICIT:
                opened = await self._greeted(target, transcript)
            case _:
                assert_never(target.mode)
        if target.credentials is not None:
            await self._step(opened, transcript, _login(opened.connection, target, target.credentials))
        return opened

    async def _encrypted_or_not(self, target: Target, transcript: Dialogue) -> OpenConnection:
        """STARTTLS where it is offered; in clear, over a fresh connection, where it fails."""
        opened = await self._greeted(target, transcript)
        connection = opened.connection
        if "STARTTLS" not in connection.extensions:
            return opened
        try:
            await self._noting(connection, transcript, connection.start_tls(self.tls.any_certificate, target.hop.host))
        except ConnectionFailed:
            connection.abort()
            transcript.append("C: (goes on in clear, over a fresh connection)")
            return await self._greeted(target, transcript)
        return opened

    async def _greeted(self, target: Target, transcript: Dialogue) -> OpenConnection:
        """A host that takes mail from us: by EHLO, or over a fresh connection by HELO where it hangs up at EHLO."""
        try:
            return OpenConnection(await self._start(target, transcript, extended=True), target)
        except ClosedAtHello:
            transcript.append("C: (tries again with HELO)")
        try:
            return OpenConnection(await self._start(target, transcript, extended=False), target, by_helo=True)
        except ClosedAtHello as exc:
            raise _not_greeted(exc) from exc

    async def _start(self, target: Target, transcript: Dialogue, *, extended: bool) -> SmtpConnection:
        """Raises NoConnection, ClosedAtHello."""
        stream = await self._connect(target, transcript)
        connection = SmtpConnection(
            stream, target.hello_name, self.timeouts, extended=extended, monotonic=transcript.monotonic
        )
        try:
            if target.mode is TlsMode.IMPLICIT:
                await self._noting(connection, transcript, connection.handshake(self.tls.verified, target.hop.host))
            await self._noting(connection, transcript, connection.start())
        except ClosedAtHello:
            connection.abort()
            raise
        except HandshakeFailed as exc:
            raise NoConnection(_no_tls("4.7.5", target, str(exc))) from exc
        except ConnectionFailed as exc:
            connection.abort()
            raise _not_greeted(exc) from exc
        return connection

    async def _connect(self, target: Target, transcript: Dialogue) -> Stream:
        transcript.append(f"C: (connects to {target.hop.host}, {target.endpoint})")
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                return await self.connector.connect(
                    target.address, target.hop.port, local_address=target.source_address
                )
        except (OSError, TimeoutError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "no answer"
            transcript.append(f"S: ({reason})")
            raise NoConnection(_later("4.4.1", f"No connection to {target}: {reason}"), dead=True) from exc

    async def _step(self, opened: OpenConnection, transcript: Dialogue, step: Coroutine[Any, Any, None]) -> None:
        """A step without which nothing is sent. Raises NoConnection, after a polite end where that is possible."""
        try:
            await self._noting(opened.connection, transcript, step)
        except NoConnection:
            await opened.connection.quit()
            raise

    async def _noting(self, connection: SmtpConnection, transcript: Dialogue, step: Coroutine[Any, Any, T]) -> T:
        """Let the connection do something, and note what was said. Dropped where it ends in anything unexpected."""
        try:
            return await step
        except (NoConnection, ConnectionFailed, ConnectionBroke):
            raise
        except BaseException:
            connection.abort()
            raise
        finally:
            transcript.take(connection.steps)


async def _start_tls(connection: SmtpConnection, target: Target, context: ssl.SSLContext) -> None:
    """STARTTLS, or nothing (RFC 3207 §4.1: the client's policy)."""
    try:
        await connection.start_tls(context, target.hop.host)
    except TlsNotOffered as exc:
        raise NoConnection(_no_tls("4.7.4", target, "it does not offer STARTTLS")) from exc
    except TlsRefused as exc:
        raise NoConnection(_no_tls("4.7.4", target, f"it answers STARTTLS with {exc.reply}")) from exc
    except HandshakeFailed as exc:
        raise NoConnection(_no_tls("4.7.5", target, str(exc))) from exc
    except ConnectionFailed as exc:
        raise _not_greeted(exc) from exc


async def _login(connection: SmtpConnection, target: Target, credentials: Credentials) -> None:
    """What is wrong with a login is ours to mend: the mail waits. In clear it is sent on this machine only."""
    try:
        answer = await connection.login(
            credentials.user, credentials.password, in_clear=target.is_loopback, mechanism=credentials.mechanism
        )
    except (LoginImpossible, PeerUntrusted) as exc:
        raise NoConnection(_later("4.7.8", f"No login at {target}: {exc}")) from exc
    except ConnectionBroke as exc:
        raise NoConnection(_later("4.4.2", f"No login at {target}: {exc}")) from exc
    if not answer.is_positive:
        raise NoConnection(_later("4.7.8", f"{target} refused the login of this house: {answer}"))


def _not_greeted(failure: ConnectionFailed) -> NoConnection:
    if failure.reply is None:
        return NoConnection(_later("4.4.2", f"No session: {failure}"), dead=True)
    return NoConnection(by_reply(failure.reply), greeting=failure.reply)


def _no_tls(enhanced: str, target: Target, reason: str) -> Outcome:
    return _later(enhanced, f"TLS is required for mail to {target}, and it cannot be had: {reason}")


def _later(enhanced: str, text: str) -> Outcome:
    return Deferred(reply(451, enhanced, text), from_peer=False)
