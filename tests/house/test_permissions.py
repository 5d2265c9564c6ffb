"""What a house writes is closed to others, whatever the umask; links that were planted are not followed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from posthouse.engines import open_storage
from posthouse.storage.errors import StorageError
from posthouse.storage.upkeep import Order
from posthouse.workers import AlreadyServed, lock_folder
from posthouse.world import World
from tests.house.wire import Wire
from tests.running_house import RunningHouse, house_config

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000


def open_to_others(folder: Path) -> list[str]:
    return [f"{path.name} {path.lstat().st_mode:o}" for path in folder.rglob("*") if path.lstat().st_mode & 0o077]


@pytest.mark.conformance("C298", "S27", "S39")
def test_nothing_that_a_house_writes_is_open_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        data = tmp_path / "data"
        data.mkdir(mode=0o700)
        with RunningHouse(data) as house:
            with Wire(house.ports["smtp"]).greet() as peer:
                peer.deliver(LARGE, "ada@here.test")
                peer.deliver(b"Subject: small\r\n\r\nx\r\n", "ada@here.test")
            house.ask(lambda storage: storage.backup(tmp_path / "backup", Order(hostname="mx.here.test")))
            house.ask(lambda storage: storage.sweep(9e9))
            assert open_to_others(tmp_path) == []
            names = {path.name for path in data.iterdir()}
            assert {"posthouse.db", "posthouse.db-wal", "content", "incarnations", "serve.lock", "sweep.lock"} <= names
    finally:
        os.umask(before)


@pytest.mark.conformance("C298", "S27")
@pytest.mark.parametrize("name", ["serve.lock", "sweep.lock"])
def test_a_planted_link_is_not_followed(tmp_path: Path, name: str) -> None:
    data, victim = tmp_path / "data", tmp_path / "victim"
    data.mkdir()
    with RunningHouse(data):
        pass
    (data / name).unlink(missing_ok=True)
    (data / name).symlink_to(victim)

    async def use() -> None:
        storage = await open_storage(house_config(data), World())
        try:
            await storage.sweep(9e9)
        finally:
            await storage.close()

    if name == "serve.lock":
        with pytest.raises(AlreadyServed, match="cannot be opened"):
            lock_folder(data)
    else:
        with pytest.raises((StorageError, OSError)):
            asyncio.run(use())
    assert not victim.exists()
    assert (data / name).is_symlink()


@pytest.mark.conformance("C298", "S27")
def test_content_that_was_replaced_by_a_link_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(LARGE)
    data = tmp_path / "data"
    data.mkdir()
    with RunningHouse(data) as house:
        with Wire(house.ports["smtp"]).greet() as peer:
            peer.deliver(LARGE, "ada@here.test")
        (file,) = (data / "content").rglob("*-*")
        file.unlink()
        file.symlink_to(secret)
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login("ada@here.test").startswith(b"+OK")
            wire.send(b"RETR 1\r\n")
            assert b"0123456789abcdef" not in wire.rest()
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login("ada@here.test").startswith(b"+OK"), "the house goes on"
