"""The whole house while the n-th sync fails, by strace: what was acknowledged is there, what was refused is not."""

from __future__ import annotations

import asyncio
import smtplib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.faults.strace import Attached
from tests.house.served import ServedHouse
from tests.house.zygote import Zygote
from tests.peers.programs import Program
from tests.running_house import PASSWORD, RunningHouse

from posthouse.mail.ids import AccountId
from posthouse.storage.interfaces import Storage
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.world import World

SYNCS = 15
"""From the house's opening on: those of the first five messages and of their deliveries."""
MORE = 3
"""Messages after the one whose sync should have failed."""
LARGE = "x" * 70 + "\r\n"
PEOPLE = ("ada@here.test", "bob@here.test")


@dataclass
class Ledger:
    """Serials by what their sender was told; a connection that broke tells nothing."""

    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    for_good: set[str] = field(default_factory=set)
    said: str = ""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    folder = tmp_path_factory.mktemp("there")
    with RunningHouse(folder, ("bob@there.test",), hostname="mx.there.test", postmaster="bob@there.test") as house:
        yield house


async def serials(storage: Storage, login: str) -> list[str]:
    """The serials of all entries of a maildrop."""
    account = await storage.directory.account(login)
    assert account is not None
    listing = await storage.maildrops.list(account.account)
    return [await serial(storage, account.account, uid) for uid in listing.uids]


async def serial(storage: Storage, account: AccountId, uid: int) -> str:
    octets = b"".join([chunk async for chunk in storage.maildrops.read(account, uid)])  # type: ignore[arg-type]
    return octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()


async def waiting(storage: Storage) -> set[str]:
    """The serials of what waits in the spool."""
    found = set()
    for row in await storage.spool.list():
        octets = b"".join([chunk async for chunk in storage.content.open(row.message.content_id)])
        found.add(octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode())
    return found


def send(house: ServedHouse, ledger: Ledger, run: str, count: int, lines: int) -> None:
    """Messages one after the other, each for somebody here and somebody elsewhere."""
    for number in range(count):
        name = f"{run}-{number}"
        try:
            with smtplib.SMTP("127.0.0.1", house.ports["submission"], "client.test", timeout=30) as client:
                client.login("ada@here.test", PASSWORD)
                text = f"From: ada@here.test\r\nSubject: {name}\r\n\r\n{LARGE * lines}"
                client.sendmail("ada@here.test", ["bob@here.test", "bob@there.test"], text)
            ledger.acknowledged.add(name)
        except smtplib.SMTPResponseException as exc:
            (ledger.refused if 400 <= exc.smtp_code < 500 else ledger.for_good).add(name)
        except (OSError, smtplib.SMTPException):
            continue


@dataclass(frozen=True, slots=True)
class Stand:
    """What every strike needs."""

    there: RunningHouse
    strace: Path
    zygote: Zygote


@pytest.fixture
def stand(there: RunningHouse, strace: Program, zygote: Zygote) -> Stand:
    return Stand(there, strace.path, zygote)


def strike(folder: Path, stand: Stand, inject: list[str], count: int, lines: int = 1) -> Ledger:
    """One house whose sync fails under load and that is killed then; everything is compared with what was said."""
    folder.mkdir()
    ledger = Ledger()
    route = f'[forwarding]\nroutes = {{ "*" = "127.0.0.1:{stand.there.ports["smtp"]}" }}\n'
    with ServedHouse(folder, PEOPLE, route, ("submission",), zygote=stand.zygote) as house:
        house.start()
        with Attached(stand.strace, house.pid, folder / "strace.log", inject):
            send(house, ledger, folder.name, count, lines)
            house.kill()
        ledger.said = house.said + (folder / "strace.log").read_text()
    asyncio.run(compare(folder, stand.there, ledger))
    return ledger


async def compare(folder: Path, there: RunningHouse, ledger: Ledger) -> None:
    world = World()
    storage = await SqliteStorage.open(folder, clock=world.clock, random=world.random)
    try:
        copies = Counter(await serials(storage, "bob@here.test"))
        rest = await waiting(storage)
        flaws = [flaw async for flaw in storage.check() if not flaw.note]
    finally:
        await storage.close()
    arrived = set(there.ask(lambda store: serials(store, "bob@there.test")))
    assert flaws == []
    assert ledger.for_good == set(), "refused for good, for a disk's sake"
    assert {name: copies[name] for name in ledger.acknowledged if copies[name] != 1} == {}
    assert ledger.acknowledged - rest - arrived == set(), "acknowledged, and neither sent nor waiting"
    assert ledger.refused & copies.keys() == set(), "refused, and there"
    assert ledger.refused & (rest | arrived) == set(), "refused, and sent"


@pytest.mark.conformance("C313", "C314", "S6")
@pytest.mark.long
@pytest.mark.peers
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_the_nth_sync_of_the_log_fails(tmp_path: Path, stand: Stand, error: str) -> None:
    told: list[Ledger] = []
    for nth in range(1, SYNCS + 1, 1 if error == "EIO" else 5):
        log = str(tmp_path / f"{error}{nth}" / f"{DATABASE}-wal")
        what = ["-P", log, "-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error={error}:when={nth}"]
        told.append(strike(tmp_path / f"{error}{nth}", stand, what, nth // 3 + MORE))
    said = "".join(ledger.said for ledger in told)
    assert said.count("(INJECTED)") >= len(told) // 2, "the syncs did not fail"
    assert any(ledger.refused for ledger in told), "no acceptance was hit"
    assert error != "EIO" or "outcome not written yet" in said, "no settlement was hit"


@pytest.mark.conformance("C314", "S6")
@pytest.mark.long
@pytest.mark.peers
@pytest.mark.parametrize("nth", range(1, 7))
def test_the_nth_sync_of_any_file_fails(tmp_path: Path, stand: Stand, nth: int) -> None:
    what = ["-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={nth}"]
    strike(tmp_path / f"any{nth}", stand, what, 4, lines=2_500)
