"""When a house tries again, as the log of attempts has it; and what clocks and full disks do to the queue."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from posthouse import app
from posthouse.config import Forwarding
from posthouse.forwarding.runner import RunnerLimits
from posthouse.storage.errors import StorageBusy, StorageFull
from posthouse.storage.interfaces import Storage
from tests.house.far_hosts import FarHosts
from tests.house.faults import faulty_house
from tests.house.test_failure_matrix import (
    HOUR_S,
    attempts,
    errors,
    house,
    reported,
    send,
    until_tried,
    waiting,
)
from tests.house.wire import Wire

EVA = "eva@there.test"
JITTER = 0.1


@pytest.fixture
def far() -> Iterator[FarHosts]:
    with FarHosts() as hosts:
        # About one mailbox, which is no reason to be slower with all others there.
        hosts.add("mx.there.test", script=lambda line, _number: "450 4.2.1 Busy" if line.startswith("RCPT") else None)
        hosts.mail_for("there.test", "mx.there.test")
        hosts.add("mx.well.test")
        hosts.mail_for("well.test", "mx.well.test")
        yield hosts


async def _nothing_waits(storage: Storage) -> None:
    while await storage.spool.count():
        await storage.changes.wait(0.05)


@pytest.mark.conformance("C96")
def test_attempts_follow_the_schedule_until_the_message_expires(tmp_path: Path, far: FarHosts) -> None:
    """A short schedule in real time: no attempt comes before its time, the intervals grow, then it goes back."""
    schedule = {"retry": ["100ms", "400ms"], "expire_after": "3s", "delay_notice_after": "30d"}
    with house(tmp_path, 0, far, **schedule) as running:
        send(running, b"Subject: x\r\n\r\n", EVA)
        send(running, b"Subject: x\r\n\r\n", "eva@well.test")
        running.ask(_nothing_waits)
        tried = attempts(running, EVA)
        assert [each.outcome for each in tried] == ["deferred"] * (len(tried) - 1) + ["failed"]
        assert len(attempts(running, "eva@well.test")) == 1, "who is well does not wait for who is not"
        assert reported(running) == {EVA: 1}
    assert [each.attempt for each in tried] == list(range(1, len(tried) + 1))
    assert len(tried) >= 3
    for number, (one, next_one) in enumerate(itertools.pairwise(tried)):
        assert one.next_at is not None
        assert next_one.at >= one.next_at, "never before its time"
        interval = 0.4 if number else 0.1
        # The last one is at the time of expiry.
        assert one.next_at - one.at == pytest.approx(interval, rel=JITTER) or next_one is tried[-1]
    assert "5.4.7" in tried[-1].reply, "it was its time that ended it"


@pytest.mark.conformance("C96")
def test_the_schedule_is_as_long_as_the_rfc_asks() -> None:
    """RFC 5321 §4.5.4.1: it grows to 30 minutes and more, and is not given up before four or five days."""
    defaults = Forwarding()
    assert list(defaults.retry) == sorted(set(defaults.retry))
    assert defaults.retry[-1] >= HOUR_S / 2
    assert defaults.expire_after >= 4 * 24 * HOUR_S
    assert defaults.delay_notice_after == 4 * HOUR_S


@pytest.mark.conformance("C103")
def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, far: FarHosts) -> None:
    """Years ahead: tried once more before anything goes back. Years back: what waits for the far future is due."""
    year = 24 * 365
    with house(tmp_path, 2 * year, far, expire_after="20000d") as ahead:
        send(ahead, b"Subject: from the future\r\n\r\n", EVA)
        until_tried(ahead, 1)
    with house(tmp_path, 0, far) as back:
        until_tried(back, 2)
        send(back, b"Subject: from now\r\n\r\n", EVA)
        until_tried(back, 1)
        assert len(waiting(back)) == 1
        assert reported(back) == {}
    far.heal()
    with house(tmp_path, 3 * year, far) as late:
        late.ask(_nothing_waits)
        assert reported(late) == {}
        assert errors(late) == []
    assert far.hosts["mx.there.test"].copies(EVA) == 2


@pytest.mark.conformance("C100", "C103")
@pytest.mark.parametrize("error", [StorageBusy("x"), StorageFull("x")], ids=["busy", "full"])
def test_a_full_disk_delays_the_queue_and_loses_nothing(
    tmp_path: Path, far: FarHosts, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Outcomes that cannot be written are written later: nobody gets a second copy for it."""
    monkeypatch.setattr(app, "RunnerLimits", partial(RunnerLimits, after_error_s=0.05))
    running, faults = faulty_house(
        tmp_path,
        monkeypatch,
        forwarding={"port": far.port, "allow_private_next_hops": True, "retry": ["1h"]},
        dns={"servers": [far.name_server]},
        reception={"trusted_networks": ["127.0.0.0/8"]},
    )
    well = far.hosts["mx.well.test"]
    with running:
        faults["settle"] = error
        send(running, b"Subject: x\r\n\r\n", "eva@well.test", "nobody@well.test")
        while not well.taken or "outcome not written yet" not in running.log.getvalue():
            running.ask(lambda storage: storage.changes.wait(0.05))
        assert waiting(running) == {"eva@well.test", "nobody@well.test"}
        with Wire(running.ports["smtp"]).greet() as wire:
            assert wire.say("NOOP").startswith(b"250 "), "the house is alive"
        del faults["settle"]
        running.ask(_nothing_waits)
    assert well.copies("eva@well.test") == 1
    assert len(well.sessions) == 1
