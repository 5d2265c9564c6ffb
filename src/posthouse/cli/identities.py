"""`posthouse identity`: addresses of other houses' domains that accounts here may send as."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.check_identities import login_wanted
from posthouse.cli.common import (
    AddressArgument,
    ConfigOption,
    JsonOption,
    Problem,
    address_argument,
    print_rows,
    with_storage,
)

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.mail.account import Identity
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

identity = typer.Typer(help="Addresses elsewhere that accounts may send as.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(identity, name="identity")


Login = Annotated[
    str,
    typer.Option("--account", metavar="LOGIN", show_default=False, help="Who may send as it, and gets its reports."),
]
Via = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The submission server that its mail must leave through, such as its own."),
]


@identity.command("add")
def identity_add(address: AddressArgument, account: Login, via: Via = None, config: ConfigOption = None) -> None:
    """Let an account send as an address of another house, such as you@provider.example.

    Mail to that address still goes to its own house. Reports about mail sent as it come to the account's maildrop.
    """
    checked, login = address_argument(address), address_argument(account)
    next_hop = via_argument(via) if via is not None else ""

    async def work(storage: Storage, config: Config, _world: World) -> str | None:
        await storage.administration.add_identity(checked, str(login), next_hop)
        return login_wanted(config, next_hop)

    wanted = with_storage(config, work)
    way = f"through {next_hop}" if next_hop else "as all other mail does"
    print(f"{login} may send as {checked} now; what is sent so leaves {way}.")
    sys.stdout.flush()
    if wanted is not None:
        print(f"But {wanted}", file=sys.stderr)


@identity.command("list")
def identity_list(config: ConfigOption = None, json: JsonOption = False) -> None:
    """All identities, whose they are, and how their mail leaves."""

    async def work(storage: Storage, _config: Config, _world: World) -> tuple[Identity, ...]:
        return await storage.administration.identities()

    found = with_storage(config, work)
    rows = [{"address": str(each.address), "account": each.login, "via": each.via or None} for each in found]
    print_rows(
        rows,
        ["address", "account", "via"],
        as_json=json,
        empty="No identity yet. Add one: posthouse identity add you@provider.example --account you@example.org",
    )


@identity.command("remove")
def identity_remove(address: AddressArgument, config: ConfigOption = None) -> None:
    """Let nobody send as an address any more. What waits in the queue still goes the way it was to go."""
    checked = address_argument(address)

    async def work(storage: Storage, _config: Config, _world: World) -> None:
        await storage.administration.remove_identity(checked)

    with_storage(config, work)
    print(f"Nobody here may send as {checked} any more.")


def via_argument(text: str) -> str:
    """A submission server in the one spelling in which its login is found."""
    from posthouse.config_values import Endpoint, parse_next_hop

    try:
        hop = parse_next_hop(text)
    except ValueError as exc:
        raise Problem(str(exc)) from exc
    if not text.endswith(f":{hop.port}"):
        raise Problem(f"{text!r} lacks a port; write {text}:587 (STARTTLS), or {text}:465 (TLS from the first octet)")
    return str(Endpoint(hop.host.lower(), hop.port))
