"""`posthouse check --store`: every row and every content octet, and what to do about each thing that is wrong."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import typer

from posthouse.cli.common import ConfigOption, print_json, printable, with_storage
from posthouse.cli.progress import progress_shown
from posthouse.mail.words import count
from posthouse.storage.upkeep import Flaw

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

SHOWN_FLAWS = 10_000
"""More are only counted."""


def check_store(config: ConfigOption, *, as_json: bool, mend: bool) -> None:
    """Print what is wrong; exits with 1 if anything is."""
    kept: list[Flaw] = []
    counted = {"problem": 0, "note": 0}

    async def work(storage: Storage, _config: Config, _world: World) -> None:
        with progress_shown() as tell:
            async for flaw in storage.check(tell, mend=mend):
                counted["note" if flaw.note else "problem"] += 1
                if len(kept) < SHOWN_FLAWS:
                    kept.append(flaw)

    with_storage(config, work)
    if as_json:
        print_json([{"state": _state(flaw), **dataclasses.asdict(flaw)} for flaw in kept])
    else:
        for flaw in kept:
            print(f"{_state(flaw):<8} {flaw.check:<12} {printable(flaw.what)}; {printable(flaw.mend)}")
        more = sum(counted.values()) - len(kept)
        if more:
            print(f"… and {more} more")
        if not kept:
            print("Every row and every content octet is as it must be.")
    if counted["problem"]:
        after = "; what could be mended is: check again" if mend else "; see above"
        sys.stdout.flush()
        print(f"posthouse: {count(counted['problem'], 'problem', 'problems')}{after}", file=sys.stderr)
        raise typer.Exit(1)


def _state(flaw: Flaw) -> str:
    return "note" if flaw.note else "problem"
