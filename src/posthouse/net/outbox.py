"""Short replies of many sessions, sent one after the other at the end of a turn of the loop.

A peer that sleeps until our reply comes is woken by the send, which costs us five times what the send itself does;
when replies to many sessions of one peer leave together, only the first has to wake it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Flushable(Protocol):
    """Something with octets to send."""

    def flush(self) -> None: ...


class Outbox:
    """Flushes, in the next turn of the loop, who asked for it in this one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Flushable] = []

    def add(self, stream: Flushable) -> None:
        """Flush `stream` soon."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(stream)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for stream in waiting:
            try:
                stream.flush()
            except Exception as exc:  # noqa: BLE001  (told; the others' replies leave all the same)
                self._loop.call_exception_handler({"message": "a reply could not be sent", "exception": exc})
