"""`posthouse backup` and `restore`: the store as a whole."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posthouse.cli.common import (
    ConfigOption,
    JsonOption,
    Problem,
    become_owner,
    load_config,
    print_json,
    require_writable,
    sync_folders,
    user_name,
    with_storage,
)
from posthouse.cli.house import CONFIG_NAME
from posthouse.cli.progress import progress_shown
from posthouse.mail.words import count, moment, size
from posthouse.storage.errors import StorageError, StoreInTheWay
from posthouse.storage.upkeep import HOUSE, Counts, Manifest, Order, Restored

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="The folder to make.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Copy the whole store into a new folder.

    The copy is the store at one moment; the house may serve meanwhile. The configuration and the self-signed
    certificate are copied too.
    """
    from posthouse.config import ConfigError, find

    # Without `..`, as it is told; not through symlinks, whose names are the operator's.
    target = Path(os.path.abspath(folder))
    try:
        file = find(config).absolute()
    except ConfigError as exc:
        raise Problem(str(exc)) from exc

    async def work(storage: Storage, loaded: Config, _world: World) -> Manifest:
        _require_place(target)
        with progress_shown() as tell:
            return await storage.backup(target, _order(loaded, file), tell)

    manifest = with_storage(config, work, "posthouse.app")
    if json:
        print_json([{"folder": str(target), **dataclasses.asdict(manifest)}])
        return
    print(f"The backup is in {target}: {told(manifest.counts)}.")
    for path in manifest.left_out:
        print(f"It does not hold {path}: keep a copy of it elsewhere.")
    print(f"Return to it with: posthouse restore {target}")


def _require_place(target: Path) -> None:
    """Root may write anywhere, and its backup is made by the owner of the house, who may not."""
    parent, owner = target.parent, user_name()
    if os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK):
        return
    is_there = os.path.lexists(parent)
    place = parent / f"{owner}-backups" if is_there else parent
    wrong = f"cannot be written by {owner}, as whom the backup is made" if is_there else "does not exist"
    raise Problem(
        f"{parent} {wrong}; make a place for it: "
        f"sudo install -d -o {owner} -m 0700 {place}, then: posthouse backup {place / target.name}"
    )


def _order(config: Config, file: Path) -> Order:
    """What belongs to the house besides its store: what is ours is copied, what others manage is named."""
    from posthouse.doors import SELF_SIGNED

    pair = {name: config.data_dir / name for name in SELF_SIGNED if (config.data_dir / name).is_file()}
    left_out = [path for path in (config.tls.certificate, config.tls.key) if path is not None]
    house = {CONFIG_NAME: file, **pair}
    for name, path in [*house.items()]:
        # Root may read what the owner of the store may not.
        if not os.access(path, os.R_OK):
            left_out.append(house.pop(name))
    return Order(hostname=config.hostname, house=house, left_out=tuple(map(str, left_out)))


def restore(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", show_default=False, help="A backup, or the snapshot of a migration.")
    ],
    config: ConfigOption = None,
    leave_out_damaged: Annotated[
        bool, typer.Option("--leave-out-damaged", help="Restore a damaged backup, all but the messages it lost.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Return to a backup, or to a migration's snapshot.

    A backup is restored where there is no store; a snapshot takes the place of the store that is there, which is kept
    in a folder of its own. What waited in the queue is held until it is released: it may have been sent meanwhile.
    """
    from posthouse.engines import restore_storage
    from posthouse.world import World

    # As it was written on the command line, it belongs to this folder; as another user we may not see it.
    source = Path(os.path.abspath(source))
    if not source.exists():
        raise Problem(f"{source} does not exist; name a folder that posthouse backup made")
    loaded = _config_for(source, config)
    is_new = not loaded.data_dir.exists()
    try:
        if is_new:
            _make_data_dir(loaded.data_dir, source)
        become_owner(loaded.data_dir)
        require_writable(loaded.data_dir)
        with not_served(loaded.data_dir, "restore"), progress_shown() as tell:
            restored = restore_storage(loaded, World(), source, tell, leave_out_damaged=leave_out_damaged)
    except StoreInTheWay as exc:
        raise Problem(f"{exc}{_then(source, loaded, config)}") from exc
    except (StorageError, OSError) as exc:
        if is_new:
            with contextlib.suppress(OSError):
                (loaded.data_dir / "serve.lock").unlink(missing_ok=True)
                loaded.data_dir.rmdir()
        raise Problem(str(exc)) from exc
    if json:
        print_json([{"data_dir": str(loaded.data_dir), **_fields(restored)}])
        return
    _tell_restored(restored, source, loaded.data_dir)


def _then(source: Path, config: Config, named: Path | None) -> str:
    """What comes after moving the folder away. The configuration in it goes with it, as does whoever stands in it."""
    from posthouse.config import find

    file, folder = (Path(os.path.abspath(path)) for path in (find(named), config.data_dir))
    if source.is_relative_to(folder):
        source = Path(f"{folder}.old") / source.relative_to(folder)
    if not file.is_relative_to(folder):
        return f", then: posthouse restore {source}"
    return f", then: cd / && posthouse restore {source} --config {file}"


def _make_data_dir(data_dir: Path, source: Path) -> None:
    """A new folder, there after a power cut too. What root makes belongs to the backup's owner, as the house did."""
    missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    data_dir.mkdir(mode=0o700, parents=True)
    if os.geteuid() == 0:
        owner = source.stat()
        os.chown(data_dir, owner.st_uid, owner.st_gid)
    sync_folders(*(path.parent for path in missing))


def _let_read(path: Path, source: Path) -> None:
    """What root put back can be read by the house; written only by the owner of the folder it lies in."""
    if os.geteuid() == 0:
        os.chown(path, path.absolute().parent.stat().st_uid, source.stat().st_gid)
        path.chmod(0o640)


def _config_for(source: Path, named: Path | None) -> Config:
    """The configuration that is there; where there is none, the backup's is put in its place."""
    from posthouse.config import ConfigError, find

    kept = source / HOUSE / CONFIG_NAME
    try:
        path = find(named)
    except ConfigError:
        path = Path(CONFIG_NAME)
    if not path.exists() and kept.is_file():
        try:
            if not path.parent.exists():
                _make_data_dir(path.parent, source)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(kept.read_bytes())
            _let_read(path, source)
        except OSError as exc:
            raise Problem(f"{path} cannot be written: {exc.strerror}; name another place with --config") from exc
        print(f"The configuration was put back as {path}: look whether its paths are right.", file=sys.stderr)
    elif named is None and not path.exists():
        raise Problem(f"there is no {path} here and none in {source}; is it a backup? If so, name one with --config")
    return load_config(named if named is not None else path)


def _fields(restored: Restored) -> dict[str, Any]:
    fields = dataclasses.asdict(restored)
    return {**fields, "set_aside": None if restored.set_aside is None else str(restored.set_aside)}


def _tell_restored(restored: Restored, source: Path, data_dir: Path) -> None:
    print(f"{data_dir} is as it was on {moment(restored.made_at)}: {told(restored.counts)}.")
    print(f"Mail that was accepted after that is not in it. (From {source})")
    if restored.dropped:
        entries = count(restored.dropped, "entry or recipient", "entries or recipients")
        why = "is missing or damaged in the backup" if source.is_dir() else "had been deleted or delivered since"
        print(f"{entries} left out, whose content {why}.")
    if restored.set_aside is not None:
        print(f"What was there until now is in {restored.set_aside}; remove that folder when nobody misses anything.")
    if restored.held:
        print(f"{count(restored.held, 'recipient is', 'recipients are')} held: they may have been sent meanwhile.")
        print("See them with: posthouse queue list; send them with: posthouse queue release --restored")
    print("Look at all of it with: posthouse check --store; then start the house: posthouse serve")


def told(counts: Counts) -> str:
    """How much there is, in words."""
    messages = f"{count(counts.entries, 'message', 'messages')} in maildrops"
    accounts = f"of {count(counts.accounts, 'account', 'accounts')}"
    queued = f"{count(counts.queued, 'recipient', 'recipients')} in the queue"
    return f"{messages} {accounts}, {queued}, {size(counts.content_octets)} of content"


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
