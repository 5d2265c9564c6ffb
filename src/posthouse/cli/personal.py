"""`posthouse add-account`, `change-account`, `remove-account`: a person's accounts at other houses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.common import (
    AddressArgument,
    ConfigOption,
    address_argument,
    load_config,
    printable,
    with_storage,
)
from posthouse.cli.elsewhere import (
    POP3_PORT,
    SMTP_PORT,
    ask_password,
    server_argument,
    text_argument,
)
from posthouse.cli.personal_steps import (
    LoginWay,
    Terms,
    changed_identity,
    changed_mechanism,
    confirm,
    find_owner,
    find_there,
    keep_secret,
    look,
    prove,
    read_secret,
    require_found,
    require_token_options,
    secret_of,
    tell,
    vault_of_house,
    with_secret,
)
from posthouse.mail.folders import INBOX
from posthouse.mail.source import Mechanism, Policy, Protection
from posthouse.storage.errors import StorageError

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

_NEEDED = ("posthouse.engines", "posthouse.collecting", "posthouse.cli.elsewhere_proof")

Name = Annotated[str | None, typer.Option(metavar="NAME", help='Your name before the address: "Ada Lovelace".')]
LoginName = Annotated[str | None, typer.Option(metavar="NAME", help="The login there, where it is not the address.")]
Pop3 = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The POP3 server, instead of looking for it.")]
Smtp = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The submission server, instead of looking for it.")
]
Protecting = Annotated[
    Protection | None,
    typer.Option(help="How given servers are spoken to; absent: implicit at 995 and 465, starttls elsewhere."),
]
Keep = Annotated[
    str | None,
    typer.Option(metavar="leave|7d|mirror|delete", help="What becomes of mail there once it is here; absent: leave."),
]
Every = Annotated[str | None, typer.Option(metavar="5m", help="How often mail is collected.")]
Folder = Annotated[str | None, typer.Option(metavar="NAME", help="The folder here that its mail comes into.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
TokenCommand = Annotated[
    str | None, typer.Option(metavar="COMMAND", help="A program that prints an OAuth 2 token, instead of a password.")
]
Tokens = Annotated[Mechanism | None, typer.Option(help="How the token is used; absent: as the server offers.")]
Json = Annotated[bool, typer.Option("--json", help="Print an array of JSON objects.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("add-account")(add_account)
    app.command("change-account")(change_account)
    app.command("remove-account")(remove_account)


def add_account(
    address: AddressArgument,
    name: Name = None,
    login: LoginName = None,
    pop3: Pop3 = None,
    smtp: Smtp = None,
    protection: Protecting = None,
    keep: Keep = None,
    every: Every = None,
    folder: Folder = None,
    password_stdin: FromStdin = False,
    token_command: TokenCommand = None,
    mechanism: Tokens = None,
    collect_only: Annotated[bool, typer.Option("--collect-only", help="Do not send as this address.")] = False,
    account: Annotated[
        str | None, typer.Option(metavar="LOGIN", help="Whose mail it is, where several people have accounts here.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take what was found without asking.")] = False,
    config: ConfigOption = None,
    json: Json = False,
) -> None:
    """Collect mail from an account elsewhere, and send as it.

    Its servers are looked for, shown, and tried with your login before anything is stored. The password goes to the
    desktop's keyring, or to a file that only you can read.
    """
    checked = address_argument(address)
    given = (
        server_argument(pop3, protection, POP3_PORT) if pop3 else None,
        server_argument(smtp, protection, SMTP_PORT) if smtp else None,
    )
    shown = text_argument(name, "a name") if name else ""
    policy, interval_s, into = Terms(keep, every, folder).parsed(Policy(), 300.0, INBOX)
    require_token_options(token_command, mechanism, password_stdin=password_stdin)
    owner = with_storage(config, lambda storage, *_: find_owner(storage, account, checked), *_NEEDED)
    loaded = load_config(config)
    found = look(loaded, checked, given, sends=not collect_only)
    receiving, sending = require_found(checked, found, sends=not collect_only)
    way = LoginWay(login, token_command, mechanism)
    settings = replace(way.source(checked, owner, receiving), folder=into, policy=policy, interval_s=interval_s)
    identity = way.identity(checked, owner, sending, shown) if sending is not None else None
    confirm(settings, identity, receiving, sending, yes=yes, quiet=json)
    secret = secret_of(loaded, checked, settings.secret, from_stdin=password_stdin)
    prove(loaded, settings, identity, secret)

    async def store(storage: Storage, config: Config, _world: World) -> None:
        vault = vault_of_house(config)
        kept = settings.secret or keep_secret(vault, checked, secret)
        try:
            await storage.sources.add(replace(settings, secret=kept), with_secret(identity, kept))
        except StorageError:
            vault.forget(kept)
            raise

    with_storage(config, store, *_NEEDED)
    tell(loaded, settings, identity, as_json=json)


def change_account(
    address: AddressArgument,
    name: Name = None,
    login: LoginName = None,
    pop3: Pop3 = None,
    smtp: Smtp = None,
    protection: Protecting = None,
    keep: Keep = None,
    every: Every = None,
    folder: Folder = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for a new password.")] = False,
    password_stdin: FromStdin = False,
    token_command: TokenCommand = None,
    mechanism: Tokens = None,
    config: ConfigOption = None,
    json: Json = False,
) -> None:
    """Change what is given of an account elsewhere.

    Servers, login and password are tried before anything is stored. It is collected from at once.
    """
    checked = address_argument(address)
    require_token_options(token_command, mechanism, password_stdin=password_stdin or password)
    source, identity = with_storage(config, lambda storage, *_: find_there(storage, checked), *_NEEDED)
    loaded, settings = load_config(config), source.settings
    policy, interval_s, into = Terms(keep, every, folder).parsed(settings.policy, settings.interval_s, settings.folder)
    how = changed_mechanism(settings.mechanism, token_command, mechanism, password=password or password_stdin)
    changed = replace(
        settings,
        server=server_argument(pop3, protection, POP3_PORT) if pop3 else settings.server,
        login=login or settings.login,
        secret=f"command:{token_command}" if token_command else settings.secret,
        mechanism=how,
        policy=policy,
        interval_s=interval_s,
        folder=into,
    )
    whole = changed_identity(identity, changed, source, name, smtp, login, protection)
    new = ask_password(checked, from_stdin=password_stdin) if password or password_stdin else None
    if new is not None or pop3 or smtp or login or token_command or mechanism is not None:
        secret = new if new is not None else read_secret(loaded, changed.secret)
        prove(loaded, changed, whole, secret)

    async def store(storage: Storage, config: Config, _world: World) -> None:
        vault = vault_of_house(config)
        kept = keep_secret(vault, checked, new) if new is not None else changed.secret
        await storage.sources.change(replace(changed, secret=kept), with_secret(whole, kept))
        if kept != settings.secret:
            vault.forget(settings.secret)

    with_storage(config, store, *_NEEDED)
    tell(loaded, changed, whole, as_json=json)


def remove_account(address: AddressArgument, config: ConfigOption = None) -> None:
    """Forget an account elsewhere; its mail stays here. Mail that is here stays.

    What waits in the queue to be sent as it goes on waiting.
    """
    checked = address_argument(address)

    async def work(storage: Storage, config: Config, _world: World) -> None:
        source, identity = await find_there(storage, checked)
        own = identity is not None and identity.submission is not None
        await storage.sources.remove(checked, identity=own)
        vault_of_house(config).forget(source.settings.secret)

    with_storage(config, work, *_NEEDED)
    print(f"Nothing is collected from {printable(checked)} any more, and its password is forgotten; its mail stays.")
