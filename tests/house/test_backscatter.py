"""Mail under a forged sender, refused for every reason there is: the one whose name it bears hears nothing of it."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.mail.address import parse_address
from posthouse.storage.interfaces import Storage
from tests.house.far_hosts import FarHost, FarHosts
from tests.house.test_failure_matrix import errors
from tests.house.wire import Wire, stuffed
from tests.running_house import PASSWORD, RunningHouse

ADA, FULL = "ada@here.test", "full@here.test"
VICTIM = "victim@forged.test"
CONTENT = b"Subject: forged\r\n\r\nBuy.\r\n"
LOOPED = b"Received: from x by y; Mon, 1 Jan 2024 00:00:00 +0000\r\n" * 101 + CONTENT


@pytest.fixture
def far() -> Iterator[FarHosts]:
    with FarHosts() as hosts:
        yield hosts


@pytest.fixture
def house(tmp_path: Path, far: FarHosts) -> Iterator[RunningHouse]:
    sink = far.add("mx.forged.test")
    far.mail_for("forged.test", sink.name)
    with RunningHouse(
        tmp_path,
        (ADA, FULL),
        forwarding={"port": far.port, "allow_private_next_hops": True},
        dns={"servers": [far.name_server]},
        reception={"message_size_octets": 100_000},
    ) as running:
        running.ask(lambda storage: storage.administration.set_quota(FULL, 10))
        running.ask(_lead_away)
        yield running


async def _lead_away(storage: Storage) -> None:
    """To nobody, and to somebody who is full."""
    await storage.administration.add_alias(parse_address("nowhere@here.test"), [parse_address("nobody@here.test")])
    await storage.administration.add_alias(parse_address("crowd@here.test"), [parse_address(FULL)])


@pytest.mark.conformance("C294", "S25")
def test_whoever_is_named_hears_nothing(house: RunningHouse, far: FarHosts) -> None:
    sink = far.hosts["mx.forged.test"]
    with Wire(house.ports["smtp"]).greet() as wire:
        for recipient in ("nobody@here.test", "someone@elsewhere.test", FULL, "nowhere@here.test", "crowd@here.test"):
            assert wire.say(f"MAIL FROM:<{VICTIM}> SIZE={len(CONTENT)}").startswith(b"250 ")
            assert wire.say(f"RCPT TO:<{recipient}>")[:1] in (b"4", b"5"), recipient
            assert wire.say("RSET").startswith(b"250 ")
        assert wire.say(f"MAIL FROM:<{VICTIM}> SIZE=100001").startswith(b"552 ")
    for content in (LOOPED, b"Subject: bare\r\n\r\na\nb\r\n", b"Subject: large\r\n\r\n" + b"x" * 100_000 + b"\r\n"):
        with Wire(house.ports["smtp"]).greet() as wire:
            wire.envelope(ADA, sender=VICTIM).say("DATA")
            wire.send(stuffed(content))
            assert wire.reply().startswith(b"5")
    assert house.ask(lambda storage: storage.spool.count()) == 0
    assert sink.sessions == []
    _check_a_letter_reaches_her(house, sink)
    assert errors(house) == []


def _check_a_letter_reaches_her(house: RunningHouse, sink: FarHost) -> None:
    """The sink would have heard."""
    with smtplib.SMTP("127.0.0.1", house.ports["submission"]) as client:
        client.login(ADA, PASSWORD)
        client.sendmail(ADA, [VICTIM], b"From: ada@here.test\r\n\r\nHello.\r\n")
    while not sink.taken:
        house.ask(lambda storage: storage.changes.wait(0.05))
    assert len(sink.taken) == 1
