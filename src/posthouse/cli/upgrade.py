"""`posthouse upgrade` and `posthouse rollback`: the database of another version, there and back."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posthouse.cli.common import (
    ConfigOption,
    JsonOption,
    Problem,
    become_owner,
    load_config,
    print_json,
    printable,
    require_writable,
)
from posthouse.cli.progress import progress_shown
from posthouse.cli.store import not_served, told
from posthouse.mail.words import count, duration, moment, size
from posthouse.storage.errors import StorageError
from posthouse.storage.upkeep import Trial

if TYPE_CHECKING:
    from posthouse.config import Config

SHOWN_FLAWS = 20
_THIS_VERSION = "The database is of this version already; there is nothing to do."


def register(app: typer.Typer) -> None:
    """Add the commands. `migrate` is what earlier versions call it in their messages."""
    app.command("upgrade")(upgrade)
    app.command("migrate", hidden=True)(upgrade)
    app.command("rollback")(rollback)


def upgrade(
    config: ConfigOption = None,
    check: Annotated[bool, typer.Option("--check", help="Try it on a copy, and change nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Bring the database to this version, after a snapshot.

    The house must have ended. With --check it may go on serving, in its older version: the upgrade is tried on a copy
    of the database, which is gone afterwards; the exit status is 0 if it would succeed. For seven days after an upgrade
    posthouse rollback goes back.
    """
    loaded = _loaded(config)
    if check:
        _try(loaded, as_json=json)
        return
    from posthouse.storage.filesystem import RealFileSystem
    from posthouse.storage.sqlite import schema

    with not_served(loaded.data_dir, "upgrade"), progress_shown() as tell:
        started = time.monotonic()
        try:
            migrated, counts = schema.upgrade(loaded.data_dir, now=time.time(), disk=RealFileSystem(), tell=tell)
        except StorageError as exc:
            raise Problem(str(exc) or type(exc).__name__) from exc
    if json:
        print_json([] if migrated is None else [_fields(migrated)])
        return
    if migrated is None:
        print(_THIS_VERSION)
        return
    took = duration(time.monotonic() - started)
    print(f"The database is of schema {migrated.after} now; it was of {migrated.before}. It took {took}.")
    print(f"All mail is as it was: {told(counts)}.")
    print(f"The state before is in {migrated.snapshot}")
    print("Start the house: posthouse serve")
    print("If it must be the older version again, within seven days: posthouse rollback (no mail is lost)")


def _try(config: Config, *, as_json: bool) -> None:
    import asyncio

    from posthouse.storage.filesystem import RealFileSystem
    from posthouse.storage.sqlite.trial import try_migration

    with progress_shown() as tell:
        try:
            trial = asyncio.run(try_migration(config.data_dir, now=time.time(), disk=RealFileSystem(), tell=tell))
        except StorageError as exc:
            raise Problem(str(exc) or type(exc).__name__) from exc
    short = trial.free_octets < trial.needed_octets
    if as_json:
        print_json([{**_fields(trial), "ok": not (trial.flaws or short)}])
    else:
        _tell_trial(trial)
    if trial.flaws or short:
        sys.stdout.flush()
        what = [count(len(trial.flaws), "problem", "problems") + " on the copy, see above"] if trial.flaws else []
        what += [f"too little room: make room in {config.data_dir}"] if short else []
        raise Problem(f"not ready for the upgrade: {'; '.join(what)}")


def _tell_trial(trial: Trial) -> None:
    if trial.before == trial.after:
        print(_THIS_VERSION)
        return
    print(f"The upgrade from schema {trial.before} to {trial.after} was tried on a copy. Nothing is changed.")
    print("What it changes:" if trial.changes else "It changes no table.")
    for change in trial.changes:
        print(f"  {change}")
    for flaw in trial.flaws[:SHOWN_FLAWS]:
        print(f"problem  {flaw.check:<12} {printable(flaw.what)}; {printable(flaw.mend)}")
    if len(trial.flaws) > SHOWN_FLAWS:
        print(f"… and {len(trial.flaws) - SHOWN_FLAWS} more")
    if not trial.flaws:
        print("All mail is as it was, and every row is as it must be.")
    print(f"It takes about {duration(trial.copy_s + trial.migration_s)} (snapshot {duration(trial.copy_s)}).")
    print(f"It needs {size(trial.needed_octets)} of room; {size(trial.free_octets)} are free.")
    if not trial.flaws and trial.free_octets >= trial.needed_octets:
        print("Do it: end the house, then posthouse upgrade")


def rollback(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Undo the last upgrade, and keep all mail.

    The house must have ended; within seven days of the upgrade. Run it before the older version is installed again:
    only this one knows the way. Mail, accounts and passwords stay as they are now; what the older version has no place
    for is named, and is kept in a snapshot.
    """
    from posthouse.storage.filesystem import RealFileSystem
    from posthouse.storage.sqlite.rollback import roll_back

    loaded = _loaded(config)
    with not_served(loaded.data_dir, "roll back"), progress_shown() as tell:
        started = time.monotonic()
        try:
            done = roll_back(loaded.data_dir, now=time.time(), disk=RealFileSystem(), tell=tell)
        except StorageError as exc:
            raise Problem(str(exc) or type(exc).__name__) from exc
    if json:
        print_json([_fields(done)])
        return
    took = duration(time.monotonic() - started)
    print(f"The database is of schema {done.after} again, as before {moment(done.migrated_at)}. It took {took}.")
    print(f"All mail is in it: {told(done.counts)}.")
    for what in done.left_out:
        print(f"Left out, since the older version does not know it: {what}")
    if done.held:
        held = count(done.held, "recipient is held: it", "recipients are held: they")
        print(f"{held} may have been sent, or must leave by ways that the older version does not know.")
        print("See them with it: posthouse queue list; send them with: posthouse queue release ID")
    print(f"The state before is in {done.snapshot}")
    print("Install the older version now, then: posthouse serve (this one would upgrade again)")


def _loaded(config: ConfigOption) -> Config:
    loaded = load_config(config)
    become_owner(loaded.data_dir)
    require_writable(loaded.data_dir)
    return loaded


def _fields(told_of: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(told_of)
    return {name: str(value) if name in ("path", "snapshot") else value for name, value in fields.items()}
