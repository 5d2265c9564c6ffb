"""Whom the service becomes, and what it may then."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from posthouse.service.user import (
    NoSuchUser,
    ServiceUser,
    as_user,
    can_read,
    chosen_user,
    find_user,
    opening,
    owner_of,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
NOBODY = ServiceUser("nobody", 65534, 65534)


def test_a_user_has_a_name_or_a_number() -> None:
    assert find_user("nobody") == find_user("65534")


@pytest.mark.parametrize("name", ["root", "0", "who.is.this", "4294967295999"])
def test_who_is_not_there_or_root_is_refused(name: str) -> None:
    with pytest.raises(NoSuchUser, match="root" if name in ("root", "0") else "service install"):
        find_user(name)


@needs_root
def test_without_a_name_it_is_the_owner(tmp_path: Path) -> None:
    assert owner_of(tmp_path) is None
    assert chosen_user(None, tmp_path) is None
    os.chown(tmp_path, 65534, 65534)
    assert chosen_user(None, tmp_path) == ServiceUser(pwd.getpwuid(65534).pw_name, 65534, 65534)
    os.chown(tmp_path, 54321, 54321)
    assert chosen_user(None, tmp_path) == ServiceUser("54321", 54321, 54321)
    assert chosen_user("nobody", tmp_path) == find_user("nobody")
    assert owner_of(tmp_path / "missing") is None


@needs_root
def test_nothing_of_root_is_left() -> None:
    asked = as_user(NOBODY, lambda: [os.getresuid(), os.getresgid(), os.getgroups()])
    assert asked == [[65534] * 3, [65534] * 3, [65534]]


@needs_root
def test_a_question_that_fails_is_no_answer() -> None:
    with pytest.raises(OSError, match="as nobody"):
        as_user(NOBODY, lambda: os._exit(3))


@needs_root
def test_the_commands_open_a_key_as_certbot_keeps_it(public_folder: Path) -> None:
    """The real file in one closed folder, a link to it in another."""
    archive, live = public_folder / "archive" / "x", public_folder / "live" / "x"
    for folder in (archive, live):
        folder.mkdir(parents=True)
        folder.parent.chmod(0o700)
    (archive / "privkey1.pem").write_text("key")
    (archive / "privkey1.pem").chmod(0o600)
    key = live / "privkey.pem"
    key.symlink_to("../../archive/x/privkey1.pem")
    assert as_user(NOBODY, lambda: can_read(key)) is False
    command = opening(NOBODY, key)
    assert os.system(command) == 0
    assert as_user(NOBODY, lambda: can_read(key)) is True
    assert (archive.parent.stat().st_mode & 0o777, live.parent.stat().st_mode & 0o777) == (0o710, 0o710)
    assert (archive / "privkey1.pem").stat().st_mode & 0o777 == 0o640
    assert opening(NOBODY, key) == ""
