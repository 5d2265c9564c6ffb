"""`posthouse account app-password`: one password for each program, which can be taken back alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.common import (
    AddressArgument,
    ConfigOption,
    JsonOption,
    Problem,
    address_argument,
    print_json,
    print_rows,
    with_storage,
)
from posthouse.mail.words import moment

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.mail.account import AppPassword
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

MAX_NAME_CHARACTERS = 64

app_password = typer.Typer(help="Passwords for one program each, which are made here.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", show_default=False, help="What it is for, such as phone or 'old laptop'.")
]


@app_password.command("add")
def app_password_add(
    address: AddressArgument, name: NameArgument, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Make an app password, which is shown once."""
    from posthouse.cli.passwords import scram_keys
    from posthouse.identity.hashes import APP_PASSWORD_OCTETS, app_verifier, make_app_password

    checked, checked_name = address_argument(address), _name(name)

    async def work(storage: Storage, config: Config, world: World) -> str:
        password = make_app_password(world.random.octets(APP_PASSWORD_OCTETS))
        keys = await scram_keys(storage, config, checked, password, made=True)
        await storage.credentials.add_app_password(
            str(checked), checked_name, verifier=app_verifier(password), scram=keys, now=world.clock.now()
        )
        return password

    password = with_storage(config, work)
    if json:
        print_json([{"login": str(checked), "name": checked_name, "password": password}])
        return
    print(f"App password {checked_name!r} of {checked}, shown this once: {password}")


@app_password.command("list")
def app_password_list(address: AddressArgument, config: ConfigOption = None, json: JsonOption = False) -> None:
    """An account's app passwords: since when, and when last used.

    The last use is known to the minute.
    """
    checked = address_argument(address)

    async def work(storage: Storage, _config: Config, _world: World) -> tuple[AppPassword, ...]:
        return await storage.credentials.app_passwords(str(checked))

    found = with_storage(config, work)
    if json:
        print_json(
            [{"name": each.name, "created_at": each.created_at, "last_used_at": each.last_used_at} for each in found]
        )
        return
    rows = [
        {
            "name": each.name,
            "created": moment(each.created_at),
            "last_used": "never" if each.last_used_at is None else moment(each.last_used_at),
        }
        for each in found
    ]
    adding = f"posthouse account app-password add {checked} phone"
    print_rows(rows, ["name", "created", "last_used"], as_json=False, empty=f"No app password yet. Add one: {adding}")


@app_password.command("revoke")
def app_password_revoke(address: AddressArgument, name: NameArgument, config: ConfigOption = None) -> None:
    """Let an app password log in no more."""
    checked, checked_name = address_argument(address), _name(name)

    async def work(storage: Storage, _config: Config, _world: World) -> None:
        await storage.credentials.revoke_app_password(str(checked), checked_name)

    with_storage(config, work)
    print(f"App password {checked_name!r} of {checked} is revoked. A session that is open stays so until it ends.")


def _name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise Problem(f"a name has from 1 to {MAX_NAME_CHARACTERS} characters that can be printed")
    return name
