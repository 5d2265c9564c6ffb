"""Attachments as files: in the folder that was named and nowhere else, and never over another file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from posthouse.cli.common import Problem
from posthouse.mail.file_names import numbered
from posthouse.mail.indexed import Listed
from posthouse.mail.mime import MimeReader
from posthouse.mail.readable import Attached
from posthouse.mail.transfer import decoder
from posthouse.storage.errors import StorageError

if TYPE_CHECKING:
    from posthouse.mail.ids import AccountId
    from posthouse.storage.interfaces import Storage

MOST_NAMESAKES = 1000
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


async def save(
    storage: Storage, account: AccountId, letter: Listed, wanted: Sequence[Attached], folder: Path
) -> list[tuple[str, int]]:
    """Write these attachments; their names there and sizes in octets. Raises Problem."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise Problem(f"there is no folder {folder}; make it: mkdir -p {folder}") from exc
    except OSError as exc:
        raise Problem(f"{folder} is not a folder that can be used: {exc.strerror}") from exc
    try:
        return [await _save_one(storage, account, letter, each, descriptor) for each in wanted]
    except OSError as exc:
        raise Problem(f"{folder} cannot be written to: {exc.strerror}") from exc
    finally:
        os.close(descriptor)


async def _save_one(
    storage: Storage, account: AccountId, letter: Listed, wanted: Attached, folder: int
) -> tuple[str, int]:
    name, descriptor = create(folder, wanted.file_name)
    undo = decoder(wanted.part.encoding)
    size = 0

    def write(octets: bytes) -> None:
        nonlocal size
        size += len(octets)
        while octets:
            octets = octets[os.write(descriptor, octets) :]

    reader = MimeReader(tapped=wanted.part.number, tap=lambda octets: write(undo.feed(octets)))
    try:
        async for chunk in storage.maildrops.read(account, letter.uid, letter.folder):
            reader.feed(chunk)
        reader.finish()
        write(undo.finish())
        os.fsync(descriptor)
    except (OSError, KeyError, StorageError):
        # Half of a file would pass for one.
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)
    return name, size


def create(folder: int, name: str) -> tuple[str, int]:
    """A new file of that name, or with a number where there is one already; its name and descriptor. Raises OSError."""
    for number in range(1, MOST_NAMESAKES + 1):
        tried = name if number == 1 else numbered(name, number)
        with suppress(FileExistsError):
            return tried, os.open(tried, _CREATE, 0o600, dir_fd=folder)
    raise Problem(f"there are {MOST_NAMESAKES} files named {name} already; save into another folder")
