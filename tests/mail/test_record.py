"""Records: values as frozen dataclasses are, without the freezing."""

from __future__ import annotations

import pytest

from posthouse.mail.record import record


@record
class Leg:
    start: str
    end: str = "home"


def test_records_with_equal_fields_are_one_value() -> None:
    assert Leg(start="a") == Leg(start="a", end="home")
    assert len({Leg(start="a"), Leg(start="a"), Leg(start="b")}) == 2


def test_fields_are_given_by_keyword_and_no_others_can_be_set() -> None:
    with pytest.raises(TypeError):
        Leg("a")  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Leg(start="a").middle = "b"  # type: ignore[attr-defined]
