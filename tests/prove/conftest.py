"""The loop that the command runs on; the proxy is tried on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.hookimpl
def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """One run of each test of the proxy for each loop: uvloop has its own ways to say that a connection is closed."""
    both: dict[str, LoopFactory] = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    return both if item.path.name == "test_proxy.py" else {"uvloop": both["uvloop"]}
