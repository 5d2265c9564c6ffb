"""`posthouse collect`: fetch mail from the accounts at other houses now, and say how it goes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posthouse.cli.common import (
    ConfigOption,
    JsonOption,
    Problem,
    address_argument,
    print_json,
    print_rows,
    printable,
    with_storage,
)
from posthouse.mail.words import count, duration, moment, size

if TYPE_CHECKING:
    from posthouse.collection.collector import Report
    from posthouse.collection.intake import Hear
    from posthouse.config import Config
    from posthouse.mail.source import Source
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

_NEEDED = ("posthouse.engines", "posthouse.collecting")
LOOK_EVERY_S = 5.0
_COLUMNS = ("address", "server", "keeps", "every", "collected", "state")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("collect")(collect)


def collect(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ADDRESS]...", show_default=False, help="Only from these; else from all."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="One session with each, now, and no more.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Say from where mail is collected, and how it went.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Collect mail from your accounts at other houses.

    As often as each account says, until Ctrl-C; or once. A house that runs (posthouse serve) does it by itself.
    """
    wanted = {address_argument(text).key for text in addresses or ()}
    if show:
        sources = with_storage(config, lambda storage, *_: _sources(storage, wanted))
        print_rows([_row(source) for source in sources], _COLUMNS, as_json=json, empty=_NONE)
        return

    if not once:
        if json:
            raise Problem("--json is for one session: posthouse collect --once --json")
        with_storage(config, lambda *house: _go_on(wanted, *house), *_NEEDED)
        return

    async def work(storage: Storage, config: Config, world: World) -> list[tuple[Source, Report | None]]:
        return [await _one(storage, config, world, source) for source in await _sources(storage, wanted)]

    done = with_storage(config, work, *_NEEDED)
    if json:
        print_json([_report_row(source, report) for source, report in done])
    elif not done:
        print(_NONE)
    else:
        for source, report in done:
            _say(source, report)
    sys.stdout.flush()
    failed = [f"{source.settings.address}: {report.failure}" for source, report in done if report and report.failure]
    if failed:
        raise Problem("; ".join(failed))


async def _go_on(wanted: set[str], storage: Storage, config: Config, world: World) -> None:
    """Session after session, until somebody ends it."""
    if not await _sources(storage, wanted):
        print(_NONE)
        return
    while True:
        for source in await _sources(storage, wanted):
            if not source.state.refused and source.state.next_at <= world.clock.now():
                done, report = await _one(storage, config, world, source)
                _say(done, report)
                if report is not None and report.failure:
                    print(f"posthouse: {printable(report.failure)}", file=sys.stderr)
                sys.stdout.flush()
        await asyncio.sleep(LOOK_EVERY_S)


def _say(source: Source, report: Report | None) -> None:
    print(f"{printable(source.settings.address)}: {_told(report)}")


_NONE = "No mail is collected from elsewhere. Add an account: posthouse add-account ADDRESS"


async def _sources(storage: Storage, wanted: set[str]) -> Sequence[Source]:
    found = await storage.sources.all()
    if missing := wanted - {source.settings.address.key for source in found}:
        raise Problem(f"no mail is collected from {', '.join(sorted(missing))}; see: posthouse collect --list")
    return [source for source in found if not wanted or source.settings.address.key in wanted]


async def _one(storage: Storage, config: Config, world: World, source: Source) -> tuple[Source, Report | None]:
    """One session; None: the running house has one already."""
    from posthouse.collecting import collector_of, turns_folder
    from posthouse.collection.turn import AlreadyCollecting, turn

    logins = {each.account: each.login for each in await storage.administration.accounts()}
    try:
        with turn(turns_folder(config), source.source), _bar(str(source.settings.address)) as hear:
            collector = collector_of(config, storage, world)
            return source, await collector.collect(source, logins[source.settings.account], hear)
    except AlreadyCollecting:
        return source, None


@contextmanager
def _bar(title: str) -> Iterator[Hear | None]:
    """Messages, rate and remaining time, on a terminal; gone when the session ends."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[messages]}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(printable(title), total=None, messages="")

        def hear(messages: int, octets: int, of_messages: int, of_octets: int) -> None:
            bars.update(task, completed=octets, total=max(of_octets, octets), messages=f"{messages}/{of_messages}")

        yield hear


def _told(report: Report | None) -> str:
    if report is None:
        return "the running house is collecting from it now"
    new = f"{count(report.collected, 'new message', 'new messages')} ({size(report.octets)})"
    parts = [new if report.collected else "nothing new"]
    if report.recognised:
        parts.append(f"{report.recognised} known under other names")
    if report.deleted:
        parts.append(f"{report.deleted} deleted there")
    if report.failure:
        parts.append("then it failed" if report.collected else "it failed")
    return ", ".join(parts)


def _report_row(source: Source, report: Report | None) -> dict[str, Any]:
    row: dict[str, Any] = {"address": str(source.settings.address), "server": str(source.settings.server)}
    if report is None:
        return {**row, "state": "running"}
    return {
        **row,
        "state": "failed" if report.failure else "done",
        "collected": report.collected,
        "octets": report.octets,
        "deleted": report.deleted,
        "recognised": report.recognised,
        "listed": report.listed,
        "failure": report.failure or None,
    }


def _row(source: Source) -> dict[str, Any]:
    settings, state = source.settings, source.state
    return {
        "address": str(settings.address),
        "server": str(settings.server),
        "protection": str(settings.server.protection),
        "login": settings.login,
        "folder": settings.folder,
        "keeps": f"{settings.policy.days} days" if settings.policy.days else str(settings.policy.keeping),
        "every": duration(settings.interval_s),
        "collected": moment(state.collected_at) if state.collected_at is not None else "never",
        "state": "needs a password" if state.refused else state.failure or "ok",
        "next": None if state.refused or not state.next_at else moment(state.next_at),
    }
