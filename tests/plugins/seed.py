"""One seed for all that is random in a run, and how hard Hypothesis tries.

The profile `short` (the default) is the same in each run; `long` (`scripts/test --all`) tries more, from a new seed
each time. The seed stands in the header of the run; `--seed` repeats it.
"""

from __future__ import annotations

import secrets

import hypothesis
import pytest

SHORT_SEED = 5321

hypothesis.settings.register_profile("short", derandomize=True, database=None, deadline=None, max_examples=30)
hypothesis.settings.register_profile("long", database=None, deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile("short")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="seed of all that is random (printed by each run)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed before Hypothesis asks for it, and before worker processes copy the options."""
    long = config.getoption("--hypothesis-profile") == "long"
    if config.option.seed is None:
        config.option.seed = secrets.randbelow(2**32) if long else SHORT_SEED
    if long and config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(config.option.seed)


def pytest_report_header(config: pytest.Config) -> str:
    profile = config.getoption("--hypothesis-profile") or "short"
    return f"seed: {config.option.seed} (examples: {profile})"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run, for tests with a `random.Random(seed)` of their own."""
    chosen: int = request.config.option.seed
    return chosen
