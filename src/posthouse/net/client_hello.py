"""What a TLS client asks for first: server name and protocols, read from its ClientHello before OpenSSL sees it.

Python's `ssl` shows a server neither the protocols that were offered (it goes on without one where none fits, which
is what ALPACA needs) nor a server name that is not ASCII (it prints a traceback). RFC 8446 §4.1.2 and §5.1, RFC 6066
§3, RFC 7301 §3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_HELLO_OCTETS = 16 * 1024
"""More than any client sends; what is longer is refused."""

_HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_PROTOCOLS = 16


class NotTls(Exception):
    """The octets are no TLS handshake at all: OpenSSL knows best what to say about them."""


class MalformedHello(Exception):
    """It began as a ClientHello and is none."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`server_name` is lower-case and may be anything; `protocols` is None where ALPN is not used."""

    server_name: str | None
    protocols: tuple[bytes, ...] | None


class HelloReader:
    """Reads the first handshake message as its octets come; it may be cut into several records.

    Each octet is looked at once: a hello of one-octet records that comes octet by octet costs no more than another.
    """

    def __init__(self) -> None:
        self._came_octets = 0
        self._waiting = bytearray()
        self._message = bytearray()
        self._begun = False

    def feed(self, octets: bytes) -> ClientHello | None:
        """Take what came; the hello, or None while it is incomplete. Raises NotTls, MalformedHello."""
        self._came_octets += len(octets)
        self._waiting += octets
        while self._take_record():
            if len(self._message) < 4:
                continue
            length = int.from_bytes(self._message[1:4])
            if length > MAX_HELLO_OCTETS:
                break
            if len(self._message) >= 4 + length:
                return _parse(bytes(self._message[4 : 4 + length]))
        else:
            if self._came_octets <= MAX_HELLO_OCTETS:
                return None
        raise MalformedHello("the ClientHello is too long")

    def _take_record(self) -> bool:
        """Move what is there of the next record's content; whether it was all of it."""
        waiting = self._waiting
        if waiting and waiting[0] != _HANDSHAKE_RECORD:
            if not self._begun:
                raise NotTls
            raise MalformedHello("another record stands inside the ClientHello")
        if len(waiting) < 5:
            return False
        self._begun = True
        size = int.from_bytes(waiting[3:5])
        if waiting[1] != 3 or not size:
            raise MalformedHello("a record has a wrong header")
        if not self._message and len(waiting) > 5 and waiting[5] != _CLIENT_HELLO:
            raise MalformedHello("the first message is no ClientHello")
        if len(waiting) < 5 + size:
            return False
        self._message += waiting[5 : 5 + size]
        del waiting[: 5 + size]
        return True


class _Reader:
    """Takes vectors off the front; whatever is missing is malformed."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def has_more(self) -> bool:
        return self._at < len(self._octets)

    def take(self, count: int) -> bytes:
        taken = self._octets[self._at : self._at + count]
        if len(taken) != count:
            raise MalformedHello("the ClientHello is shorter than it says")
        self._at += count
        return taken

    def vector(self, length_octets: int) -> bytes:
        """A vector with its length before it."""
        return self.take(int.from_bytes(self.take(length_octets)))


def _parse(message: bytes) -> ClientHello:
    reader = _Reader(message)
    reader.take(2 + 32)
    reader.vector(1)
    reader.vector(2)
    reader.vector(1)
    extensions: dict[int, bytes] = {}
    if reader.has_more:
        fields = _Reader(reader.vector(2))
        while fields.has_more:
            kind = int.from_bytes(fields.take(2))
            if kind in extensions:
                raise MalformedHello("an extension comes twice")
            extensions[kind] = fields.vector(2)
    if reader.has_more:
        raise MalformedHello("the ClientHello is longer than it says")
    name, protocols = extensions.get(_SERVER_NAME), extensions.get(_PROTOCOLS)
    return ClientHello(
        _server_name(name) if name is not None else None,
        _protocol_names(protocols) if protocols is not None else None,
    )


def _server_name(extension: bytes) -> str | None:
    names = _Reader(_Reader(extension).vector(2))
    while names.has_more:
        kind, name = names.take(1), names.vector(2)
        if kind == b"\0":
            return name.decode("ascii", "replace").lower().removesuffix(".")
    return None


def _protocol_names(extension: bytes) -> tuple[bytes, ...]:
    found = []
    names = _Reader(_Reader(extension).vector(2))
    while names.has_more:
        found.append(names.vector(1))
    return tuple(found)
