"""Submission over sockets: who may write as whom, what is added and left out, what is told at once."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest

from posthouse.mail.address import Address, parse_address
from posthouse.net.dns import MxHost
from posthouse.world import World
from tests.fake_world import FakeResolver
from tests.house.test_addresses import emptied
from tests.house.wire import Wire, stuffed
from tests.running_house import PASSWORD, RunningHouse

ADA, BOB = "ada@here.test", "bob@here.test"
RESOLVER = FakeResolver(
    {
        "far.test": (MxHost(10, "mx.far.test"),),
        "null.test": (MxHost(0, ""),),
        "slow.test": (MxHost(10, "mx.far.test"),),
    },
    broken=frozenset({"slow.test"}),
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with RunningHouse(
        tmp_path_factory.mktemp("house"),
        (ADA, BOB, "eve@other.test"),
        world=World(resolver=RESOLVER),
        reception={"sessions_per_address": 500, "errors": 1000},
        forwarding={"routes": {"intranet": "127.0.0.1:1", "relayed.test": "127.0.0.1:1"}, "retry": ["4h"]},
    ) as house:
        for alias, target in ((parse_address("info@here.test"), ADA), (Address("", "other.test"), ADA)):
            house.ask(lambda storage, a=alias, t=target: storage.administration.add_alias(a, [parse_address(t)]))
        yield house


@pytest.fixture
def ada(house: RunningHouse) -> Iterator[Wire]:
    with Wire(house.ports["submission"]).greet() as wire:
        secret = base64.b64encode(f"\0{ADA}\0{PASSWORD}".encode()).decode()
        assert wire.say(f"AUTH PLAIN {secret}").startswith(b"235 ")
        yield wire


def submitted(wire: Wire, house: RunningHouse, content: bytes, *recipients: str, sender: str = ADA) -> bytes:
    """What Bob finds in his maildrop."""
    wire.deliver(content, *(recipients or (BOB,)), sender=sender)
    (message,) = emptied(house, BOB)
    return message


def names(message: bytes) -> list[str]:
    header = re.sub(rb"\r\n[ \t]+", b" ", message.partition(b"\r\n\r\n")[0])
    return [line.partition(b":")[0].decode() for line in header.split(b"\r\n")]


OURS = ["Return-Path", "Delivered-To", "Received"]


@pytest.mark.conformance("C117")
def test_a_body_gets_the_fields_that_it_needs(house: RunningHouse, ada: Wire) -> None:
    message = submitted(ada, house, b"\r\njust text\r\n")
    assert names(message) == [*OURS, "Date", "Message-ID", "Sender"]
    assert message.endswith(b"\r\nSender: ada@here.test\r\n\r\njust text\r\n")
    (queue_id,) = re.findall(rb"with ESMTPA id (\w+)", message)
    assert b"Message-ID: <" + queue_id + b"@mx.here.test>\r\n" in message
    # The journey and a later report know the message by the field that we added.
    (accepted, *_) = house.ask(lambda storage: storage.journey.read(queue_id.decode()))
    assert accepted.message_id == f"<{queue_id.decode()}@mx.here.test>"


@pytest.mark.conformance("C104", "C109", "C117", "C309")
@pytest.mark.parametrize("piece", [0, 1, 13])
def test_what_is_whole_passes_octet_for_octet(house: RunningHouse, ada: Wire, piece: int) -> None:
    content = (
        b"Received: from x (nonsense by y;\r\n\tend\r\nReceived: again\r\n"
        b"Return-Path: <x@y>\r\nDATE : Fri, 21 Nov 97 09(comment):55:06 -0600\r\n"
        b'From: Ada\r\n <"ada" (c) @ here . test>\r\nmessage-id:<a@b>\r\nSubject: ' + b"long " * 1000 + b"\r\n"
        b"X-Odd :\t\xff \r\nTo: <@a,@b:bob@here.test>, undisclosed: ;\r\n"
        b"\r\n.\r\n..\r\nBcc: body\r\n \r\n\xfc\0\r\n"
    )
    ada.envelope(BOB, sender=ADA)
    assert ada.say("DATA").startswith(b"354 ")
    ada.send_in_pieces(stuffed(content), piece)
    assert ada.reply().startswith(b"250 ")
    (message,) = emptied(house, BOB)
    assert message.endswith(b"\r\n" + content)
    assert names(message)[:4] == [*OURS, "Received"]


@pytest.mark.conformance("C71", "C106")
def test_a_bcc_reaches_its_reader_and_is_seen_by_nobody(house: RunningHouse, ada: Wire) -> None:
    content = (
        b"bcc: Eve <eve@other.test>,\r\n\tcarol@relayed.test\r\nFrom: ada@here.test\r\nTo: bob@here.test\r\n"
        b"BCC : eve@other.test\r\nSubject: secret\r\nBcc:\r\n\r\nBcc: in the body\r\n"
    )
    message = submitted(ada, house, content, BOB, "eve@other.test")
    (hers,) = emptied(house, "eve@other.test")
    assert message.endswith(
        b"\r\nFrom: ada@here.test\r\nTo: bob@here.test\r\nSubject: secret\r\n\r\nBcc: in the body\r\n"
    )
    assert b"eve" not in message
    assert b"carol" not in message + hers
    assert message.partition(b"Received:")[2] == hers.partition(b"Received:")[2]


@pytest.mark.conformance("C105", "C107")
@pytest.mark.parametrize(
    "header",
    [
        b"From: ada@here.test\r\nFrom: ada@here.test\r\n",
        b"Subject: a\r\nsubject : b\r\n",
        b"Sub ject: x\r\n",
        b": x\r\n",
        b"X\x80: y\r\n",
        b"X: y\r\n \r\n",
        b"no field\r\n",
    ],
)
def test_an_ambiguous_header_is_refused_and_the_session_goes_on(house: RunningHouse, ada: Wire, header: bytes) -> None:
    ada.envelope(BOB, sender=ADA)
    assert ada.content(header + b"\r\nbody\r\n" + b"x" * 100_000 + b"\r\n").startswith(b"550 5.6.0 ")
    assert ada.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
    assert submitted(ada, house, b"From: ada@here.test\r\n\r\nx\r\n")


@pytest.mark.conformance("C108")
def test_cr_and_lf_alone_are_refused_and_nul_is_kept(house: RunningHouse, ada: Wire) -> None:
    for content in (b"Subject: a\rb\r\n", b"Subject: a\nb\r\n", b"\r\nx\r\r\n", b"\r\nx\n\r\n"):
        ada.envelope(BOB, sender=ADA)
        assert ada.content(content).startswith(b"550 5.6.11 ")
    content = b"Subject: a\0b\r\n\r\nc\0d\r\n"
    assert submitted(ada, house, content).endswith(content)


@pytest.mark.conformance("C115", "C318")
@pytest.mark.parametrize("sender", ["info@here.test", "INFO+x@here.test", "ada+x@here.test", "any@other.test", ""])
def test_a_login_sends_as_all_that_comes_to_it(house: RunningHouse, ada: Wire, sender: str) -> None:
    author = sender or ADA
    content = f"From: Me <{author}>\r\nSender: {author}\r\n\r\nx\r\n".encode()
    message = submitted(ada, house, content, sender=sender)
    assert message.startswith(f"Return-Path: <{sender}>\r\n".encode())
    assert message.endswith(content)


@pytest.mark.conformance("C115", "C318")
@pytest.mark.parametrize(
    "author",
    [
        "bob@here.test",
        "eve@other.test",
        '"ada@here.test" <bob@here.test>',
        "ada@here.test, bob@here.test",
        "us: bob@here.test;",
        "ada@far.test",
        '"ada@here.test"@far.test',
        "BOB+ada@HERE.test",
        "\u0430da@here.test",
        "ada@here.te\u0455t",
        "b\u00f6b@here.test",
        "b\u03bfb@here.test",
    ],
)
def test_and_as_nobody_else(house: RunningHouse, ada: Wire, author: str) -> None:
    if author.isascii() and re.fullmatch(r"[^<>, ]+", author.replace('"ada@here.test"', "x")):
        assert ada.say(f"MAIL FROM:<{author}>")[:3] == b"550"
    for field in ("From", "Sender", "fRoM ", "SENDER"):
        ada.envelope(BOB, sender=ADA)
        assert ada.content(f"X: y\r\n{field}: {author}\r\n\r\nx\r\n".encode()).startswith(b"550 5.7.1 "), field
    assert emptied(house, BOB) == []


@pytest.mark.conformance("C116")
def test_domains_must_be_full_names(house: RunningHouse, ada: Wire) -> None:
    for sender in ("a@host", "ada@here", "ada"):
        assert ada.say(f"MAIL FROM:<{sender}>")[:3] in (b"550", b"501"), sender
    assert ada.say(f"MAIL FROM:<{ADA}>").startswith(b"250 ")
    for recipient in ("b@mail", "b@localhost"):
        assert ada.say(f"RCPT TO:<{recipient}>").startswith(b"554 5.1.2 "), recipient
    for recipient in ("c", "b@", "b@-x.test", "b@x..test", "b b@far.test", "b@far.test."):
        assert ada.say(f"RCPT TO:<{recipient}>").startswith(b"501 5.1.3 "), recipient
    # A short name that the configuration has a next hop for is meant.
    assert ada.say("RCPT TO:<b@intranet>").startswith(b"250 ")


@pytest.mark.conformance("C118")
def test_what_can_never_arrive_is_told_at_once(house: RunningHouse, ada: Wire) -> None:
    assert ada.say(f"MAIL FROM:<{ADA}>").startswith(b"250 ")
    for recipient, answer in (
        ("nobody@here.test", b"550 5.1.1 "),
        ("x@null.test", b"556 5.1.10 "),
        ("x@typo.test", b"550 5.1.2 "),
        ("x@far.test", b"250 "),
        ("x@relayed.test", b"250 "),
        # Name servers that say nothing now are no reason to refuse.
        ("x@slow.test", b"250 "),
    ):
        assert ada.say(f"RCPT TO:<{recipient}>").startswith(answer), recipient
    assert "relayed.test" not in RESOLVER.asked


def test_other_houses_mail_is_not_judged_by_these_rules(house: RunningHouse) -> None:
    content = b"From: x\r\nFrom: y\r\nBcc: kept\r\n no field\r\nbroken line\r\n\r\nx\r\n"
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.deliver(content, BOB, sender=ADA)
    (message,) = emptied(house, BOB)
    assert message.endswith(content)
    assert names(message)[:4] == [*OURS, "From"]
