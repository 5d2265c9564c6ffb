"""What every test has: the run's seed, Hypothesis's profiles, the rule about skips, the table of conformance."""

from __future__ import annotations

pytest_plugins = ["tests.plugins.seed", "tests.plugins.skips", "tests.plugins.conformance"]
