"""uvicorn inside a loop that is not its own."""

from __future__ import annotations

import asyncio
import signal
import socket

from starlette.types import Receive, Scope, Send

from posthouse.web.server import WebServer


async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...


async def test_signals_stay_with_whoever_has_them() -> None:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.setblocking(False)
        server = WebServer(nothing, [opened])
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with asyncio.TaskGroup() as group:
            group.create_task(server.run())
            while not server._server.started:
                await asyncio.sleep(0)
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
            server.stop()
        assert opened.fileno() == -1
