"""App passwords, better hashes, last uses, and the secrets of the house."""

from __future__ import annotations

import asyncio

import pytest

from posthouse.mail.account import APP_PASSWORD, PASSWORD, Account, AppPassword, Credential, ScramKeys
from posthouse.mail.ids import CredentialId
from posthouse.storage.errors import DirectoryConflict
from tests.storage.contract.world import House, alice, bob

LOGIN = "Alice@house.test"
KEYS = ScramKeys(b"s" * 32, b"k" * 32)


async def found(house: House, login: str = LOGIN) -> Account:
    account = await house.storage.directory.account(login)
    assert account is not None
    return account


async def credentials(house: House, kind: str) -> list[Credential]:
    return [credential for credential in (await found(house)).credentials if credential.kind == kind]


async def add(house: House, name: str, scram: ScramKeys | None = None) -> None:
    await house.storage.credentials.add_app_password(LOGIN, name, verifier=f"hash of {name}", scram=scram, now=5.0)


async def test_app_passwords_come_and_go(house: House) -> None:
    await house.account()
    await add(house, "phone", KEYS)
    await add(house, "laptop")
    phone, laptop = await credentials(house, APP_PASSWORD)
    assert (phone.name, phone.verifier, phone.scram) == ("phone", "hash of phone", KEYS)
    assert (laptop.name, laptop.scram) == ("laptop", None)
    listed = await house.storage.credentials.app_passwords(LOGIN)
    assert listed == (AppPassword("phone", 5.0, None), AppPassword("laptop", 5.0, None))
    await house.storage.credentials.revoke_app_password(LOGIN, "phone")
    assert await credentials(house, APP_PASSWORD) == [laptop]
    assert len(await credentials(house, PASSWORD)) == 1


async def test_who_has_a_password_without_scram_keys(house: House) -> None:
    async def without(limit: int = 10) -> tuple[str, ...]:
        return await house.storage.directory.logins_without_scram(limit)

    assert await without() == ()
    await house.account()
    await house.account(bob)
    assert await without() == (str(alice), str(bob))
    assert await without(1) == (str(alice),)
    await house.storage.administration.set_password(LOGIN, "hash", 1.0, KEYS)
    assert await without() == (str(bob),)
    await add(house, "laptop")
    await add(house, "phone")
    assert await without() == (str(alice), str(bob))
    await house.storage.administration.set_suspended(str(bob), True)
    assert await without() == (str(alice),)
    (credential, *_) = await credentials(house, APP_PASSWORD)
    await house.storage.credentials.replace(credential.credential, "hash of laptop", "hash of laptop", KEYS)
    assert await without() == (str(alice),)
    await house.storage.administration.remove_account(LOGIN, keep_mail=True, now=1.0)
    assert await without() == ()


async def test_what_contradicts_is_refused(house: House) -> None:
    await house.account()
    await house.account(bob)
    await add(house, "phone")
    with pytest.raises(DirectoryConflict, match="phone"):
        await add(house, "phone")
    with pytest.raises(DirectoryConflict, match="laptop"):
        await house.storage.credentials.revoke_app_password(LOGIN, "laptop")
    with pytest.raises(DirectoryConflict, match="phone"):
        await house.storage.credentials.revoke_app_password("bob@house.test", "phone")
    for work in (
        house.storage.credentials.app_passwords("eve@house.test"),
        house.storage.credentials.revoke_app_password("eve@house.test", "phone"),
        house.storage.credentials.add_app_password("eve@house.test", "x", verifier="y", scram=None, now=1.0),
    ):
        with pytest.raises(DirectoryConflict, match="no account"):
            await work


async def test_a_new_password_leaves_app_passwords(house: House) -> None:
    await house.account()
    await add(house, "phone")
    await house.storage.administration.set_password(LOGIN, "new", 6.0, KEYS)
    (password,) = await credentials(house, PASSWORD)
    assert (password.verifier, password.scram) == ("new", KEYS)
    assert len(await credentials(house, APP_PASSWORD)) == 1
    await house.storage.administration.set_password(LOGIN, "newer", 6.0)
    (password,) = await credentials(house, PASSWORD)
    assert password.scram is None


async def test_a_verifier_is_replaced_only_where_it_is_still_the_one(house: House) -> None:
    await house.account()
    (password,) = await credentials(house, PASSWORD)
    await house.storage.credentials.replace(password.credential, "another", "worse", None)
    assert await credentials(house, PASSWORD) == [password]
    await house.storage.credentials.replace(password.credential, password.verifier, "better", KEYS)
    (replaced,) = await credentials(house, PASSWORD)
    assert (replaced.credential, replaced.verifier, replaced.scram) == (password.credential, "better", KEYS)


async def test_the_last_use_is_kept_without_disturbing_caches(house: House) -> None:
    await house.account()
    await add(house, "phone")
    before = await found(house)
    (phone,) = await credentials(house, APP_PASSWORD)
    await house.storage.credentials.note_used({phone.credential: 70.0, CredentialId(99): 1.0})
    await house.storage.credentials.note_used({phone.credential: 60.0})
    assert await house.storage.credentials.app_passwords(LOGIN) == (AppPassword("phone", 5.0, 70.0),)
    assert await found(house) is before


async def test_secrets_are_made_once(house: House) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(house.storage.credentials.secret("one")) for _again in range(5)]
    (secret,) = {task.result() for task in asked}
    assert len(secret) == 32
    assert await house.storage.credentials.secret("one") == secret
    assert await (await house.open_another()).credentials.secret("one") == secret
    assert await house.storage.credentials.secret("two") != secret


async def test_salts_differ(house: House) -> None:
    await house.account(alice)
    await house.account(bob)
    salts = {(await found(house, login)).scram_salt for login in ("alice@house.test", "bob@house.test")}
    assert len(salts) == 2
    assert {len(salt) for salt in salts} == {16}
