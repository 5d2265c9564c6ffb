"""Reports of failures elsewhere, over sockets: RET, what a peer's strange words do, UTF-8, and who is never told."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import pytest

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Attempted, JourneyEvent, Reported
from tests.forwarding.peer import EHLO, Peer, peer
from tests.house.test_addresses import emptied
from tests.house.test_smtp_extensions import submit
from tests.house.wire import Wire, stored
from tests.running_house import RunningHouse

ADA, NOBDY = "ada@here.test", "nobdy@there.test"
LETTER = b"From: ada@here.test\r\nSubject: hi\r\nMessage-ID: <1@here.test>\r\nDate: x\r\n\r\nsecret\r\n"
NO_SUCH: dict[str, str | bytes] = {"RCPT": "550 5.1.1 No such user"}
TRIES = 400
"""How often the queue is looked at before a test has failed: 20 s at most."""
NO_DSN = EHLO.replace("250-DSN\r\n", "")


@contextmanager
def far(answers: dict[str, str | bytes] | None = None, ehlo: str = EHLO) -> Iterator[Peer]:
    """A scripted next hop in a thread of its own."""
    ready, done = threading.Event(), asyncio.Event()
    found: list[Peer] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with peer(answers, ehlo) as serving:
            found.append(serving)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(10.0)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10.0)
        loop.close()


@contextmanager
def house_to(next_hop: Peer, folder: Path, *, trusting: bool = False) -> Iterator[RunningHouse]:
    """A house that sends all of its mail there; `trusting`: it relays for this machine."""
    forwarding = {"routes": {"*": f"127.0.0.1:{next_hop.port}"}, "retry": ["4h"]}
    reception = {"trusted_networks": ["127.0.0.0/8"]} if trusting else {}
    with RunningHouse(folder, forwarding=forwarding, reception=reception) as house:
        yield house


def give(house: RunningHouse, sender: str, *, parameters: str = "", letter: bytes = LETTER) -> QueueId:
    """Relay it through the house from this sender to somebody who does not exist."""
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say(f"MAIL FROM:{sender}{parameters}").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{NOBDY}>").startswith(b"250 ")
        return QueueId(stored(wire.content(letter)))


def until_tried(house: RunningHouse, queue_id: QueueId) -> Attempted:
    while not (tried := [event for event in journey(house, queue_id) if isinstance(event, Attempted)]):
        house.ask(lambda storage: storage.changes.wait(0.05))
    return tried[0]


def send(house: RunningHouse, *recipients: str, mail: str = "", letter: bytes = LETTER) -> QueueId:
    """Submit it as Ada, and wait until the queue is empty."""
    lines = (f"MAIL FROM:<{ADA}>{mail}", *(f"RCPT TO:{recipient}" for recipient in recipients))
    with submit(house, *lines) as wire:
        queue_id = QueueId(stored(wire.content(letter)))
    until_served(house)
    return queue_id


def until_served(house: RunningHouse) -> None:
    for _ in range(TRIES):
        if not house.ask(lambda storage: storage.spool.count()):
            return
        house.ask(lambda storage: storage.changes.wait(0.05))
    raise AssertionError("the queue is not empty")


def reports(house: RunningHouse) -> list[bytes]:
    return emptied(house, ADA)


def read(octets: bytes) -> tuple[EmailMessage, list[EmailMessage], list[dict[str, str]]]:
    """A report, its parts, and the groups of fields in the second."""
    report = cast("EmailMessage", email.message_from_bytes(octets, policy=email.policy.default))
    parts = cast("list[EmailMessage]", list(report.iter_parts()))
    groups = cast("list[EmailMessage]", parts[1].get_payload())
    return report, parts, [dict(group.items()) for group in groups]


@pytest.mark.conformance("C186")
@pytest.mark.parametrize(
    ("ret", "kind"), [("", "message/rfc822"), (" RET=FULL", "message/rfc822"), (" RET=HDRS", "text/rfc822-headers")]
)
def test_ret_decides_what_of_a_failed_message_returns(tmp_path: Path, ret: str, kind: str) -> None:
    with far(NO_SUCH) as next_hop, house_to(next_hop, tmp_path) as house:
        send(house, f"<{NOBDY}>", mail=ret)
        (octets,) = reports(house)
    _, parts, _ = read(octets)
    assert parts[2].get_content_type() == kind
    assert b"Subject: hi\r\n" in octets
    assert (b"secret" in octets) == (kind == "message/rfc822")


@pytest.mark.conformance("C186")
def test_requiretls_is_not_offered_and_refused(tmp_path: Path) -> None:
    """RFC 8689 §5 speaks of reports about messages that were taken with it: there are none."""
    with RunningHouse(tmp_path) as house, Wire(house.ports["smtp"]).greet() as wire:
        assert b"REQUIRETLS" not in wire.say("EHLO client.test")
        assert wire.say("MAIL FROM:<x@far.test> RET=FULL REQUIRETLS").startswith(b"555 5.5.4 ")


@pytest.mark.conformance("C78", "C185")
def test_a_sender_elsewhere_gets_it_from_the_null_path(tmp_path: Path) -> None:
    """RFC 3461 §6.1: no RET, no ENVID, NOTIFY=NEVER. The source route is gone, as is that of who sent it."""
    with far({"RCPT TO:<nobdy": "550 5.1.1 No"}) as next_hop:
        with house_to(next_hop, tmp_path, trusting=True) as house:
            give(house, "<@a.test,@b.test:rob@far.test>", parameters=" RET=HDRS ENVID=x")
            until_served(house)
    mail, rcpt = (line for line in next_hop.commands[-4:] if line.startswith(("MAIL", "RCPT")))
    assert re.fullmatch(r"MAIL FROM:<>( SIZE=\d+)?( BODY=\w+)?", mail)
    assert rcpt == "RCPT TO:<rob@far.test> NOTIFY=NEVER"
    (((recipients, content)),) = next_hop.messages
    assert recipients == ("rob@far.test",)
    assert b"Action: failed" in content


@pytest.mark.conformance("C79")
def test_what_came_from_the_null_path_returns_to_nobody(tmp_path: Path) -> None:
    with far(NO_SUCH) as next_hop, house_to(next_hop, tmp_path, trusting=True) as house:
        queue_id = give(house, "<>")
        until_served(house)
        events = journey(house, queue_id)
        assert reports(house) == []
    assert next_hop.messages == []
    (told,) = [event for event in events if isinstance(event, Reported)]
    assert (told.action, told.report_queue_id) == ("failed", None)
    assert "null path" in told.reason


PARAMETERS = " RET=HDRS ENVID=QQ+2B314+3D"
TO_BEN = "<Ben@There.Test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Old+2BBen@There.Test"


@pytest.mark.conformance("C181")
def test_a_dsn_peer_gets_the_senders_own_octets(tmp_path: Path) -> None:
    with far() as next_hop, house_to(next_hop, tmp_path) as house:
        send(house, TO_BEN, "<cid@there.test> NOTIFY=NEVER", "<dan@there.test>", mail=PARAMETERS)
        assert reports(house) == []
    mail, *rcpts = [line for line in next_hop.commands if line.startswith(("MAIL", "RCPT"))]
    assert mail.endswith(PARAMETERS)
    ben, cid, dan = rcpts
    assert ben.partition("> ")[2] == TO_BEN.partition("> ")[2]
    assert cid.partition("> ")[2].startswith("NOTIFY=NEVER")
    assert dan.partition("> ")[2] in ("", "ORCPT=rfc822;dan@there.test")


@pytest.mark.conformance("C182")
def test_a_peer_without_dsn_gets_no_parameter_and_we_report(tmp_path: Path) -> None:
    with far(ehlo=NO_DSN) as next_hop, house_to(next_hop, tmp_path) as house:
        send(house, TO_BEN, "<cid@there.test> NOTIFY=NEVER", "<dan@there.test>", mail=PARAMETERS)
        (octets,) = reports(house)
    said = " ".join(line for line in next_hop.commands if line.startswith(("MAIL", "RCPT")))
    assert not re.search("NOTIFY|ORCPT|RET=|ENVID", said)
    _, _, (of_all, group) = read(octets)
    assert of_all["Original-Envelope-Id"] == "QQ+314="
    assert group["Action"] == "relayed"
    assert group["Original-Recipient"] == "rfc822; Old+Ben@There.Test"


FIELD = re.compile(rb"(?m)^(X-Canary|Action: delivered)")
EVIL: dict[str, bytes | str] = {
    "a bare CR": b"550 5.1.1 no\rAction: delivered\rX-Canary: 1\r\n",
    "a bare LF": b"550 5.1.1 no\nAction: delivered\nX-Canary: 1\r\n",
    "lines that look like fields": b"550-5.1.1 no\r\n550-Action: delivered\r\n550-X-Canary: 1\r\n550 5.1.1 .\r\n",
    "an enhanced code of 900 digits": b"550 5.1." + b"1" * 900 + b" no\r\n",
    "a class that does not fit": b"550 2.1.5 Delivered\r\n",
    "no enhanced code": b"550 " + b"x" * 900 + b"\r\n",
    "octets": b"550 5.1.1 " + bytes(o for o in range(1, 256) if o not in b"\r\n") + b"\r\n",
    "a boundary": b"550 5.1.1 --=_01\r\n",
    "a hundred lines": b"550-5.1.1 x\r\n" * 99 + b"550 5.1.1 y\r\n",
    "a text beyond all bounds": b"550-5.1.1 " + b"Action: delivered " * 20_000 + b"\r\n550 5.1.1 no\r\n",
}


@pytest.mark.conformance("C174", "C189", "S22")
@pytest.mark.parametrize("name", EVIL)
def test_a_peers_words_are_data(tmp_path: Path, name: str) -> None:
    """Whatever it answers ends in one report whose fields are ours, or the message waits."""
    with far({"RCPT": EVIL[name]}) as next_hop, house_to(next_hop, tmp_path) as house:
        with submit(house, f"MAIL FROM:<{ADA}>", f"RCPT TO:<{NOBDY}>") as wire:
            queue_id = QueueId(stored(wire.content(LETTER)))
        until_tried(house, queue_id)
        waiting = house.ask(lambda storage: storage.spool.count())
        found = reports(house)
    assert len(found) == 1 - waiting
    for octets in found:
        assert len(octets) < 20_000
        assert max(map(len, octets.split(b"\r\n"))) <= 998
        assert not FIELD.search(octets)
        report, _, (_, group) = read(octets)
        assert (group["Action"], group["Final-Recipient"]) == ("failed", f"rfc822; {NOBDY}")
        assert re.fullmatch(r"5\.[01]\.[01]", group["Status"])
        assert "X-Canary" not in report


def journey(house: RunningHouse, queue_id: QueueId) -> Sequence[JourneyEvent]:
    return house.ask(lambda storage: storage.journey.read(queue_id))


ODD = ['"a b; Action: delivered"@there.test', '"q\\"x"@there.test', "o'neil+x=y@there.test", "%s@there.test"]


@pytest.mark.conformance("C189")
@pytest.mark.parametrize("recipient", ODD)
def test_final_recipient_is_that_of_the_envelope(tmp_path: Path, recipient: str) -> None:
    with far(NO_SUCH) as next_hop, house_to(next_hop, tmp_path) as house:
        send(house, f"<{recipient}>")
        (octets,) = reports(house)
    (said,) = [line for line in next_hop.commands if line.startswith("RCPT")]
    assert said.startswith(f"RCPT TO:<{recipient}>")
    assert b"Final-Recipient: rfc822; " + recipient.encode() + b"\r\n" in octets


UTF8_LETTER = LETTER.replace(b"hi", "schön".encode())


@pytest.mark.conformance("C162", "C195")
@pytest.mark.parametrize(
    ("missing", "recipient", "mail", "letter", "status"),
    [
        ("SMTPUTF8", "jörg@there.test", " SMTPUTF8", LETTER, "5.6.7"),
        ("SMTPUTF8", "joe@there.test", " SMTPUTF8", UTF8_LETTER, "5.6.7"),
        ("8BITMIME", "joe@there.test", " BODY=8BITMIME", LETTER + "schön\r\n".encode(), "5.6.3"),
    ],
    ids=["UTF-8 address", "UTF-8 header", "8-bit body"],
)
def test_what_the_peer_cannot_take_comes_back_unsent(
    tmp_path: Path, missing: str, recipient: str, mail: str, letter: bytes, status: str
) -> None:
    with far(ehlo=EHLO.replace(f"250-{missing}\r\n", "")) as next_hop, house_to(next_hop, tmp_path) as house:
        queue_id = send(house, f"<{recipient}>", mail=mail, letter=letter)
        events = journey(house, queue_id)
        count = len(reports(house))
    assert not any(line.startswith(("MAIL", "RCPT", "DATA")) for line in next_hop.commands)
    (tried,) = [event for event in events if isinstance(event, Attempted)]
    (told,) = [event for event in events if isinstance(event, Reported)]
    assert (tried.outcome, tried.from_peer, tried.reply.split()[1]) == ("failed", False, status)
    assert (told.action, told.report_queue_id is None, count) == ("failed", False, 1)


@pytest.mark.conformance("C201")
def test_a_utf8_recipient_of_a_sender_who_can_read_it(tmp_path: Path) -> None:
    with far(NO_SUCH) as next_hop, house_to(next_hop, tmp_path) as house:
        send(house, "<jörg@there.test> ORCPT=utf-8;j\\x{F6}rg@there.test", mail=" SMTPUTF8", letter=UTF8_LETTER)
        with Wire(house.ports["pop3"]) as reader:
            assert reader.pop3("UTF8").startswith(b"+OK")
            assert reader.login(ADA).startswith(b"+OK")
            octets = reader.retrieve(1)
    _, parts, _ = read(octets)
    kinds = [part.get_content_type() for part in parts]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global"]
    assert "Final-Recipient: utf-8; jörg@there.test\r\n".encode() in octets
    assert "Original-Recipient: utf-8; jörg@there.test\r\n".encode() in octets
    assert b"\r\nAction: failed\r\n" in octets
    assert b"=?utf-8?" not in octets.lower().partition(b"\r\n\r\n")[2]


BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
DOTS = b".\r\n..\r\n.MAIL FROM:<x@y.test>\r\n"
SMUGGLED = ["", "a\n.\n", "a\n.\r", "a\r.\r", "a\r.", "\0.", ".", "a\n.\nMAIL FROM:<x@y.test>\n"]


@pytest.mark.conformance("C278")
@pytest.mark.parametrize("words", SMUGGLED)
def test_a_report_of_evil_content_smuggles_nothing(tmp_path: Path, words: str) -> None:
    """As it leaves this house: only CRLF ends a line, and dots are doubled, whatever the peer and the sender wrote."""
    with far({"RCPT TO:<nobdy": b"550 5.1.1 " + words.encode() + b"\r\n"}) as next_hop:
        with house_to(next_hop, tmp_path, trusting=True) as house:
            queue_id = give(house, "<rob@far.test>", letter=LETTER + DOTS)
            if until_tried(house, queue_id).outcome == "failed":
                until_served(house)
    assert not any(line.startswith("MAIL FROM:<x@y") for line in next_hop.commands)
    for _recipients, content in next_hop.messages:
        assert not BARE.search(content)
        assert b"\r\n" + DOTS + b"\r\n--=_" in content
    assert len(next_hop.messages) <= 1
    assert next_hop.messages or words
