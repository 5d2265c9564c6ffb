"""The journey of a message: one event for each thing that a stage did with it.

Events are values; `to_json` and `from_json` are their only stored form. A kind's name and fields are never changed,
only added to, since journeys outlive versions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted
from operator import attrgetter
from typing import TypeAlias, get_args

from posthouse.mail.ids import QueueId
from posthouse.mail.record import record

LEFT_ALONE = "did not answer a moment ago and is left alone for a while"
"""The end of the reply where no host was asked."""


@record
class Accepted:
    """We took responsibility. Paths are spelled without angle brackets; "" is the null path."""

    queue_id: QueueId
    at: float
    reverse_path: str
    forward_paths: tuple[str, ...]
    size_octets: int
    peer: str
    hello: str
    protocol: str
    """`with` of the Received field: SMTP, ESMTP, ESMTPSA … (RFC 3848); "" for what we made ourselves."""
    login: str | None = None
    message_id: str | None = None
    session: str | None = None
    source: str = "smtp"
    """smtp, report, collection, or written (here, by a person)."""
    about: QueueId | None = None
    """For a report: the message it is about."""


@record
class Placed:
    """A copy is in a maildrop."""

    queue_id: QueueId
    at: float
    forward_path: str
    login: str
    folder: str
    uidl: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A recipient waits in the spool."""

    queue_id: QueueId
    at: float
    forward_path: str
    domain: str
    via: str = ""
    rewritten: str = ""
    """The reverse-path that it goes with instead of the message's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """One try for one recipient. `outcome` is delivered, deferred, failed or uncertain."""

    queue_id: QueueId
    at: float
    forward_path: str
    outcome: str
    reply: str
    from_peer: bool
    next_hop: str
    address: str
    attempt: int
    duration_s: float
    next_at: float | None = None
    transcript: tuple[str, ...] = ()
    """Lines of the dialogue, `C: ` or `S: ` in front, without content and secrets."""
    transcript_ms: tuple[int, ...] = ()
    """Milliseconds from the beginning of the attempt to each of the lines; none where an older version wrote it."""

    @property
    def left_alone(self) -> bool:
        """Whether nobody was asked, since all hosts had not answered other mail a moment ago.

        It stands in the reply alone: a field more could not be read by the version that a rollback returns to.
        """
        return not self.from_peer and self.reply.endswith(LEFT_ALONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report about these recipients went to the sender under its own queue id."""

    queue_id: QueueId
    at: float
    forward_paths: tuple[str, ...]
    action: str
    """failed, delayed, delivered, relayed or expanded (RFC 3464 §2.3.3)."""
    report_queue_id: QueueId | None
    reason: str = ""
    """Why there is none, where report_queue_id is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """The maildrop's owner read the whole message by POP3."""

    queue_id: QueueId
    at: float
    login: str
    uidl: str
    peer: str
    session: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The maildrop's owner deleted it."""

    queue_id: QueueId
    at: float
    login: str
    uidl: str
    peer: str
    session: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operated:
    """An operator acted on the queue: action is retry, hold, release or remove.

    `limit`: the house itself held what goes beyond the sending limit of the account `by`. (A kind of its own could not
    be read by the version that a rollback returns to.)
    """

    queue_id: QueueId
    at: float
    action: str
    forward_paths: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """We refused mail; `queue_id` names nothing but this journey."""

    queue_id: QueueId
    at: float
    command: str
    reply: str
    peer: str
    hello: str
    reverse_path: str | None
    forward_paths: tuple[str, ...]
    login: str | None = None
    session: str | None = None


JourneyEvent: TypeAlias = Accepted | Placed | Queued | Attempted | Reported | Retrieved | Deleted | Operated | Refused

_EMPTY: dict[str, object] = {"str": "", "int": 0, "float": 0.0, "bool": False}
_KINDS: dict[str, type] = {kind.__name__.lower(): kind for kind in get_args(JourneyEvent)}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_COLUMNS = ("queue_id", "at")


def kind_of(event: JourneyEvent) -> str:
    """The stored name of an event's kind."""
    return _NAMES[type(event)]


def parties(event: JourneyEvent) -> tuple[tuple[str, str], ...]:
    """(role, address) pairs that the journey is found by; role is "from" or "to"."""
    match event:
        case Accepted() | Refused():
            senders = (("from", event.reverse_path),) if event.reverse_path else ()
            return (*senders, *(("to", path) for path in event.forward_paths))
        case _:
            return ()


def to_json(event: JourneyEvent) -> str:
    """The event's fields as a JSON object, without queue id, time and kind, which are columns of their own.

    Fields that from_json would fill with the same value are left out.
    """
    fields, values_of = _FIELDS[type(event)]
    parts = [
        f'"{name}":{_quoted(value) if type(value) is str else _json(value)}'
        for (name, filling), value in zip(fields, values_of(event), strict=True)
        if value != filling
    ]
    return "{" + ",".join(parts) + "}"


def _json(value: object) -> str:
    if type(value) is tuple:
        return "[" + ",".join(_quoted(each) if type(each) is str else str(each) for each in value) + "]"
    return str(value) if type(value) is int else _ENCODER.encode(value)


def from_json(kind: str, queue_id: QueueId, at: float, fields: str) -> JourneyEvent:
    """The event again. Fields that this version does not know are dropped; those that are missing are filled.

    Raises ValueError, KeyError, TypeError or AttributeError for what to_json cannot have written.
    """
    cls = _KINDS[kind]
    try:
        loaded = json.loads(fields)
    except RecursionError as exc:
        # What nests so deep was not written here; who reads damaged journeys expects a ValueError.
        raise ValueError("the fields are nested too deep") from exc
    known: dict[str, object] = {"queue_id": queue_id, "at": at}
    for name, filling in _FIELDS[cls][0]:
        value = loaded.get(name, filling)
        known[name] = tuple(value) if isinstance(value, list) else value
    event: JourneyEvent = cls(**known)
    return event


def _filling(field: dataclasses.Field[object]) -> object:
    """What stands for a field that an older version did not write: its default, or the empty value of its type."""
    if field.default is not dataclasses.MISSING:
        return field.default
    declared = str(field.type)
    if declared.endswith("| None"):
        return None
    return () if declared.startswith("tuple") else _EMPTY[declared]


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _fields(kind: type) -> tuple[tuple[tuple[str, object], ...], Callable[[object], tuple[object, ...]]]:
    """Each field of a kind that is no column, with its filling, and what reads all their values."""
    fields = tuple((field.name, _filling(field)) for field in dataclasses.fields(kind) if field.name not in _COLUMNS)
    return fields, attrgetter(*(name for name, _ in fields))


# Worked out once: looking fields up and making an encoder took 18 us for each event.
_FIELDS = {kind: _fields(kind) for kind in _KINDS.values()}
