"""Most peers at one private address: told once an hour, in bounded memory."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.log import make_log
from posthouse.net.crowd import (
    COUNTED_ADDRESSES,
    ENOUGH_OF_A_WORKER,
    ENOUGH_SESSIONS,
    NOTE_NAME,
    WINDOW_S,
    Crowd,
    Crowded,
    CrowdWatch,
    read_note,
    write_note,
)
from tests.fake_world import FakeClock

GATEWAY = "172.17.0.1"


def seen_by(crowd: Crowd, addresses: list[str]) -> list[Crowded]:
    return [seen for address in addresses if (seen := crowd.enter(address)) is not None]


def test_one_neighbour_for_all_the_world() -> None:
    clock = FakeClock()
    (seen,) = seen_by(Crowd(clock), [GATEWAY] * 1000)
    assert (seen.address, seen.sessions, seen.of_sessions) == (GATEWAY, ENOUGH_SESSIONS, ENOUGH_SESSIONS)


@pytest.mark.parametrize(
    "addresses",
    [
        [GATEWAY] * (ENOUGH_SESSIONS - 1),
        ["9.9.9.9", GATEWAY] * 500,
        [f"10.0.{number % 250}.1" for number in range(1000)],
        ["9.9.9.9"] * 1000,
        [""] * 1000,
    ],
)
def test_nothing_to_wonder_at(addresses: list[str]) -> None:
    assert seen_by(Crowd(FakeClock()), addresses) == []


def test_a_mapped_address_is_the_same_neighbour() -> None:
    (seen,) = seen_by(Crowd(FakeClock()), [GATEWAY, f"::ffff:{GATEWAY}"] * 50)
    assert seen.address == GATEWAY


def test_told_again_after_an_hour() -> None:
    clock = FakeClock()
    crowd = Crowd(clock)
    assert len(seen_by(crowd, [GATEWAY] * 100)) == 1
    clock.advance(WINDOW_S - 1)
    assert seen_by(crowd, [GATEWAY] * 100) == []
    clock.advance(1)
    assert seen_by(crowd, [GATEWAY] * (ENOUGH_SESSIONS - 1)) == []
    assert len(seen_by(crowd, [GATEWAY])) == 1


@given(st.lists(st.integers(0, 300), max_size=400), st.randoms(use_true_random=False))
def test_a_great_majority_is_always_found_in_bounded_memory(others: list[int], order: object) -> None:
    """Misra and Gries count at most 1/65 too few, so 52 of 100 are enough."""
    addresses = [f"10.1.{number // 250}.{number % 250}" for number in others]
    addresses += [GATEWAY] * (ENOUGH_SESSIONS + len(others) * 110 // 100)
    order.shuffle(addresses)  # type: ignore[attr-defined]
    crowd = Crowd(FakeClock())
    found = seen_by(crowd, [*addresses, GATEWAY])
    assert len(crowd._private) <= COUNTED_ADDRESSES
    assert [seen.address for seen in found] == [GATEWAY]


def test_a_full_table_makes_room() -> None:
    """Else whoever comes after 64 others would never be counted."""
    others = [f"10.0.0.{number}" for number in range(COUNTED_ADDRESSES)] * 2
    assert len(seen_by(Crowd(FakeClock()), others + [GATEWAY] * 400)) == 1


def watch(folder: Path, peer: str, *, trusted: bool) -> list[dict[str, object]]:
    log = io.StringIO()
    watching = CrowdWatch(folder, FakeClock(), make_log(log))
    for _ in range(100):
        watching.enter(peer, trusted=trusted)
    return [json.loads(line) for line in log.getvalue().splitlines()]


@pytest.mark.parametrize(("workers", "enough"), [(1, ENOUGH_SESSIONS), (2, 25), (4, 12), (64, ENOUGH_OF_A_WORKER)])
def test_a_worker_judges_by_its_share_of_the_sessions(tmp_path: Path, workers: int, enough: int) -> None:
    """In a house of two, where each has seen half of them, it is told as soon as in a house of one."""
    log = io.StringIO()
    watching = CrowdWatch(tmp_path, FakeClock(), make_log(log), workers=workers)
    for number in range(1, enough + 1):
        assert log.getvalue() == "", number
        watching.enter(GATEWAY, trusted=True)
    assert json.loads(log.getvalue())["of_sessions"] == enough


@pytest.mark.parametrize(("trusted", "word"), [(True, "anybody can relay"), (False, "pass addresses on")])
def test_the_log_is_told_and_a_note_is_kept(tmp_path: Path, trusted: bool, word: str) -> None:
    (line,) = watch(tmp_path, GATEWAY, trusted=trusted)
    assert (line["level"], line["peer"], line["trusted"]) == ("warning", GATEWAY, trusted)
    assert word in str(line["mend"])
    note = read_note(tmp_path)
    assert note is not None
    assert note.address == GATEWAY
    assert stat.S_IMODE((tmp_path / NOTE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [NOTE_NAME]


def test_programs_of_this_machine_are_told_only_if_they_may_relay(tmp_path: Path) -> None:
    assert watch(tmp_path, "127.0.0.1", trusted=False) == []
    assert len(watch(tmp_path, "127.0.0.1", trusted=True)) == 1


def test_a_note_that_cannot_be_kept_ends_no_session(tmp_path: Path) -> None:
    told = watch(tmp_path / "gone", GATEWAY, trusted=True)
    assert [line["event"] for line in told][1:] == ["not noted for posthouse check"]


@pytest.mark.parametrize("octets", [b"", b"{", b"[]", b"{}", b'{"at": "x"}', b"\xff"])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / NOTE_NAME).write_bytes(octets)
    assert read_note(tmp_path) is None
    assert read_note(tmp_path / "gone") is None


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    seen = Crowded(at=1.5e9, address=GATEWAY, sessions=51, of_sessions=99)
    write_note(tmp_path, seen)
    assert read_note(tmp_path) == seen
