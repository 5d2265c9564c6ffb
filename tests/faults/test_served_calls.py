"""The house itself ends, or is refused, at each call that writes, under the work of a day; then it starts again.

One house, killed and started for each call: two acceptances, one of them large, a delivery to a next hop, a failure
with its report, a POP3 session that deletes. All is compared through the doors after each start, and once more in
the store at the end.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from posthouse.storage.interfaces import Storage
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.world import World
from tests.faults.calls import TRACED, most_in_one_thread
from tests.faults.strace import KILL, Attached, error, injecting
from tests.house.served import ServedHouse
from tests.house.wire import Wire, stored
from tests.house.zygote import Zygote
from tests.peers.programs import Program
from tests.running_house import RunningHouse

pytestmark = [pytest.mark.long, pytest.mark.peers]

ALL = os.environ.get("POSTHOUSE_FAULTS") == "all"
ADA, BOB, FAR, NOBODY = "ada@here.test", "bob@here.test", "bob@there.test", "nobody@there.test"
FILLING = (b"y" * 70 + b"\r\n") * 2_500
STEPS = {"pwrite64": 11, "write": 5, "openat": 4}
"""Of these calls only each so-manieth is struck: storage by itself is struck at all of them."""
_SERIAL = re.compile(rb"X-Serial: ([0-9a-z-]+)\r\n")


@dataclass
class Ledger:
    """Serials of messages by what was said of them; entries of bob by (UIDL), as far as they were deleted."""

    sent: set[str] = field(default_factory=set)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Serial → queue id."""
    refused: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    """UIDLs that were marked before a QUIT which nobody answered."""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    folder = tmp_path_factory.mktemp("there")
    with RunningHouse(folder, (FAR,), hostname="mx.there.test", postmaster=FAR) as house:
        yield house


def send(house: ServedHouse, ledger: Ledger, serial: str, filling: bytes, *recipients: str) -> None:
    content = b"From: ada@here.test\r\nX-Serial: " + serial.encode() + b"\r\n\r\n" + filling + b"\r\n"
    ledger.sent.add(serial)
    with Wire(house.ports["smtp"]) as wire:
        wire.greet().envelope(*recipients, sender=ADA)
        reply = wire.content(content)
    if reply.startswith(b"250 "):
        ledger.acknowledged[serial] = stored(reply)
    else:
        assert reply.startswith(b"4"), f"refused for good, for a disk's sake: {reply!r}"
        ledger.refused.add(serial)


def delete_two(house: ServedHouse, ledger: Ledger) -> None:
    """As many as there are, up to two; a house that is refused its calls may say so at any step."""
    with Wire(house.ports["pop3"]) as wire:
        if not wire.login(BOB).startswith(b"+OK"):
            return
        marked = set(wire.uidls()[:2])
        for number in range(1, len(marked) + 1):
            assert wire.pop3(f"DELE {number}").startswith(b"+OK")
        ledger.doubtful |= marked
        said = wire.pop3("QUIT")
        ledger.doubtful -= marked
        if said.startswith(b"+OK"):
            ledger.deleted |= marked


def work(house: ServedHouse, ledger: Ledger, life: str) -> None:
    """What the house is struck in. A connection that breaks tells nothing."""
    steps: tuple[Callable[[], None], ...] = (
        lambda: send(house, ledger, f"{life}-small", b"hi", BOB, FAR),
        lambda: send(house, ledger, f"{life}-large", FILLING, BOB, NOBODY),
        lambda: delete_two(house, ledger),
    )
    for step in steps:
        try:
            step()
        except OSError:
            continue
        except AssertionError as exc:
            # A connection that ends in the middle of a line is what a kill looks like; 421, what a refused call does.
            if "the server ended inside" not in str(exc) and "421 " not in str(exc) and "451 " not in str(exc):
                raise


def until_reported(house: ServedHouse, so_many: int) -> None:
    """The failure has come back to its sender, as it does at once; or the house has ended before."""
    with suppress(OSError, AssertionError):
        while not house.has_ended() and reports(house) < so_many:
            continue


def reports(house: ServedHouse) -> int:
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(ADA).startswith(b"+OK")
        return len(wire.uidls())


def check_doors(house: ServedHouse, ledger: Ledger, life: str) -> None:
    """After a start: what the doors show of bob's maildrop is what was promised."""
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(BOB).startswith(b"+OK")
        uidls = wire.uidls()
        assert len(set(uidls)) == len(uidls), life
        serials = Counter[str]()
        for number, uidl in enumerate(uidls, 1):
            octets = wire.retrieve(number)
            found = _SERIAL.search(octets)
            assert found, f"{life}: {octets[:300]!r}"
            serial = found[1].decode()
            filling = FILLING if serial.endswith("large") else b"hi"
            assert octets.endswith(b"\r\n\r\n" + filling + b"\r\n"), f"{life}: {serial} is not whole"
            assert ledger.acknowledged.get(serial, uidl) == uidl, f"{life}: another entry of {serial}"
            serials[serial] += 1
        assert wire.pop3("QUIT").startswith(b"+OK")
    assert [serial for serial, count in serials.items() if count > 1] == [], life
    assert ledger.refused & serials.keys() == set(), f"{life}: refused, and there"
    assert ledger.deleted & set(uidls) == set(), f"{life}: deleted, and there"
    gone = {uidl for uidl in ledger.acknowledged.values() if uidl not in uidls}
    assert gone - ledger.deleted - ledger.doubtful == set(), f"{life}: acknowledged, and gone"
    ledger.deleted |= ledger.doubtful - set(uidls)
    ledger.doubtful.clear()


async def serials_of(storage: Storage, login: str) -> Counter[str]:
    """How many entries of a maildrop name each serial, as a message or in a report."""
    account = await storage.directory.account(login)
    assert account is not None
    counted: Counter[str] = Counter()
    for uid in (await storage.maildrops.list(account.account)).uids:
        octets = b"".join([chunk async for chunk in storage.maildrops.read(account.account, uid)])
        counted.update({serial.decode() for serial in _SERIAL.findall(octets)})
    return counted


async def check_store(folder: Path, there: RunningHouse, ledger: Ledger) -> None:
    """At the end, with nobody at work: nothing dangles, and what was to go on has gone, was reported, or waits."""
    world = World()
    storage = await SqliteStorage.open(folder, clock=world.clock, random=world.random)
    try:
        assert [flaw async for flaw in storage.check() if not flaw.note] == []
        waiting: Counter[str] = Counter()
        for row in await storage.spool.list():
            octets = b"".join([chunk async for chunk in storage.content.open(row.message.content_id)])
            found = _SERIAL.search(octets)
            assert found
            waiting[found[1].decode()] += 1
        reports = await serials_of(storage, ADA)
    finally:
        await storage.close()
    arrived = await asyncio.to_thread(there.ask, lambda store: serials_of(store, FAR))
    assert [serial for serial, count in waiting.items() if count > 1] == [], "a row twice"
    assert [serial for serial, count in reports.items() if count > 1] == [], "reported twice"
    assert reports.keys() & waiting.keys() == set(), "reported, and still waiting"
    assert ledger.refused & (waiting.keys() | reports.keys() | arrived.keys()) == set(), "refused, and gone on"
    for serial in ledger.acknowledged:
        ends = reports if serial.endswith("large") else arrived
        assert serial in ends or serial in waiting, f"{serial} was acknowledged, and its recipient elsewhere is lost"


def lives(counted: Counter[str], what: str) -> list[tuple[str, int]]:
    """The calls to strike, one in each life."""
    chosen = []
    for call in ("fsync", "fdatasync", "unlink", "write", "openat", "pwrite64"):
        step = 1 if ALL else STEPS.get(call, 1) * (1 if what == KILL else 2)
        chosen += [(call, nth) for nth in range(1, counted[call] + 1, step)]
    return chosen


@pytest.mark.conformance("C58", "C103", "C313", "S6")
@pytest.mark.parametrize("what", [KILL, error("EIO"), error("ENOSPC")], ids=["KILL", "EIO", "ENOSPC"])
def test_the_house_is_struck_at_each_call(
    tmp_path: Path, there: RunningHouse, strace: Program, zygote: Zygote, what: str
) -> None:
    ledger = Ledger()
    kind = what.partition("=")[2].lower()
    folder = tmp_path / "house"
    folder.mkdir()
    route = f'[forwarding]\nroutes = {{ "*" = "127.0.0.1:{there.ports["smtp"]}" }}\nretry = ["1s"]\n'
    trust = '[reception]\ntrusted_networks = ["127.0.0.0/8"]\n'
    with ServedHouse(folder, (ADA, BOB), route + trust, ("smtp", "pop3"), zygote=zygote) as house:
        # Once without a strike, to count; the deliveries go on until the house ends.
        house.start()
        log = tmp_path / "counted.log"
        with Attached(strace.path, house.pid, log, ["-e", TRACED]):
            work(house, ledger, f"{kind}-first")
            until_reported(house, 1)
            house.kill()
        assert len(ledger.acknowledged) == 2
        counted = most_in_one_thread(log)
        assert min(counted[call] for call in ("fsync", "fdatasync", "write", "openat", "pwrite64")) > 0, counted
        struck, number = 0, 0
        for number, (call, nth) in enumerate(lives(counted, what)):
            # (The next hop is the same for all kinds of strikes.)
            life = f"{kind}-{number}-{call}-{nth}"
            log = tmp_path / "struck.log"
            house.start()
            check_doors(house, ledger, life)
            told = reports(house)
            with Attached(strace.path, house.pid, log, ["-e", f"trace={call}", *injecting(call, what, nth)]):
                work(house, ledger, life)
                if what == KILL:
                    until_reported(house, told + 1)
                ended = house.has_ended()
                house.kill()
            struck += ended if what == KILL else "(INJECTED)" in log.read_text()
        house.start()
        check_doors(house, ledger, "last")
        work(house, ledger, f"{kind}-and-it-serves")
        house.stop()
    assert struck > number // 3, "hardly a call was struck"
    assert len(ledger.acknowledged) > 5
    asyncio.run(check_store(folder, there, ledger))
