"""Where passwords for other houses are kept: the desktop's keyring, or a file that only its owner reads.

The database holds a reference that says where, never the secret: `keyring:NAME`, `file:NAME`, or `command:ARGUMENTS`
for a program that prints an OAuth 2 token.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

from posthouse.mail.words import visible

SERVICE: Final = "posthouse"
MAX_SECRET_OCTETS: Final = 16 * 1024
COMMAND_TIMEOUT_S: Final = 60.0

_UNSAFE = re.compile(r"[^A-Za-z0-9@._+\-]|\A\.")


class SecretMissing(Exception):
    """It cannot be had; the message is one line for its owner, and never holds a secret."""


class Vault:
    """The secrets of one house. `folder` is made when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def read(self, reference: str) -> str:
        """The secret. Raises SecretMissing."""
        return await asyncio.to_thread(self.read_now, reference)

    def read_now(self, reference: str) -> str:
        """The same, where there is no loop to hold up."""
        kind, _, name = reference.partition(":")
        match kind:
            case "file":
                return self._from_file(name)
            case "keyring":
                return _from_keyring(name)
            case "command":
                return _from_command(name)
            case _:
                raise SecretMissing(f"{kind!r} is no place that secrets are kept in")

    def keep(self, name: str, secret: str) -> str:
        """Keep it under a name, such as an address, instead of what was there; the reference. Raises OSError."""
        ring = usable_keyring()
        if ring is not None and _into_keyring(ring, name, secret):
            return f"keyring:{name}"
        spelled = _UNSAFE.sub(lambda found: f"%{ord(found[0]):X}", name)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        part = self.folder / f".{spelled}.new"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        part.rename(self.folder / spelled)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return f"file:{spelled}"

    def forget(self, reference: str) -> None:
        """Keep it no longer; one that is not there is no error."""
        kind, _, name = reference.partition(":")
        if kind == "file":
            self._path(name).unlink(missing_ok=True)
        elif kind == "keyring" and (ring := usable_keyring()) is not None and ring.get_password(SERVICE, name):
            ring.delete_password(SERVICE, name)

    def _path(self, name: str) -> Path:
        if not name or name.startswith(".") or "/" in name:
            raise SecretMissing(f"{name!r} is no name of a secret")
        return self.folder / name

    def _from_file(self, name: str) -> str:
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    raise SecretMissing(f"{path} can be read by others than its owner; run: chmod 600 {path}")
                octets = file.read(MAX_SECRET_OCTETS + 1)
        except FileNotFoundError as exc:
            raise SecretMissing(f"there is no password in {path}") from exc
        except OSError as exc:
            raise SecretMissing(f"{path} cannot be read: {exc.strerror or exc}") from exc
        return _one_line(octets, str(path))


def usable_keyring() -> ModuleType | None:
    """The keyring's module, where it is installed and this session has one."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return None
    try:
        # (A desktop's service may be installed and not running.)
        usable = keyring.get_keyring().priority > 0
        if usable:
            keyring.get_password(SERVICE, "")
    except (KeyringError, RuntimeError):
        return None
    return keyring if usable else None


def _into_keyring(ring: ModuleType, name: str, secret: str) -> bool:
    """False where it would not take it, as one that stays locked."""
    try:
        ring.set_password(SERVICE, name, secret)
    except ring.errors.KeyringError:
        return False
    return True


def _from_keyring(name: str) -> str:
    ring = usable_keyring()
    if ring is None:
        raise SecretMissing("the password is in the desktop's keyring, which cannot be reached from here")
    secret = ring.get_password(SERVICE, name)
    if secret is None:
        raise SecretMissing(f"the keyring has no password for {name}")
    return str(secret)


def _from_command(arguments: str, run: Callable[..., subprocess.CompletedProcess[bytes]] = subprocess.run) -> str:
    try:
        command = shlex.split(arguments)
        done = run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, ValueError, IndexError) as exc:
        raise SecretMissing(f"{arguments!r} cannot be run: {exc}") from exc
    except subprocess.TimeoutExpired as exc:
        raise SecretMissing(f"{command[0]} printed no token within {COMMAND_TIMEOUT_S:.0f} s") from exc
    if done.returncode:
        said = visible(" ".join(done.stderr.decode("utf-8", "replace").split())[:200])
        raise SecretMissing(f"{command[0]} ended with {done.returncode}: {said}")
    return _one_line(done.stdout, command[0])


def _one_line(octets: bytes, place: str) -> str:
    try:
        secret = octets.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as exc:
        raise SecretMissing(f"{place}: it is not UTF-8") from exc
    if not secret or len(octets) > MAX_SECRET_OCTETS or any(character in secret for character in "\0\r\n"):
        raise SecretMissing(f"{place}: it is not one line with a secret")
    return secret
