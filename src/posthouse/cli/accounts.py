"""`posthouse domain`, `posthouse account`, `posthouse alias`: who is there."""

from __future__ import annotations

import re
import secrets
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.check_aliases import leading_nowhere
from posthouse.cli.common import (
    AddressArgument,
    ConfigOption,
    JsonOption,
    Problem,
    address_argument,
    domain_argument,
    print_rows,
    with_storage,
)
from posthouse.mail.address import Address
from posthouse.mail.words import count, size

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

domain = typer.Typer(help="Domains whose mail this house takes.", no_args_is_help=True)
account = typer.Typer(help="Accounts: a login and a maildrop each.", no_args_is_help=True)
alias = typer.Typer(help="Addresses that lead to other addresses.", no_args_is_help=True)

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)\Z", re.IGNORECASE)
_QUOTA_HELP = "Most octets in the maildrop, such as 500M or 2G; 0 takes nothing."
_LIMIT_HELP = "Recipients elsewhere that it may send to in an hour; 0: any number; default: as the configuration says."
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    from posthouse.cli import account_import, app_passwords

    if not account.registered_groups:
        account_import.register(account)
        account.add_typer(app_passwords.app_password, name="app-password")
    for name, group in (("domain", domain), ("account", account), ("alias", alias)):
        app.add_typer(group, name=name)


PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of making one.")
]


DomainArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


def new_password() -> str:
    """Twenty characters in four groups, 98 random bits, without letters that look alike."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))


def _password(from_stdin: bool) -> tuple[str, bool]:
    """The password, and whether we made it."""
    if not from_stdin:
        return new_password(), True
    try:
        password = sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError as exc:
        raise Problem("the password is not UTF-8") from exc
    if not password:
        raise Problem("standard input holds no password; leave out --password-stdin to have one made")
    return password, False


@domain.command("add")
def domain_add(name: DomainArgument, config: ConfigOption = None) -> None:
    """Take mail for a domain."""
    checked = domain_argument(name)

    async def work(storage: Storage, _config: Config, _world: World) -> None:
        await storage.administration.add_domain(checked)

    with_storage(config, work)
    print(f"Mail for {checked} is now taken here. Next: posthouse account add you@{checked}")
    print("Its DNS records: posthouse dns; whether they are right: posthouse check")


@domain.command("list")
def domain_list(config: ConfigOption = None, json: JsonOption = False) -> None:
    """The domains whose mail is taken here."""

    async def work(storage: Storage, _config: Config, _world: World) -> tuple[str, ...]:
        return await storage.administration.domains()

    rows = [{"domain": name} for name in with_storage(config, work)]
    print_rows(rows, ["domain"], as_json=json, empty="No domain yet. Add one: posthouse domain add example.org")


@domain.command("remove")
def domain_remove(name: DomainArgument, config: ConfigOption = None) -> None:
    """Take no more mail for a domain that has no addresses left."""
    checked = domain_argument(name)

    async def work(storage: Storage, _config: Config, _world: World) -> None:
        await storage.administration.remove_domain(checked)

    with_storage(config, work)
    print(f"Mail for {checked} is no longer taken here.")


@account.command("add")
def account_add(
    address: AddressArgument,
    config: ConfigOption = None,
    password_stdin: PasswordStdin = False,
    quota: Annotated[str | None, typer.Option(metavar="SIZE", help=_QUOTA_HELP)] = None,
    recipients_per_hour: Annotated[str | None, typer.Option(metavar="N", help=_LIMIT_HELP)] = None,
) -> None:
    """Make an account and a password, which is shown once."""
    from posthouse.cli.passwords import scram_keys, verifier_for

    checked = address_argument(address)
    quota_octets = parse_size(quota) if quota is not None else None
    limit = parse_limit(recipients_per_hour) if recipients_per_hour is not None else None
    password, made = _password(password_stdin)
    verifier = verifier_for(password)

    async def work(storage: Storage, config: Config, world: World) -> None:
        now = world.clock.now()
        await storage.administration.add_account(checked, verifier=verifier, quota_octets=quota_octets, now=now)
        if limit is not None:
            await storage.administration.set_recipients_per_hour(checked.key, limit)
        # The keys need the salt, which the account has only now.
        keys = await scram_keys(storage, config, checked, password, made=made)
        if keys is not None:
            await storage.administration.set_password(checked.key, verifier, now, keys)

    with_storage(config, work)
    print(f"Account {checked} is there." + (f" Its password, shown this once: {password}" if made else ""))


@account.command("list")
def account_list(config: ConfigOption = None, json: JsonOption = False) -> None:
    """All accounts with what they hold."""

    async def work(storage: Storage, _config: Config, _world: World) -> list[dict[str, object]]:
        return [
            {
                "login": entry.login,
                "messages": entry.message_count,
                "used_octets": entry.used_octets,
                "quota_octets": entry.quota_octets,
                "suspended": entry.suspended,
                "recipients_per_hour": entry.recipients_per_hour,
            }
            for entry in await storage.administration.accounts()
        ]

    rows = with_storage(config, work)
    if not json:
        for row in rows:
            row["used"] = size(int(str(row["used_octets"])))
            row["quota"] = "none" if row["quota_octets"] is None else size(int(str(row["quota_octets"])))
            row["state"] = "suspended" if row["suspended"] else "active"
    columns = ["login", "messages", "used", "quota", "state"]
    print_rows(rows, columns, as_json=json, empty="No account yet. Add one: posthouse account add you@example.org")


@account.command("password")
def account_password(
    address: AddressArgument, config: ConfigOption = None, password_stdin: PasswordStdin = False
) -> None:
    """Give an account a new password."""
    from posthouse.cli.passwords import scram_keys, verifier_for

    checked = address_argument(address)
    password, made = _password(password_stdin)
    verifier = verifier_for(password)

    async def work(storage: Storage, config: Config, world: World) -> None:
        keys = await scram_keys(storage, config, checked, password, made=made)
        await storage.administration.set_password(checked.key, verifier, world.clock.now(), keys)

    with_storage(config, work)
    print(f"{checked} has a new password" + (f", shown this once: {password}" if made else "."))


@account.command("quota")
def account_quota(
    address: AddressArgument,
    quota: Annotated[str, typer.Argument(metavar="SIZE", show_default=False, help=f"{_QUOTA_HELP} none: no limit.")],
    config: ConfigOption = None,
) -> None:
    """Change how much an account's maildrop may hold."""
    checked = address_argument(address)
    quota_octets = None if quota.lower() == "none" else parse_size(quota)

    async def work(storage: Storage, _config: Config, _world: World) -> None:
        await storage.administration.set_quota(checked.key, quota_octets)

    with_storage(config, work)
    limit = "as much as the disk does" if quota_octets is None else f"{size(quota_octets)} at most"
    print(f"The maildrop of {checked} may hold {limit} from now on.")


@account.command("limit")
def account_limit(
    address: AddressArgument,
    recipients_per_hour: Annotated[
        str, typer.Option("--recipients-per-hour", metavar="N", show_default=False, help=_LIMIT_HELP)
    ],
    config: ConfigOption = None,
) -> None:
    """Change how many recipients an account may send to.

    Those elsewhere are counted, within an hour; what goes beyond is held, and postmaster is told.
    """
    checked = address_argument(address)
    limit = parse_limit(recipients_per_hour)

    async def work(storage: Storage, config: Config, _world: World) -> int:
        await storage.administration.set_recipients_per_hour(checked.key, limit)
        return config.reception.recipients_per_hour

    default = with_storage(config, work)
    allowed = default if limit is None else limit
    many = count(allowed, "recipient", "recipients") if allowed else "any number of recipients"
    own = ", as the configuration says" if limit is None else ""
    print(f"{checked} may send to {many} elsewhere in an hour{own}.")


@account.command("suspend")
def account_suspend(address: AddressArgument, config: ConfigOption = None) -> None:
    """Refuse an account's logins; its mail is still taken."""
    checked = address_argument(address)
    _set_suspended(config, checked, True)
    print(f"{checked} may not log in any more; undo it with: posthouse account resume {checked}")


@account.command("resume")
def account_resume(address: AddressArgument, config: ConfigOption = None) -> None:
    """Let a suspended account log in again."""
    checked = address_argument(address)
    _set_suspended(config, checked, False)
    print(f"{checked} may log in.")


def _set_suspended(config: ConfigOption, address: Address, suspended: bool) -> None:
    async def work(storage: Storage, _config: Config, _world: World) -> None:
        await storage.administration.set_suspended(address.key, suspended)

    with_storage(config, work)


@account.command("remove")
def account_remove(
    address: AddressArgument,
    config: ConfigOption = None,
    keep_mail: Annotated[bool, typer.Option("--keep-mail", help="Keep the stored messages.")] = False,
) -> None:
    """Remove an account, and its mail unless told to keep it."""
    checked = address_argument(address)

    async def work(storage: Storage, _config: Config, world: World) -> list[Address]:
        await storage.administration.remove_account(checked.key, keep_mail=keep_mail, now=world.clock.now())
        return [address for address, targets in await storage.administration.aliases() if checked in targets]

    left = with_storage(config, work)
    print(f"{checked} is gone" + ("; its mail is kept." if keep_mail else ", with its mail."))
    sys.stdout.flush()
    for name in left:
        print(f"But {name} still leads there: posthouse alias remove {name}", file=sys.stderr)


AliasArgument = Annotated[
    str,
    typer.Argument(metavar="ADDRESS", show_default=False, help="you@example.org, or @example.org for all other names."),
]


@alias.command("add")
def alias_add(
    address: AliasArgument,
    targets: Annotated[list[str], typer.Argument(metavar="TARGET", show_default=False)],
    config: ConfigOption = None,
) -> None:
    """Let an address lead to others, here or elsewhere.

    `@example.org` is the catch-all of a domain: every name in it that nobody has. Whoever is its target may also send
    as these names.
    """
    checked = _alias_argument(address)
    checked_targets = [address_argument(target) for target in targets]

    async def work(storage: Storage, config: Config, _world: World) -> list[Address]:
        await storage.administration.add_alias(checked, checked_targets)
        return await leading_nowhere(storage, config, checked_targets)

    unknown = with_storage(config, work, "posthouse.admission.routing")
    shown = str(checked) if checked.local_part else f"Every other address of {checked.domain}"
    print(f"{shown} now leads to {', '.join(map(str, checked_targets))}.")
    sys.stdout.flush()
    for target in unknown:
        print(f"But {target} is nobody so far: posthouse account add {target}", file=sys.stderr)


@alias.command("list")
def alias_list(config: ConfigOption = None, json: JsonOption = False) -> None:
    """All aliases."""

    async def work(storage: Storage, _config: Config, _world: World) -> list[dict[str, object]]:
        return [
            {"address": str(address), "targets": [str(target) for target in targets]}
            for address, targets in await storage.administration.aliases()
        ]

    rows = with_storage(config, work)
    if not json:
        rows = [{"address": row["address"], "targets": ", ".join(row["targets"])} for row in rows]  # type: ignore[arg-type]
    print_rows(
        rows,
        ["address", "targets"],
        as_json=json,
        empty="No alias yet. Add one: posthouse alias add info@example.org you@example.org",
    )


@alias.command("remove")
def alias_remove(address: AliasArgument, config: ConfigOption = None) -> None:
    """Remove an alias, or the catch-all @example.org of a domain."""
    checked = _alias_argument(address)

    async def work(storage: Storage, _config: Config, _world: World) -> None:
        await storage.administration.remove_alias(checked)

    with_storage(config, work)
    print(f"{checked} leads nowhere any more.")


def _alias_argument(text: str) -> Address:
    """An address, or `@domain` for the catch-all."""
    return Address("", domain_argument(text[1:])) if text.startswith("@") else address_argument(text)


def parse_limit(text: str) -> int | None:
    """A number of recipients; None for `default`."""
    if text.lower() == "default":
        return None
    if not re.match(r"[0-9]{1,9}\Z", text):
        raise Problem(f"{text!r} is not a number of recipients; write for example 1000, 0 for any number, or default")
    return int(text)


def parse_size(text: str) -> int:
    """Octets from `500M`, `2G` or a plain number; K, M, G, T are powers of 1000, as where we show sizes."""
    match = _SIZE.match(text)
    if match is None:
        raise Problem(f"{text!r} is not a size; write for example 500M or 2G")
    factor: int = 1000 ** _POWERS[match[2].upper()]
    return int(match[1]) * factor
