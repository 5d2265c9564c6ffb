"""One process to fork houses and commands from, for all tests of a run that want it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.house.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote() as process:
        yield process
