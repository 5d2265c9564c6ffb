"""The command line. Each command explains its error in one line on stderr and exits non-zero."""

from __future__ import annotations

import os
import sys

import typer

from posthouse import __version__
from posthouse.cli import (
    account_import,
    accounts,
    app_passwords,
    check,
    dns,
    house,
    identities,
    messages,
    queue,
    serve,
    service,
    store,
    tour,
    upgrade,
)
from posthouse.cli.common import Problem

INTERRUPTED = 130
USAGE = 2

app = typer.Typer(
    name="posthouse",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# typer's own base of "no such option" and the like, which it does not export.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


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
serve.register(app)
check.register(app)
dns.register(app)
service.register(app)
store.register(app)
upgrade.register(app)
tour.register(app)
account_import.register(accounts.account)
accounts.account.add_typer(app_passwords.app_password, name="app-password")
app.add_typer(accounts.domain, name="domain")
app.add_typer(accounts.account, name="account")
app.add_typer(accounts.alias, name="alias")
app.add_typer(identities.identity, name="identity")
app.add_typer(queue.queue, name="queue")
messages.register(app)


def main() -> None:
    """The entry point: anything that an operator can mend is one line on stderr."""
    try:
        status = app(prog_name="posthouse", standalone_mode=False)
        sys.stdout.flush()
    except Problem as problem:
        _complain(str(problem))
        status = 1
    except _UsageError as exc:
        status = USAGE
        _complain_of_usage(exc)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our list has seen enough. Nothing more may be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status if isinstance(status, int) else 0)


def _complain(text: str) -> None:
    print(f"posthouse: {' '.join(text.split())}", file=sys.stderr)


def _complain_of_usage(exc: Exception) -> None:
    """One line; a command that only groups others shows its help instead."""
    message = exc.format_message() if hasattr(exc, "format_message") else str(exc)
    if message.startswith("Usage:"):
        print(message, file=sys.stderr)
        return
    context = getattr(exc, "ctx", None)
    _complain(f"{message.rstrip('.')}; see: {context.command_path if context else 'posthouse'} --help")
