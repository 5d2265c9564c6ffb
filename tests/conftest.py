"""What every test has: the run's seed, Hypothesis's profiles, and the rule about skipped tests."""

from __future__ import annotations

pytest_plugins = ["tests.plugins.seed", "tests.plugins.skips"]
