"""What a house must hold after a power cut, worked out from what was asked and answered before it.

Nothing here looks into an engine: a `Picture` is drawn through the interfaces of storage, and compared with the picture
that the acknowledged steps alone must give. Steps under way may be there, each wholly or not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from posthouse.mail.acceptance import Acceptance, Destination
from posthouse.mail.folders import INBOX
from posthouse.mail.ids import AccountId, QueueId, Uid, Uidl
from posthouse.mail.journey import Attempted, JourneyEvent
from posthouse.mail.spool import AT_ONCE, Action, Settlement, SpoolRow
from posthouse.storage.sqlite.claims import MAY_HAVE_ARRIVED
from posthouse.storage.sqlite.storage import SqliteStorage


@dataclass(frozen=True, slots=True)
class Accept:
    """`octets` are the contents by handle, those of generated acceptances too."""

    acceptance: Acceptance
    octets: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class TakeClaim:
    rows: tuple[tuple[QueueId, int], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """The final dot of these rows may have left from then on."""

    rows: tuple[tuple[QueueId, int], ...]


@dataclass(frozen=True, slots=True)
class Settle:
    settlement: Settlement
    octets: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Expunge:
    account: AccountId
    uidls: tuple[Uidl, ...]
    events: tuple[JourneyEvent, ...]


@dataclass(frozen=True, slots=True)
class Operate:
    """An operator's order for all rows that are not claimed: another try at once, or their removal."""

    action: Action
    rows: tuple[tuple[QueueId, int], ...]
    events: tuple[JourneyEvent, ...]


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """A sweep or a checkpoint: changes nothing that anybody can see."""


Step: TypeAlias = Accept | TakeClaim | Mark | Settle | Expunge | Operate | Housekeeping


@dataclass(slots=True)
class Waiting:
    """A spool row, with the octets that its next hop is to be sent."""

    forward_path: str
    reverse_path: str
    destination: Destination
    not_before: float
    expires_at: float
    attempts: int
    last_reply: str | None
    octets: bytes
    asked_about: bool = False
    """Held, with a word in the journey: it may have been sent, and the house that sent it is dead."""


@dataclass(slots=True)
class Picture:
    """All that can be seen of a house: entries by account and uidl, spool rows, journeys."""

    maildrops: dict[AccountId, dict[Uidl, bytes]] = field(default_factory=dict)
    spool: dict[tuple[QueueId, int], Waiting] = field(default_factory=dict)
    journeys: dict[QueueId, tuple[JourneyEvent, ...]] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        """Change the picture as the step must."""
        match step:
            case Accept(acceptance=acceptance, octets=octets):
                self._accept(acceptance, octets)
            case TakeClaim(rows=rows):
                for row in rows:
                    self.spool[row].attempts += 1
            case Mark(rows=rows):
                for row in rows:
                    self.spool[row].asked_about = True
                    self.spool[row].last_reply = MAY_HAVE_ARRIVED
            case Settle(settlement=settlement, octets=octets):
                self._settle(settlement, octets)
            case Expunge(account=account, uidls=uidls, events=events):
                for uidl in uidls:
                    self.maildrops[account].pop(uidl, None)
                self._write(events)
            case Operate(action=action, rows=rows, events=events):
                for row in rows:
                    if action is Action.REMOVE:
                        del self.spool[row]
                    else:
                        self.spool[row].not_before = AT_ONCE
                self._write(events)
            case Housekeeping():
                pass

    def _accept(self, acceptance: Acceptance, octets: dict[str, bytes]) -> None:
        message = acceptance.prefix + octets[acceptance.content.handle]
        for placement in acceptance.placements:
            uidl = placement.uidl or Uidl(acceptance.queue_id)
            self.maildrops.setdefault(placement.account, {})[uidl] = placement.prefix + message
        for number, forward in enumerate(acceptance.forwards):
            self.spool[acceptance.queue_id, number] = Waiting(
                str(forward.forward_path),
                str(forward.reverse_path or ""),
                forward.destination,
                forward.not_before,
                forward.expires_at,
                0,
                None,
                message,
            )
        self._write(acceptance.events)
        for generated in acceptance.generated:
            self._accept(generated, octets)

    def _settle(self, settlement: Settlement, octets: dict[str, bytes]) -> None:
        for settled in settlement.rows:
            row = settled.queue_id, settled.recipient_number
            if settled.not_before is None:
                del self.spool[row]
            else:
                self.spool[row].not_before = settled.not_before
                self.spool[row].last_reply = settled.last_reply
                self.spool[row].asked_about = False
        self._write(settlement.events)
        for generated in settlement.generated:
            self._accept(generated, octets)

    def _write(self, events: Iterable[JourneyEvent]) -> None:
        for event in events:
            self.journeys[event.queue_id] = (*self.journeys.get(event.queue_id, ()), event)


@dataclass(slots=True)
class Asked:
    """A step, between which operations of the disk it was carried out, and whether it was granted."""

    step: Step
    begun: int
    answered: int | None = None
    granted: bool = False

    def standing(self, position: int) -> bool | None:
        """After that many operations: True, it must be there; False, it must not; None, either."""
        if self.answered is not None and self.answered <= position:
            return self.granted
        return None if self.begun < position else False


@dataclass(slots=True)
class Ledger:
    """All that was asked; the entries that somebody saw, as (account, uid) to (uidl, since when); when each account
    was there.
    """

    asked: list[Asked] = field(default_factory=list)
    shown: dict[tuple[AccountId, Uid], tuple[Uidl, int]] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)

    def allowed(self, position: int) -> Iterator[Picture]:
        """The pictures that a house may show after a power cut there."""
        open_steps = [asked for asked in self.asked if asked.standing(position) is None]
        for there in itertools.product((False, True), repeat=len(open_steps)):
            chosen = {id(asked): taken for asked, taken in zip(open_steps, there, strict=True)}
            picture = Picture()
            for asked in self.asked:
                if asked.standing(position) or chosen.get(id(asked)):
                    picture.take(asked.step)
            yield picture

    def uidl_of(self, account: AccountId, uid: Uid, position: int) -> Uidl | None:
        """The uidl that was shown with this uid before the power cut, if any was."""
        uidl, since = self.shown.get((account, uid), (None, 0))
        return uidl if since <= position else None


async def draw(storage: SqliteStorage, accounts: Iterable[AccountId], journeys: Iterable[QueueId]) -> Picture:
    """The house as it shows itself; every entry and every waiting message is read whole."""
    picture = Picture()
    for account in accounts:
        listing = await storage.maildrops.list(account)
        assert len(set(listing.uidls)) == len(listing.uidls), f"a uidl twice in {account}: {listing.uidls}"
        entries = {}
        for uid, uidl, size in zip(listing.uids, listing.uidls, listing.sizes_octets, strict=True):
            octets = b"".join([chunk async for chunk in storage.maildrops.read(account, uid, INBOX)])
            assert len(octets) == size, f"{uidl} is listed with {size} octets and has {len(octets)}"
            entries[uidl] = octets
        if entries:
            picture.maildrops[account] = entries
    for row in await storage.spool.list():
        key = row.message.queue_id, row.recipient_number
        assert key not in picture.spool, f"a spool row twice: {key}"
        assert not row.claimed, f"claimed, but the claimant is dead: {key}"
        picture.spool[key] = await _waiting(storage, row)
    for queue_id in journeys:
        events = await storage.journey.read(queue_id)
        # When the next house tells of it is its own affair; that it does stands with the row.
        if told := tuple(event for event in events if not _tells_of_a_mark(event)):
            picture.journeys[queue_id] = told
    return picture


def _tells_of_a_mark(event: JourneyEvent) -> bool:
    return isinstance(event, Attempted) and event.reply == MAY_HAVE_ARRIVED


async def _waiting(storage: SqliteStorage, row: SpoolRow) -> Waiting:
    content = b"".join([chunk async for chunk in storage.content.open(row.message.content_id)])
    events = await storage.journey.read(row.message.queue_id)
    paths = [event.forward_path for event in events if isinstance(event, Attempted) and _tells_of_a_mark(event)]
    held = row.held and not row.held_by_restore
    assert held == row.may_have_arrived == (paths.count(str(row.forward_path)) == 1), f"held for nothing: {row}"
    return Waiting(
        str(row.forward_path),
        str(row.reverse_path or ""),
        row.destination,
        row.not_before,
        row.expires_at,
        row.attempts,
        row.last_reply,
        row.message.prefix + content,
        row.may_have_arrived,
    )


def difference(seen: Picture, wanted: Picture) -> list[str]:
    """How a picture differs from one that would be right, a line for each thing."""
    pairs: tuple[tuple[str, Mapping[Any, object], Mapping[Any, object]], ...] = (
        ("maildrop", _flat(seen.maildrops), _flat(wanted.maildrops)),
        ("spool", seen.spool, wanted.spool),
        ("journey", seen.journeys, wanted.journeys),
    )
    return [
        f"{name} {key}: {_brief(left.get(key))} instead of {_brief(right.get(key))}"
        for name, left, right in pairs
        for key in dict.fromkeys((*left, *right))
        if left.get(key) != right.get(key)
    ]


def _flat(maildrops: dict[AccountId, dict[Uidl, bytes]]) -> dict[object, object]:
    return {(account, uidl): octets for account, entries in maildrops.items() for uidl, octets in entries.items()}


def _brief(thing: object) -> str:
    text = repr(thing)
    return "nothing" if thing is None else text if len(text) < 300 else f"{text[:200]}… ({len(text)} characters)"
