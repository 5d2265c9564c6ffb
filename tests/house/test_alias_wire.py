"""What stands on the wire to another house when an alias led a message there: one message, dots doubled, our fields."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from posthouse.mail.address import parse_address
from tests.house.capture import Capture, commands_and_messages
from tests.house.test_forwarding import until_served
from tests.house.wire import Wire
from tests.running_house import RunningHouse

AWAY, FRIEND, CAROL = "away@here.test", "UsEr@far.test", "carol@there.test"
ODD_ALIAS = '"a;b (c) \\"d\\" X-Canary: 1"@here.test'
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
OUR_LINE = re.compile(
    rb"Received: from |\tby mx\.here\.test with ESMTP id [0-9A-Z]{26}|\tfor <.*@(?:here|far)\.test>;"
    rb"|\t\w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000\Z|Delivered-To: .*@here\.test\Z"
)


@pytest.fixture(scope="module")
def capture() -> Iterator[Capture]:
    with Capture() as capture:
        yield capture


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, capture: Capture) -> Iterator[RunningHouse]:
    forwarding = {"routes": {"*": f"127.0.0.1:{capture.port}"}}
    reception = {"trusted_networks": ["127.0.0.0/8"], "errors": 1000}
    with RunningHouse(tmp_path_factory.mktemp("here"), forwarding=forwarding, reception=reception) as house:
        for alias in (AWAY, ODD_ALIAS):
            address, targets = parse_address(alias), [parse_address(FRIEND)]
            house.ask(lambda storage, a=address, t=targets: storage.administration.add_alias(a, t))
        yield house


CONTENTS = {
    "begins with a dot": b".\r\nbody\r\n",
    "only dots": b".\r\n..\r\n...\r\n",
    "empty line, then a dot": b"\r\n.\r\nMAIL FROM:<x@far.test>\r\n",
    "no empty line": b"no field at all\r\n.hidden\r\n",
    "a field, no empty line": b"Subject: x\r\n",
    "nothing": b"",
    "ends in a dot line": b"Subject: x\r\n\r\nbody\r\n.\r\n",
    "huge last field": b"X: " + b"y" * 900 + b"\r\n" + (b" " + b"z" * 990 + b"\r\n") * 200 + b"\r\n.\r\n",
    "last field without an empty line": b"X: " + b"y" * 900 + b"\r\n" + (b" " + b"z" * 990 + b"\r\n") * 200,
    "fields like ours": b"Received: one\r\nDelivered-To: x@y.test\r\nReceived: (two\r\n\tby\r\n\r\n"
    + b"x" * 998
    + b"\r\n",
    "commands": b"\r\nQUIT\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n..\r\n.x\r\n",
}


@pytest.mark.conformance("C25", "C75", "C83", "C279", "S2")
@pytest.mark.parametrize("recipient", [AWAY, FRIEND], ids=["alias", "relay"])
@pytest.mark.parametrize("name", CONTENTS)
def test_one_message_leaves_with_its_dots_doubled(
    here: RunningHouse, capture: Capture, name: str, recipient: str
) -> None:
    content = CONTENTS[name]
    with Wire(here.ports["smtp"]).greet() as wire:
        wire.deliver(content, recipient, sender=CAROL)
    until_served(here)
    commands, (message,) = commands_and_messages(capture.session())
    assert [line.partition(b":")[0].partition(b" ")[0] for line in commands] == [
        b"EHLO", b"MAIL", b"RCPT", b"DATA", b"QUIT",
    ]  # fmt: skip
    assert commands[2].startswith(b"RCPT TO:<UsEr@far.test>")
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    assert message.endswith(stuffed)
    above = message[: len(message) - len(stuffed)].split(b"\r\n")
    assert above.pop() == b""
    assert all(OUR_LINE.match(line) for line in above), above


@pytest.mark.conformance("C283", "S18")
@pytest.mark.parametrize(
    ("hello", "sender", "recipient", "parameters"),
    [
        ("client.test", CAROL, ODD_ALIAS, ""),
        ("x;y(z", '"a b X-Canary: 1"@there.test', AWAY, ""),
        ("client.test\x0bX-Canary:", '"\\a;\\"@x\\""@there.test', ODD_ALIAS, ""),
        ("[IPv6:::1]", "SRS0=x=y=there.test=X-Canary@there.test", AWAY, ""),
        ("%0d%0aX-Canary:1", CAROL, AWAY, " ORCPT=rfc822;x+20X-Canary:+201 NOTIFY=FAILURE"),
        ("client.test", f"SRS1=x=there.test=={'X-Canary' * 5}@there.test", ODD_ALIAS, " ORCPT=x-y;+2B0d+2B0aX-Canary"),
    ],
)
def test_no_name_becomes_a_line_of_the_header_or_a_command(
    here: RunningHouse, capture: Capture, hello: str, sender: str, recipient: str, parameters: str
) -> None:
    """The sender rewritten, the alias in Received, Delivered-To and ORCPT, the name of the client."""
    with Wire(here.ports["smtp"]) as wire:
        assert wire.reply().startswith(b"220 ")
        if not wire.say(f"EHLO {hello}").startswith(b"250 "):
            assert wire.say("EHLO client.test").startswith(b"250 ")
        assert wire.say(f"MAIL FROM:<{sender}> ENVID=X-Canary:+201").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{recipient}>{parameters}").startswith(b"250 ")
        assert wire.content(LETTER).startswith(b"250 ")
    until_served(here)
    octets = capture.session()
    commands, (message,) = commands_and_messages(octets)
    assert len(commands) == 5
    assert re.match(rb"MAIL FROM:<SRS[01]=[A-Z2-7]{8}=\S+@here\.test>", commands[1])
    assert not re.search(rb"(?mi)^\s*X-Canary", octets)
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    above = message[: -len(LETTER)].split(b"\r\n")[:-1]
    assert all(OUR_LINE.match(line) for line in above), above
    assert sum(line.startswith(b"Received:") for line in above) == 1
