"""Many sessions at once: smtp-source fills Posthouse, and Posthouse fills smtp-sink; nothing is lost or double."""

from __future__ import annotations

import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.house.wire import Wire
from tests.peers import maildrop
from tests.peers.load import SmtpSink, SmtpSource
from tests.peers.maildrop import ADA
from tests.peers.programs import wait_until
from tests.running_house import RunningHouse

pytestmark = pytest.mark.peers

MESSAGES = 2000
RELAYED = 500


def message_ids(messages: list[bytes]) -> set[bytes]:
    """smtp-source gives each message an id of its own."""
    return {found[1] for message in messages if (found := re.search(rb"(?mi)^Message-Id: (<[^>]+>)", message))}


@pytest.mark.parametrize("sessions", [10, 50])
def test_source_fills_a_maildrop(smtp_source: SmtpSource, tmp_path: Path, sessions: int) -> None:
    with RunningHouse(tmp_path) as house:
        run = smtp_source.send(house.ports["smtp"], messages=MESSAGES, sessions=sessions, forward_path=ADA)
        assert run.succeeded, str(run)
        # All of it was acknowledged, so all of it is there now.
        entries = maildrop.entries(house)
    assert len(entries) == MESSAGES
    assert len(message_ids(entries)) == MESSAGES


@pytest.mark.conformance("C59")
def test_the_final_dot_is_answered_soon_under_load(smtp_source: SmtpSource, tmp_path: Path) -> None:
    """A client waits ten minutes for it (RFC 5321 §4.5.3.2.6); here ninety-nine in a hundred wait less than 2 s."""
    with RunningHouse(tmp_path) as house, ThreadPoolExecutor() as others:
        port = house.ports["smtp"]
        load = others.submit(smtp_source.send, port, messages=MESSAGES, sessions=50, forward_path=ADA)
        took = []
        with Wire(port) as wire:
            wire.greet()
            while len(took) < 200 or not load.done():
                wire.envelope("bob@here.test")
                assert wire.say("DATA").startswith(b"354 ")
                begun = time.monotonic()
                wire.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
                assert wire.reply().startswith(b"250 ")
                took.append(time.monotonic() - begun)
        run = load.result()
        assert run.succeeded, str(run)
    assert statistics.quantiles(took, n=100)[-1] < 2.0


def test_posthouse_relays_to_a_sink(smtp_source: SmtpSource, smtp_sink: SmtpSink, tmp_path: Path) -> None:
    reception = {"trusted_networks": ["127.0.0.0/8"]}
    forwarding = {"routes": {"*": f"127.0.0.1:{smtp_sink.port}"}}
    with RunningHouse(tmp_path, reception=reception, forwarding=forwarding) as house:
        to_ben = {"forward_path": "ben@sink.test", "reverse_path": ADA}
        run = smtp_source.send(house.ports["smtp"], messages=RELAYED, sessions=10, **to_ben)
        assert run.succeeded, str(run)
        messages = smtp_sink.wait_for_messages(RELAYED)
        wait_until(lambda: maildrop.queue_length(house) == 0, "the queue did not become empty")
        assert maildrop.count(house) == 0
        assert len(smtp_sink.messages()) == RELAYED
    assert len(message_ids(messages)) == RELAYED
    assert all(b"<ben@sink.test>" in message for message in messages)
