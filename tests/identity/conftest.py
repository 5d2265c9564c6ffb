"""The house that most tests of identity start from."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from posthouse.identity import hashes
from tests.fake_world import FakeClock
from tests.identity.people import Credentials, Directory, Hasher, House


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Alice has a password, so has the suspended `gone`, `nobody` has none. Argon2 is replaced, and counted."""
    hasher, directory = Hasher(), Directory()
    hasher.go_on.set()
    monkeypatch.setattr(hashes, "_HASHER", hasher)
    directory.add("alice@x.test", "hash:right")
    directory.add("gone@x.test", "hash:right", suspended=True)
    directory.add("nobody@x.test")
    made = House(directory, Credentials(directory), hasher, FakeClock(), io.StringIO())
    yield made
    hasher.go_on.set()
    made.authenticator.close()
