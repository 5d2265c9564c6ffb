"""A house of one's own that collects from a maildrop in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse.collection.collector import Collector, Report
from posthouse.collection.intake import House
from posthouse.mail.address import parse_address
from posthouse.mail.folders import INBOX
from posthouse.mail.ids import AccountId, Uid
from posthouse.mail.source import Policy, Protection, Server, Source, SourceSettings
from posthouse.net.connect import TcpConnector
from posthouse.net.tls import client_context
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.collection.maildrop import Maildrop, served
from tests.storage.contract.engines import kill
from tests.storage.contract.world import SeededRandom, SetClock

ADDRESS = parse_address("ada@provider.test")


class Home:
    """`collect` runs one session."""

    def __init__(self, folder: Path, storage: SqliteStorage, clock: SetClock, maildrop: Maildrop) -> None:
        self.folder = folder
        self.storage = storage
        self.clock = clock
        self.maildrop = maildrop
        self.account = AccountId(1)
        self.largest_octets = 50_000_000

    async def source(self) -> Source:
        source = await self.storage.sources.find(ADDRESS)
        assert source is not None
        return source

    async def keep(self, policy: Policy) -> None:
        source = await self.source()
        await self.storage.sources.change(dataclasses.replace(source.settings, policy=policy))

    def collector(self) -> Collector:
        async def secret(reference: str) -> str:
            return f"secret of {reference}"

        house = House(
            storage=self.storage,
            clock=self.clock,
            random=SeededRandom(int(self.clock.time)),
            hostname="home.test",
            largest_octets=self.largest_octets,
        )
        return Collector(
            house=house, connector=TcpConnector(), context=lambda: client_context(verified=True), secret=secret
        )

    async def collect(self) -> Report:
        self.clock.time += 1.0
        return await self.collector().collect(await self.source(), "ada@home.test")

    async def crash(self) -> None:
        """As SIGKILL would: nothing is finished, and the next process opens what is there."""
        kill(self.storage)
        self.storage = await open_home(self.folder, self.clock)

    async def contents(self, folder: str = INBOX) -> list[bytes]:
        """Messages without our own field above them."""
        listing = await self.storage.maildrops.list(self.account, folder)
        return [
            (await self.whole(uid, folder)).partition(b"\r\n\t")[2].partition(b"\r\n\t")[2].partition(b"\r\n")[2]
            for uid in listing.uids
        ]

    async def whole(self, uid: Uid, folder: str = INBOX) -> bytes:
        return b"".join([chunk async for chunk in self.storage.maildrops.read(self.account, uid, folder)])


async def open_home(folder: Path, clock: SetClock, *, create: bool = False) -> SqliteStorage:
    return await SqliteStorage.open(folder, clock=clock, random=SeededRandom(int(clock.time) + 1), create=create)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    clock = SetClock()
    storage = await open_home(tmp_path / "data", clock, create=True)
    await storage.administration.add_domain("home.test")
    account = await storage.administration.add_account(
        parse_address("ada@home.test"), verifier="$argon2id$x", quota_octets=None, now=clock.now()
    )
    async with served(Maildrop()) as maildrop:
        await storage.sources.add(
            SourceSettings(
                address=ADDRESS,
                account=account,
                server=Server("127.0.0.1", maildrop.port, Protection.NONE),
                login="ada",
                secret="file:ada",
            )
        )
        home = Home(tmp_path / "data", storage, clock, maildrop)
        yield home
        await home.storage.close()
