"""What every test has: the run's seed, Hypothesis's profiles, the rule about skips, the table of conformance."""

from __future__ import annotations

import os

# Whoever runs the tests has a keyring of their own, which is none of their business.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

pytest_plugins = ["tests.plugins.seed", "tests.plugins.skips", "tests.plugins.conformance", "tests.plugins.zygote"]
