"""Into a POP3 server: connection, protection, login. No password leaves over a connection that is not protected."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass, field

from posthouse.mail.source import Mechanism, Protection, SourceSettings
from posthouse.net.connect import Connector
from posthouse.net.pop3_connection import Pop3Connection, Pop3Failed, Pop3TlsFailed
from posthouse.protocol.pop3_client import Capabilities
from posthouse.protocol.sasl import SaslError
from posthouse.protocol.sasl_oauth import oauth_dismissal, oauth_message

CONNECT_TIMEOUT_S = 60.0


class LoginRefused(Exception):
    """The server does not take the login; `certain`: it says that the password is wrong (RFC 3206 §4, `[AUTH]`)."""

    def __init__(self, text: str, *, certain: bool) -> None:
        super().__init__(text)
        self.certain = certain


class NotReached(Exception):
    """There is no connection, or none that is protected as it should be; the message is for the owner."""


@dataclass(frozen=True, slots=True)
class Login:
    """A name, and the password or OAuth 2 token that goes with it."""

    name: str
    secret: str = field(repr=False)


async def enter(
    settings: SourceSettings, login: Login, connector: Connector, context: ssl.SSLContext
) -> tuple[Pop3Connection, Capabilities]:
    """A session that is logged in, and what its server can do. Raises NotReached, LoginRefused, Pop3Failed."""
    connection = await connect(settings, connector, context)
    try:
        await _log_in(connection, settings, login)
        capabilities = await connection.capabilities()
    except BaseException:
        connection.stream.abort()
        raise
    return connection, capabilities


async def connect(settings: SourceSettings, connector: Connector, context: ssl.SSLContext) -> Pop3Connection:
    """A session that is greeted and protected. Raises NotReached, Pop3Failed."""
    server = settings.server
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            stream = await connector.connect(server.host, server.port)
    except TimeoutError as exc:
        raise NotReached(f"{server} does not answer") from exc
    except OSError as exc:
        raise NotReached(f"{server} cannot be reached: {exc.strerror or exc}") from exc
    connection = Pop3Connection(stream)
    try:
        if server.protection is Protection.NONE and not _is_loopback(stream.peer_address):
            raise NotReached(f"{server} is not on this machine, and no password is sent to it in clear")
        if server.protection is Protection.IMPLICIT:
            await connection.handshake(context, server.host)
        await connection.start()
        if server.protection is Protection.STARTTLS:
            await connection.start_tls(context, server.host)
    except Pop3TlsFailed as exc:
        raise NotReached(f"the connection to {server} cannot be protected: {exc}") from exc
    except BaseException:
        stream.abort()
        raise
    return connection


async def _log_in(connection: Pop3Connection, settings: SourceSettings, login: Login) -> None:
    try:
        match settings.mechanism:
            case Mechanism.PASSWORD:
                await connection.login(login.name, login.secret)
            case Mechanism.XOAUTH2 | Mechanism.OAUTHBEARER as mechanism:
                message = oauth_message(mechanism, login.name, login.secret)
                await connection.authenticate(mechanism.upper(), (message, oauth_dismissal(mechanism)))
    except SaslError as exc:
        raise LoginRefused(str(exc), certain=False) from exc
    except Pop3Failed as exc:
        if connection.stream.is_lost or (exc.code or "").startswith(("SYS/", "IN-USE", "LOGIN-DELAY")):
            raise
        raise LoginRefused(str(exc), certain=exc.code == "AUTH") from exc


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
