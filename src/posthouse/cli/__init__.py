"""The command line. Each command explains its error in one line on stderr and exits non-zero."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from posthouse import __version__
from posthouse.cli.common import Problem

INTERRUPTED = 130
USAGE = 2

MODULES = {
    "house": ("init",),
    "serve": ("serve",),
    "check": ("check",),
    "dns": ("dns",),
    "service": ("service",),
    "store": ("backup", "restore"),
    "upgrade": ("upgrade", "migrate", "rollback"),
    "tour": ("demo",),
    "prove": ("prove",),
    "accounts": ("domain", "account", "alias"),
    "identities": ("identity",),
    "queue": ("queue",),
    "messages": ("journey",),
    "send": ("send",),
    "read": ("read",),
    "collect": ("collect",),
    "personal": ("add-account", "change-account", "remove-account"),
}
"""The commands that each module's `register` adds. Only the module of the command that was given is imported."""

# typer's own base of "no such option" and the like, which it does not export.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"posthouse {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """A whole mail system in one program: SMTP in and out, a durable store, POP3."""


def program(arguments: Sequence[str]) -> typer.Typer:
    """The command line, as far as these arguments need it: one module, or all where no command is named."""
    app = typer.Typer(
        name="posthouse",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    named = [module for module, commands in MODULES.items() if arguments and arguments[0] in commands]
    for module in named or MODULES:
        import_module(f"posthouse.cli.{module}").register(app)
    return app


def main() -> None:
    """The entry point: anything that an operator can mend is one line on stderr."""
    try:
        status = program(sys.argv[1:])(prog_name="posthouse", standalone_mode=False)
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
