"""Passwords for other houses: where they are kept, who may read them, what is said when they cannot be had."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from posthouse import vault
from posthouse.vault import SecretMissing, Vault


class Ring(KeyringBackend):
    """A keyring in memory."""

    priority = -1.0  # type: ignore[assignment]
    """Of the class: it is never found by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.priority = 5.0  # type: ignore[assignment]
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def ring() -> Iterator[Ring]:
    before = keyring.get_keyring()
    ring = Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.fixture
def kept(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "secrets")


@pytest.mark.parametrize("name", ["ada@far.test", "../../etc/passwd", "a b/ö", ".x"])
async def test_a_file_is_its_owners_alone(kept: Vault, name: str) -> None:
    reference = kept.keep(name, "open sesame ö")
    assert await kept.read(reference) == "open sesame ö"
    (file,) = kept.folder.iterdir()
    assert (file.stat().st_mode & 0o777, kept.folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert kept.keep(name, "another") == reference
    assert await kept.read(reference) == "another"
    kept.forget(reference)
    kept.forget(reference)
    with pytest.raises(SecretMissing, match="there is no password in"):
        await kept.read(reference)


async def test_a_desktop_keeps_them_in_its_keyring(kept: Vault, ring: Ring) -> None:
    reference = kept.keep("ada@far.test", "open sesame")
    assert reference == "keyring:ada@far.test"
    assert ring.kept == {("posthouse", "ada@far.test"): "open sesame"}
    assert await kept.read(reference) == "open sesame"
    assert not kept.folder.exists()
    kept.forget(reference)
    kept.forget(reference)
    assert not ring.kept
    with pytest.raises(SecretMissing, match="the keyring has no password for ada@"):
        await kept.read(reference)


async def test_a_keyring_that_cannot_be_reached_is_told(kept: Vault) -> None:
    assert vault.usable_keyring() is None
    with pytest.raises(SecretMissing, match="cannot be reached from here"):
        await kept.read("keyring:ada@far.test")


@pytest.mark.parametrize(
    ("octets", "words"),
    [(b"", "not one line"), (b"a\nb\n", "not one line"), (b"\xff\n", "not UTF-8"), (b"x" * 20_000, "not one line")],
)
async def test_a_file_that_holds_no_secret_is_told(kept: Vault, octets: bytes, words: str) -> None:
    reference = kept.keep("x", "y")
    (kept.folder / "x").write_bytes(octets)
    with pytest.raises(SecretMissing, match=words):
        await kept.read(reference)


async def test_a_file_that_others_can_read_is_refused(kept: Vault) -> None:
    reference = kept.keep("x", "y")
    (kept.folder / "x").chmod(0o640)
    with pytest.raises(SecretMissing, match="run: chmod 600 "):
        await kept.read(reference)


@pytest.mark.parametrize("reference", ["file:../x", "file:", "file:.x", "nothing", "x:y"])
async def test_a_reference_that_is_none_leads_nowhere(kept: Vault, reference: str) -> None:
    with pytest.raises(SecretMissing, match=r"no name of a secret|no place that secrets"):
        await kept.read(reference)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('not\\x1b[31m today')", "ended with 1: not"),
        ("print()", "not one line"),
        ("print('a'); print('b')", "not one line"),
        ("import time; time.sleep(60)", "printed no token within 0 s"),
    ],
)
async def test_a_program_that_prints_no_token_is_told(
    kept: Vault, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    if "sleep" in program:
        monkeypatch.setattr(vault, "COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(SecretMissing, match=words):
        await kept.read(f'command:{sys.executable} -c "{program}"')


async def test_a_program_prints_the_token(kept: Vault) -> None:
    assert await kept.read(f"command:{sys.executable} -c \"print('token')\"") == "token"
    with pytest.raises(SecretMissing, match="cannot be run"):
        await kept.read("command:'")
    with pytest.raises(SecretMissing, match="cannot be run"):
        await kept.read("command:")
