"""One connection: our own asyncio protocol with the only input buffer.

asyncio's StreamReader keeps plaintext across `start_tls`, which is the STARTTLS injection (CVE-2011-0411); here
there is one buffer, and nothing can hide in a second one.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from posthouse.net.deadline import Deadline
from posthouse.net.outbox import Outbox

HIGH_WATER_OCTETS = 256 * 1024
LOW_WATER_OCTETS = 64 * 1024
UNSENT_OCTETS = 4 * 1024


class Interrupted(Exception):
    """`Stream.interrupt` was called while nothing was there to read: the house closes."""


class Stream(asyncio.Protocol):
    """Octets in and out of one connection, with back-pressure in both directions."""

    def __init__(
        self, outbox: Outbox | None = None, *, peer_address: str | None = None, local_address: str | None = None
    ) -> None:
        """With an `outbox`, short writes leave at the end of the loop's turn instead of at once.

        The addresses are given where they are known already, or are others than those of the socket (PROXY).
        """
        self._outbox = outbox
        self._unsent: list[bytes] = []
        self._unsent_octets = 0
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._received_octets = 0
        self._sent_octets = 0
        self._reading_paused = False
        self._ended = False
        self._interrupted = False
        self._reader: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self.has_closed = False
        self._close_waiter: asyncio.Future[None] | None = None
        self._deadline = Deadline(self._loop)
        self._upgrading = False
        self._peer_address = peer_address
        self._local_address = local_address

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_OCTETS, low=LOW_WATER_OCTETS)
        # Kept from the beginning: uvloop asks the socket each time, and a lost one has no peer.
        if self._peer_address is None:
            self._peer_address = ip_address_of(self._transport.get_extra_info("peername"))

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        self._received_octets += len(data)
        if self._buffered > HIGH_WATER_OCTETS:
            self._pause_reading()
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
        self._deadline.stop()
        self.has_closed = True
        if self._close_waiter is not None and not self._close_waiter.done():
            self._close_waiter.set_result(None)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What drivers call.

    @property
    def peer_address(self) -> str:
        """The peer's IP address, without scope, also when it is gone; "" for a socket that never had one."""
        return self._peer_address or ""

    @property
    def local_address(self) -> str:
        """Our IP address of this connection, likewise; "" when the connection is gone and nobody asked before."""
        if self._local_address is None and self._transport is not None:
            self._local_address = ip_address_of(self._transport.get_extra_info("sockname"))
        return self._local_address or ""

    @property
    def is_tls(self) -> bool:
        """Whether the octets are protected on their way."""
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is not None

    @property
    def tls(self) -> ssl.SSLObject | None:
        """What knows version, suite and certificate; None in clear."""
        found = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return cast(ssl.SSLObject | None, found)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more. Octets that had arrived before can still be read."""
        return self._transport is None or self.has_closed or self._transport.is_closing()

    @property
    def has_input(self) -> bool:
        """Whether `read` would return at once: octets are there, or the end of the stream."""
        return bool(self._chunks) or self._ended

    @property
    def is_full(self) -> bool:
        """Whether `drain` would have to wait."""
        return self._write_paused and not self.has_closed

    @property
    def waiting_octets(self) -> int:
        """How much of what was written the system has not taken yet."""
        return self._unsent_octets + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def take_octets(self) -> tuple[int, int]:
        """How many octets came, and were handed to the system, since this was last asked; those inside TLS."""
        taken = self._received_octets, self._sent_octets
        self._received_octets = self._sent_octets = 0
        return taken

    async def read(self, *, interruptible: bool = False, timeout_s: float | None = None) -> bytes:
        """What has arrived, at least one octet; b"" at the end of the stream, also when it was reset.

        Raises TimeoutError; and Interrupted, where that is allowed, when nothing has arrived and `interrupt` was
        called.
        """
        while not self._chunks and not self._ended:
            if self._interrupted and interruptible:
                raise Interrupted
            reader = self._reader = self._loop.create_future()
            self._deadline.watch(reader, timeout_s)
            try:
                await reader
            finally:
                self._reader = None
                self._deadline.forget()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._reading_paused:
            self._reading_paused = False
            if self._transport is not None and not self._ended and not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    def interrupt(self) -> None:
        """Wake a reader that waits where it may be interrupted, now and from now on."""
        self._interrupted = True
        self._wake_reader()

    def write(self, octets: bytes) -> None:
        """Hand octets to the system; use `drain` before handing over much more."""
        if not octets:
            return
        if self._outbox is not None and not self._unsent:
            self._outbox.add(self)
        self._unsent.append(octets)
        self._unsent_octets += len(octets)
        if self._outbox is None or self._unsent_octets > UNSENT_OCTETS:
            self.flush()

    def flush(self) -> None:
        """Send now what was written."""
        unsent, self._unsent, self._unsent_octets = self._unsent, [], 0
        transport = self._transport
        if unsent and transport is not None and not self.has_closed and not transport.is_closing():
            octets = unsent[0] if len(unsent) == 1 else b"".join(unsent)
            self._sent_octets += len(octets)
            transport.write(octets)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Wait until the peer has taken enough of what was written. Raises TimeoutError."""
        if self.is_full:
            self._writable = self._loop.create_future()
            try:
                await self._deadline.wait(self._writable, timeout_s)
            finally:
                self._writable = None

    async def start_tls(self, context: ssl.SSLContext, *, server_name: str | None = None, server_side: bool) -> bool:
        """Upgrade to TLS. False, and nothing is upgraded, when octets are waiting already (RFC 3207 §4.2).

        Raises OSError (ssl.SSLError is one) when the handshake fails; the connection is lost then.
        """
        self.flush()
        await self.drain()
        if self._transport is None or self.has_input or self.is_lost:
            return False
        self._upgrading = True
        try:
            transport = await self._loop.start_tls(
                self._transport, self, context, server_side=server_side, server_hostname=server_name
            )
        except BaseException:
            # A handshake that fails never tells us of the loss: neither asyncio nor uvloop calls connection_lost.
            self._transport.abort()
            self.connection_lost(None)
            raise
        finally:
            self._upgrading = False
        if transport is None:
            self.connection_lost(None)
            return False
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER_OCTETS, low=LOW_WATER_OCTETS)
        if self._buffered > HIGH_WATER_OCTETS:
            self._pause_reading()
        return True

    async def close(self, grace_s: float = 5.0) -> None:
        """Send what is written and close; give a peer that does not read `grace_s` seconds."""
        if self._transport is None:
            return
        self.flush()
        if not self._transport.is_closing():
            # A second close() makes a TLS transport of Python 3.11.2 lose what abort() needs.
            self._transport.close()
        try:
            if not self.has_closed:
                self._close_waiter = self._loop.create_future()
                await self._deadline.wait(self._close_waiter, grace_s)
        except TimeoutError:
            pass
        finally:
            # Also when we are cancelled: a transport that waits for its peer would stay open for ever.
            self._close_waiter = None
            if not self.has_closed:
                self._transport.abort()

    def abort(self) -> None:
        """Close at once, without sending what is buffered."""
        if self._transport is not None and not self.has_closed:
            self._transport.abort()

    def _pause_reading(self) -> None:
        # During a handshake `_transport` is still the one beneath, which must go on reading.
        if self._reading_paused or self._upgrading or self.is_lost:
            return
        assert self._transport is not None
        self._transport.pause_reading()
        self._reading_paused = True

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def ip_address_of(name: object) -> str:
    """The address of a socket's name, without scope; "" where it has none."""
    return str(name[0]).partition("%")[0] if isinstance(name, tuple) else ""
