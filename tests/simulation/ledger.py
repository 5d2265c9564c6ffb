"""What was promised, and whether it was kept: looked at after each start of a house, now and then, and at the end.

A message is followed from house to house: each one's journey must say where every recipient of every message stands,
what it says must be so, and where it names the next hop, that one must have it. So "acknowledged" leads step by step
to a maildrop, to the outside world, to a report, or to a row of the queue; and at the end no row is left.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, Attempted, JourneyEvent, Placed, Queued, Refused, Reported
from posthouse.mail.spool import SpoolRow
from posthouse.mail.standing import Standing, standing
from tests.simulation.house import SimulatedHouse, at_once
from tests.simulation.outside import Taken
from tests.simulation.people import Answer, Letter, Read
from tests.simulation.places import ACCOUNTS

if TYPE_CHECKING:
    from tests.simulation.world import Simulation

WAITS = ("waiting", "trying", "held")
_QUEUE_ID = re.compile(rb"[ \t]id ([0-9A-HJKMNP-TV-Z]{26})[;\s]")
ENDED = ("in_maildrop", "deleted", "delivered", "failed", "refused")


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Store:
    """What one house has, at one moment."""

    queue: dict[str, list[SpoolRow]]
    uidls: dict[str, tuple[str, ...]]
    queue_ids: dict[str, tuple[QueueId, ...]]

    @classmethod
    def of(cls, house: SimulatedHouse) -> Store:
        queue = defaultdict(list)
        for row in at_once(house.storage.spool.list()):
            queue[row.message.queue_id].append(row)
        uidls, queue_ids = {}, {}
        for name in ACCOUNTS:
            login = f"{name}@{house.domain}"
            account = at_once(house.storage.directory.account(login))
            assert account is not None
            listing = at_once(house.storage.maildrops.list(account.account))
            uidls[login], queue_ids[login] = tuple(listing.uidls), tuple(listing.queue_ids)
        return cls(queue, uidls, queue_ids)

    def holders(self, queue_id: str) -> list[str]:
        return [login for login, ids in self.queue_ids.items() if queue_id in ids]


@dataclass(slots=True)
class Ledger:
    """What people were told."""

    letters: dict[str, Letter] = field(default_factory=dict)
    accepted: dict[str, list[tuple[QueueId, Letter, Answer]]] = field(default_factory=lambda: defaultdict(list))
    """By the name of the house."""
    refused: set[str] = field(default_factory=set)
    """Message-IDs."""
    deleted: set[tuple[str, str]] = field(default_factory=set)
    """(login, UIDL) that QUIT was granted for."""
    kept: set[tuple[str, str]] = field(default_factory=set)
    """Marked in a session that ended without QUIT, or with -ERR: it must be there still."""
    perhaps: set[tuple[str, str]] = field(default_factory=set)
    octets: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """What a UIDL was shown as."""

    told: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """(house, its queue id, forward-path) that an outside host has, and whose 250 reached the house, in which life."""

    def note_taken(self, house: SimulatedHouse, taken: Taken) -> None:
        """An outside host takes something from a house. Raises Violation."""
        for key in self._keys(house, taken):
            if self.told.get(key) == house.lives and key[1] not in house.taken_over:
                raise Violation(f"{house.name}: {key[1]} is sent again to {key[2]}, whose 250 had come")

    def note_told(self, house: SimulatedHouse, taken: Taken) -> None:
        self.told |= dict.fromkeys(self._keys(house, taken), house.lives)

    def _keys(self, house: SimulatedHouse, taken: Taken) -> list[tuple[str, str, str]]:
        found = _QUEUE_ID.search(taken.content)
        return [(house.name, found[1].decode(), path) for path in taken.forward_paths] if found else []

    def note_sent(self, house: SimulatedHouse, letter: Letter, answer: Answer) -> None:
        self.letters[letter.message_id] = letter
        if answer.code == 250 and answer.dot:
            self.accepted[house.name].append((QueueId(answer.queue_id), letter, answer))
        elif answer.code or not answer.dot:
            self.refused.add(letter.message_id)

    def note_read(self, login: str, seen: Read) -> None:
        for uidl, octets in seen.shown:
            if self.octets.setdefault((login, uidl), octets) != octets:
                raise Violation(f"{login}: UIDL {uidl} is another message than before")
        for uidl in seen.listed:
            if (login, uidl) in self.deleted:
                raise Violation(f"{login}: {uidl} was deleted and is there again")
        marked = {(login, uidl) for uidl in seen.marked}
        match seen.ended:
            case "deleted":
                self.deleted |= marked
                self.kept -= marked
            case "unknown" | "failed":
                # (RFC 1939 §6: a server that fails at QUIT may have removed some.)
                self.perhaps |= marked
                self.kept -= marked
            case _:
                self.kept |= marked - self.perhaps


def audit(world: Simulation, house: SimulatedHouse, *, everything: bool = False) -> None:
    """Look at one house that is alive. Raises Violation."""
    if house.house is None:
        return
    world.audits += 1
    store = Store.of(house)
    _maildrops(world.ledger, house, store)
    for queue_id, _letter, answer in world.ledger.accepted[house.name]:
        _message(world, house, store, queue_id, answer.taken, ended=everything)
    if everything:
        if store.queue:
            raise Violation(f"{house.name}: still in the queue: {', '.join(store.queue)}")
        for queue_id in all_journeys(house):
            _message(world, house, store, queue_id, (), ended=True)


def all_journeys(house: SimulatedHouse) -> list[QueueId]:
    found = house.storage._readers.here.execute("SELECT DISTINCT queue_id FROM events ORDER BY queue_id").fetchall()
    return [QueueId(queue_id) for (queue_id,) in found]


def _maildrops(ledger: Ledger, house: SimulatedHouse, store: Store) -> None:
    for login, uidls in store.uidls.items():
        there = {(login, uidl) for uidl in uidls}
        again = there & ledger.deleted
        if again:
            raise Violation(f"{house.name}: deleted, and there again: {sorted(again)}")
        lost = {key for key in ledger.kept if key[0] == login} - there
        if lost:
            raise Violation(f"{house.name}: gone without QUIT: {sorted(lost)}")
        doubled = [queue_id for queue_id, number in Counter(store.queue_ids[login]).items() if number > 1]
        if doubled:
            raise Violation(f"{house.name}: twice in the maildrop of {login}: {doubled}")


def _message(
    world: Simulation, house: SimulatedHouse, store: Store, queue_id: QueueId, taken: tuple[str, ...], *, ended: bool
) -> None:
    """One journey: whole, true, and with one report at most for each recipient."""
    where = f"{house.name}: {queue_id}"
    events = at_once(house.storage.journey.read(queue_id))
    accepted = [event for event in events if isinstance(event, Accepted)]
    if not accepted:
        if taken or not any(isinstance(event, Refused) for event in events):
            raise Violation(f"{where} was acknowledged and is not known")
        return
    missing = set(taken) - set(accepted[0].forward_paths)
    if missing:
        raise Violation(f"{where} was acknowledged and knows nothing of {sorted(missing)}")
    if accepted[0].message_id and accepted[0].message_id.strip("<>") in world.ledger.refused:
        raise Violation(f"{where} was refused, and is stored")
    paths = [event.forward_path for event in events if isinstance(event, Placed | Queued)]
    stands = standing(events, store.queue.get(queue_id, ()), store.holders(queue_id), house.clock.now())
    for stand in stands:
        _stands(world, where, stand, events, ended=ended)
    if not paths:
        raise Violation(f"{where} leads nowhere")
    _reports(where, house, accepted[0], events)


def _stands(world: Simulation, where: str, stand: Standing, events: tuple[JourneyEvent, ...], *, ended: bool) -> None:
    allowed = ENDED if ended else ENDED + WAITS
    if stand.state not in allowed:
        raise Violation(f"{where}: {stand}")
    for path in stand.recipients:
        if stand.state == "delivered":
            _arrived(world, where, path, events)
        if stand.state == "failed" and "sender was not told" in stand.text and _sender(events):
            raise Violation(f"{where}: {stand}")


def _sender(events: tuple[JourneyEvent, ...]) -> str:
    return next(event.reverse_path for event in events if isinstance(event, Accepted))


def _arrived(world: Simulation, where: str, path: str, events: tuple[JourneyEvent, ...]) -> None:
    """Whether the next hop has what it is said to have taken."""
    attempts = [e for e in events if isinstance(e, Attempted) and e.forward_path == path and e.outcome == "delivered"]
    there = attempts[-1].reply.split()[-1]
    if any((there, path) in host.has for host in world.outside.values()):
        return
    for house in world.houses:
        if house.house is None:
            # What it has is seen when it is alive again.
            return
        for event in at_once(house.storage.journey.read(QueueId(there))):
            if isinstance(event, Accepted) and path in event.forward_paths:
                return
    raise Violation(f"{where}: {path} is said to be at the next hop as {there}, where nobody has it")


def _reports(where: str, house: SimulatedHouse, accepted: Accepted, events: tuple[JourneyEvent, ...]) -> None:
    told = Counter(
        path
        for event in events
        if isinstance(event, Reported) and event.action == "failed" and event.report_queue_id is not None
        for path in event.forward_paths
    )
    doubled = [path for path, number in told.items() if number > 1]
    if doubled:
        raise Violation(f"{where}: more than one report about {doubled}")
    if accepted.source == "report":
        if accepted.reverse_path:
            raise Violation(f"{where}: a report with a sender")
        if accepted.about is not None:
            about = at_once(house.storage.journey.read(accepted.about))
            if not _sender(about):
                raise Violation(f"{where}: a report about {accepted.about}, which came from the null path")
    if not accepted.reverse_path and told:
        raise Violation(f"{where}: a report about what came from the null path")
