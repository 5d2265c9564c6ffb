"""Journey events survive storage, older versions and newer ones."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, Attempted, JourneyEvent, Refused, from_json, kind_of, parties, to_json

KINDS = get_args(JourneyEvent)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = {"str": st.text(), "int": st.integers(), "float": FINITE, "bool": st.booleans()}
VALUES |= {"QueueId": st.text().map(QueueId), "None": st.none(), "tuple[str, ...]": st.lists(st.text()).map(tuple)}
VALUES |= {"tuple[int, ...]": st.lists(st.integers()).map(tuple)}


def events(kind: type) -> st.SearchStrategy[JourneyEvent]:
    fields = {
        field.name: st.one_of([VALUES[name] for name in str(field.type).split(" | ")])
        for field in dataclasses.fields(kind)
    }
    return st.builds(kind, **fields)


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_comes_back_from_storage(kind: type) -> None:
    @given(events(kind))
    def round_trip(event: JourneyEvent) -> None:
        stored = to_json(event)
        assert "queue_id" not in {name for name in json.loads(stored) if name not in ("report_queue_id",)}
        assert from_json(kind_of(event), event.queue_id, event.at, stored) == event

    round_trip()


@pytest.mark.parametrize("kind", KINDS)
def test_missing_fields_are_filled_and_unknown_ones_dropped(kind: type) -> None:
    event = from_json(kind.__name__.lower(), QueueId("Q"), 1.0, '{"of_a_later_version": [1]}')
    assert isinstance(event, kind)
    for field in dataclasses.fields(kind):
        if field.name not in ("queue_id", "at") and field.default is dataclasses.MISSING:
            value = getattr(event, field.name)
            assert type(value).__name__ in str(field.type).replace("None", "NoneType"), field.name


def test_fields_nested_without_end_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="too deep"):
        from_json("accepted", QueueId("Q"), 1.0, "[" * 100_000)


def test_a_refused_null_path_stays_one() -> None:
    refused = Refused(
        queue_id=QueueId("Q"), at=1.0, command="RCPT", reply="550", peer="", hello="", reverse_path="", forward_paths=()
    )
    assert from_json("refused", refused.queue_id, refused.at, to_json(refused)) == refused


def test_parties() -> None:
    event = from_json("accepted", QueueId("Q"), 1.0, '{"reverse_path": "a@x", "forward_paths": ["b@y", "c@z"]}')
    assert isinstance(event, Accepted)
    assert parties(event) == (("from", "a@x"), ("to", "b@y"), ("to", "c@z"))
    assert parties(dataclasses.replace(event, reverse_path="")) == (("to", "b@y"), ("to", "c@z"))
    assert parties(from_json("attempted", QueueId("Q"), 1.0, "{}")) == ()
    assert isinstance(from_json("attempted", QueueId("Q"), 1.0, "{}"), Attempted)
