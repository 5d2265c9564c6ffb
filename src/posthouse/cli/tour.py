"""`posthouse demo`."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the tour; exit status 1 if a step failed.")] = False,
) -> None:
    """Show two throw-away houses on this computer at work."""
    import asyncio

    from posthouse.demo.tour import run_demo

    raise typer.Exit(asyncio.run(run_demo(once=once)))
