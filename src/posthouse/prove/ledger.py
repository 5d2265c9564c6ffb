"""The ledger: what the houses promised, as their peers saw it, and what was found in their maildrops afterwards.

A promise is a `250` after content, or `+OK` after QUIT, that was read. Where no answer was read, both outcomes are
right. Findings are judged while nobody sends (`judge`), for an answer may be read after the entry was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from posthouse.prove.letters import Read, Unreadable, digest_of, read

NOBODY = "nobody@peer.test"
"""A recipient that the neighbour does not know: its sender is owed a report."""
KEPT_ROUNDS = 40
"""What was deleted so many rounds ago is forgotten, so that a long run needs no more memory than a short one."""


class Wrong(StrEnum):
    """What must never happen: the five counters."""

    LOST = "lost"
    DOUBLED = "doubled"
    CORRUPTED = "corrupted"
    RESURRECTED = "resurrected after deletion"
    REFUSED = "stored though refused"


class State(Enum):
    """Of an entry, as far as its reader can know. In doubt: QUIT was sent, its answer not read."""

    PRESENT = auto()
    DOUBTFUL = auto()
    DELETED = auto()


@dataclass(slots=True)
class Letter:
    """One content, and what was answered to those who sent it."""

    serial: int
    digest: bytes
    written_in: int
    """The round."""
    is_welcome: bool = True
    """False: too large or malformed, and refused by every house."""
    offered: frozenset[str] = frozenset()
    """Recipients that were not refused, in submissions whose content ended."""
    turned_away: frozenset[str] = frozenset()
    acknowledged: dict[str, float] = field(default_factory=dict)
    """Queue id → Unix time of the `250`."""
    unanswered: int = 0
    refused: int = 0


@dataclass(slots=True)
class Entry:
    """One entry of a maildrop. `digest` is that of all its octets, None while nobody has read it."""

    serial: int
    queue_id: str
    changed_in: int
    digest: bytes | None = None
    state: State = State.PRESENT


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must never be. `queue_id` is "" where none is known."""

    wrong: Wrong
    text: str
    queue_id: str
    entry: str
    """What the ledger knows of it."""


@dataclass(slots=True)
class Ledger:
    """All promises. Maildrops are named by their address; `house` is the domain of the house under test."""

    house: str
    round: int = 0
    letters: dict[int, Letter] = field(default_factory=dict)
    entries: dict[str, dict[str, Entry]] = field(default_factory=dict)
    """Maildrop → UIDL → entry."""
    owed: dict[tuple[str, str], int] = field(default_factory=dict)
    """(recipient elsewhere, queue id) → serial, until it was seen there."""
    findings: list[Finding] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """What must not be either, and is none of the five."""
    counts: Counter[str] = field(default_factory=Counter)
    _uidls: dict[tuple[str, str], str] = field(default_factory=dict)
    """(maildrop, queue id) → UIDL: one acknowledgement is one entry."""
    _copies: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    """(maildrop, serial) → queue ids of the entries that were ever there."""
    _to_judge: set[tuple[str, str]] = field(default_factory=set)
    _serial: int = 0

    # What senders say.

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def write(self, serial: int, content: bytes, *, is_welcome: bool = True) -> None:
        """Note a content before anything of it is sent."""
        self.letters[serial] = Letter(serial, digest_of(content), self.round, is_welcome)

    def acknowledge(self, serial: int, queue_id: str, recipients: Collection[str], now: float) -> None:
        """`250` was read: from now on each recipient's copy is owed."""
        letter = self.letters[serial]
        letter.acknowledged[queue_id] = now
        letter.offered |= frozenset(recipients)
        self.counts["acknowledged"] += 1
        if not letter.is_welcome:
            self._find(Wrong.REFUSED, f"{queue_id}: was taken, and had to be refused", queue_id, repr(letter))
        for recipient in recipients:
            if recipient.endswith(f"@{self.house}"):
                self._place(recipient, queue_id, serial, queue_id)
            else:
                self.owed[recipient, queue_id] = serial

    def leave_unanswered(self, serial: int, recipients: Collection[str]) -> None:
        """The end of the content may have left, and no answer was read."""
        letter = self.letters[serial]
        letter.unanswered += 1
        letter.offered |= frozenset(recipients)
        self.counts["unanswered"] += 1

    def refuse(self, serial: int) -> None:
        """The content, or all of the envelope, was answered with 4yz or 5yz."""
        self.letters[serial].refused += 1
        self.counts["refused"] += 1

    def turn_away(self, serial: int, recipients: Collection[str]) -> None:
        """These recipients were answered with 4yz or 5yz."""
        self.letters[serial].turned_away |= frozenset(recipients)
        self.counts["recipients refused"] += len(recipients)

    # What readers say.

    def listed(self, maildrop: str, uidls: Sequence[str]) -> None:
        """A session began with this listing: what was in doubt is decided, what was deleted stays away."""
        there = set(uidls)
        if len(there) != len(uidls):
            self._find(Wrong.DOUBLED, f"{maildrop}: a UIDL stands twice in one listing", "", "")
        for uidl, entry in self.entries.get(maildrop, {}).items():
            match entry.state:
                case State.PRESENT:
                    continue
                case State.DOUBTFUL:
                    self._set(entry, State.PRESENT if uidl in there else State.DELETED)
                case State.DELETED:
                    if uidl in there:
                        self._set(entry, State.PRESENT)
                        self._accuse(Wrong.RESURRECTED, maildrop, entry, "was deleted, and is there again")

    def retrieved(self, maildrop: str, uidl: str, octets: bytes, size_octets: int) -> None:
        """A whole entry was read."""
        self.counts["entries read"] += 1
        if len(octets) != size_octets:
            self._find(Wrong.CORRUPTED, f"{maildrop} {uidl}: {len(octets)} octets, LIST says {size_octets}", uidl, "")
        digest = digest_of(octets)
        known = self.entries.get(maildrop, {}).get(uidl)
        if known is not None and known.digest is not None:
            if known.digest != digest:
                self._accuse(Wrong.CORRUPTED, maildrop, known, "was read before with other octets")
            return
        try:
            found = read(octets)
        except Unreadable as exc:
            self._find(Wrong.CORRUPTED, f"{maildrop} {uidl}: {exc}", uidl, "" if known is None else repr(known))
            found = None
        if found is not None:
            self._match(maildrop, uidl, found, known)
        entry = self.entries.get(maildrop, {}).get(uidl)
        if entry is not None:
            entry.digest = digest

    def not_shown(self, maildrop: str, uidl: str) -> None:
        """An entry is listed, and -ERR is what RETR is answered with, while nothing is broken."""
        known = self.entries.get(maildrop, {}).get(uidl)
        self._find(Wrong.LOST, f"{maildrop} {uidl}: is listed, and cannot be read", uidl, repr(known))

    def leave(self, maildrop: str, uidls: Collection[str]) -> None:
        """QUIT is sent now, after these were marked."""
        for uidl in uidls:
            if (entry := self.entries[maildrop].get(uidl)) is not None:
                self._set(entry, State.DOUBTFUL)

    def left(self, maildrop: str, uidls: Collection[str]) -> None:
        """`+OK` to QUIT was read: these are gone for ever."""
        for uidl in uidls:
            if (entry := self.entries[maildrop].get(uidl)) is not None:
                self._set(entry, State.DELETED)
        self.counts["deleted"] += len(uidls)

    # What is compared while nobody sends and nobody reads.

    def unread(self, maildrop: str, uidls: Collection[str]) -> list[str]:
        """Which of these nobody has read yet."""
        known = self.entries.get(maildrop, {})
        return [uidl for uidl in uidls if uidl not in known or known[uidl].digest is None]

    def compare(self, maildrop: str, uidls: Sequence[str]) -> None:
        """The whole maildrop, all of it read: is everything there that must be?"""
        self.listed(maildrop, uidls)
        there = set(uidls)
        for uidl, entry in self.entries.get(maildrop, {}).items():
            if entry.state is State.PRESENT and uidl not in there:
                # Counted once.
                self._set(entry, State.DELETED)
                self._accuse(Wrong.LOST, maildrop, entry, "is gone, and nobody deleted it")

    def judge(self) -> None:
        """What was found in maildrops: had anybody the right to it?"""
        for maildrop, queue_id in self._to_judge:
            entry = self.entries[maildrop][self._uidls[maildrop, queue_id]]
            letter = self.letters[entry.serial]
            if not letter.is_welcome:
                self._accuse(Wrong.REFUSED, maildrop, entry, "is here, and had to be refused")
            elif maildrop not in letter.offered:
                is_refused = maildrop in letter.turned_away or letter.refused > 0 or not letter.offered
                wrong = Wrong.REFUSED if is_refused else Wrong.CORRUPTED
                self._accuse(wrong, maildrop, entry, f"is here, and was taken for {sorted(letter.offered)} only")
            elif maildrop.endswith(f"@{self.house}"):
                self._judge_unanswered(maildrop, entry, letter)
        self._to_judge.clear()

    def owing(self, waiting: Collection[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """What is owed to recipients elsewhere, and does not wait in the queue either: (recipient, queue id)."""
        return (key for key in list(self.owed) if key not in waiting)

    def lose(self, recipient: str, queue_id: str) -> None:
        """It is not waiting, has not arrived, and was not reported."""
        serial = self.owed.pop((recipient, queue_id))
        text = f"{recipient}: letter {serial} does not wait, has not arrived, and was not reported"
        self._find(Wrong.LOST, text, queue_id, repr(self.letters.get(serial)))

    def forget(self) -> None:
        """Drop what was deleted long ago, so that memory is bounded."""
        before = self.round - KEPT_ROUNDS
        for maildrop, entries in self.entries.items():
            for uidl in [u for u, e in entries.items() if e.state is State.DELETED and e.changed_in < before]:
                entry = entries.pop(uidl)
                self._uidls.pop((maildrop, entry.queue_id), None)
        held = {entry.serial for entries in self.entries.values() for entry in entries.values()}
        held |= set(self.owed.values())
        for serial in [s for s, letter in self.letters.items() if letter.written_in < before and s not in held]:
            del self.letters[serial]
        self._copies = {key: count for key, count in self._copies.items() if key[1] in self.letters}

    def count(self, wrong: Wrong) -> int:
        return sum(1 for finding in self.findings if finding.wrong is wrong)

    # Inside.

    def _match(self, maildrop: str, uidl: str, found: Read, known: Entry | None) -> None:
        """An entry was read for the first time: is it what was sent?"""
        letter = self.letters.get(found.serial)
        if letter is None or (found.digest is not None and found.digest != letter.digest):
            reason = "holds what nobody sent" if letter is None else "holds other octets than were sent"
            self._find(Wrong.CORRUPTED, f"{maildrop} {uidl}: {reason}", uidl, repr(letter))
            return
        if known is not None and known.serial != found.serial:
            self._accuse(Wrong.CORRUPTED, maildrop, known, f"holds letter {found.serial}")
            return
        self._place(maildrop, uidl, found.serial, found.queue_ids[0])
        if found.digest is None:
            self.counts["reports"] += 1
            if NOBODY not in letter.offered:
                self.troubles.append(f"{maildrop} {uidl}: a report about what was not to fail: {letter!r}")
            for key in [key for key, serial in self.owed.items() if serial == found.serial and key[0] == NOBODY]:
                del self.owed[key]
            return
        self._to_judge.add((maildrop, found.queue_ids[0]))
        for queue_id in found.queue_ids[1:]:
            self.owed.pop((maildrop, queue_id), None)

    def _place(self, maildrop: str, uidl: str, serial: int, queue_id: str) -> None:
        """An entry is there, or must be."""
        entries = self.entries.setdefault(maildrop, {})
        if uidl not in entries:
            entries[uidl] = Entry(serial, queue_id, self.round)
        first = self._uidls.setdefault((maildrop, queue_id), uidl)
        if first != uidl:
            text = f"has a second entry, {first}, of one acknowledgement"
            self._accuse(Wrong.DOUBLED, maildrop, entries[uidl], text)
            return
        copies = self._copies.setdefault((maildrop, serial), [])
        if queue_id not in copies:
            copies.append(queue_id)
            if len(copies) > 1:
                self.counts["repeated here" if maildrop.endswith(f"@{self.house}") else "repeated elsewhere"] += 1

    def _judge_unanswered(self, maildrop: str, entry: Entry, letter: Letter) -> None:
        """Copies that nobody has the `250` of are no more than there were submissions without an answer."""
        strays = set(self._copies[maildrop, letter.serial]) - letter.acknowledged.keys()
        if len(strays) > letter.unanswered:
            wrong = Wrong.REFUSED if letter.refused else Wrong.DOUBLED
            self._accuse(wrong, maildrop, entry, f"{len(strays)} copies of {letter.unanswered} unanswered")

    def _set(self, entry: Entry, state: State) -> None:
        entry.state = state
        entry.changed_in = self.round

    def _accuse(self, wrong: Wrong, maildrop: str, entry: Entry, text: str) -> None:
        letter = self.letters.get(entry.serial)
        self._find(wrong, f"{maildrop} {entry.queue_id}: {text}", entry.queue_id, f"{entry!r}\n{letter!r}")

    def _find(self, wrong: Wrong, text: str, queue_id: str, entry: str) -> None:
        self.findings.append(Finding(wrong, text, queue_id, entry))
