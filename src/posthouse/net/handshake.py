"""The server's side of a TLS handshake: which certificate, and whether the client wants this service at all.

A `DoorContext` is what a door hands to asyncio for all its life. It waits for the whole ClientHello, asks `choose`
for the context of that moment (certificates by server name, reloaded when their files change), and lets OpenSSL go on
from there. So each door has its own contexts, and no session ticket is good at another door or for another
certificate. A client that offers only protocols of other services is told `no_application_protocol` (RFC 7301 §3.2):
that is what stops a browser from being made to speak to a mail server (ALPACA).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, cast

from posthouse.net.client_hello import ClientHello, HelloReader, MalformedHello, NotTls

Choose = Callable[[str | None], ssl.SSLContext]
"""Of a server name (lower-case, None where none was sent) the context to go on with. Never fails."""

_ALERT, _FATAL = 21, 2
_NO_APPLICATION_PROTOCOL = 120


class DoorContext(ssl.SSLContext):
    """The context of one door. It has no certificate of its own."""

    _choose: Choose
    _protocols: frozenset[bytes]

    def __new__(cls, _choose: Choose, _protocols: tuple[str, ...]) -> DoorContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, choose: Choose, protocols: tuple[str, ...]) -> None:
        """`protocols`: the ALPN names of this service."""
        self._choose = choose
        self._protocols = frozenset(name.encode() for name in protocols)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,  # noqa: ARG002
        session: ssl.SSLSession | None = None,  # noqa: ARG002
    ) -> ssl.SSLObject:
        """What asyncio and uvloop call for each connection."""
        assert server_side
        return cast(ssl.SSLObject, _Handshake(self, incoming, outgoing))

    def begin(self, hello: ClientHello | None) -> ssl.SSLContext | None:
        """The context to go on with, or None when no protocol that the client offers is spoken here."""
        if hello is None:
            return self._choose(None)
        if hello.protocols is not None and self._protocols.isdisjoint(hello.protocols):
            return None
        return self._choose(hello.server_name)


class _Handshake:
    """Stands for the SSLObject; has one as soon as the ClientHello is there."""

    __slots__ = ("_door", "_held", "_hello", "_incoming", "_inner", "_outgoing", "_refusal")

    def __init__(self, door: DoorContext, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._door = door
        self._incoming = incoming
        self._outgoing = outgoing
        self._held = bytearray()
        self._hello = HelloReader()
        self._inner: ssl.SSLObject | None = None
        self._refusal: str | None = None

    def do_handshake(self) -> None:
        if self._inner is None:
            self._inner = self._begin()
        self._inner.do_handshake()

    def read(self, *arguments: Any) -> Any:
        return self._object.read(*arguments)

    def write(self, data: bytes) -> int:
        return self._object.write(data)

    def pending(self) -> int:
        return self._object.pending()

    def unwrap(self) -> None:
        self._object.unwrap()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._object, name)

    @property
    def _object(self) -> ssl.SSLObject:
        if self._inner is None:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the handshake has not begun")
        return self._inner

    def _begin(self) -> ssl.SSLObject:
        if self._refusal is not None:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, self._refusal)
        octets = self._incoming.read()
        self._held += octets
        try:
            hello = self._hello.feed(octets)
            if hello is None:
                raise ssl.SSLWantReadError
            context = self._door.begin(hello)
        except NotTls:
            context = self._door.begin(None)
        except MalformedHello as exc:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, str(exc)) from exc
        if context is None:
            self._send_alert(_NO_APPLICATION_PROTOCOL)
            self._refusal = "the client offers only protocols of other services"
            # What asyncio sends only while a handshake goes on is the alert; who has read it goes.
            raise ssl.SSLWantReadError
        self._incoming.write(self._held)
        self._held.clear()
        return context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def _send_alert(self, alert: int) -> None:
        self._held.clear()
        self._outgoing.write(bytes((_ALERT, 3, 3, 0, 2, _FATAL, alert)))
