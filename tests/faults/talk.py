"""A client's end of a connection that may break at any octet."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from tests.faults.proxy import Link

GIVE_UP_S = 3.0
"""After which a client leaves that hears nothing; a house with limits of a second or two has ended the session."""
ANY_CERTIFICATE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY_CERTIFICATE.check_hostname, ANY_CERTIFICATE.verify_mode = False, ssl.CERT_NONE


class Hangup(Exception):
    """The connection ended, or nothing comes any more."""


@dataclass(slots=True)
class Talk:
    """Writes without waiting, reads line by line."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def over(cls, link: Link) -> Talk:
        return cls(*await asyncio.open_connection(sock=link.client))

    def write(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def line(self) -> bytes:
        """One line with its CRLF. Raises Hangup."""
        try:
            return await asyncio.wait_for(self.reader.readuntil(b"\r\n"), GIVE_UP_S)
        except (EOFError, OSError, TimeoutError, ssl.SSLError) as exc:
            raise Hangup from exc

    async def start_tls(self) -> None:
        """Raises Hangup."""
        try:
            start = self.writer.start_tls(ANY_CERTIFICATE, ssl_handshake_timeout=GIVE_UP_S)
            await asyncio.wait_for(start, GIVE_UP_S)
        except (OSError, TimeoutError) as exc:
            raise Hangup from exc

    def leave(self) -> None:
        self.writer.transport.abort()
