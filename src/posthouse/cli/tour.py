"""`posthouse demo`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from posthouse.demo.tour import run_demo


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the tour; exit status 1 if a check failed.")] = False,
) -> None:
    """Two throw-away houses on this computer show themselves at work."""
    raise typer.Exit(asyncio.run(run_demo(once=once)))
