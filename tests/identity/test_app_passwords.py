"""App passwords: known by their form, never hashed slowly, revocable, never held up by strangers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.identity.hashes import app_verifier, hash_password, is_app_password, make_app_password
from posthouse.storage.errors import StorageBusy
from tests.identity.people import ELSEWHERE, HERE, House

MINE, OTHER = make_app_password(b"\x01" * 16), make_app_password(b"\x02" * 16)


@pytest.mark.conformance("C301")
@given(st.binary(min_size=16, max_size=16))
def test_all_128_bits_are_spelled(octets: bytes) -> None:
    password = make_app_password(octets)
    assert is_app_password(password)
    assert len(password) == 34
    assert (make_app_password(bytes([octets[0] ^ 1]) + octets[1:]) == password) is False
    assert (make_app_password(octets[:-1] + bytes([octets[-1] ^ 1])) == password) is False


def test_the_form_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="app password"):
        hash_password(MINE)
    for text in (MINE.upper(), MINE[:-1], MINE + "a", MINE.replace("-", ""), MINE + "\n", "app-", "right"):
        assert not is_app_password(text)


@pytest.mark.conformance("C291", "C317", "S23")
@pytest.mark.parametrize("login", ["alice@x.test", "stranger@x.test", "gone@x.test", "nobody@x.test", "no address"])
async def test_no_app_password_is_hashed_slowly(house: House, login: str) -> None:
    house.directory.add_app_password("alice@x.test", MINE)
    house.directory.add_app_password("gone@x.test", OTHER)
    assert not await house.login(login, OTHER)
    assert house.hasher.verified == []


async def test_it_logs_in_beside_the_chosen_one_until_revoked(house: House) -> None:
    house.directory.add_app_password("alice@x.test", OTHER)
    house.directory.add_app_password("alice@x.test", MINE)
    assert await house.login("alice@x.test", MINE)
    assert await house.login("alice@x.test", "right")
    assert not await house.login("nobody@x.test", MINE)
    house.directory.add("alice@x.test", "hash:right")
    assert not await house.login("alice@x.test", MINE)


async def test_a_suspended_account_is_not_let_in(house: House) -> None:
    house.directory.add_app_password("alice@x.test", MINE)
    house.directory.suspend("alice@x.test")
    assert not await house.login("alice@x.test", MINE)
    await house.authenticator.flush()
    assert house.credentials.used == {}


@pytest.mark.conformance("C292", "S24")
async def test_guessing_elsewhere_does_not_hold_it_up(house: House) -> None:
    house.directory.add_app_password("alice@x.test", MINE)
    for number in range(30):
        await house.login("alice@x.test", f"guess {number}", f"198.51.100.{number}")
    slowed = len(house.waits)
    assert slowed
    assert await house.login("alice@x.test", MINE, ELSEWHERE)
    assert len(house.waits) == slowed


async def test_the_last_use_is_written_later(house: House) -> None:
    mine = house.directory.add_app_password("alice@x.test", MINE)
    house.directory.add_app_password("alice@x.test", OTHER)
    assert await house.login("alice@x.test", MINE)
    house.clock.advance(5)
    assert await house.login("alice@x.test", MINE)
    assert house.credentials.used == {}
    house.credentials.error = StorageBusy("full")
    with pytest.raises(StorageBusy):
        await house.authenticator.flush()
    house.credentials.error = None
    await house.authenticator.flush()
    assert house.credentials.used == {mine: house.clock.now()}
    house.credentials.used.clear()
    await house.authenticator.flush()
    assert house.credentials.used == {}


@pytest.mark.conformance("C301")
def test_the_store_learns_no_app_password() -> None:
    verifier = app_verifier(MINE)
    assert verifier.startswith("{SHA256}")
    assert MINE not in verifier
    assert HERE not in verifier
