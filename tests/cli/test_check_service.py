"""`posthouse check`, the part about the user that the house becomes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from posthouse.net.tls import make_self_signed
from tests.cli.conftest import CONFIG, Command, spawned
from tests.cli.test_serve_as_service import furnish_for_nobody, needs_root


@needs_root
def test_a_renewed_certificate_is_read_by_the_group(public_folder: Path) -> None:
    """As certbot has it: closed folders, a link to the newest key, whose group and mode the next one takes over."""
    live, archive = public_folder / "letsencrypt" / "live", public_folder / "letsencrypt" / "archive"
    for folder in (live, archive):
        folder.mkdir(parents=True)
        folder.chmod(0o700)
    make_self_signed("mx.here.test", archive / "cert1.pem", archive / "key1.pem", 1_790_000_000.0)
    for name in ("cert", "key"):
        (live / f"{name}.pem").symlink_to(f"../archive/{name}1.pem")
    (archive / "cert1.pem").chmod(0o644)
    house = public_folder / "house"
    house.mkdir()
    tls = f'\n[tls]\ncertificate = "{live}/cert.pem"\nkey = "{live}/key.pem"\n'
    furnish_for_nobody(house, f'user = "nobody"\n{CONFIG}{tls}')

    def complaints() -> list[str]:
        ran = spawned("check", folder=house)
        return [line for line in ran.out.splitlines() if line.startswith("problem") and " user " in line]

    told = complaints()
    assert [f"{live}/cert.pem cannot be read by nobody" in line for line in told] == [True, False]
    for line in told:
        assert os.system(line.partition("run: ")[2]) == 0
    assert complaints() == []
    # Renewed, as certbot does it: a new file with the old one's group and mode.
    shutil.copy(archive / "key1.pem", archive / "key2.pem")
    shutil.copy(archive / "cert1.pem", archive / "cert2.pem")
    for name in ("cert", "key"):
        old = (archive / f"{name}1.pem").stat()
        os.chown(archive / f"{name}2.pem", 0, old.st_gid)
        (archive / f"{name}2.pem").chmod(old.st_mode & 0o777)
        (live / f"{name}.pem").unlink()
        (live / f"{name}.pem").symlink_to(f"../archive/{name}2.pem")
    assert complaints() == []
    assert (archive / "key2.pem").stat().st_mode & 0o777 == 0o640


@needs_root
def test_a_folder_that_the_user_cannot_write(public_folder: Path) -> None:
    furnish_for_nobody(public_folder, f'user = "daemon"\n{CONFIG}')
    ran = spawned("check", folder=public_folder)
    assert f"run: chown -R daemon: {public_folder}" in ran.out
    assert ran.status == 1


@needs_root
def test_root_without_a_user_is_a_note(furnished: Command) -> None:
    ran = furnished.run("check")
    assert "stays root" in ran.out
    assert ran.status == 0


@pytest.mark.parametrize("name", ["who.is.it"])
def test_a_user_that_is_not_there(furnished: Command, name: str) -> None:
    Path("posthouse.toml").write_text(f'user = "{name}"\n{CONFIG}')
    ran = furnished.run("check")
    assert f"posthouse service install --user {name}" in ran.out
    assert ran.status == 1
