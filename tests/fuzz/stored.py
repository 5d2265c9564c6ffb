"""Targets: what is read from the database again, which may hold anything that a peer ever said."""

from __future__ import annotations

import dataclasses
import json

from tests.fuzz.draw import Draw
from tests.fuzz.texts import NOW, QUEUE_ID

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import _KINDS, JourneyEvent, from_json, kind_of, parties, to_json
from posthouse.mail.story import tell

KINDS = tuple(sorted(_KINDS))
NUMBERS = (0, 1, -1, 451, 2**53, 2**63 - 1)
SHOWN_CHARACTERS = 1000
TIMES = (0.0, NOW, 0.1 + 0.2, 1e-9)


def journey(octets: bytes) -> None:
    """Any event: read as it was written, also among fields of a newer version, and told in lines."""
    draw = Draw(octets)
    kind = draw.choice(KINDS)
    fields = {
        field.name: _value(str(field.type), draw)
        for field in dataclasses.fields(_KINDS[kind])
        if field.name not in ("queue_id", "at")
    }
    event: JourneyEvent = _KINDS[kind](queue_id=QUEUE_ID, at=NOW, **fields)
    stored = to_json(event)
    assert kind_of(event) == kind
    assert "\n" not in stored
    assert from_json(kind, QUEUE_ID, NOW, stored) == event
    newer = json.dumps({**json.loads(stored), "of_a_newer_version": [1]})
    assert from_json(kind, QUEUE_ID, NOW, newer) == event
    assert all(role in ("from", "to") for role, _ in parties(event))
    for line in tell((event,)):
        for text in (line.text, *line.details, *(said.line for said in line.dialogue)):
            assert text.isprintable()
            assert len(text) <= SHOWN_CHARACTERS


def _value(declared: str, draw: Draw) -> object:
    if declared.endswith("| None") and draw.chance():
        return None
    match declared.removesuffix(" | None"):
        case "str":
            return draw.text()
        case "QueueId":
            return QueueId(draw.text())
        case "int":
            return draw.choice(NUMBERS)
        case "float":
            return draw.choice(TIMES)
        case "bool":
            return draw.chance()
        case "tuple[str, ...]":
            return tuple(draw.text() for _ in range(draw.number(4)))
        case "tuple[int, ...]":
            return tuple(draw.choice(NUMBERS) for _ in range(draw.number(4)))
        case other:
            raise AssertionError(f"a field of a type that is new here: {other}")


def stored_json(octets: bytes) -> None:
    """A row that the disk or another hand has spoiled: an event, or an error that `check --store` knows."""
    draw = Draw(octets)
    kind = draw.choice((*KINDS, "unknown"))
    text = draw.rest().decode("utf-8", "surrogateescape")
    try:
        event = from_json(kind, QUEUE_ID, NOW, text)
    except (ValueError, TypeError, LookupError, AttributeError):
        return
    assert kind_of(event) == kind
