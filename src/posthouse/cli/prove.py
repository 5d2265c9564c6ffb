"""`posthouse prove`."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from posthouse.prove.faults import Family
    from posthouse.prove.report import Report
    from posthouse.prove.run import Tell

INTERRUPTED = 130
LONGEST_MINUTES = 24 * 60
PLAIN_EVERY_S = 10.0
"""How often a line is written where there is no terminal."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("prove")(prove)


def prove(
    minutes: Annotated[
        float,
        typer.Option(
            "--minutes", min=0.1, max=LONGEST_MINUTES, help="How long, with the last check after it.", metavar="N"
        ),
    ] = 5.0,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Repeat the faults of the run that printed it.", metavar="S")
    ] = None,
    faults: Annotated[
        str,
        typer.Option("--faults", help="Of kill,worker,network,freeze,restart,reload,disk only these.", metavar="LIST"),
    ] = "",
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds", min=0, help="So many rounds, however long they take.", show_default=False, metavar="N"
        ),
    ] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder of the houses.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as a JSON object.")] = False,
) -> None:
    """Break two throw-away houses, and count what they lost."""
    import uvloop

    from posthouse.prove.run import Order
    from posthouse.prove.run import prove as run

    order = Order(
        minutes=minutes,
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
        families=_families(faults),
        rounds=rounds,
        keep=keep,
    )
    with _shown(order.seed) as tell:
        report = uvloop.run(run(order, tell))
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        print("\n".join(report.lines()))
    raise typer.Exit(1 if report.failed else INTERRUPTED if report.interrupted else 0)


def _families(text: str) -> frozenset[Family]:
    from posthouse.prove.faults import Family

    if not text:
        return frozenset(Family)
    try:
        return frozenset(Family(name.strip()) for name in text.split(","))
    except ValueError as exc:
        raise typer.BadParameter(f"{exc}: choose from {', '.join(Family)}", param_hint="--faults") from exc


@contextmanager
def _shown(seed: int) -> Iterator[Tell]:
    """A bar on a terminal, a line now and then elsewhere; both on standard error."""
    print(f"posthouse prove: seed {seed}; Ctrl-C ends it with the report so far", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (BarColumn(20), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0)

        def tell(report: Report, done: float, text: str) -> None:
            bars.update(task, completed=done, description=_sentence(report, text))

        yield tell


class _Lines:
    """Plain lines, so many that a log shows life and is no burden."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, report: Report, done: float, text: str) -> None:
        if time.monotonic() - self._last >= PLAIN_EVERY_S:
            self._last = time.monotonic()
            print(f"{done:4.0%}  {_sentence(report, text)}", file=sys.stderr, flush=True)


def _sentence(report: Report, text: str) -> str:
    wrong = sum(report.wrongs.values())
    return f"{report.counts['acknowledged']:,} acknowledged, {wrong} wrong; {text}"
