"""The command as a whole; and a house that is tampered with, of which each kind of wrong must be found."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import apsw
import pytest

from posthouse.prove.faults import Family, Round
from posthouse.prove.ledger import Wrong
from posthouse.prove.run import Order, Trial
from posthouse.prove.wire import connected, stuffed

SRC = Path(__file__).parents[2] / "src"
QUIET = Round(number=1, seed="quiet", workers=1, load_s=0.5, steps=(), shares=(0, 0, 0), ends_in_kill=False)


def command(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "TMPDIR": str(temporary)}
    line = [sys.executable, "-m", "posthouse.cli", "prove", *arguments]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.conformance("C58", "C247", "C248", "C251")
@pytest.mark.long
def test_two_rounds_of_all_faults_end_in_five_zeros(tmp_path: Path, seed: int) -> None:
    ran = command(tmp_path, "--rounds", "2", "--seed", str(seed), "--json")
    out, err = ran.communicate(timeout=240)
    assert ran.returncode == 0, out + err
    report = json.loads(out)
    assert [report[wrong.name.lower()] for wrong in Wrong] == [0] * 5
    assert report["counts"]["acknowledged"] > 50
    assert report["counts"]["deleted"] > 20
    assert report["checks"] == 3
    assert sum(report["faults"].values()) >= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_an_interrupt_ends_it_with_the_report_so_far_and_leaves_nothing(tmp_path: Path) -> None:
    ran = command(tmp_path, "--minutes", "3", "--faults", "reload")
    assert ran.stderr is not None
    assert ran.stderr.readline().startswith("posthouse prove: seed ")
    while not list(tmp_path.glob("posthouse-prove-*/neighbour/house.log")):
        assert ran.poll() is None
    ran.send_signal(signal.SIGINT)
    out, err = ran.communicate(timeout=120)
    assert ran.returncode == 130, out + err
    assert "interrupted" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--faults", "plague"), ("--minutes", "0"), ("--seed", "-1")])
def test_what_is_no_order_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = command(tmp_path, *arguments)
    out, err = ran.communicate(timeout=60)
    assert ran.returncode == 2, out + err
    assert arguments[0] in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
async def trial(tmp_path: Path) -> AsyncGenerator[Trial]:
    """Houses that run, and whose people have sent and deleted some mail."""
    order = Order(minutes=1, seed=1, families=frozenset({Family.KILL}))
    trial = Trial(order, tmp_path / "town", lambda *_: None, asyncio.Event())
    trial.folder.mkdir()
    try:
        await trial.town.build()
        await trial.town.start_all()
        while trial.ledger.counts["deleted"] < 5 or trial.ledger.counts["acknowledged"] < 30:
            await trial.one_round(QUIET)
            assert not trial.failed
        yield trial
    finally:
        await trial.town.stop_all()


class Vandal:
    """Does to the house's database what no house may do."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.connection = apsw.Connection(str(trial.town.house.folder / "posthouse.db"))
        self.connection.set_busy_timeout(5000)
        self.connection.execute("PRAGMA foreign_keys = OFF")

    async def lose(self) -> None:
        self._on_one("DELETE FROM entries WHERE folder = ? AND uid = ?")

    async def double(self) -> None:
        columns = [name for _, name, *_ in self.connection.execute("PRAGMA table_info(entries)")]
        other = {"uid": "uid + 100000", "uidl": "uidl || 'X'", "copy": "copy + 1"}
        values = ", ".join(other.get(column, column) for column in columns)
        self._on_one(f"INSERT INTO entries SELECT {values} FROM entries WHERE folder = ? AND uid = ?")

    async def corrupt(self) -> None:
        """One octet of each small content that somebody can read."""
        self.connection.execute(
            "UPDATE contents SET octets = CAST(substr(octets, 1, size_octets - 9) || 'X' || substr(octets, -8) AS BLOB)"
            " WHERE octets IS NOT NULL AND content IN (SELECT content FROM entries)"
        )

    async def resurrect(self) -> None:
        """Keep rows, let the owner delete the messages, put the rows back."""
        rows = list(self.connection.execute("SELECT * FROM entries"))
        town = self.trial.town
        for person, password in town.house.passwords.items():
            async with connected(town.house.pop3) as wire:
                assert await wire.login(f"{person}@{town.house.name}", password)
                uidls = await wire.scan("UIDL")
                for number in range(1, len(uidls) + 1):
                    assert await wire.status(f"DELE {number}")
                assert await wire.status("QUIT")
                self.trial.ledger.left(f"{person}@{town.house.name}", uidls)
        marks = ", ".join("?" * len(rows[0]))
        self.connection.execute(f"INSERT INTO entries VALUES ({marks})", rows[0])

    async def store_refused(self) -> None:
        """What the ledger knows as refused is handed in where it is not looking."""
        ledger, town = self.trial.ledger, self.trial.town
        serial = ledger.next_serial()
        content = f"X-Prove: {serial}\r\n\r\nend of letter {serial}\r\n".encode()
        ledger.write(serial, content)
        ledger.refuse(serial)
        async with connected(town.house.smtp) as wire:
            await wire.greet()
            for line in ("MAIL FROM:<a@b.test>", f"RCPT TO:<r0@{town.house.name}>", "DATA"):
                assert (await wire.say(line))[:1] in b"23"
            await wire.send(stuffed(content) + b".\r\n")
            assert (await wire.reply()).startswith(b"250")

    def _on_one(self, sql: str) -> None:
        found = self.connection.execute("SELECT folder, uid FROM entries ORDER BY random() LIMIT 1").fetchone()
        assert found is not None
        self.connection.execute(sql, found)


PLANTED: dict[Wrong, Callable[[Vandal], object]] = {
    Wrong.LOST: Vandal.lose,
    Wrong.DOUBLED: Vandal.double,
    Wrong.RESURRECTED: Vandal.resurrect,
    Wrong.REFUSED: Vandal.store_refused,
    Wrong.CORRUPTED: Vandal.corrupt,
}


@pytest.mark.long
async def test_each_wrong_that_is_planted_is_found(trial: Trial) -> None:
    assert set(PLANTED) == set(Wrong)
    trial.inspector.chance = random.Random(1)
    for wrong, plant in PLANTED.items():
        await plant(Vandal(trial))  # type: ignore[misc]
        await trial.look()
        found = {each: trial.ledger.count(each) for each in Wrong if trial.ledger.count(each)}
        assert set(found) == {wrong}, trial.ledger.findings
        await trial.settle_report()
        told = "\n".join(trial.report.lines())
        assert re.search(rf"^  {wrong} +[1-9]", told, re.MULTILINE)
        assert "FAILED" in told
        assert "house.test: " in told, "the journey"
        trial.ledger.findings.clear()
        # (The store's own check has something to say about most of them, too.)
        trial.town.troubles.clear()
