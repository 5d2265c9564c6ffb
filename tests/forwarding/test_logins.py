"""Logins of identities at their own servers: read when they are needed, never over a connection that is not safe."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from posthouse.config_forwarding import Credentials, Forwarding, TlsMode
from posthouse.forwarding.dial import ClientTls
from posthouse.forwarding.logins import IdentityLogins
from posthouse.mail.acceptance import Destination
from posthouse.mail.account import Identity, Submission, own_via
from posthouse.mail.address import Address, parse_address
from posthouse.mail.ids import AccountId
from posthouse.mail.outcome import Deferred, Delivered, Outcome
from posthouse.mail.source import Mechanism, Protection
from posthouse.vault import SecretMissing
from tests.forwarding.peer import DROP, EHLO, Peer, peer
from tests.forwarding.relays import attempt_in, kinds, relay_to
from tests.net.authority import Authority

ADA, BOB = "ada@far.test", "bob@far.test"
WITH_AUTH = EHLO.replace("250-PIPELINING", "250-AUTH PLAIN XOAUTH2\r\n250-PIPELINING")
WITH_STARTTLS = WITH_AUTH.replace("250-PIPELINING", "250-STARTTLS\r\n250-PIPELINING")
IN = {"AUTH": "235 2.7.0 in"}


class Houses:
    """`secrets` are read each time."""

    def __init__(self, protection: Protection, mechanism: Mechanism = Mechanism.PASSWORD) -> None:
        self.secrets = {"file:ada": "geheim", "file:bob": "secret"}
        self.identities = {
            address: Identity(
                address=parse_address(address),
                account=AccountId(1),
                login="me@house.test",
                via="",
                submission=Submission(
                    login=address, secret=f"file:{address[:3]}", mechanism=mechanism, protection=protection
                ),
            )
            for address in (ADA, BOB)
        }

    async def identity(self, address: Address) -> Identity | None:
        return self.identities.get(str(address))

    async def secret(self, reference: str) -> str:
        if reference not in self.secrets:
            raise SecretMissing("there is no password")
        return self.secrets[reference]


async def sent(
    own: Houses, server: Peer, hop: str, authority: Authority, sender: str = ADA, **options: object
) -> tuple[list[type[Outcome]], str]:
    """What became of a letter of `sender`, and what is said of it."""
    terms = Forwarding.model_validate(options.pop("terms", {}))
    relay, _ports = relay_to(server, terms=terms, tls=ClientTls(authority.file), **options)  # type: ignore[arg-type]
    logins = IdentityLogins(own, own.secret)  # type: ignore[arg-type]
    object.__setattr__(relay, "logins", logins)
    destination = Destination(own_via(hop, parse_address(sender)), "there.test")

    async def mark(_rows: object) -> bool:
        return True

    done = await attempt_in(relay.session(destination, mark=mark))
    return kinds(done), " ".join([str(done.outcomes[0]), *done.transcript])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def logged_in(server: Peer) -> list[str]:
    return [base64.b64decode(line.split()[2]).decode() for line in server.commands if line.startswith("AUTH ")]


async def test_each_identity_logs_in_as_itself_at_the_same_server(authority: Authority) -> None:
    own = Houses(Protection.IMPLICIT)
    async with peer(IN, WITH_AUTH, tls=authority.server("mx1.test"), implicit=True) as server:
        for sender in (ADA, BOB):
            assert (await sent(own, server, "mx1.test:465", authority, sender))[0] == [Delivered, Delivered]
        own.secrets["file:ada"] = "neu"
        assert (await sent(own, server, "mx1.test:465", authority))[0] == [Delivered, Delivered]
    assert logged_in(server) == [f"\0{ADA}\0geheim", f"\0{BOB}\0secret", f"\0{ADA}\0neu"]


async def test_the_login_of_the_configuration_comes_first(authority: Authority) -> None:
    fixed = {"mx1.test:465": Credentials("house", "fixed")}
    terms = {"login": {"mx1.test:465": {"user": "house", "password_file": "p"}}}
    async with peer(IN, WITH_AUTH, tls=authority.server("mx1.test"), implicit=True) as server:
        own = Houses(Protection.IMPLICIT)
        await sent(own, server, "mx1.test:465", authority, credentials=fixed, terms=terms)
    assert logged_in(server) == ["\0house\0fixed"]


async def test_a_token_goes_by_its_own_mechanism(authority: Authority) -> None:
    own = Houses(Protection.STARTTLS, Mechanism.XOAUTH2)
    async with peer(IN, WITH_STARTTLS, tls=authority.server("mx1.test")) as server:
        told = await sent(own, server, "mx1.test:587", authority)
    assert told[0] == [Delivered, Delivered]
    assert logged_in(server) == [f"user={ADA}\x01auth=Bearer geheim\x01\x01"]
    assert "geheim" not in told[1]
    assert base64.b64encode(b"Bearer geheim")[4:12].decode() not in told[1]


@pytest.mark.parametrize(
    ("secrets", "identity", "words"),
    [
        ({}, ADA, "cannot be had: there is no password"),
        ({"file:ada": "x"}, "gone@far.test", "no account of this house"),
    ],
)
async def test_mail_waits_for_a_login(authority: Authority, secrets: dict[str, str], identity: str, words: str) -> None:
    own = Houses(Protection.IMPLICIT)
    own.secrets = secrets
    async with peer(IN, WITH_AUTH) as server:
        became, told = await sent(own, server, "mx1.test:465", authority, identity)
    assert became == [Deferred, Deferred]
    assert words in told
    assert server.connections == 0


HIDDEN = WITH_STARTTLS.replace("250-STARTTLS\r\n", "")


@pytest.mark.conformance("C271", "S4", "S5")
@pytest.mark.parametrize(
    ("ehlo", "starttls"),
    [
        (HIDDEN, ""),
        (WITH_STARTTLS, "454 4.7.0 not now"),
        (WITH_STARTTLS, "354 go"),
        (WITH_STARTTLS, DROP),
        (WITH_STARTTLS, b"220 go\r\n250-SIZE 5\r\n250 AUTH PLAIN\r\n"),
        (WITH_STARTTLS, b"220 go\r\n250"),
    ],
)
async def test_no_password_over_a_stripped_connection(authority: Authority, ehlo: str, starttls: str | bytes) -> None:
    answers = {"STARTTLS": starttls} if starttls else {}
    async with peer({**IN, **answers}, ehlo, tls=authority.server("mx1.test")) as server:
        became, _ = await sent(Houses(Protection.STARTTLS), server, "mx1.test:587", authority)
    assert became == [Deferred, Deferred]
    assert not any(line.startswith("AUTH") for line in server.commands)


@pytest.mark.conformance("C145", "C271")
@pytest.mark.parametrize("protection", [Protection.IMPLICIT, Protection.STARTTLS])
@pytest.mark.parametrize("fault", ["name", "expired", "unknown"])
async def test_no_password_where_the_certificate_is_wrong(
    authority: Authority, protection: Protection, fault: str, tmp_path: Path
) -> None:
    maker = Authority(tmp_path) if fault == "unknown" else authority
    context = maker.server(
        "other.test" if fault == "name" else "mx1.test", begins_days=-20 if fault == "expired" else -1
    )
    implicit = protection is Protection.IMPLICIT
    async with peer(IN, WITH_STARTTLS, tls=context, implicit=implicit) as server:
        hop = "mx1.test:465" if implicit else "mx1.test:587"
        became, told = await sent(Houses(protection), server, hop, authority)
    assert became == [Deferred, Deferred]
    assert "certificate" in told
    assert not any(line.startswith("AUTH") for line in server.commands)


async def test_a_policy_may_only_be_stricter(authority: Authority) -> None:
    terms = {"tls": "never", "tls_policies": {"mx1.test": "never"}}
    async with peer(IN, HIDDEN) as server:
        became, _ = await sent(Houses(Protection.STARTTLS), server, "mx1.test:587", authority, terms=terms)
    assert became == [Deferred, Deferred]
    assert not any(line.startswith("AUTH") for line in server.commands)


def test_every_protection_has_its_mode() -> None:
    from posthouse.forwarding.logins import MODES

    assert set(MODES) == set(Protection)
    assert MODES[Protection.STARTTLS] is TlsMode.REQUIRED
