"""What the commands share: finding the house, running against its store, printing lists."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from posthouse.app import World, open_storage
from posthouse.config import Config, ConfigError, find, load
from posthouse.mail.address import Address, AddressError, parse_address, parse_domain
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Storage

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The configuration file.", show_default=False, metavar="FILE"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print an array of JSON objects.")]

T = TypeVar("T")


class Problem(Exception):
    """What went wrong and what mends it, in one line."""


def load_config(path: Path | None) -> Config:
    """The configuration that the options or the usual places name."""
    try:
        return load(find(path))
    except ConfigError as exc:
        raise Problem(str(exc)) from exc


def with_storage(config_path: Path | None, work: Callable[[Storage, Config, World], Awaitable[T]]) -> T:
    """Run `work` against the house's store, as the owner of its folder. A running house sees changes at once."""
    config = load_config(config_path)
    become_owner(config.data_dir)
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


def become_owner(folder: Path) -> None:
    """Started as root, act as the folder's owner, so that no file in it comes to belong to root."""
    if os.geteuid() != 0 or not folder.exists():
        return
    owner = folder.stat()
    if owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


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


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """A list: JSON objects with all their fields, or the named columns, aligned."""
    if as_json:
        print(json.dumps(list(rows), ensure_ascii=False, indent=2))
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
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
