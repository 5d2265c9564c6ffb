"""Postfix's `smtp-sink`, told to refuse or to leave at each command: the failure matrix with a foreign implementation.

As in `tests/house/test_failure_matrix.py`, left of the `/` only the first MX host is faulty, right of it both are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.house.far_hosts import FarHosts
from tests.house.test_failure_matrix import (
    attempts,
    errors,
    house,
    outcome,
    reported,
    send,
    until_tried,
    waiting,
)
from tests.peers.conftest import program
from tests.peers.load import SmtpSink

pytestmark = pytest.mark.peers

TABLE = """
command | soft        | hard      | 421       | disconnect
CONNECT | 2nd/later   | 2nd/back  | 2nd/later | 2nd/later
EHLO    | 2nd/later   | 1st/1st   | 2nd/later | 1st/1st
MAIL    | 2nd/later   | back/back | 2nd/later | 2nd/later
RCPT    | later/later | back/back | 2nd/later | 2nd/later
DATA    | later/later | back/back | 2nd/later | 2nd/later
.       | later/later | back/back | 2nd/later | maybe/maybe
RSET    | back/back   | back/back | back/back | back/back
QUIT    | 1st/1st     | 1st/1st   | 1st/1st   | 1st/1st
"""
"""At RSET the sink refuses the recipient too, since only then we say it."""
OPTIONS = {"soft": "-r", "hard": "-f", "421": "-Q", "disconnect": "-q"}


@dataclass(frozen=True, slots=True)
class Cell:
    number: int
    command: str
    fault: str
    faulty: int
    expected: str

    @property
    def forward_path(self) -> str:
        return f"eva@cell{self.number}.test"

    @property
    def options(self) -> tuple[str, ...]:
        if self.command != "RSET":
            return (OPTIONS[self.fault], self.command)
        return ("-f", "RCPT,RSET") if self.fault == "hard" else ("-f", "RCPT", OPTIONS[self.fault], "RSET")


def cells() -> list[Cell]:
    head, *rows = ([each.strip() for each in line.split("|")] for line in TABLE.strip().splitlines())
    found = []
    for command, *outcomes in rows:
        for fault, both in zip(head[1:], outcomes, strict=True):
            for faulty, expected in enumerate(both.split("/"), 1):
                found.append(Cell(len(found), command, fault, faulty, expected))
    return found


@pytest.fixture
def far() -> Iterator[FarHosts]:
    program("smtp-sink")
    with FarHosts() as hosts:
        yield hosts


@pytest.mark.conformance("C100", "C102")
def test_every_refusal_of_a_sink_has_its_outcome(tmp_path: Path, far: FarHosts) -> None:
    far.add("mx.well.test")
    port = far.port
    with ExitStack() as running:
        sinks = {cell.number: _sinks(cell, tmp_path, far, port, running) for cell in cells()}
        with house(tmp_path, 0, far) as sender:
            for cell in cells():
                send(sender, b"Subject: x\r\n\r\n", cell.forward_path)
            until_tried(sender, 1)
            found = {cell: outcome(attempts(sender, cell.forward_path)[-1]) for cell in cells()}
            assert [(cell, was) for cell, was in found.items() if was != cell.expected] == []
            waits, returned = waiting(sender), reported(sender)
            assert errors(sender) == []
            for cell in cells():
                # At the final dot a sink keeps the message before it refuses it.
                first, second = (
                    len(sink.messages()) * (cell.command != "." or sink.options == ()) for sink in sinks[cell.number]
                )
                assert (first, second) == {"1st": (1, 0), "2nd": (0, 1)}.get(cell.expected, (0, 0)), cell
                assert (cell.forward_path in waits) == (cell.expected in ("later", "maybe")), cell
                assert returned[cell.forward_path] == (cell.expected == "back"), cell


def _sinks(cell: Cell, folder: Path, far: FarHosts, port: int, running: ExitStack) -> tuple[SmtpSink, SmtpSink]:
    domain = f"cell{cell.number}.test"
    made = []
    for number in (1, 2):
        address = f"127.78.{cell.number}.{number}"
        options = cell.options if number <= cell.faulty else ()
        sink = SmtpSink(folder=folder / f"{domain}.{number}" / "got", port=port, address=address, options=options)
        sink.folder.parent.mkdir()
        made.append(running.enter_context(sink))
        far.zone[f"mx{number}.{domain}", "A"] = [address]
    far.mail_for(domain, f"mx1.{domain}", f"mx2.{domain}")
    return made[0], made[1]
