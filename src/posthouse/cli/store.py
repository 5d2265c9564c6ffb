"""`posthouse migrate`: bring the store of a house that does not run to this version."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import typer

from posthouse.cli.common import ConfigOption, Problem, become_owner, load_config, require_writable
from posthouse.storage.errors import StorageError
from posthouse.storage.upkeep import Migrated


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("migrate")(migrate)


def migrate(config: ConfigOption = None) -> None:
    """Bring the database to this version, after a snapshot."""
    import asyncio

    from posthouse.app import World, open_storage

    loaded = load_config(config)
    become_owner(loaded.data_dir)
    require_writable(loaded.data_dir)
    done: list[Migrated] = []

    async def run() -> None:
        storage = await open_storage(loaded, World(), on_migrated=done.append)
        await storage.close()

    with not_served(loaded.data_dir, "migrate"):
        try:
            asyncio.run(run())
        except StorageError as exc:
            raise Problem(str(exc) or type(exc).__name__) from exc
    if not done:
        print("The database is of this version already.")
    for migrated in done:
        print(f"The database is of schema {migrated.after} now; it was of {migrated.before}.")
        print(f"Return to what it was with: posthouse restore {migrated.snapshot}")


@contextlib.contextmanager
def not_served(data_dir: Path, doing: str) -> Iterator[None]:
    """No house serves this folder, and none begins to meanwhile."""
    from posthouse.workers import AlreadyServed, lock_folder

    try:
        descriptor = lock_folder(data_dir)
    except AlreadyServed as exc:
        raise Problem(f"{exc}; end it first, then {doing}") from exc
    try:
        yield
    finally:
        os.close(descriptor)
