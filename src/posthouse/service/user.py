"""Whom the service is: the user of the configuration, or the owner of the data folder; with all the groups of a login.

Root is given up for good: real, effective and saved ids, so that nothing that goes wrong later can have it back.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NoSuchUser(Exception):
    """The configuration names a user that this machine does not have, or root."""


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """A user to become."""

    name: str
    user: int
    group: int

    @property
    def groups(self) -> list[int]:
        """All its groups: a key may be readable by one of them, such as ssl-cert."""
        try:
            return os.getgrouplist(pwd.getpwuid(self.user).pw_name, self.group)
        except KeyError:
            # A number without a name, as in a container.
            return []

    @property
    def is_us(self) -> bool:
        return os.geteuid() == self.user


def find_user(name: str) -> ServiceUser:
    """The user of this name, or of this number. Raises NoSuchUser."""
    try:
        found = pwd.getpwuid(int(name)) if name.isascii() and name.isdigit() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise NoSuchUser(
            f"there is no user {name!r} on this machine; make one with: posthouse service install --user {name}"
        ) from None
    if not found.pw_uid:
        raise NoSuchUser(f"user {name!r} is root, and a house must not be; name another one")
    return ServiceUser(found.pw_name, found.pw_uid, found.pw_gid)


def owner_of(folder: Path) -> ServiceUser | None:
    """The owner of a folder; None where it is root, or there is no folder."""
    try:
        owner = folder.stat()
    except OSError:
        return None
    if not owner.st_uid:
        return None
    try:
        name = pwd.getpwuid(owner.st_uid).pw_name
    except KeyError:
        name = str(owner.st_uid)
    return ServiceUser(name, owner.st_uid, owner.st_gid)


def chosen_user(name: str | None, data_dir: Path) -> ServiceUser | None:
    """Whom a house that root starts becomes; None: nobody is known but root. Raises NoSuchUser."""
    return find_user(name) if name is not None else owner_of(data_dir)


def become(user: ServiceUser) -> None:
    """Root becomes this user, for good. Raises OSError where it may not (a container without CAP_SETUID)."""
    os.setgroups(user.groups)
    os.setresgid(user.group, user.group, user.group)
    os.setresuid(user.user, user.user, user.user)


def as_user(user: ServiceUser, ask: Callable[[], Any]) -> Any:
    """What `ask` answers (in JSON's types) when this user asks it: in a process of its own, which root starts.

    Called before there are threads.
    """
    if user.is_us:
        return ask()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            become(user)
            with open(writing, "w", encoding="utf-8") as out:
                json.dump(ask(), out)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        text = answer.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(f"nothing could be asked as {user.name}")
    return json.loads(text)


def can_read(file: Path) -> bool:
    """Whether whoever we are now can, whatever modes, lists and mounts say about it."""
    try:
        with open(file, "rb") as opened:
            opened.read(1)
    except OSError:
        return False
    return True


def opening(user: ServiceUser, file: Path) -> str:
    """The command with which root lets this user, and nobody else new, read a file; as far as modes show it.

    Groups are used: certbot keeps the group and its rights when it writes the next key.
    """
    name = user.name if user.name.isdigit() else _group_name(user)
    ways = dict.fromkeys((Path(os.path.abspath(file)), Path(os.path.realpath(file))))
    folders = dict.fromkeys(folder for way in ways for folder in reversed(way.parents))
    closed = [str(folder) for folder in folders if not _allows(user, folder, 0o1)]
    target = [str(file)] if not _allows(user, file, 0o4) else []
    commands = [f"chgrp {name} {' '.join(closed + target)}"] if closed or target else []
    commands += [f"chmod g+x {' '.join(closed)}"] if closed else []
    commands += [f"chmod g+r {target[0]}"] if target else []
    return " && ".join(commands)


def _group_name(user: ServiceUser) -> str:
    try:
        return grp.getgrgid(user.group).gr_name
    except KeyError:
        return str(user.group)


def _allows(user: ServiceUser, path: Path, right: int) -> bool:
    """Whether the modes of this one entry give the user a right (1: enter, 4: read)."""
    try:
        status = path.stat()
    except OSError:
        # Who asks is not root and sees no more: the folder above it is named.
        return True
    if status.st_uid == user.user:
        return bool(status.st_mode >> 6 & right)
    if status.st_gid == user.group or status.st_gid in user.groups:
        return bool(status.st_mode >> 3 & right)
    return bool(status.st_mode & right)
