"""What the processes of one house tell each other about themselves: a question and its answer, a datagram each.

The parent makes a pair of sockets for each worker but the first, and keeps both ends open as long as the house is: so
a worker that is replaced takes up the line of the one before. The first worker asks, the others answer. A token tells
an answer from those that came too late for their own question.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

LEADER = 0
ANSWER_OCTETS = 256 * 1024
TOKEN_OCTETS = 8


def line() -> tuple[socket.socket, socket.socket]:
    """The leader's end and the other worker's."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in ends:
        end.setblocking(False)
        # On some systems this is also the limit of one datagram.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_OCTETS)
    return ends


class Answering:
    """Answers the leader with what `tell` says, while it is open. With `lines` empty, nobody asks."""

    def __init__(self, lines: Mapping[int, socket.socket], tell: Callable[[], bytes]) -> None:
        self._end = lines.get(LEADER)
        self._tell = tell

    def open(self) -> None:
        if self._end is not None:
            asyncio.get_running_loop().add_reader(self._end.fileno(), self._answer, self._end)

    def close(self) -> None:
        if self._end is not None:
            asyncio.get_running_loop().remove_reader(self._end.fileno())

    def _answer(self, end: socket.socket) -> None:
        token = b""
        with suppress(OSError):
            # Only the last question still has somebody who waits for its answer.
            while received := end.recv(TOKEN_OCTETS):
                token = received
        if token:
            # What does not fit is not sent, and counts as no answer.
            with suppress(OSError):
                end.send(token + self._tell())


async def ask(lines: Mapping[int, socket.socket], token: bytes, within_s: float) -> dict[int, bytes]:
    """The answers of the other workers, by their number; without those that do not answer in time.

    One question at a time: the caller sees to that.
    """
    loop = asyncio.get_running_loop()
    answers: dict[int, bytes] = {}
    asked: dict[int, socket.socket] = {}
    complete = asyncio.Event()

    def readable(number: int, end: socket.socket) -> None:
        with suppress(OSError):
            received = end.recv(ANSWER_OCTETS)
            if received[:TOKEN_OCTETS] == token:
                answers[number] = received[TOKEN_OCTETS:]
        if len(answers) == len(asked):
            complete.set()

    try:
        for number, end in lines.items():
            with suppress(OSError):
                end.send(token)
                asked[number] = end
                loop.add_reader(end.fileno(), readable, number, end)
        if asked:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await complete.wait()
    finally:
        for end in asked.values():
            loop.remove_reader(end.fileno())
    return answers
