"""The hint that rows became due, inside one process."""

from __future__ import annotations

import asyncio


class LocalChanges:
    """Remembers a hint until somebody waited for it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()

    def notify(self) -> None:
        self._event.set()
