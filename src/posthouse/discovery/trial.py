"""Trying one server: connection, TLS with a verified certificate, greeting, capabilities. No name, no password.

`log_in` proves a login at a submission server, as `collection.door.enter` does at a POP3 server.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace

from posthouse.discovery.candidate import Candidate, Offer
from posthouse.mail.source import Mechanism, Protection, Server
from posthouse.net.connect import Connector
from posthouse.net.pop3_connection import Pop3Connection, Pop3Failed
from posthouse.net.smtp_connection import (
    ClosedAtHello,
    ConnectionBroke,
    ConnectionFailed,
    LoginImpossible,
    PeerUntrusted,
    SmtpConnection,
    SmtpTimeouts,
)
from posthouse.net.stream import Stream
from posthouse.protocol.pop3_client import Capabilities

TRIAL_S = 7.0
"""For one server."""
LOGIN_S = 60.0
NO_SUCH_HOST = "there is no such host"
_TOKENS = {mechanism.upper(): mechanism for mechanism in (Mechanism.XOAUTH2, Mechanism.OAUTHBEARER)}
_PASSWORDS = frozenset({"PLAIN", "LOGIN", "SCRAM-SHA-256"})


class Unusable(Exception):
    """The server cannot be used; the message says why, without its name."""


class Refused(Exception):
    """The server does not take the login; the message is what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What servers are tried with. `pop3_context`, `smtp_context`: make what verifies certificates."""

    connector: Connector
    pop3_context: Callable[[], ssl.SSLContext]
    smtp_context: Callable[[], ssl.SSLContext]
    hello_name: str

    async def pop3(self, candidate: Candidate) -> Offer:
        """Raises Unusable."""
        connection = None
        try:
            async with asyncio.timeout(TRIAL_S):
                connection = Pop3Connection(await self._connected(candidate.server), timeout_s=TRIAL_S)
                capabilities = await self._greeted(connection, candidate.server)
                await connection.quit()
        except Pop3Failed as exc:
            raise Unusable(str(exc)) from exc
        except TimeoutError as exc:
            raise Unusable("no answer in time") from exc
        finally:
            if connection is not None:
                connection.stream.abort()
        return _offer(candidate, _taken_by_pop3(capabilities))

    async def smtp(self, candidate: Candidate) -> Offer:
        """Raises Unusable."""
        try:
            async with asyncio.timeout(TRIAL_S):
                connection = await self._smtp(candidate.server)
                extensions = dict(connection.extensions)
                await connection.quit()
        except TimeoutError as exc:
            raise Unusable("no answer in time") from exc
        offered = frozenset(extensions.get("AUTH", "").upper().split())
        taken = {each for name, each in _TOKENS.items() if name in offered}
        return _offer(candidate, frozenset(taken | ({Mechanism.PASSWORD} if offered & _PASSWORDS else set())))

    async def log_in(self, server: Server, login: str, secret: str, mechanism: Mechanism) -> None:
        """Log in at a submission server, and leave. Raises Unusable, Refused."""
        try:
            async with asyncio.timeout(LOGIN_S):
                connection = await self._smtp(server)
                try:
                    local = _is_loopback(connection.stream.peer_address)
                    answer = await connection.login(login, secret, in_clear=local, mechanism=mechanism)
                finally:
                    await connection.quit()
        except (LoginImpossible, PeerUntrusted, ConnectionBroke) as exc:
            raise Unusable(str(exc)) from exc
        except TimeoutError as exc:
            raise Unusable("no answer in time") from exc
        if not answer.is_positive:
            raise Refused(str(answer))

    async def _connected(self, server: Server) -> Stream:
        try:
            stream = await self.connector.connect(server.host, server.port)
        except socket.gaierror as exc:
            raise Unusable(NO_SUCH_HOST) from exc
        except OSError as exc:
            raise Unusable(f"it cannot be reached: {exc.strerror or exc}") from exc
        if server.protection is Protection.NONE and not _is_loopback(stream.peer_address):
            stream.abort()
            raise Unusable("it is not on this machine, and no password is sent to it in clear")
        return stream

    async def _greeted(self, connection: Pop3Connection, server: Server) -> Capabilities:
        if server.protection is Protection.IMPLICIT:
            await connection.handshake(self.pop3_context(), server.host)
        await connection.start()
        if server.protection is Protection.STARTTLS:
            await connection.start_tls(self.pop3_context(), server.host)
        return await connection.capabilities()

    async def _smtp(self, server: Server) -> SmtpConnection:
        """Greeted and protected. Raises Unusable."""
        timeouts = SmtpTimeouts(greeting_s=LOGIN_S, command_s=LOGIN_S, quit_s=2.0)
        connection = SmtpConnection(await self._connected(server), self.hello_name, timeouts)
        try:
            if server.protection is Protection.IMPLICIT:
                await connection.handshake(self.smtp_context(), server.host)
            await connection.start()
            if server.protection is Protection.STARTTLS:
                await connection.start_tls(self.smtp_context(), server.host)
        except (ConnectionFailed, ClosedAtHello) as exc:
            connection.abort()
            raise Unusable(str(exc)) from exc
        except BaseException:
            connection.abort()
            raise
        return connection


def _taken_by_pop3(capabilities: Capabilities) -> frozenset[Mechanism]:
    """USER is what we log in with; a server without CAPA knows nothing else (RFC 2449 §6.3, RFC 5034 §6)."""
    offered = {name.upper() for name in capabilities.parameters("SASL") or ()}
    taken = {each for name, each in _TOKENS.items() if name in offered}
    if capabilities.has("USER") or not capabilities.lines:
        taken.add(Mechanism.PASSWORD)
    return frozenset(taken)


def _offer(candidate: Candidate, mechanisms: frozenset[Mechanism]) -> Offer:
    if not mechanisms:
        raise Unusable("it offers no login that is known here")
    wants_token = candidate.wants_token or Mechanism.PASSWORD not in mechanisms
    return Offer(replace(candidate, wants_token=wants_token), mechanisms)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
