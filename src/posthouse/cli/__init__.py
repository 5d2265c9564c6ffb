"""The command line. Each command explains its error in one line on stderr and exits non-zero."""

from __future__ import annotations

import sys

import typer

from posthouse import __version__
from posthouse.cli import accounts, house, messages, tour
from posthouse.cli.common import Problem

app = typer.Typer(
    name="posthouse",
    help="A whole mail system in one program: SMTP in and out, a durable store, POP3.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"posthouse {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """A whole mail system in one program: SMTP in and out, a durable store, POP3."""


house.register(app)
tour.register(app)
app.add_typer(accounts.domain, name="domain")
app.add_typer(accounts.account, name="account")
app.add_typer(accounts.alias, name="alias")
app.add_typer(messages.queue, name="queue")
messages.register(app)


def main() -> None:
    """The entry point: anything that an operator can mend is one line on stderr."""
    try:
        app()
    except Problem as problem:
        print(f"posthouse: {problem}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
