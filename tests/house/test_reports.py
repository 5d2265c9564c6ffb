"""Reports of success that a sender asked for (RFC 3461 §5.2), over sockets, with all that must hold together."""

from __future__ import annotations

import email
import email.policy
import functools
from collections.abc import Iterator
from contextlib import ExitStack
from email.message import Message
from pathlib import Path

import pytest

from posthouse import app
from posthouse.mail.acceptance import Notify
from posthouse.mail.address import parse_address
from posthouse.mail.ids import ContentId, QueueId
from posthouse.mail.journey import Accepted, Reported
from posthouse.protocol.smtp_server import ServerOptions
from posthouse.storage.errors import StorageBusy, StorageFull
from posthouse.storage.interfaces import Storage
from tests.house.faults import faulty_house
from tests.house.test_addresses import emptied
from tests.house.test_smtp_extensions import submit
from tests.house.wire import Wire, stored
from tests.running_house import RunningHouse

ADA, BOB, JOERG, BEN = "ada@here.test", "bob@here.test", "jörg@here.test", "Ben@there.test"
MAIL = f"MAIL FROM:<{ADA}>"
LETTER = b"From: ada@here.test\r\nMessage-ID: <1@here.test>\r\nSubject: hi\r\n\r\nsecret\r\n"
ALIASES = {
    "one@here.test": ("bob@here.test",),
    "both@here.test": ("bob@here.test", "cid@here.test"),
    "copy@here.test": ("bob@here.test", "x@far.test"),
    "away@here.test": ("y@far.test",),
}
EXTENSIONS_BEFORE_DSN = frozenset({"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES"})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    people = (ADA, BOB, "cid@here.test", JOERG)
    routes = {"routes": {"*": "127.0.0.1:1"}, "retry": ["4h"]}
    with RunningHouse(tmp_path_factory.mktemp("house"), people, forwarding=routes) as house:
        for alias, targets in ALIASES.items():
            addresses = [parse_address(target) for target in targets]
            house.ask(lambda storage, a=alias, t=addresses: storage.administration.add_alias(parse_address(a), t))
        yield house


def send(house: RunningHouse, *recipients: str, mail: str = MAIL, letter: bytes = LETTER) -> QueueId:
    """Submit it as Ada."""
    with submit(house, mail, *(f"RCPT TO:{recipient}" for recipient in recipients)) as wire:
        return QueueId(stored(wire.content(letter)))


def reports(house: RunningHouse, person: str = ADA) -> list[Message]:
    """The reports in a maildrop, which is empty after."""
    found = [email.message_from_bytes(octets, policy=email.policy.default) for octets in emptied(house, person)]
    return [message for message in found if message.get_content_type() == "multipart/report"]


def groups(report: Message) -> list[dict[str, str]]:
    """The fields of the message, then those of each recipient."""
    _text, status, _returned = report.iter_parts()  # type: ignore[attr-defined]
    return [dict(group.items()) for group in status.iter_parts()]


def told(house: RunningHouse, queue_id: QueueId) -> list[tuple[str, tuple[str, ...]]]:
    events = house.ask(lambda storage: storage.journey.read(queue_id))
    return [(event.action, event.forward_paths) for event in events if isinstance(event, Reported)]


@pytest.mark.conformance("C183", "C185", "C187", "C188")
def test_one_report_tells_of_all_who_asked(house: RunningHouse) -> None:
    queue_id = send(
        house,
        "<bob@here.test> NOTIFY=SUCCESS ORCPT=rfc822;Bob+2BX@Old.test",
        "<cid@here.test> NOTIFY=FAILURE,DELAY",
        "<BOB@HERE.TEST> NOTIFY=SUCCESS ORCPT=rfc822;Bob+2BX@Old.test",
        "<one@here.test> NOTIFY=FAILURE,SUCCESS",
        "<ada@here.test>",
        mail=f"{MAIL} RET=FULL ENVID=QQ+2B314",
    )
    (report,) = reports(house)
    assert report["Return-Path"] == "<>"
    assert report["Auto-Submitted"] == "auto-replied"
    of_all, bob, one = groups(report)
    assert (of_all["Original-Envelope-Id"], of_all["X-Posthouse-Queue-ID"]) == ("QQ+314", queue_id)
    assert bob == {
        "Original-Recipient": "rfc822; Bob+X@Old.test",
        "Final-Recipient": "rfc822; bob@here.test",
        "Action": "delivered",
        "Status": "2.1.5",
    }
    assert one == {"Final-Recipient": "rfc822; one@here.test", "Action": "delivered", "Status": "2.1.5"}
    assert told(house, queue_id) == [("delivered", ("bob@here.test", "one@here.test"))]
    (report_id,) = (e.report_queue_id for e in journey(house, queue_id) if isinstance(e, Reported))
    assert report_id is not None
    (accepted,) = (e for e in journey(house, report_id) if isinstance(e, Accepted))
    assert (accepted.about, accepted.source, accepted.reverse_path) == (queue_id, "report", "")


def journey(house: RunningHouse, queue_id: QueueId) -> tuple[object, ...]:
    return house.ask(lambda storage: storage.journey.read(queue_id))


@pytest.mark.conformance("C186")
@pytest.mark.parametrize("ret", ["", " RET=FULL", " RET=HDRS"])
def test_success_returns_the_header_section_only(house: RunningHouse, ret: str) -> None:
    """RFC 3461 §6.2: RET speaks of failures. What the report returns is what was stored."""
    long = LETTER + b"x" * 70_000 + b"\r\n"
    send(house, f"<{BOB}> NOTIFY=SUCCESS", mail=MAIL + ret, letter=long)
    (report,) = reports(house)
    *_, returned = report.iter_parts()  # type: ignore[attr-defined]
    assert returned.get_content_type() == "text/rfc822-headers"
    lines = returned.get_content().splitlines()
    assert lines[0].startswith("Received: from client.test")
    assert "Subject: hi" in lines
    assert any(line.startswith("Date: ") for line in lines), "what we added is missing"
    assert not any("secret" in line for line in lines)


@pytest.mark.conformance("C183")
@pytest.mark.parametrize("parameter", ["", " NOTIFY=NEVER", " NOTIFY=FAILURE,DELAY"])
def test_nobody_is_told_unasked(house: RunningHouse, parameter: str) -> None:
    queue_id = send(house, f"<bob@here.test>{parameter}", f"<both@here.test>{parameter}")
    assert reports(house) == []
    assert told(house, queue_id) == []


@pytest.mark.conformance("C183", "C185")
def test_nothing_is_told_to_the_null_path(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.say("MAIL FROM:<>")
        assert wire.say(f"RCPT TO:<{BOB}> NOTIFY=SUCCESS").startswith(b"250 ")
        queue_id = QueueId(stored(wire.content(LETTER)))
    assert told(house, queue_id) == []


@pytest.mark.conformance("C190")
def test_aliases(house: RunningHouse) -> None:
    """For one it is as good as that one (RFC 3461 §5.2.7.2); for several it is expanded (§5.2.7.3, c)."""
    queue_id = send(
        house,
        *(f"<{alias}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;{alias}" for alias in ALIASES),
        "<x2@far.test> NOTIFY=SUCCESS",
    )
    (report,) = reports(house)
    assert [(group["Final-Recipient"], group["Action"]) for group in groups(report)[1:]] == [
        ("rfc822; one@here.test", "delivered"),
        ("rfc822; both@here.test", "expanded"),
        ("rfc822; copy@here.test", "expanded"),
    ]
    assert told(house, queue_id) == [
        ("delivered", ("one@here.test",)),
        ("expanded", ("both@here.test", "copy@here.test")),
    ]
    rows = house.ask(lambda storage: storage.spool.list(queue_id=queue_id))
    assert {str(row.forward_path): (row.notify, row.original_recipient) for row in rows} == {
        "x@far.test": (frozenset({Notify.FAILURE}), "rfc822;copy@here.test"),
        "y@far.test": (frozenset({Notify.SUCCESS, Notify.FAILURE}), "rfc822;away@here.test"),
        "x2@far.test": (frozenset({Notify.SUCCESS}), None),
    }


@pytest.mark.conformance("C184")
def test_who_asked_for_success_alone_hears_of_no_failure_behind_an_alias(house: RunningHouse) -> None:
    queue_id = send(house, "<copy@here.test> NOTIFY=SUCCESS")
    (row,) = house.ask(lambda storage: storage.spool.list(queue_id=queue_id))
    assert row.notify == frozenset({Notify.NEVER})
    assert len(reports(house)) == 1


@pytest.mark.conformance("C183")
def test_an_internationalised_recipient(house: RunningHouse) -> None:
    letter = LETTER.replace(b"hi", "schön".encode())
    send(house, f"<{JOERG}> NOTIFY=SUCCESS ORCPT=utf-8;j\\x{{F6}}rg@here.test", mail=f"{MAIL} SMTPUTF8", letter=letter)
    assert len(emptied(house, ADA)) == 1
    (event,) = (e for e in journey(house, _latest(house)) if isinstance(e, Reported))
    assert event.forward_paths == (JOERG,)


def _latest(house: RunningHouse) -> QueueId:
    return house.ask(lambda storage: storage.journey.find(forward_path=JOERG, limit=1))[0]


def test_a_sender_that_leads_nowhere_costs_nobody_the_message(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("MAIL FROM:<nobody@here.test>").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{BOB}> NOTIFY=SUCCESS").startswith(b"250 ")
        queue_id = QueueId(stored(wire.content(LETTER)))
    (event,) = (e for e in journey(house, queue_id) if isinstance(e, Reported))
    assert event.report_queue_id is None
    assert "leads nowhere" in event.reason


@pytest.mark.parametrize("operation", ["draft.write", "draft.seal", "directory.resolve", "accept"])
@pytest.mark.parametrize("error", [StorageBusy("x"), StorageFull("x")], ids=["busy", "full"])
def test_message_and_report_are_stored_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, error: Exception
) -> None:
    """The operation fails when the report needs it: after it did for the message itself."""
    running, faults = faulty_house(tmp_path, monkeypatch)
    asked = 0

    async def second() -> None:
        nonlocal asked
        asked += 1
        if asked > (operation.startswith("draft")):
            raise error

    with running as house:
        with submit(house, MAIL, f"RCPT TO:<{BOB}> NOTIFY=SUCCESS") as wire:
            assert wire.say("DATA").startswith(b"354 ")
            faults[operation] = second
            wire.send(LETTER + b".\r\n")
            assert wire.reply().startswith((b"451 4.3.0", b"452 4.3.1"))
            faults.clear()
            assert asked, "the report was not made"
            assert wire.say(MAIL).startswith(b"250 ")
        assert emptied(house, BOB) == emptied(house, ADA) == []
        content = house.house.storage.content
        assert content.waiting_octets == 0, "a draft was forgotten"  # type: ignore[attr-defined]


async def whole(storage: Storage, content_id: ContentId) -> bytes:
    return b"".join([chunk async for chunk in storage.content.open(content_id)])


@pytest.mark.conformance("C181", "C182", "C185")
@pytest.mark.parametrize("dsn", [True, False])
def test_success_elsewhere_is_told_by_who_knows_it(tmp_path: Path, dsn: bool) -> None:
    """A next hop with DSN gets all parameters and reports itself; of one without we say that it was relayed."""
    (tmp_path / "there").mkdir()
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            if not dsn:
                patch.setattr(app, "ServerOptions", functools.partial(ServerOptions, extensions=EXTENSIONS_BEFORE_DSN))
            there = RunningHouse(tmp_path / "there", (BEN,), hostname="mx.there.test", postmaster=BEN)
            stack.enter_context(there)
        routes = {"routes": {"*": f"127.0.0.1:{there.ports['smtp']}"}}
        here = stack.enter_context(RunningHouse(tmp_path, forwarding=routes))
        recipient = f"<{BEN}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Old+2BBen@there.test"
        send(here, recipient, "<eve@there.test> NOTIFY=NEVER", mail=f"{MAIL} RET=HDRS ENVID=QQ+2B314")
        while here.ask(lambda storage: storage.spool.count()):
            here.ask(lambda storage: storage.changes.wait(0.05))
        found = reports(here)
        rows = there.ask(lambda storage: storage.spool.list())
        if not dsn:
            (report,) = found
            (group,) = groups(report)[1:]
            assert (group["Action"], group["Original-Recipient"]) == ("relayed", "rfc822; Old+Ben@there.test")
            assert rows == ()
            return
        assert found == []
        (row,) = rows
        assert (row.reverse_path, str(row.forward_path)) == (None, ADA)
        assert (row.notify, row.message.ret, row.message.envelope_id) == (frozenset({Notify.NEVER}), None, None)
        content = there.ask(lambda storage: whole(storage, row.message.content_id))
        of_all, group = groups(email.message_from_bytes(content, policy=email.policy.default))
        assert (of_all["Original-Envelope-Id"], group["Action"]) == ("QQ+314", "delivered")
        assert (group["Original-Recipient"], group["Final-Recipient"]) == (f"rfc822; Old+{BEN}", f"rfc822; {BEN}")
        (event,) = (e for e in journey(there, row.message.queue_id) if isinstance(e, Accepted))
        (about,) = (e for e in journey(there, event.about or QueueId("")) if isinstance(e, Reported))
        assert (about.action, about.report_queue_id) == ("delivered", row.message.queue_id)
