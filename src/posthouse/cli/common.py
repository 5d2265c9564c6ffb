"""What the commands share: finding the house, running against its store, printing lists.

What only some commands need is imported where it is used: `posthouse --help` must not wait for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from posthouse.mail.address import Address, AddressError, parse_address, parse_domain
from posthouse.mail.words import visible
from posthouse.storage.errors import StorageError

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

ConfigOption = Annotated[
    Path | None,
    # Not checked by typer, which would say it in four lines.
    typer.Option("--config", help="The configuration file.", show_default=False, metavar="FILE", readable=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print an array of JSON objects.")]
AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", show_default=False)]

T = TypeVar("T")


class Problem(Exception):
    """What went wrong and what mends it, in one line."""


def load_config(path: Path | None) -> Config:
    """The configuration that the options or the usual places name."""
    from posthouse.config import ConfigError, find, load

    try:
        return load(find(path))
    except ConfigError as exc:
        raise Problem(f"{exc}; {exc.mend}" if exc.mend else str(exc)) from exc


def with_storage(config_path: Path | None, work: Callable[[Storage, Config, World], Awaitable[T]], *needed: str) -> T:
    """Run `work` against the house's store, as the owner of its folder. A running house sees changes at once.

    `needed`: the modules that `work` imports.
    """
    import asyncio

    from posthouse.engines import open_storage
    from posthouse.world import World

    config = load_config(config_path)
    become_owner(config.data_dir, "posthouse.engines", *needed)
    require_writable(config.data_dir)
    world = World()

    async def run() -> T:
        storage = await open_storage(config, world)
        try:
            return await work(storage, config, world)
        finally:
            await storage.close()

    try:
        return asyncio.run(run())
    except StorageError as exc:
        raise Problem(str(exc) or type(exc).__name__) from exc


def become_owner(folder: Path, *needed: str) -> None:
    """Started as root, act as the folder's owner, so that no file in it comes to belong to root.

    `needed`: the modules that do the work; all of the house's where none is named.
    """
    from posthouse.service.user import become, owner_of

    owner = owner_of(folder) if os.geteuid() == 0 else None
    if owner is None:
        return
    # Python itself may lie where only root can read: what is imported late has to be there before.
    import importlib
    import importlib.readers

    for module in needed or ("posthouse.app",):
        importlib.import_module(module)
    become(owner)
    package = Path(__file__).parent.parent
    if not os.access(package, os.R_OK | os.X_OK):
        raise Problem(f"{package} cannot be read by {user_name()}, who owns {folder}; install posthouse elsewhere")


def sync_folders(*folders: Path) -> None:
    """The names in these folders are there after a power cut. Raises OSError."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_writable(folder: Path) -> None:
    """Say whose command it is where the folder belongs to somebody else. A missing folder is not judged here."""
    if not folder.exists():
        return
    require_writable_disk(folder)
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        for file in folder.glob("*.db"):
            if not os.access(file, os.R_OK | os.W_OK):
                raise Problem(f"{file} cannot be written by {user_name()}; run: {_making_ours(file, 'rw')}")
        return
    try:
        number = folder.stat().st_uid
    except OSError:
        number = 0
    owner = user_name(number)
    if number == os.geteuid():
        raise Problem(f"{folder} cannot be written by {owner}; run: chmod u+rwx {folder}")
    raise Problem(f"{folder} cannot be written by {user_name()}; run it as its owner: sudo -u {owner} posthouse …")


def require_writable_disk(folder: Path) -> None:
    """Raises Problem where the disk below a folder is mounted read-only, which no owner and no mode can mend."""
    try:
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError:
        return
    if read_only:
        mount = mount_point(folder)
        raise Problem(f"{mount} is mounted read-only, and {folder} is on it; run: sudo mount -o remount,rw {mount}")


def mount_point(folder: Path) -> Path:
    """The root of the file system that a folder is on."""
    path = folder.resolve()
    while not path.is_mount():
        path = path.parent
    return path


def _making_ours(file: Path, modes: str) -> str:
    """The command that lets us use a file of our folder."""
    if file.stat().st_uid == os.geteuid():
        return f"chmod u+{modes} {file}"
    return f"sudo chown {user_name()} {file}"


def user_name(number: int | None = None) -> str:
    """The name of a user (absent: whom this process acts as), or its number where it has none."""
    import pwd

    wanted = os.geteuid() if number is None else number
    try:
        return pwd.getpwuid(wanted).pw_name
    except KeyError:
        return str(wanted)


def address_argument(text: str) -> Address:
    """An address from the command line."""
    try:
        return parse_address(text)
    except AddressError as exc:
        raise Problem(f"{text!r} is not an address: {exc}") from exc


def domain_argument(text: str) -> str:
    """A domain from the command line, in its one spelling."""
    try:
        return parse_domain(text)
    except AddressError as exc:
        raise Problem(f"{text!r} is not a domain: {exc}") from exc


def print_json(rows: Sequence[dict[str, Any]]) -> None:
    """An array of objects. Written in ASCII, so that no peer's text can steer a terminal."""
    print(json.dumps(list(rows), indent=2))


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """A list: JSON objects with all their fields, or the named columns, aligned."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        print(empty)
        return
    table = [[column.replace("_", " ") for column in columns]]
    table += [[printable(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def printable(value: object) -> str:
    """A value as it may stand on a terminal: nothing from a peer can steer it."""
    return "" if value is None else visible(str(value))
