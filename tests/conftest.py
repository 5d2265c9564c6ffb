"""What every test has: the seed, Hypothesis's profiles, names without look-ups, rules about skips, conformance."""

from __future__ import annotations

import os

# Whoever runs the tests has a keyring of their own, which is none of their business.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

pytest_plugins = [
    "tests.plugins.seed",
    "tests.plugins.names",
    "tests.plugins.skips",
    "tests.plugins.conformance",
    "tests.plugins.zygote",
]
