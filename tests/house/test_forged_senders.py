"""Forged senders: whatever is refused is refused in the session, and nothing is sent to them (RFC 5321 §6.2).

The one report that there is: an alias led a message to another house, and that one refuses it or never answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from posthouse.mail.address import parse_address
from tests.house.test_forwarding import until_served
from tests.house.test_loops import add_alias
from tests.house.wire import Wire
from tests.running_house import RunningHouse

ADA, BOB, FULL = "ada@here.test", "bob@here.test", "full@here.test"
VICTIM = "victim@there.test"
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
LONG = b"Subject: long\r\n\r\n" + (b"x" * 78 + b"\r\n") * 900


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    """Where every forged sender is at home."""
    folder = tmp_path_factory.mktemp("there")
    with RunningHouse(folder, (VICTIM,), hostname="mx.there.test", postmaster=VICTIM) as house:
        yield house


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, there: RunningHouse) -> Iterator[RunningHouse]:
    forwarding = {
        "routes": {"*": f"127.0.0.1:{there.ports['smtp']}", "gone.test": "127.0.0.1:1"},
        "retry": ["50ms"],
        "expire_after": "100ms",
    }
    reception = {"errors": 1000, "unknown_recipients": 100, "message_size_octets": 65_536}
    folder = tmp_path_factory.mktemp("here")
    with RunningHouse(folder, (ADA, BOB, FULL), forwarding=forwarding, reception=reception) as house:
        house.ask(lambda storage: storage.administration.set_quota(FULL, 0))
        for alias, target in ALIASES.items():
            house.ask(partial(add_alias, parse_address(alias), [parse_address(target)]))
        yield house


ALIASES = {
    "nowhere@here.test": "nobody@here.test",
    "circle@here.test": "ring@here.test",
    "ring@here.test": "circle@here.test",
    "tofull@here.test": FULL,
    "dead@here.test": "nobody@there.test",
    "gone@here.test": "x@gone.test",
}

REFUSED = {
    "unknown": ("nobody@here.test", LETTER, b"RCPT"),
    "unknown with a detail": ("nobody+x@here.test", LETTER, b"RCPT"),
    "over quota": (FULL, LETTER, b"RCPT"),
    "alias to one over quota": ("tofull@here.test", LETTER, b"RCPT"),
    "alias to nobody": ("nowhere@here.test", LETTER, b"RCPT"),
    "alias in a circle": ("circle@here.test", LETTER, b"RCPT"),
    "relaying": ("x@there.test", LETTER, b"RCPT"),
    "relaying by a route": ("@here.test:x@there.test", LETTER, b"RCPT"),
    "relaying by a percent sign": ("x%there.test@here.test", LETTER, b"RCPT"),
    "forged way back": ("SRS0=AAAAAAAA=2W=there.test=victim@here.test", LETTER, b"RCPT"),
    "too large": (BOB, LONG, b"DATA"),
    "too many hops": (BOB, b"Received: x\r\n" * 100 + LETTER, b"DATA"),
    "header too large": (BOB, b"X: y\r\n" * 50_000 + LETTER, b"DATA"),
    "back at the alias": ("dead@here.test", b"Delivered-To: dead@here.test\r\n" + LETTER, b"DATA"),
    "bare LF": (BOB, b"Subject: x\r\n\r\na\nb\r\n", b"DATA"),
}
"""Recipient, content, and the command to which the refusal is the answer."""


def refusing_command(wire: Wire, recipient: str, content: bytes) -> tuple[bytes, bytes]:
    """Which command was refused, and how; (b"", the 250) where none was."""
    assert wire.say(f"MAIL FROM:<{VICTIM}>").startswith(b"250 ")
    if not (answer := wire.say(f"RCPT TO:<{recipient}>")).startswith(b"250 "):
        return b"RCPT", answer
    answer = wire.content(content)
    return (b"" if answer.startswith(b"250 ") else b"DATA"), answer


def taken(house: RunningHouse) -> int:
    """Messages and waiting recipients that a house has."""
    everything = house.ask(lambda storage: storage.journey.find(limit=1000))
    refused = house.ask(lambda storage: storage.journey.find(refused=True, limit=1000))
    return len(set(everything) - set(refused)) + house.ask(lambda storage: storage.spool.count())


@pytest.mark.conformance("C82", "C294", "S25")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_delivered_is_refused_in_the_session(here: RunningHouse, there: RunningHouse, name: str) -> None:
    recipient, content, command = REFUSED[name]
    before = taken(here), taken(there)
    with Wire(here.ports["smtp"]).greet() as wire:
        refused, answer = refusing_command(wire, recipient, content)
        assert (refused, answer[:1] in (b"4", b"5")) == (command, True), answer
    assert (taken(here), taken(there)) == before


@pytest.mark.conformance("C82", "C294", "S25")
@pytest.mark.parametrize("target", ["dead@here.test", "gone@here.test"])
def test_a_target_that_fails_elsewhere_is_told_of_once_and_the_null_path_never(
    here: RunningHouse, there: RunningHouse, target: str
) -> None:
    """Nobody here could know it in the session; a report about it is a promise, and none about a report."""
    before = taken(there)
    for sender, reports in ((VICTIM, 1), ("", 0), ("nobody@here.test", 0)):
        with Wire(here.ports["smtp"]).greet() as wire:
            wire.deliver(LETTER, target, sender=sender)
        until_served(here)
        assert taken(there) - before == reports
        before = taken(there)


@pytest.mark.conformance("C82", "S25")
def test_one_recipient_of_several_is_refused_and_the_others_have_it(here: RunningHouse, there: RunningHouse) -> None:
    before = taken(there)
    with Wire(here.ports["smtp"]).greet() as wire:
        assert wire.say(f"MAIL FROM:<{VICTIM}>").startswith(b"250 ")
        answers = [wire.say(f"RCPT TO:<{path}>")[:5] for path in (BOB, "nobody@here.test", FULL, ADA)]
        assert answers == [b"250 2", b"550 5", b"552 5", b"250 2"]
        assert wire.content(LETTER).startswith(b"250 ")
    until_served(here)
    assert taken(there) == before
