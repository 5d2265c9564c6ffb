"""One connection: our own asyncio protocol with the only input buffer.

asyncio's StreamReader keeps plaintext across `start_tls`, which is the STARTTLS injection (CVE-2011-0411); here
there is one buffer, and nothing can hide in a second one.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

HIGH_WATER_OCTETS = 256 * 1024
LOW_WATER_OCTETS = 64 * 1024


class Interrupted(Exception):
    """`Stream.interrupt` was called while nothing was there to read: the house closes."""


class Stream(asyncio.Protocol):
    """Octets in and out of one connection, with back-pressure in both directions."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._reading_paused = False
        self._ended = False
        self._interrupted = False
        self._reader: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._closed: asyncio.Future[None] = self._loop.create_future()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_OCTETS, low=LOW_WATER_OCTETS)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > HIGH_WATER_OCTETS and not self._reading_paused and self._transport is not None:
            self._transport.pause_reading()
            self._reading_paused = True
        self._wake_reader()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake_reader()
        # Over TCP our half stays open, so that a peer that half-closes still gets its replies.
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, _exc: Exception | None) -> None:
        self._ended = True
        self._wake_reader()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What drivers call.

    @property
    def peer_address(self) -> str:
        """The peer's IP address, without scope; "" for a socket that has none."""
        name = self._extra("peername")
        return str(name[0]).partition("%")[0] if isinstance(name, tuple) else ""

    @property
    def local_address(self) -> str:
        name = self._extra("sockname")
        return str(name[0]).partition("%")[0] if isinstance(name, tuple) else ""

    @property
    def is_tls(self) -> bool:
        return self._extra("sslcontext") is not None

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone in both directions."""
        return self._closed.done()

    async def read(self, *, interruptible: bool = False) -> bytes:
        """What has arrived, at least one octet; b"" at the end of the stream, also when it was reset.

        Raises Interrupted, where that is allowed, when nothing has arrived and `interrupt` was called.
        """
        while not self._chunks and not self._ended:
            if self._interrupted and interruptible:
                raise Interrupted
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._reading_paused and self._transport is not None and not self._ended:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def interrupt(self) -> None:
        """Wake a reader that waits where it may be interrupted, now and from now on."""
        self._interrupted = True
        self._wake_reader()

    def write(self, octets: bytes) -> None:
        """Hand octets to the system; use `drain` before handing over much more."""
        if octets and self._transport is not None and not self._closed.done():
            self._transport.write(octets)

    async def drain(self) -> None:
        """Wait until the peer has taken enough of what was written."""
        if self._write_paused and not self._closed.done():
            self._writable = self._loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    async def start_tls(self, context: ssl.SSLContext, *, server_name: str | None = None, server_side: bool) -> bool:
        """Upgrade to TLS. False, and nothing is upgraded, when octets are waiting already (RFC 3207 §4.2)."""
        assert self._transport is not None
        if self._chunks or self._ended:
            return False
        transport = await self._loop.start_tls(
            self._transport, self, context, server_side=server_side, server_hostname=server_name
        )
        if transport is None:
            return False
        self._transport = transport
        return True

    async def close(self, grace_s: float = 5.0) -> None:
        """Send what is written and close; give a peer that does not read `grace_s` seconds."""
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self._transport.abort()

    def abort(self) -> None:
        """Close at once, without sending what is buffered."""
        if self._transport is not None:
            self._transport.abort()

    def _extra(self, name: str) -> object:
        return self._transport.get_extra_info(name) if self._transport is not None else None

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
