"""Workers that ask each other: answers, silence, answers that come too late."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from posthouse.net.siblings import LEADER, Answering, ask, line

TOKEN, OTHER = b"tttttttt", b"oooooooo"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = line()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def another() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = line()
    yield ours, theirs
    ours.close()
    theirs.close()


Ends = tuple[socket.socket, socket.socket]


async def test_the_answers_of_all(ends: Ends, another: Ends) -> None:
    first = Answering({LEADER: ends[1]}, lambda: b"one")
    second = Answering({LEADER: another[1]}, lambda: b"two" * 20_000)
    first.open()
    second.open()
    assert await ask({1: ends[0], 2: another[0]}, TOKEN, 30.0) == {1: b"one", 2: b"two" * 20_000}
    first.close()
    second.close()


async def test_one_that_is_silent_is_left_out(ends: Ends, another: Ends) -> None:
    first = Answering({LEADER: ends[1]}, lambda: b"one")
    first.open()
    assert await ask({1: ends[0], 2: another[0]}, TOKEN, 0.02) == {1: b"one"}
    first.close()


async def test_an_answer_to_another_question_is_none(ends: Ends) -> None:
    ends[1].send(OTHER + b"old")
    answering = Answering({LEADER: ends[1]}, lambda: b"new")
    answering.open()
    assert await ask({1: ends[0]}, TOKEN, 30.0) == {1: b"new"}
    answering.close()


async def test_who_was_away_answers_the_last_question_only(ends: Ends) -> None:
    told: list[int] = []
    assert await ask({1: ends[0]}, OTHER, 0.0) == {}
    answering = Answering({LEADER: ends[1]}, lambda: told.append(1) or b"here")  # type: ignore[func-returns-value]
    answering.open()
    assert await ask({1: ends[0]}, TOKEN, 30.0) == {1: b"here"}
    assert told == [1]
    answering.close()


async def test_a_full_line_is_silence(ends: Ends) -> None:
    while _sent(ends[0].send):
        pass
    assert await ask({1: ends[0]}, TOKEN, 30.0) == {}


async def test_an_answer_that_does_not_fit_is_silence(ends: Ends) -> None:
    answering = Answering({LEADER: ends[1]}, lambda: b"x" * 10_000_000)
    answering.open()
    assert await ask({1: ends[0]}, TOKEN, 0.05) == {}
    answering.close()


async def test_nobody_is_there_to_be_asked() -> None:
    assert await ask({}, TOKEN, 30.0) == {}
    alone = Answering({}, lambda: b"")
    alone.open()
    alone.close()
    await asyncio.sleep(0)


def _sent(send: Callable[[bytes], int]) -> bool:
    try:
        send(OTHER)
    except BlockingIOError:
        return False
    return True
