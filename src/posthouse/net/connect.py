"""Outgoing connections, through a seam that tests and simulation replace."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Protocol

from posthouse.net.stream import Stream


class Connector(Protocol):
    """Opens connections to IP addresses or names."""

    async def connect(self, host: str, port: int, *, local_address: str | None = None) -> Stream:
        """A connected stream. Raises OSError; the caller sets the timeout."""
        ...


class TcpConnector:
    """The real one."""

    async def connect(self, host: str, port: int, *, local_address: str | None = None) -> Stream:
        loop = asyncio.get_running_loop()
        local = (local_address, 0) if local_address else None
        try:
            _transport, stream = await loop.create_connection(Stream, host, port, local_addr=local)
        except socket.gaierror:
            raise
        except OSError as exc:
            if exc.errno is None:
                raise
            # asyncio and uvloop say it each in their own way, and the reason is shown in journeys.
            raise OSError(exc.errno, os.strerror(exc.errno)) from exc
        except (ValueError, OverflowError) as exc:
            # A name that no resolver takes (an empty label, a NUL), or a port that cannot be.
            raise OSError(errno.EINVAL, "the host or port is malformed") from exc
        return stream
