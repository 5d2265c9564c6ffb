"""The groups of whom a command or the service becomes when root starts it."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from posthouse.service.user import ServiceUser


def test_the_owner_keeps_the_groups_of_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key may be readable by one of them only."""
    user = pwd.getpwuid(0)
    mine = {group.gr_gid for group in grp.getgrall() if user.pw_name in group.gr_mem}
    assert set(ServiceUser(user.pw_name, user.pw_uid, user.pw_gid).groups) == mine | {user.pw_gid}
    monkeypatch.setattr(os, "getgrouplist", lambda name, group: [group, 4711])
    assert 4711 in ServiceUser(user.pw_name, user.pw_uid, user.pw_gid).groups


def test_a_number_without_a_name_has_no_groups() -> None:
    assert ServiceUser("4000000001", 4_000_000_001, 0).groups == []
