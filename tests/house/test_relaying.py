"""What goes through a house to the next one arrives as it was, as one message, under one more Received field."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.house.wire import Wire, stuffed
from tests.running_house import RunningHouse

BEN = "ben@there.test"
OURS = re.compile(
    rb"Return-Path: <[^\r\n]*>\r\nDelivered-To: [^\r\n]+\r\n(?:Received: (?:[^\r\n]*\r\n\t)*[^\r\n]*\r\n){2}"
)
"""Of the far house, and the one Received field of the near one."""
TRACE = b"".join(
    (
        b"Received: from a.test by b.test with ESMTP id 1; Mon, 1 Jan 2024 00:00:00 +0000\r\n" * 3,
        b"Received: (qmail 1 invoked by uid 1); 1 Jan 24 00:00:00 -0000\r\nreceived :x\r\nRECEIVED:\r\n",
        b"Received: from\t(\xff\xfe)\r\n\t\r\n by ; ; ;\r\nReceived: by b.test (((\r\n" * 6,
        b"Return-Path: <a@b.test>\r\nReturn-Path: <>\r\nDelivered-To: x\r\nX: y\r\nReceived: last\r\n",
    )
)
CONTENTS = {
    "Received of others": TRACE + b"Subject: x\r\n\r\nbody\r\n",
    "a signed message": b"DKIM-Signature: v=1;\r\n\tb= a b\r\nFrom:  a <A@far.test> \r\nX:\ty \r\n\r\n x \r\n\r\n",
    "dots": b".x\r\n..\r\n\r\n.\r\n..\r\n...\r\n.x\r\n" * 40,
    "a body that begins with a dot": b"Subject: x\r\n\r\n.\r\n.MAIL FROM:<x@y.test>\r\n",
    "a dot at once": b".\r\nMAIL FROM:<x@y.test>\r\nRCPT TO:<ben@there.test>\r\nDATA\r\n",
    "nothing": b"",
    "an empty line": b"\r\n",
    "no empty line": b"Subject: x\r\n",
    "a last field without end": b"X: " + b"y" * 4000 + b"\r\n.\r\n",
    "8 bits and NUL": bytes(o for o in range(256) if o not in b"\r\n") * 30 + b"\r\n",
    "chunk borders": b"Subject: x\r\n\r\n" + b"".join(b"z" * (65_536 - shift) + b"\r\n.\r\n" for shift in range(6)),
}


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path_factory.mktemp("far"), (BEN,), hostname="mx.there.test", postmaster=BEN) as house:
        yield house


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory, far: RunningHouse) -> Iterator[RunningHouse]:
    """Relays everything for this machine."""
    with RunningHouse(
        tmp_path_factory.mktemp("near"),
        reception={"trusted_networks": ["127.0.0.0/8"]},
        forwarding={"routes": {"*": f"127.0.0.1:{far.ports['smtp']}"}, "retry": ["200ms"]},
    ) as house:
        yield house


def relay(near: RunningHouse, far: RunningHouse, content: bytes, hello: str, sender: str) -> bytes:
    """Give it to the near house; returns the one message that the far house then has."""
    with Wire(near.ports["smtp"]).greet(hello) as wire:
        assert wire.say(f"MAIL FROM:<{sender}> BODY=8BITMIME").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{BEN}>").startswith(b"250 ")
        assert wire.say("DATA").startswith(b"354 ")
        wire.send(stuffed(content))
        assert wire.reply().startswith(b"250 ")
    while near.ask(lambda storage: storage.spool.count()):
        near.ask(lambda storage: storage.changes.wait(0.05))
    with Wire(far.ports["pop3"]) as reader:
        assert reader.login(BEN).startswith(b"+OK")
        assert len(reader.uidls()) == 1
        message = reader.retrieve(1)
        assert reader.pop3("DELE 1").startswith(b"+OK")
        assert reader.pop3("QUIT").startswith(b"+OK")
    return message


@pytest.mark.conformance("C50", "C51", "C72", "C75", "S1")
@pytest.mark.parametrize("name", CONTENTS)
def test_content_passes_unchanged(near: RunningHouse, far: RunningHouse, name: str) -> None:
    message = relay(near, far, CONTENTS[name], "client.test", "carol@far.test")
    ours = OURS.match(message)
    assert ours is not None, message[:1000]
    assert message[ours.end() :] == CONTENTS[name]
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", message)


@pytest.mark.conformance("C71", "C279")
@pytest.mark.parametrize("name", ["dots", "a body that begins with a dot", "a dot at once", "nothing", "no empty line"])
@pytest.mark.parametrize(
    ("hello", "sender"),
    [
        (".".join(["h" * 61] * 4), "l" * 64 + "@" + ".".join(["d" * 61] * 3)),
        (".".join(["h" * 61] * 4), ""),
        ("[IPv6:2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]", '"' + "\\ " * 31 + '"@far.test'),
    ],
    ids=["long names", "null path", "quoted"],
)
def test_long_fields_of_ours_open_no_gap(
    near: RunningHouse, far: RunningHouse, name: str, hello: str, sender: str
) -> None:
    message = relay(near, far, CONTENTS[name], hello, sender)
    ours = OURS.match(message)
    assert ours is not None, message[:1000]
    assert message[ours.end() :] == CONTENTS[name]
    assert all(len(line) <= 998 for line in ours[0].split(b"\r\n"))
