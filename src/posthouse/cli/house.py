"""`posthouse init`."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.accounts import new_password
from posthouse.cli.check import AddressOption, checked_addresses
from posthouse.cli.common import (
    Problem,
    address_argument,
    become_owner,
    domain_argument,
    load_config,
    sync_folders,
)
from posthouse.mail.address import Address
from posthouse.storage.errors import StorageError

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.world import World

CONFIG_NAME = "posthouse.toml"

_TEMPLATE = """\
# The configuration of this house. Relative paths are relative to this file.
hostname = "{hostname}"
data_dir = "."
postmaster = "{postmaster}"  # who reads mail to postmaster

[listen]  # an empty list closes that door
smtp        = {smtp}  # mail from other houses
submission  = {submission}  # mail from your own people, STARTTLS
submissions = {submissions}  # the same, TLS from the first octet
pop3s       = {pop3s}  # mail programs download from here

# [tls]  # absent: the self-signed pair beside this file
# certificate = "/etc/letsencrypt/live/{hostname}/fullchain.pem"
# key = "/etc/letsencrypt/live/{hostname}/privkey.pem"

# [forwarding]
# routes = {{ "*" = "smarthost.example.net:25" }}   # absent: by MX
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            show_default=False,
            help="The data folder to make; ./posthouse, or for a personal house ~/.local/share/posthouse.",
        ),
    ] = None,
    personal: Annotated[
        bool, typer.Option("--personal", help="A house for you alone: it collects and sends mail, and has no doors.")
    ] = False,
    hostname: Annotated[
        str | None, typer.Option(metavar="NAME", help="This machine's full name, such as mx.example.org.")
    ] = None,
    domain: Annotated[str | None, typer.Option(metavar="NAME", help="The first domain whose mail is taken.")] = None,
    account: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The first account, an address in that domain.")
    ] = None,
    address: AddressOption = None,
    network: Annotated[
        bool, typer.Option("--check-network", help="Try port 25 elsewhere; on a terminal that is done anyhow.")
    ] = False,
) -> None:
    """Make a house: its folder and all that is in it.

    That is the configuration, the database, a self-signed certificate, the first domain, and the first account
    with a password, which is shown once. Asks what it was not told, if on a terminal. Prints the DNS records.
    """
    from posthouse.cli.first_look import guess_hostname, look_around, tell

    if personal:
        if hostname or domain or account or address or network:
            raise Problem("a personal house has no name, domain or address of its own: posthouse init --personal [DIR]")
        _init_personal(folder)
        return
    folder = folder or Path("posthouse")
    told = checked_addresses(address)
    _require_free(folder)
    host = _hostname(hostname or _ask("This machine's full name", guess_hostname(domain, told), "--hostname"))
    first_domain = domain_argument(domain or _ask("The domain whose mail it takes", _parent(host), "--domain"))
    first = address_argument(account or _ask("The first account", f"postmaster@{first_domain}", "--account"))
    if first.domain != first_domain:
        raise Problem(f"the account {first} is not in the domain {first_domain}; give --domain {first.domain}")
    # Before root is given up: who holds a port is not for everybody to see.
    seen = look_around(host, told, network=network or _on_terminal())
    password = new_password()
    _make(folder, partial(_furnish, hostname=host, domain=first_domain, address=first, password=password))
    config = folder / CONFIG_NAME
    print(f"The house {host} is ready in {folder}, with the account")
    print(f"  login     {first}")
    print(f"  password  {password}   (shown this once)")
    tell(load_config(config), config, first_domain, seen)


def _init_personal(named: Path | None) -> None:
    from posthouse.cli.personal_house import furnish_personal, tell_personal
    from posthouse.config import personal_folder

    folder = named or personal_folder()
    _require_free(folder)
    _make(folder, furnish_personal)
    found = folder.resolve() == personal_folder().resolve()
    tell_personal(folder, "" if found else f" --config {folder}/{CONFIG_NAME}")


def _require_free(folder: Path) -> None:
    if (folder / CONFIG_NAME).exists():
        raise Problem(
            f"{folder / CONFIG_NAME} exists already; run it with: posthouse serve --config {folder}/{CONFIG_NAME}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Problem(f"{folder} exists and is not an empty folder; name another one")


def _make(folder: Path, furnish: Callable[[Path], None]) -> None:
    """Everything is made in a folder beside, and moved when it is whole: a failed init leaves nothing behind."""
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    # As the owner of what is there, so that root leaves nothing of its own in another's folder.
    become_owner(folder)
    made: Path | None = None
    moved: list[Path] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".init-", dir=folder))
        furnish(made)
        folder.chmod(0o700)
        for item in sorted(made.iterdir()):
            moved.append(item.rename(folder / item.name))
        made.rmdir()
        sync_folders(folder, *(path.parent for path in missing))
    except BaseException as exc:
        for item in (*moved, *((made,) if made else ())):
            shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink(missing_ok=True)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        if isinstance(exc, OSError):
            raise Problem(f"{folder} cannot be made: {exc.strerror or exc}; name another folder") from exc
        if isinstance(exc, StorageError):
            raise Problem(f"the house could not be made: {exc}; make room, or name another folder") from exc
        raise


def _furnish(made: Path, hostname: str, domain: str, address: Address, password: str) -> None:
    """Configuration, certificate and store, in this folder."""
    import asyncio

    from posthouse.cli.first_look import default_doors
    from posthouse.config import load
    from posthouse.doors import SELF_SIGNED
    from posthouse.net.tls import make_self_signed
    from posthouse.world import World

    text = _TEMPLATE.format(hostname=hostname, postmaster=address, **default_doors())
    descriptor = os.open(made / CONFIG_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    config = load(made / CONFIG_NAME)
    world = World()
    make_self_signed(hostname, made / SELF_SIGNED[0], made / SELF_SIGNED[1], world.clock.now())
    asyncio.run(_fill(config, world, domain, address, password))


async def _fill(config: Config, world: World, domain: str, address: Address, password: str) -> None:
    from posthouse.cli.passwords import scram_keys, verifier_for
    from posthouse.engines import open_storage

    storage = await open_storage(config, world, create=True)
    try:
        await storage.administration.add_domain(domain)
        verifier, now = verifier_for(password), world.clock.now()
        await storage.administration.add_account(address, verifier=verifier, quota_octets=None, now=now)
        keys = await scram_keys(storage, config, address, password, made=True)
        await storage.administration.set_password(address.key, verifier, now, keys)
    finally:
        await storage.close()


def _ask(question: str, guess: str | None, option: str) -> str:
    """Ask on a terminal; elsewhere take the guess, or say which option was missing."""
    if _on_terminal():
        return str(typer.prompt(question, default=guess))
    if guess is None:
        raise Problem(f"the answer to {option} cannot be found out here; run: posthouse init {option} …")
    return guess


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _hostname(text: str) -> str:
    """The name of the house, which other houses look up. Raises Problem."""
    try:
        literal = ipaddress.ip_address(text)
    except ValueError:
        host = domain_argument(text)
    else:
        raise Problem(f"{literal} is an IP address, and a house needs a name; give --hostname mx.example.org, say")
    if "." not in host:
        raise Problem(f"{host} is not a full name; give --hostname mx.example.org, say")
    return host


def _parent(hostname: str) -> str | None:
    """example.org for mx.example.org; a name of two labels is its own domain, an address literal has none."""
    parent = hostname.partition(".")[2]
    if hostname.startswith("["):
        return None
    return parent if "." in parent else hostname
