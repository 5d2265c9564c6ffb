"""What can go wrong at a next hop, at each step, and what becomes of the message: one table, one real house.

A cell is a domain of its own with two MX hosts. Left of the `/` only the first one is faulty, right of it both are:

    1st     the first host took it             2nd     the second host took it, in the same attempt
    later   it waits; nobody has it            maybe   it waits, since the first host may have it (RFC 5321 §3.8)
    back    it went back to its sender with a report, once

A fault is the answer of class 4 or 5, `421` with the end of the connection, the end without a word, a reset, silence,
octets that are no reply, a line or a reply without end, an answer of a class that does not fit (354; to DATA and
inside content 250), or a reply that drips and never ends.

The table follows four rules. What the first host answers counts, but for 4yz to MAIL, which says that it takes nothing
at the moment. Where it ends the session instead, with `421` or without, the second one is asked. Once the final dot was
sent, nobody else is asked but after a `421`. And nothing is returned but for a 5yz.
"""

from __future__ import annotations

import email
import json
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from posthouse.mail.journey import Attempted, JourneyEvent
from posthouse.mail.story import tell
from posthouse.storage.interfaces import Storage
from posthouse.world import World
from tests.fake_world import FakeRandom
from tests.house.far_hosts import PIPELINING, PLAIN, REPLIES, FarHost, FarHosts, Fault
from tests.house.wire import Wire
from tests.net.authority import Authority
from tests.running_house import RunningHouse

TABLE = """
           | 4yz         | 5yz       | 421       | drop        | reset       | hang        | garbage     | endless line | endless reply | wrong class | drip
connect    | -           | -         | -         | 2nd/later   | -           | 2nd/later   | -           | -            | -             | -           | -
greeting   | 2nd/later   | 2nd/back  | 2nd/later | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
EHLO       | 2nd/later   | 1st/1st   | 2nd/later | 1st/1st     | 1st/1st     | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
HELO       | 2nd/later   | 2nd/back  | 2nd/later | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
STARTTLS   | 1st/1st     | 1st/1st   | 1st/1st   | 1st/1st     | 1st/1st     | 1st/1st     | 1st/1st     | 1st/1st      | 1st/1st       | 1st/1st     | 1st/1st
handshake  | 1st/1st     | 1st/1st   | 1st/1st   | 1st/1st     | 1st/1st     | 1st/1st     | 1st/1st     | 1st/1st      | 1st/1st       | 1st/1st     | 1st/1st
STARTTLS!  | 2nd/later   | 2nd/later | 2nd/later | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
handshake! | 2nd/later   | 2nd/later | 2nd/later | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
MAIL       | 2nd/later   | back/back | 2nd/later | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
RCPT       | later/later | back/back | 2nd/later | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
DATA       | later/later | back/back | 2nd/later | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
content    | later/later | back/back | 2nd/later | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later   | 2nd/later    | 2nd/later     | 2nd/later   | 2nd/later
.          | later/later | back/back | 2nd/later | maybe/maybe | maybe/maybe | maybe/maybe | maybe/maybe | maybe/maybe  | maybe/maybe   | maybe/maybe | maybe/maybe
RSET       | 1st/1st     | 1st/1st   | 1st/1st   | 1st/1st     | 1st/1st     | 1st/1st     | 1st/1st     | 1st/1st      | 1st/1st       | 1st/1st     | 1st/1st
QUIT       | 1st/1st     | 1st/1st   | 1st/1st   | 1st/1st     | 1st/1st     | 1st/1st     | 1st/1st     | 1st/1st      | 1st/1st       | 1st/1st     | 1st/1st
"""  # noqa: E501
"""At `HELO` the host has said that it knows no EHLO. Who drops us at EHLO, or answers it with 5yz, is asked again,
by HELO.

Where TLS fails, the mail goes in clear over a fresh connection; with a `!` TLS is required. At `RSET` a message went
ahead whose recipient is unknown."""

TIMEOUTS = {
    **dict.fromkeys((f"{phase}_timeout" for phase in ("connect", "greeting", "command", "final")), "3s"),
    "content_timeout": "2s",
}
"""Long enough for a busy machine to answer in time, short enough to wait for what never comes. All that wait long are
those who drip inside content, which has both limits."""
LARGE_OCTETS = 8_000_000
"""More than the system's buffers hold, so that the final dot cannot have been sent while nobody reads."""
HOUR_S = 3600.0
PATIENCE_S = 120.0
SENDER = "ada@here.test"
STYLES = {"pipelined": PIPELINING, "one by one": PLAIN}
ALONE, BOTH = "alone", "both"


class LaterClock:
    """The machine's clock, so many hours ahead."""

    def __init__(self, hours: float) -> None:
        self._ahead_s = hours * HOUR_S

    def now(self) -> float:
        return time.time() + self._ahead_s

    monotonic = staticmethod(time.monotonic)


@dataclass(frozen=True, slots=True)
class Cell:
    """One domain. `faulty` says which of its hosts are."""

    number: int
    step: str
    fault: Fault
    faulty: str
    expected: str

    @property
    def domain(self) -> str:
        return f"cell{self.number}.test"

    @property
    def forward_path(self) -> str:
        return f"eva@{self.domain}"

    @property
    def unknown(self) -> str:
        return f"nobody@{self.domain}"

    def hosts(self, far: FarHosts) -> tuple[FarHost, FarHost]:
        return far.hosts[f"mx1.{self.domain}"], far.hosts[f"mx2.{self.domain}"]

    @property
    def with_tls(self) -> bool:
        return self.step.startswith(("STARTTLS", "handshake"))

    def prepare(self, far: FarHosts, offers: tuple[str, ...], tls: ssl.SSLContext) -> None:
        """Its hosts and its MX records."""
        faults = {self.step.removesuffix("!"): self.fault}
        if self.step == "HELO":
            faults["EHLO"] = Fault.UNKNOWN
        for name, is_faulty in (("mx1", True), ("mx2", self.faulty == BOTH)):
            far.add(
                f"{name}.{self.domain}",
                faults if is_faulty else {},
                offers=offers,
                script=_knows_no_nobody,
                tls=tls if self.with_tls else None,
            )
        far.mail_for(self.domain, f"mx1.{self.domain}", f"mx2.{self.domain}")


def _knows_no_nobody(line: str, _number: int) -> str | None:
    return "550 5.1.1 No such user" if line.startswith("RCPT TO:<nobody@") else None


def cells() -> list[Cell]:
    head, *rows = ([each.strip() for each in line.split("|")] for line in TABLE.strip().splitlines())
    # Stripping has taken the empty corner with it.
    faults = [Fault(text) for text in head if text]
    found = []
    for step, *outcomes in rows:
        for fault, outcome in zip(faults, outcomes, strict=True):
            if outcome != "-":
                for faulty, expected in zip((ALONE, BOTH), outcome.split("/"), strict=True):
                    found.append(Cell(len(found), step, fault, faulty, expected))
    return found


def house(folder: Path, hours: float, far: FarHosts | None, **forwarding: object) -> RunningHouse:
    """The house as it is at some hour. Without far hosts all goes by `routes`."""
    way: dict[str, object] = {}
    if far is not None:
        way = {"port": far.port, "allow_private_next_hops": True}
    return RunningHouse(
        folder,
        world=World(clock=LaterClock(hours), random=FakeRandom(int(hours), fixed=0.5)),
        forwarding={
            **TIMEOUTS,
            "retry": ["1h"],
            "delay_notice_after": "30d",
            "concurrency": 200,
            **way,
            **forwarding,
        },
        reception={"trusted_networks": ["127.0.0.0/8"]},
        dns={"servers": [far.name_server] if far else []},
    )


@contextmanager
def waiting_room(folder: Path) -> Iterator[Wire]:
    """A session with a house that takes mail, and whose only next hop never greets: all of it is still to be tried."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        everywhere = {"*": f"127.0.0.1:{deaf.getsockname()[1]}"}
        # The one attempt that is under way ends with this limit, and the house does not wait for more than that.
        with house(folder, 0, None, routes=everywhere, greeting_timeout="1s") as waiting:
            with Wire(waiting.ports["smtp"]).greet() as wire:
                yield wire


def send(house: RunningHouse, content: bytes, *forward_paths: str) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.deliver(content, *forward_paths, sender=SENDER)


def until_tried(house: RunningHouse, attempts: int = 1) -> None:
    """Until each row that is left has had so many attempts, and waits for the next."""

    async def under_way(storage: Storage) -> list[str]:
        now = house.world.clock.now()
        rows = await storage.spool.list(10_000)
        return [f"{row.forward_path}: {row}" for row in rows if row.attempts < attempts or row.not_before <= now]

    deadline = time.monotonic() + PATIENCE_S
    while rows := house.ask(under_way):
        assert time.monotonic() < deadline, rows
        # Not at each change: there are some thousand, and hundreds of rows to list.
        time.sleep(0.2)


def waiting(house: RunningHouse) -> set[str]:
    async def ask(storage: Storage) -> set[str]:
        return {str(row.forward_path) for row in await storage.spool.list(10_000)}

    return house.ask(ask)


def events(house: RunningHouse, forward_path: str) -> list[JourneyEvent]:
    """The journeys of all mail to somebody."""

    async def ask(storage: Storage) -> list[JourneyEvent]:
        ids = await storage.journey.find(forward_path=forward_path)
        return [event for queue_id in ids for event in await storage.journey.read(queue_id)]

    return house.ask(ask)


def attempts(house: RunningHouse, forward_path: str) -> list[Attempted]:
    return [
        event
        for event in events(house, forward_path)
        if isinstance(event, Attempted) and event.forward_path == forward_path
    ]


def reported(house: RunningHouse) -> Counter[str]:
    """For whom the sender got reports of failure, and how often."""

    async def ask(storage: Storage) -> list[bytes]:
        account = await storage.directory.account(SENDER)
        assert account is not None
        uids = (await storage.maildrops.list(account.account)).uids
        return [b"".join([part async for part in storage.maildrops.read(account.account, uid)]) for uid in uids]

    found: Counter[str] = Counter()
    for octets in house.ask(ask):
        for part in email.message_from_bytes(octets).walk():
            if part.get("Action") == "failed":
                found[part["Final-Recipient"].partition(";")[2].strip()] += 1
    return found


def outcome(attempt: Attempted) -> str:
    """An attempt in the table's words."""
    if attempt.outcome == "delivered":
        return "1st" if attempt.next_hop.startswith("mx1.") else "2nd"
    return {"deferred": "later", "failed": "back", "uncertain": "maybe"}[attempt.outcome]


def differences(matrix: list[Cell], found: Mapping[int, str]) -> list[str]:
    return [
        f"{cell.step}, {cell.fault.value}, {cell.faulty}: {found[cell.number]}, not {cell.expected}"
        for cell in matrix
        if found[cell.number] != cell.expected
    ]


def errors(house: RunningHouse) -> list[str]:
    lines = [json.loads(line) for line in house.log.getvalue().splitlines()]
    return [str(line) for line in lines if line["level"] in ("error", "critical") or "exception" in line]


@pytest.fixture
def far() -> Iterator[FarHosts]:
    with FarHosts() as hosts:
        yield hosts


@pytest.mark.conformance("C100", "C102", "C103")
@pytest.mark.parametrize("style", ["pipelined", pytest.param("one by one", marks=pytest.mark.long)])
def test_every_failure_has_its_outcome(tmp_path: Path, far: FarHosts, style: str) -> None:
    """Accepted without a way out; then, hours later and after a restart, the matrix; at last all hosts are well."""
    matrix = cells()
    authority = Authority(tmp_path)
    tls = authority.server(*(f"{mx}.{cell.domain}" for cell in matrix if cell.with_tls for mx in ("mx1", "mx2")))
    for cell in matrix:
        cell.prepare(far, STYLES[style], tls)
    policies = {
        "tls_authorities": str(authority.file),
        "tls_policies": {cell.domain: "required" for cell in matrix if cell.step.endswith("!")},
    }
    with waiting_room(tmp_path) as wire:
        _accept(wire, matrix)
    with house(tmp_path, 2, far, **policies) as during:
        until_tried(during)
        last = {cell.number: attempts(during, cell.forward_path)[-1] for cell in matrix}
        found = {number: outcome(attempt) for number, attempt in last.items()}
        assert "\n".join(differences(matrix, found)) == ""
        waits, returned = waiting(during), reported(during)
        for cell in matrix:
            _check(cell, far, waits, returned)
            _check_told(during, cell, last[cell.number])
        _check_alive(during, far)
        assert errors(during) == []
    for cell in matrix:
        _check_farewell(cell, far)
    far.heal()
    with house(tmp_path, 4, far, **policies) as after:
        until_tried(after)
        assert waiting(after) == set()
        assert reported(after) == returned
        for cell in matrix:
            _check_in_the_end(cell, far)
        assert errors(after) == []


def _accept(wire: Wire, matrix: list[Cell]) -> None:
    for cell in matrix:
        if cell.step == "RSET":
            wire.deliver(b"Subject: nobody\r\n\r\n", cell.unknown, sender=SENDER)
        if cell.step != "content":
            wire.deliver(b"Subject: small\r\n\r\n", cell.forward_path, sender=SENDER)
    line = b"x" * 78 + b"\r\n"
    large = b"Subject: large\r\n\r\n" + line * (LARGE_OCTETS // len(line))
    wire.deliver(large, *(cell.forward_path for cell in matrix if cell.step == "content"), sender=SENDER)


def _check(cell: Cell, far: FarHosts, waits: set[str], returned: Counter[str]) -> None:
    """What the hosts have, what the queue has, what the sender has: together the recipient, once."""
    copies = tuple(host.copies(cell.forward_path) for host in cell.hosts(far))
    there = {
        "1st": [(1, 0)],
        "2nd": [(0, 1)],
        "later": [(0, 0)],
        "back": [(0, 0)],
        # Whoever broke off after the dot has the message, and does not know that we do not know.
        "maybe": [(1, 0)],
    }
    assert copies in there[cell.expected], f"{cell}: {copies}"
    assert (cell.forward_path in waits) == (cell.expected in ("later", "maybe")), cell
    assert returned[cell.forward_path] == (cell.expected == "back"), cell
    if cell.step == "RSET":
        assert returned[cell.unknown] == 1
        assert cell.unknown not in waits
        first = cell.hosts(far)[0]
        assert any("RSET" in session for session in first.sessions), f"{cell}: {first.sessions}"


def _check_farewell(cell: Cell, far: FarHosts) -> None:
    """Who took it was left politely, by the time the house has closed."""
    if cell.expected == "1st":
        assert any("QUIT" in session for session in cell.hosts(far)[0].sessions), cell
    if cell.expected == "2nd":
        assert cell.hosts(far)[1].sessions[-1][-1] == "QUIT", cell


def _check_told(house: RunningHouse, cell: Cell, attempt: Attempted) -> None:
    """Who reads the journey learns which host it was and what it said."""
    assert attempt.transcript, cell
    host = "mx2" if cell.expected == "2nd" or (cell.faulty == BOTH and "2nd" in _alone(cell)) else "mx1"
    assert attempt.next_hop.startswith(f"{host}.{cell.domain}"), f"{cell}: {attempt.next_hop}"
    told = "\n".join(line.text for line in tell(events(house, cell.forward_path)))
    words = {
        "1st": f"Delivered: {host}.{cell.domain}",
        "2nd": f"Delivered: {host}.{cell.domain}",
        "later": "451 4." if cell.with_tls or cell.fault is Fault.WRONG else REPLIES.get(cell.fault, "451 4.4."),
        "back": REPLIES[Fault.HARD],
        "maybe": "may have arrived",
    }
    assert words[cell.expected] in told, f"{cell}: {told}"


def _alone(cell: Cell) -> str:
    """What is expected where only the first host has this fault."""
    return next(
        each.expected for each in cells() if (each.step, each.fault, each.faulty) == (cell.step, cell.fault, ALONE)
    )


def _check_alive(house: RunningHouse, far: FarHosts) -> None:
    well = far.add("mx.well.test")
    far.mail_for("well.test", well.name)
    send(house, b"Subject: still here\r\n\r\n", "eva@well.test")
    house.ask(lambda storage: _until_delivered(storage, well))
    assert well.sessions[0][-1] == "QUIT" or well.copies("eva@well.test") == 1


async def _until_delivered(storage: Storage, host: FarHost) -> None:
    while not host.taken:
        await storage.changes.wait(0.05)


def _check_in_the_end(cell: Cell, far: FarHosts) -> None:
    copies = sum(host.copies(cell.forward_path) for host in cell.hosts(far))
    wanted = {"1st": 1, "2nd": 1, "later": 1, "back": 0, "maybe": 2}
    assert copies == wanted[cell.expected], f"{cell}: {copies}"
