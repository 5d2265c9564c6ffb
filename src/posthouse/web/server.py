"""HTTP inside the house's loop: uvicorn with bound sockets, and without its signals, its log and its own ideas of both.

uvicorn makes a task for each request outside any TaskGroup; it waits for them itself when it ends.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

MOST_CONNECTIONS = 64
"""More than any monitoring has; who is beyond them gets a 503."""
HEADER_OCTETS = 16 * 1024
IDLE_S = 75
"""Longer than the minute in which monitoring comes back."""
GRACE_S = 2


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the house's."""
        yield


class WebServer:
    """`run` until `stop`; the sockets are closed then."""

    def __init__(self, app: ASGIApp, sockets: Sequence[socket.socket]) -> None:
        """`sockets` are bound; they listen from now on."""
        self._sockets = list(sockets)
        for opened in self._sockets:
            opened.listen()
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                # What goes wrong in a handler is told in the house's own log, once.
                log_level=logging.CRITICAL + 1,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=GRACE_S,
                h11_max_incomplete_event_size=HEADER_OCTETS,
            )
        )

    async def run(self) -> None:
        await self._server.serve(self._sockets)

    def stop(self) -> None:
        self._server.should_exit = True
