"""`posthouse account import`: accounts of another system, one JSON object a line, with the hashes they have there."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from posthouse.cli.accounts import parse_size
from posthouse.cli.common import ConfigOption, JsonOption, Problem, address_argument, print_json, with_storage
from posthouse.mail.account import ImportProblem, NewAccount
from posthouse.mail.address import Address
from posthouse.mail.words import count, visible

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

MAX_LINE_OCTETS = 64 * 1024
MOST_QUOTA_OCTETS = 2**62
PROGRESS_LINES = 5000
SHOWN_PROBLEMS = 100
FIELDS = ("address", "password", "quota", "aliases", "suspended")


def register(account: typer.Typer) -> None:
    """Add the command."""
    account.command("import")(account_import)


def account_import(
    file: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="A file of JSON objects, one a line; - for stdin.")
    ],
    config: ConfigOption = None,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Take the good lines; else one bad line stops all.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at everything, change nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Take over accounts with the hashes of their passwords.

    A line: {"address": "ada@example.org", "password": "{BLF-CRYPT}$2y$...", "quota": "2G", "aliases":
    ["a@example.org"], "suspended": false}. The last three may be left out. Hashes: {ARGON2ID}, {BLF-CRYPT},
    {SHA512-CRYPT} or {SSHA512}; each becomes Argon2id when its owner logs in.
    """
    with _opened(file) as lines:
        accounts, problems = _parse(lines)
    if not accounts and not problems:
        raise Problem(f"{file} holds no account")
    stopped = bool(problems) and not skip_errors

    async def work(storage: Storage, _config: Config, world: World) -> tuple[ImportProblem, ...]:
        return await storage.administration.import_accounts(
            accounts, now=world.clock.now(), skip_errors=skip_errors, dry_run=dry_run or stopped
        )

    conflicts = with_storage(config, work)
    problems = sorted((*problems, *conflicts), key=lambda problem: problem.line)
    failed = bool(problems) and not skip_errors
    _tell(file, 0 if failed else len(accounts) - len(conflicts), problems, dry_run=dry_run, as_json=json)
    if failed:
        raise Problem(_failure(file, problems, dry_run=dry_run))


def _tell(file: str, imported: int, problems: list[ImportProblem], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        told = [{"line": problem.line, "problem": problem.text} for problem in problems]
        print_json([{"imported": imported, "refused": len(problems), "dry_run": dry_run, "problems": told}])
        return
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"{file}:{problem.line}: {visible(problem.text)}", file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"… and {len(problems) - SHOWN_PROBLEMS} more; all of them: --json", file=sys.stderr)
    if imported:
        would = "could be imported; nothing was changed" if dry_run else "imported"
        print(f"{count(imported, 'account', 'accounts')} {would}.")


def _failure(file: str, problems: list[ImportProblem], *, dry_run: bool) -> str:
    lines = count(len(problems), "line", "lines")
    nothing = "nothing was changed" if dry_run else "nothing was imported"
    return f"{file}: {lines} cannot be imported, so {nothing}; mend them, or leave them out with --skip-errors"


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as opened:
            yield opened
    except OSError as exc:
        raise Problem(f"{file} cannot be read: {exc.strerror or exc}") from exc


def _parse(lines: BinaryIO) -> tuple[list[NewAccount], list[ImportProblem]]:
    """Every line, good or bad. Empty ones are passed over."""
    accounts: list[NewAccount] = []
    problems: list[ImportProblem] = []
    for number, line in enumerate(_bounded(lines), 1):
        if not line.strip():
            continue
        try:
            accounts.append(_account(number, line))
        except (Problem, ValueError) as exc:
            problems.append(ImportProblem(number, str(exc)))
        if number % PROGRESS_LINES == 0 and sys.stderr.isatty():
            print(f"\r{number:,} lines read", end="", file=sys.stderr, flush=True)
    if len(accounts) + len(problems) >= PROGRESS_LINES and sys.stderr.isatty():
        print(file=sys.stderr)
    return accounts, problems


def _bounded(lines: BinaryIO) -> Iterator[bytes]:
    """Lines; of one that is too long, only its beginning."""
    while line := lines.readline(MAX_LINE_OCTETS + 1):
        rest = line
        while len(rest) > MAX_LINE_OCTETS and not rest.endswith(b"\n"):
            rest = lines.readline(MAX_LINE_OCTETS + 1)
        yield line


def _account(number: int, line: bytes) -> NewAccount:
    """Raises Problem or ValueError, whose text says what is wrong and never the hash."""
    from posthouse.identity.hashes import parse_hash

    if len(line) > MAX_LINE_OCTETS:
        raise ValueError("the line is longer than 64 KiB")
    fields = _object(line)
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    for name in ("address", "password"):
        if not isinstance(fields.get(name), str):
            raise ValueError(f"{name} is missing, or is no string")
    suspended = fields.get("suspended", False)
    if not isinstance(suspended, bool):
        raise ValueError("suspended is true or false")
    return NewAccount(
        line=number,
        address=address_argument(fields["address"]),
        verifier=parse_hash(fields["password"]),
        quota_octets=_quota(fields.get("quota")),
        suspended=suspended,
        aliases=_aliases(fields.get("aliases", [])),
    )


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = json_format.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise ValueError("the line is not UTF-8") from exc
    except (json_format.JSONDecodeError, RecursionError) as exc:
        raise ValueError("the line is not a JSON object") from exc
    if not isinstance(fields, dict):
        raise ValueError("the line is not a JSON object")
    return fields


def _quota(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = parse_size(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_QUOTA_OCTETS:
        raise ValueError("quota is a number of octets, or a size such as 500M")
    return value


def _aliases(value: object) -> tuple[Address, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("aliases is a list of addresses")
    return tuple(address_argument(each) for each in value)
