"""Finding the servers of an account elsewhere, and proving its login at them. Imported where it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from posthouse.cli.common import Problem
from posthouse.cli.personal_steps import submission_server
from posthouse.cli.surroundings import resolver_of
from posthouse.collection.door import Login, LoginRefused, NotReached, enter
from posthouse.discovery.search import Found, Search
from posthouse.discovery.trial import Refused, Trial, Unusable
from posthouse.mail.account import Identity
from posthouse.mail.address import Address
from posthouse.mail.source import Server, SourceSettings
from posthouse.net.https import HttpsClient
from posthouse.net.pop3_connection import Pop3Failed
from posthouse.net.tls import CertificateUnusable, client_context
from posthouse.protocol.errors import LocalProtocolError
from posthouse.world import World

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from posthouse.config import Config


def _context(authorities: Path | None) -> Callable[[], ssl.SSLContext]:
    return cache(partial(client_context, verified=True, authorities=authorities))


@dataclass(frozen=True, slots=True)
class Proof:
    """Connections of one command."""

    config: Config
    world: World

    def _trial(self) -> Trial:
        forwarding = self.config.forwarding
        return Trial(
            connector=self.world.connector,
            pop3_context=_context(self.config.collection.tls_authorities),
            smtp_context=_context(forwarding.tls_authorities),
            hello_name=forwarding.hello_name or self.config.hostname,
        )

    async def find(self, address: Address, pop3: Server | None, smtp: Server | None, *, sends: bool) -> Found:
        """The servers of an address, as far as they are not given. Raises Problem."""
        trial = self._trial()
        search = Search(
            resolver=resolver_of(self.config),
            https=HttpsClient(connector=self.world.connector, context=trial.pop3_context),
            trial=trial,
            random=self.world.random,
        )
        try:
            return await search.find(address, pop3=pop3, smtp=smtp, sends=sends)
        except CertificateUnusable as exc:
            raise Problem(str(exc)) from exc

    async def prove(self, settings: SourceSettings, identity: Identity | None, secret: str) -> None:
        """The login works at both servers. Raises Problem, which never holds a secret."""
        try:
            login = Login(settings.login, secret)
            context = _context(self.config.collection.tls_authorities)()
            connection, _ = await enter(settings, login, self.world.connector, context)
            await connection.quit()
        except LoginRefused as exc:
            raise Problem(f"{settings.server} refused the login {settings.login}: {exc}{_ADVICE}") from exc
        except (NotReached, Pop3Failed, LocalProtocolError) as exc:
            raise Problem(f"{settings.server}: {exc}; nothing was stored") from exc
        smtp = submission_server(identity) if identity is not None else None
        submission = identity.submission if identity is not None else None
        if smtp is None or submission is None:
            return
        try:
            await self._trial().log_in(smtp, submission.login, secret, submission.mechanism)
        except Refused as exc:
            raise Problem(f"{smtp} refused the login {submission.login}: {exc}{_ADVICE}") from exc
        except Unusable as exc:
            raise Problem(f"{smtp}: {exc}; nothing was stored") from exc


_ADVICE = (
    "; nothing was stored. If the login is not the address, give --login; many providers want an app password, "
    "or a token: --token-command"
)
