"""One small document over HTTPS (RFC 9110, RFC 9112): never over a connection that is not verified, never a large one.

h11 does the protocol; connection, TLS and time limits are ours, as everywhere.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from posthouse.net.connect import Connector
from posthouse.net.stream import Stream
from posthouse.net.tls import handshake_fault

HTTPS_PORT = 443
REDIRECTS = 3
HEADER_OCTETS = 16 * 1024
_REDIRECTING = (301, 302, 303, 307, 308)


class NoDocument(Exception):
    """There is none, or it cannot be had safely; the message is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsClient:
    """`port`: where HTTPS is spoken to hosts that are named without one."""

    connector: Connector
    context: Callable[[], ssl.SSLContext]
    port: int = HTTPS_PORT

    async def get(self, url: str, *, limit_octets: int, timeout_s: float) -> bytes:
        """The document behind at most REDIRECTS redirects, to HTTPS only. Raises NoDocument."""
        try:
            async with asyncio.timeout(timeout_s):
                for _ in range(REDIRECTS + 1):
                    answer = await self._get(_checked(url), limit_octets)
                    if isinstance(answer, bytes):
                        return answer
                    url = urljoin(url, answer)
        except TimeoutError as exc:
            raise NoDocument("no answer in time") from exc
        raise NoDocument("it redirects again and again")

    async def _get(self, url: SplitResult, limit_octets: int) -> bytes | str:
        """The document, or where else it is."""
        host = url.hostname or ""
        try:
            stream = await self.connector.connect(host, url.port or self.port)
        except OSError as exc:
            raise NoDocument(f"{host} cannot be reached: {exc.strerror or exc}") from exc
        try:
            if not await stream.start_tls(self.context(), server_name=host, server_side=False):
                raise NoDocument(f"{host} spoke before the handshake")
            return await _exchange(stream, url, limit_octets)
        except (OSError, ValueError) as exc:
            raise NoDocument(f"{host}: {handshake_fault(exc)}") from exc
        except h11.RemoteProtocolError as exc:
            raise NoDocument(f"{host} broke the protocol: {exc}") from exc
        finally:
            stream.abort()


async def _exchange(stream: Stream, url: SplitResult, limit_octets: int) -> bytes | str:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_OCTETS)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = [("Host", url.netloc), ("Accept", "application/xml, text/xml"), ("Connection", "close")]
    stream.write(http.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
    stream.write(http.send(h11.EndOfMessage()) or b"")
    body = bytearray()
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                http.receive_data(await stream.read())
            case h11.Response(status_code=code) as response if code in _REDIRECTING:
                return dict(response.headers).get(b"location", b"").decode("ascii", "replace")
            case h11.Response(status_code=code) if code != 200:
                raise NoDocument(f"{url.hostname} answers {code}")
            case h11.Data(data=octets):
                body += octets
                if len(body) > limit_octets:
                    raise NoDocument(f"{url.hostname}: it is too long")
            case h11.EndOfMessage():
                return bytes(body)
            case h11.ConnectionClosed() | h11.PAUSED:
                raise NoDocument(f"{url.hostname} closed the connection")


def _checked(url: str) -> SplitResult:
    """Raises NoDocument for what is no address of a document that may be asked for."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise NoDocument("it leads to no address") from exc
    if parts.scheme != "https":
        raise NoDocument(f"it leads to {parts.scheme or 'nowhere'}, and only HTTPS is asked")
    printable = url.isascii() and url.isprintable() and " " not in url
    if not parts.hostname or port == 0 or parts.username is not None or not printable:
        raise NoDocument("it leads to no address")
    return parts
