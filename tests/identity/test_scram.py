"""SCRAM at the authenticator: what strangers see of a login is the same whether it exists or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posthouse.identity import authenticator
from posthouse.identity.authenticator import IdentityRules, TooManyLogins
from posthouse.identity.hashes import make_app_password
from posthouse.mail.account import SCRAM_ITERATIONS, Account
from posthouse.mail.ids import CredentialId
from posthouse.protocol.sasl import ScramExchange, ScramLookup, ScramProof
from posthouse.protocol.sasl_scram import ScramClient, derive_keys
from posthouse.storage.errors import StorageBusy
from tests.identity.people import ELSEWHERE, HERE, House

MINE, OTHER = make_app_password(b"\x01" * 16), make_app_password(b"\x02" * 16)
ALICE = "alice@x.test"


def give_app_password(house: House, login: str, password: str) -> CredentialId:
    account = house.directory.accounts[login]
    keys = derive_keys(password, account.scram_salt, account.scram_iterations)
    return house.directory.add_app_password(login, password, keys)


async def log_in(
    house: House, login: str, password: str, *, peer_address: str = HERE, authorization_id: str = ""
) -> Account | None:
    """A whole exchange with a client that means well."""
    client, exchange = ScramClient(login, password, "nonce" * 4, authorization_id), ScramExchange()
    assert isinstance(exchange.step(client.first()), ScramLookup)
    verifier, nonce = await house.authenticator.scram_verifier(login, peer_address=peer_address)
    step = exchange.step(client.final(exchange.provide(verifier, nonce)))
    if isinstance(step, bytes):
        client.verify(step)
        step = exchange.step(b"")
    assert isinstance(step, ScramProof)
    return await house.authenticator.scram_finished(
        step.login,
        step.proven,
        stored_key=step.stored_key,
        peer_address=peer_address,
        protocol="test",
        authorization_id=step.authorization_id,
    )


@pytest.mark.conformance("C130")
async def test_scram_is_not_offered_while_the_directory_cannot_say(house: House) -> None:
    house.directory.accounts.clear()
    assert await house.authenticator.offers_scram()
    house.directory.error = StorageBusy("x")
    assert not await house.authenticator.offers_scram()
    house.directory.error = None
    assert not await house.another(rules=IdentityRules(scram=False)).offers_scram()


async def test_an_app_password_is_proven(house: House) -> None:
    give_app_password(house, ALICE, OTHER)
    mine = give_app_password(house, ALICE, MINE)
    assert await log_in(house, ALICE, MINE) is house.directory.accounts[ALICE]
    assert await log_in(house, "ALICE@X.test", OTHER) is house.directory.accounts[ALICE]
    await house.authenticator.flush()
    assert mine in house.credentials.used
    assert await log_in(house, ALICE, make_app_password(b"\x03" * 16)) is None
    assert await log_in(house, ALICE, "right") is None
    assert house.hasher.verified == []


@pytest.mark.conformance("C131", "C317", "S23")
@pytest.mark.parametrize("login", ["stranger@x.test", "no address", "x" * 200])
async def test_an_unknown_login_has_a_salt_that_stays(house: House, login: str) -> None:
    """After a restart and in other processes too: it comes from a secret in the database."""
    verifier, nonce = await house.authenticator.scram_verifier(login)
    again, another_nonce = await house.authenticator.scram_verifier(login)
    elsewhere, _nonce = await house.another().scram_verifier(login)
    assert verifier == again == elsewhere
    assert nonce != another_nonce
    known, _nonce = await house.authenticator.scram_verifier(ALICE)
    other, _nonce = await house.authenticator.scram_verifier("another" + login)
    assert len({verifier.salt, other.salt, known.salt}) == 3
    assert len(verifier.salt) == len(known.salt) == 16
    assert verifier.iterations == known.iterations == SCRAM_ITERATIONS
    assert len(verifier.stored_key) == len(known.stored_key) == 32
    assert await log_in(house, login, MINE) is None


@pytest.mark.conformance("C131")
async def test_salts_of_unknown_logins_need_the_secret(house: House) -> None:
    verifier, _nonce = await house.authenticator.scram_verifier("stranger@x.test")
    house.credentials.secrets["scram"] = b"another"
    other, _nonce = await house.another().scram_verifier("stranger@x.test")
    assert other.salt != verifier.salt
    spelled, _nonce = await house.authenticator.scram_verifier("STRANGER@x.test")
    assert spelled.salt == verifier.salt


@pytest.mark.conformance("C123", "C241", "S23")
async def test_a_suspended_account_looks_like_a_wrong_password(house: House) -> None:
    """Even to who knows the password: the server's last message, which would confirm it, never comes."""
    give_app_password(house, ALICE, MINE)
    before, _nonce = await house.authenticator.scram_verifier(ALICE)
    house.directory.suspend(ALICE)
    after, _nonce = await house.authenticator.scram_verifier(ALICE)
    assert (after.salt, after.iterations) == (before.salt, before.iterations)
    assert after.stored_key != before.stored_key
    assert after.server_key != before.server_key
    assert after.others == ()
    assert await log_in(house, ALICE, MINE) is None
    assert await house.authenticator.scram_finished(ALICE, True) is None


async def test_revoked_or_suspended_between_challenge_and_proof(house: House) -> None:
    give_app_password(house, ALICE, MINE)
    (credential,) = (c for c in house.directory.accounts[ALICE].credentials if c.scram)
    assert credential.scram is not None
    stored_key = credential.scram.stored_key
    assert await house.authenticator.scram_finished(ALICE, True, stored_key=stored_key)
    assert not await house.authenticator.scram_finished(ALICE, True, stored_key=b"\0" * 32)
    account = house.directory.accounts[ALICE]
    house.directory.suspend(ALICE)
    assert not await house.authenticator.scram_finished(ALICE, True, stored_key=stored_key)
    house.directory.accounts[ALICE] = replace(account, credentials=account.credentials[:1])
    assert not await house.authenticator.scram_finished(ALICE, True, stored_key=stored_key)


@pytest.mark.conformance("S11")
async def test_who_proved_is_who_one_is(house: House) -> None:
    house.directory.add("bob@x.test", "hash:bobs")
    give_app_password(house, ALICE, MINE)
    give_app_password(house, "bob@x.test", OTHER)
    assert await log_in(house, ALICE, MINE, authorization_id="Alice@X.TEST")
    for authorization_id in ("bob@x.test", "stranger@x.test", "alice"):
        assert await log_in(house, ALICE, MINE, authorization_id=authorization_id) is None
    assert await log_in(house, "bob@x.test", MINE, authorization_id=ALICE) is None


async def test_chosen_passwords_only_when_told_so(house: House) -> None:
    assert await house.login(ALICE, "right")
    assert house.credentials.replaced == []
    house.authenticator.close()
    house.authenticator = house.another(rules=IdentityRules(scram_for_passwords=True))
    assert await log_in(house, ALICE, "right") is None
    assert await house.login(ALICE, "right", ELSEWHERE)
    assert await log_in(house, ALICE, "right") is house.directory.accounts[ALICE]
    assert await log_in(house, ALICE, "wrong") is None
    assert len(house.credentials.replaced) == 1


async def test_switched_off(house: House) -> None:
    give_app_password(house, ALICE, MINE)
    house.authenticator.close()
    house.authenticator = house.another(rules=IdentityRules(scram=False))
    assert await log_in(house, ALICE, MINE) is None
    assert await house.login(ALICE, MINE)


@pytest.mark.conformance("C292", "S24")
async def test_proofs_and_passwords_share_the_limiter(house: House) -> None:
    give_app_password(house, ALICE, MINE)
    for number in range(3):
        assert await log_in(house, ALICE, f"guess {number}") is None
        assert not await house.login(ALICE, f"word {number}")
    assert house.waits == [1.0]
    assert await log_in(house, ALICE, MINE)
    assert house.waits == [1.0, 2.0]
    assert await log_in(house, ALICE, MINE)
    assert house.waits == [1.0, 2.0]


@pytest.mark.parametrize("full", ["queue of the address", "all that may wait"])
async def test_who_would_wait_too_long_is_sent_away(house: House, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    give_app_password(house, ALICE, MINE)
    assert await house.login(ALICE, "right")
    wait_s = None if full == "queue of the address" else 1.0
    monkeypatch.setattr(house.authenticator._limiter, "wait_s", lambda _login, _address: wait_s)
    monkeypatch.setattr(authenticator, "SLOWED_LIMIT", 0)
    for attempt in (house.login(ALICE, "wrong"), house.login("x@x.test", "x"), log_in(house, ALICE, MINE)):
        with pytest.raises(TooManyLogins):
            await attempt
    assert len(house.hasher.verified) == 1
    assert await house.login(ALICE, "right")
    assert await house.login(ALICE, MINE)
