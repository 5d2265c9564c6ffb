"""`posthouse service`: a user of its own, folders with the narrowest modes, a unit; and away with it again."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.common import ConfigOption, JsonOption, Problem, load_config, print_json
from posthouse.service.unit import UNIT_FOLDER, UNIT_NAME, Unit
from posthouse.service.user import NoSuchUser, ServiceUser, as_user, find_user, opening, owner_of

if TYPE_CHECKING:
    from posthouse.config import Config

SYSTEMD_RUNS = Path("/run/systemd/system")
DEFAULT_USER = "posthouse"
NO_RIGHTS = 65534
"""The number of `nobody`, on every Linux."""

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
# For tests: where units stand is not a matter of taste.
FolderOption = Annotated[Path, typer.Option("--unit-folder", hidden=True)]

service = typer.Typer(no_args_is_help=True, help="Run the house as a service of the system.")


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(service, name="service")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, as a command line that a person could type instead."""

    command: str
    act: Callable[[], None]


@service.command("install")
def install(
    config: ConfigOption = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Whom it runs as; made if missing.", show_default=False)
    ] = None,
    dry_run: DryRunOption = False,
    unit_folder: FolderOption = UNIT_FOLDER,
) -> None:
    """Make the user, give it the folders, write the unit, and start it where systemd runs. May be repeated."""
    from posthouse.config import find

    loaded = load_config(config)
    file = find(config).absolute()
    name = _service_user(loaded, user)
    if not dry_run:
        _require_root("install")
    if not loaded.data_dir.is_dir():
        raise Problem(f"{loaded.data_dir} is not there; make the house with: posthouse init")
    program = _program()
    unit = Unit(program=program, config=file, data_dir=loaded.data_dir.resolve(), user=name, group=_group_of(name))
    if not dry_run:
        _require_runnable(name, unit)
    steps = [*_user_steps(name, loaded), *_folder_steps(name, loaded, file)]
    _go(steps, dry_run=dry_run)
    if not dry_run:
        _require_readable(name, file)
    _go(_unit_steps(unit, unit_folder), dry_run=dry_run)
    if not SYSTEMD_RUNS.is_dir():
        print("systemd does not run here, so nothing was started and nothing starts it at boot. Start it with:")
        print(f"  {shlex.join(program)} serve --config {shlex.quote(str(file))}")
        print(f"as root: it opens the ports and becomes {name}. In a container, let that be its command.")
    elif not dry_run:
        print(f"{UNIT_NAME} runs, and starts at boot. Look: posthouse service status; its log: journalctl -u posthouse")


@service.command("status")
def status(config: ConfigOption = None, json: JsonOption = False, unit_folder: FolderOption = UNIT_FOLDER) -> None:
    """Say whether the service is installed and whether the house runs; the exit status is 0 only if it runs."""
    from posthouse.cli.check import is_served

    loaded = load_config(config)
    runs = is_served(loaded)
    rows = [{"what": "house", "state": "runs" if runs else "does not run", "where": str(loaded.data_dir)}]
    unit = unit_folder / UNIT_NAME
    rows.append({"what": "unit", "state": "installed" if unit.exists() else "not installed", "where": str(unit)})
    if SYSTEMD_RUNS.is_dir():
        for question in ("is-active", "is-enabled"):
            answer = _asked("systemctl", question, UNIT_NAME)
            rows.append({"what": question.removeprefix("is-"), "state": answer or "unknown", "where": "systemd"})
        rows.append({"what": "says", "state": _asked("systemctl", "show", "-P", "StatusText", UNIT_NAME), "where": ""})
    else:
        rows.append({"what": "systemd", "state": "does not run", "where": "this machine"})
    if json:
        print_json(rows)
    else:
        for row in rows:
            print(f"{row['what']:<8} {row['state']}" + (f"  ({row['where']})" if row["where"] else ""))
    if not runs:
        sys.stdout.flush()
        way = "systemctl start posthouse" if SYSTEMD_RUNS.is_dir() and unit.exists() else "posthouse serve"
        raise Problem(f"the house does not run; start it with: {way}")


@service.command("uninstall")
def uninstall(dry_run: DryRunOption = False, unit_folder: FolderOption = UNIT_FOLDER) -> None:
    """Stop the service and remove its unit. Mail, configuration and user stay."""
    unit = unit_folder / UNIT_NAME
    if not unit.exists():
        raise Problem(f"{unit} is not there, so there is nothing to uninstall")
    if not dry_run:
        _require_root("uninstall")
    steps = []
    if SYSTEMD_RUNS.is_dir():
        steps.append(_running("systemctl", "disable", "--now", UNIT_NAME))
    steps.append(Step(f"rm {unit}", unit.unlink))
    if SYSTEMD_RUNS.is_dir():
        steps.append(_running("systemctl", "daemon-reload"))
    _go(steps, dry_run=dry_run)
    print("The mail, the configuration and the user are still there.")


def _service_user(config: Config, asked: str | None) -> str:
    """As asked, as configured, the owner of the folder, else one of our own."""
    owner = owner_of(config.data_dir)
    name = asked or config.user or (owner.name if owner is not None else DEFAULT_USER)
    if config.user is not None and name != config.user:
        raise Problem(f"the configuration says user = {config.user!r}; change it there, or leave --user out")
    if name in ("root", "0"):
        raise Problem("the service must not be root; name another user, such as posthouse")
    return _with_name(name, config)


def _with_name(name: str, config: Config) -> str:
    """systemd, useradd and chown want names; a number that belongs to nobody is none, and makes none."""
    if not (name.isascii() and name.isdigit()):
        return name
    try:
        return find_user(name).name
    except NoSuchUser:
        pass
    if config.user is not None:
        mend = f"make one with: useradd --system --uid {name} posthouse, or change user in the configuration"
    else:
        mend = f"give the house to a user of its own: posthouse service install --user {DEFAULT_USER}"
    raise Problem(f"user {name} has no name on this machine; {mend}")


def _group_of(name: str) -> str:
    import grp

    try:
        return grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name
    except KeyError:
        return name


def _require_root(command: str) -> None:
    if os.geteuid() != 0:
        raise Problem(f"only root can do this; run: sudo posthouse service {command}, or add --dry-run to see it")


def _program() -> tuple[str, ...]:
    """How this program is started: by its own name where there is one, else through Python."""
    named = Path(sys.argv[0])
    found = named if named.name == "posthouse" and named.exists() else shutil.which("posthouse")
    if found is not None:
        return (str(Path(found).absolute()),)
    return (sys.executable, "-m", "posthouse.cli")


def _user_steps(name: str, config: Config) -> Iterator[Step]:
    try:
        pwd.getpwnam(name)
    except KeyError:
        # Nobody logs in as it, and nothing is made for it: its home is where the mail is.
        yield _running(
            *("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"),
            *("--home-dir", str(config.data_dir.resolve()), name),
        )


def _folder_steps(name: str, config: Config, file: Path) -> Iterator[Step]:
    """The mail is the user's alone. The configuration is root's and read by the user, unless it lies in its folder."""
    folder = config.data_dir.resolve()
    yield _running("chown", "--recursive", "--no-dereference", f"{name}:{_group_of(name)}", str(folder))
    yield _running("chmod", "u=rwx,go=", str(folder))
    if not file.resolve().is_relative_to(folder):
        yield _running("chown", f"root:{_group_of(name)}", str(file))
    yield _running("chmod", "u=rw,g=r,o=", str(file))


def _unit_steps(unit: Unit, folder: Path) -> Iterator[Step]:
    path = folder / UNIT_NAME

    def write() -> None:
        new = path.with_name(f".{UNIT_NAME}.new")
        new.write_text(unit.text(), encoding="utf-8")
        new.chmod(0o644)
        new.rename(path)

    yield Step(f"write {path}", write)
    if SYSTEMD_RUNS.is_dir():
        yield _running("systemctl", "daemon-reload")
        yield _running("systemctl", "enable", UNIT_NAME)
        # Whether it ran before or not; Type=notify: this returns when the doors are open, or says why not.
        yield _running("systemctl", "restart", UNIT_NAME)


def _require_runnable(name: str, unit: Unit) -> None:
    """What the service would stumble over at its start is said before anything of the system is changed."""
    try:
        user = find_user(name)
    except NoSuchUser:
        # It is made yet, and will be in no group but its own: who has no rights of its own stands for it.
        user = ServiceUser(name, NO_RIGHTS, NO_RIGHTS)
    package = Path(__file__).parents[1]
    program, python = Path(unit.program[0]), Path(sys.executable).resolve()

    def look() -> list[bool]:
        return [os.access(python, os.X_OK), os.access(program, os.X_OK), os.access(package, os.R_OK | os.X_OK)]

    knows_python, runs, reads = as_user(user, look)
    if not knows_python:
        raise Problem(
            f"{python}, the Python that {program} is run by, cannot be run by {name}; make the virtual environment "
            "with one that everybody may run: /usr/bin/python3 -m venv /opt/posthouse"
        )
    if not (runs and reads):
        raise Problem(
            f"{program} cannot be run by {name}, so it cannot be a service; install posthouse where everybody may "
            "read, such as a virtual environment in /opt/posthouse"
        )


def _require_readable(name: str, file: Path) -> None:
    try:
        user = find_user(name)
    except NoSuchUser as exc:
        raise Problem(str(exc)) from exc
    if not as_user(user, lambda: os.access(file, os.R_OK)):
        raise Problem(f"{file} cannot be read by {name}; run: {_opening(user, file)}")


def _opening(user: ServiceUser, file: Path) -> str:
    return opening(user, file) or f"mv {file} /etc/posthouse/"


def _running(*words: str) -> Step:
    def run() -> None:
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        except OSError as exc:
            raise Problem(f"{words[0]} cannot be run: {exc.strerror}; is it installed, and are you root?") from exc
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
            raise Problem(f"{shlex.join(words)} failed: {last}; mend that and run it again")

    return Step(shlex.join(words), run)


def _asked(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False).stdout.strip()
    except OSError:
        return ""


def _go(steps: Iterator[Step] | list[Step], *, dry_run: bool) -> None:
    for step in steps:
        print(f"would run: {step.command}" if dry_run else step.command)
        if not dry_run:
            sys.stdout.flush()
            step.act()
