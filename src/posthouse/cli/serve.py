"""`posthouse serve`: ports first, then the user is become, and only as that user anything is read or written."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.common import ConfigOption, Problem, load_config, require_writable, user_name
from posthouse.cli.obstacles import certificate_advice, clock_problem, disk_problem, port_advice
from posthouse.service.notify import Notifier
from posthouse.service.user import NoSuchUser, ServiceUser, become, chosen_user, find_user, opening
from posthouse.storage.errors import StorageError, StorageFull

if TYPE_CHECKING:
    import asyncio
    import socket

    from posthouse.config import Config
    from posthouse.config_values import Endpoint
    from posthouse.held import HeldFiles
    from posthouse.log import Log
    from posthouse.workers import Part, ToParent

DESCRIPTORS = 65_536
STAYS_ROOT = 'the house runs as root; make a user for it: posthouse service install, or set user = "…"'


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What a start came to before the house is made."""

    file: Path
    """Absolute: another one may stand in the usual places when it is read again."""
    config: Config
    doors: Mapping[str, tuple[socket.socket, ...]]
    log: Log
    notifier: Notifier
    until_eof: bool

    @property
    def shown(self) -> dict[str, str]:
        """Where it listens, for people."""
        from posthouse.config_values import Endpoint

        doors = {door: [Endpoint(*s.getsockname()[:2]) for s in sockets] for door, sockets in self.doors.items()}
        return {door: " ".join(map(str, endpoints)) for door, endpoints in doors.items() if endpoints}


def serve(
    config: ConfigOption = None,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Run the house until SIGTERM or Ctrl-C; SIGHUP reloads it."""
    from posthouse.config import find
    from posthouse.log import make_log

    notifier = Notifier.from_environment(os.environ, os.getpid())
    loaded = load_config(config)
    file = find(config).absolute()
    _take_descriptors()
    _forbid(clock_problem(loaded.data_dir))
    _forbid(disk_problem(loaded.data_dir))
    if os.geteuid():
        _require_user(loaded)
        require_writable(loaded.data_dir)
    log = make_log(level=loaded.log.level, form=loaded.log.format)
    with contextlib.ExitStack() as held:
        held.callback(os.umask, os.umask(0o077))
        with _told(loaded):
            doors = _opened(loaded, held)
        if not os.geteuid():
            _become(loaded, file)
        require_writable(loaded.data_dir)
        start = _Start(file=file, config=loaded, doors=doors, log=log, notifier=notifier, until_eof=until_eof)
        _serve_alone(start) if loaded.workers == 1 else _lead(start)
    log.info("house closed")


def _opened(config: Config, held: contextlib.ExitStack) -> dict[str, tuple[socket.socket, ...]]:
    """The bound doors, those that systemd hands over among them; before them the folder's lock."""
    from posthouse.doors import ADMIN, SERVICES, bind_doors
    from posthouse.service.sockets import for_doors, handed_over
    from posthouse.workers import lock_folder

    listen: dict[str, tuple[Endpoint, ...]] = {door: getattr(config.listen, door) for door in (*SERVICES, ADMIN)}
    handed = for_doors(handed_over(os.environ, os.getpid()), listen)
    held.callback(os.close, lock_folder(config.data_dir))
    doors = bind_doors(config, handed)
    for sockets in doors.values():
        for opened in sockets:
            held.callback(opened.close)
    return doors


def _forbid(problem: str | None) -> None:
    if problem is not None:
        raise Problem(problem)


def _require_user(config: Config) -> None:
    """Not root: then we have to be that user already."""
    if config.user is None:
        return
    try:
        user = find_user(config.user)
    except NoSuchUser as exc:
        raise Problem(str(exc)) from exc
    if not user.is_us:
        raise Problem(
            f"the configuration says user = {config.user!r}, and this is {user_name()}; "
            f"run: sudo -u {user.name} posthouse serve, or as root, or take user out"
        )


def _become(config: Config, file: Path) -> None:
    """Root becomes the user of the configuration, else the owner of the data folder."""
    try:
        user = chosen_user(config.user, config.data_dir)
        if user is None:
            return
        # Python itself may lie where only root can read: what is imported late has to be there before.
        import importlib.readers  # noqa: F401

        import uvloop  # noqa: F401

        import posthouse.app  # noqa: F401

        mending = opening(user, file)
        become(user)
    except NoSuchUser as exc:
        raise Problem(str(exc)) from exc
    except OSError as exc:
        raise Problem(f"root cannot become another user here ({exc.strerror}); start it as that user") from exc
    package = Path(__file__).parent.parent
    if not os.access(package, os.R_OK | os.X_OK):
        raise Problem(f"{package} cannot be read by {user.name}; install posthouse elsewhere, such as /opt/posthouse")
    _require_own_folder(config, user)
    if not os.access(file, os.R_OK):
        raise Problem(f"{file} cannot be read by {user.name}, as a reload does; run: {mending or 'chmod o+r'}")


def _require_own_folder(config: Config, user: ServiceUser) -> None:
    if not os.access(config.data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise Problem(
            f"{config.data_dir} cannot be written by {user.name}, whom the house becomes; "
            f"run: chown -R {user.name}: {config.data_dir}"
        )


def _take_descriptors() -> None:
    """As many open files as this process may have: the usual limit of 1024 is less than our sessions."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tell_open(start: _Start, **facts: object) -> None:
    """One line, and systemd: mail is taken from now on."""
    is_root = os.geteuid() == 0
    facts |= {"hostname": start.config.hostname, "user": user_name(), **start.shown}
    if is_root:
        start.log.warning("house open", **facts, mend=STAYS_ROOT)
    else:
        start.log.info("house open", **facts)
    start.notifier.ready(_status(start.config, start.shown))


def _status(config: Config, shown: Mapping[str, str]) -> str:
    doors = ", ".join(f"{door} {where}" for door, where in shown.items())
    return f"{config.hostname} is open: {doors or 'no door'}"


def _serve_alone(start: _Start) -> None:
    """The whole house in this process."""
    from posthouse.workers import Part

    def reload(house_reload: Callable[[], bool]) -> None:
        start.notifier.reloading()
        house_reload()
        start.notifier.ready(_status(start.config, start.shown))

    _run_house(
        start,
        Part(doors=start.doors),
        start.config,
        start.log,
        ready=partial(_tell_open, start),
        stopping=start.notifier.stopping,
        alive=start.notifier.alive,
        every_s=start.notifier.watchdog_every_s,
        around_reload=reload,
        ends=sys.stdin.fileno() if start.until_eof else None,
    )


def _lead(start: _Start) -> None:
    """The parent of the house's worker processes. It holds the configuration that the next worker begins with."""
    from posthouse.config import ConfigError, load, reloaded
    from posthouse.held import HeldFiles
    from posthouse.net.tls import CertificateUnusable
    from posthouse.workers import SAID_WHY, WorkerFailed, Workers
    from posthouse.world import SystemClock

    current = [start.config]
    with _told(start.config):
        held = HeldFiles(start.config, SystemClock())

    def reload() -> bool:
        """Each worker reads the file; one that is wrong, or names what cannot be used, is told once, here."""
        start.notifier.reloading()
        try:
            config, _ignored = reloaded(current[0], load(start.file))
            held.reload(config)
            current[0] = config
        except (ConfigError, CertificateUnusable) as exc:
            start.log.error("configuration not reloaded; the one before stays in use", reason=str(exc))
            return False
        finally:
            start.notifier.ready(_status(current[0], start.shown))
        return True

    def work(part: Part, to_parent: ToParent) -> int:
        return _be_worker(start, part, current[0], to_parent, held)

    def turn() -> None:
        held.look()
        start.notifier.alive()

    workers = Workers(
        work,
        start.config.workers,
        start.doors,
        start.log,
        reload=reload,
        stopping=start.notifier.stopping,
        turn=turn,
        until_eof=start.until_eof,
    )
    try:
        workers.run(partial(_tell_open, start, workers=start.config.workers))
    except WorkerFailed as exc:
        if exc.told:
            raise typer.Exit(SAID_WHY) from exc
        raise Problem(str(exc)) from exc


def _be_worker(start: _Start, part: Part, config: Config, to_parent: ToParent, held: HeldFiles) -> int:
    """One worker, in its process, to its end: the exit status."""
    from posthouse.workers import ALIVE, READY, SAID_WHY

    try:
        _run_house(
            start,
            part,
            config,
            start.log.bind(worker=part.number),
            ready=partial(to_parent.say, READY),
            alive=partial(to_parent.say, ALIVE),
            ends=to_parent.ends,
            held=held,
        )
    except Problem as problem:
        print(f"posthouse: {problem}", file=sys.stderr)
        return SAID_WHY
    return 0


def _run_house(
    start: _Start,
    part: Part,
    config: Config,
    log: Log,
    *,
    ready: Callable[[], None],
    alive: Callable[[], None],
    ends: int | None,
    stopping: Callable[[], None] = lambda: None,
    around_reload: Callable[[Callable[[], bool]], object] = lambda reload: reload(),
    every_s: float | None = None,
    held: HeldFiles | None = None,
) -> None:
    """A loop with a house, or one worker's part of it, and a watchdog over both."""
    import asyncio

    import uvloop

    from posthouse.app import House
    from posthouse.config import load
    from posthouse.service.watchdog import LOOK_EVERY_S, Pulse, Watchdog
    from posthouse.workers import HANDLED

    pulse = Pulse()
    watchdog = Watchdog(pulse, alive=alive, every_s=every_s or LOOK_EVERY_S)
    house = House(config, log, part=part, pulse=pulse, held=held)

    def opened() -> None:
        watchdog.start()
        ready()

    def stop() -> None:
        stopping()
        watchdog.stop()
        house.stop()

    def reload() -> None:
        around_reload(lambda: house.reload(lambda: load(start.file)))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        _on_the_end(loop, stop, ends)
        # A start may take long, and the signal's own effect is the end.
        came_early = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, came_early.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        with _told(config):
            await house.start()
        loop.add_signal_handler(signal.SIGHUP, reload)
        if came_early.is_set():
            reload()
        await house.serve(opened)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@contextlib.contextmanager
def _told(config: Config) -> Iterator[None]:
    """What stands in the way of a start, as one line with what to do."""
    from posthouse.config import ConfigError
    from posthouse.net.listener import PortTaken
    from posthouse.net.tls import CertificateUnusable
    from posthouse.service.sockets import WrongSockets
    from posthouse.workers import AlreadyServed

    try:
        yield
    except PortTaken as exc:
        raise Problem(f"{exc}{port_advice(exc)}") from exc
    except CertificateUnusable as exc:
        raise Problem(f"{exc}{certificate_advice(config, exc)}") from exc
    except StorageFull as exc:
        raise Problem(f"{exc}; make room, and look with: df -h {config.data_dir}") from exc
    except (StorageError, AlreadyServed, WrongSockets, ConfigError) as exc:
        raise Problem(str(exc)) from exc
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Problem(f"the disk is full; make room, and look with: df -h {config.data_dir}") from exc


def _on_the_end(loop: asyncio.AbstractEventLoop, stop: Callable[[], None], ends: int | None) -> None:
    """End gracefully when asked to, or when whoever holds the other end of a descriptor is no more."""
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if ends is None:
        return

    def readable() -> None:
        loop.remove_reader(ends)
        stop()

    loop.add_reader(ends, readable)
