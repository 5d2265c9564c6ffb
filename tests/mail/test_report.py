"""Delivery status notifications, read back by Python's email package (RFC 3464, RFC 6522, RFC 3461 §6)."""

from __future__ import annotations

import dataclasses
import email
import email.policy
import re
from email.message import EmailMessage
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.mail.acceptance import Ret
from posthouse.mail.address import Address, parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.reply import EnhancedCode, Reply, reply
from posthouse.mail.report import build_report, status_code
from posthouse.mail.report_request import (
    RETURN_LIMIT_OCTETS,
    Action,
    OriginalMessage,
    RecipientStatus,
    Report,
    ReportRequest,
)

ARRIVED = 1772532764.0
NO_SUCH = reply(550, "5.1.1", "No such user here")
HEADER = b"From: ada@north.test\r\nTo: nobdy@south.test\r\nSubject: Hello\r\nMessage-ID: <1@north.test>\r\n"
MESSAGE = HEADER + b"\r\nDear Bob,\r\n.\r\n--=_0\r\n"
REPLIES = {
    Action.FAILED: NO_SUCH,
    Action.DELAYED: reply(450, "4.7.1", "Greylisted"),
    Action.DELIVERED: reply(250, "2.1.5", "Delivered"),
    Action.RELAYED: reply(250, None, "queued"),
    Action.EXPANDED: reply(250, "2.1.5", "Expanded"),
}


def recipient(action: Action = Action.FAILED, **changes: Any) -> RecipientStatus:
    status = RecipientStatus(
        final_recipient=parse_address("nobdy@south.test"),
        action=action,
        reply=REPLIES[action],
        from_peer=True,
        remote_host="mx.south.test",
        remote_ip="192.0.2.7",
        last_attempt_at=ARRIVED + 60,
        will_retry_until=ARRIVED + 5 * 86400,
    )
    return dataclasses.replace(status, **changes)


def request(*recipients: RecipientStatus, **changes: Any) -> ReportRequest:
    original = OriginalMessage(
        queue_id=QueueId("01ORIGINAL"),
        reverse_path=parse_address("ada@north.test"),
        arrived_at=ARRIVED,
        beginning=MESSAGE,
        complete=True,
        message_id="<1@north.test>",
    )
    return ReportRequest(
        queue_id=QueueId("01REPORT"),
        now=ARRIVED + 61,
        hostname="mx.north.test",
        postmaster=parse_address("postmaster@north.test"),
        original=dataclasses.replace(original, **changes),
        recipients=recipients or (recipient(),),
    )


def parsed(report: Report) -> EmailMessage:
    """The report as a strict parser sees it: no defect anywhere, every line within the limits."""
    content = report.content
    assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content) is None
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert content.isascii() or report.eight_bit
    message = cast("EmailMessage", email.message_from_bytes(content, policy=email.policy.default))
    for part in message.walk():
        assert not part.defects, (part.get_content_type(), part.defects)
        # A header in a returned original is the sender's own.
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert len(parts(message)) == 3
    return message


def parts(message: EmailMessage) -> list[EmailMessage]:
    return cast("list[EmailMessage]", message.get_payload())


def groups(report: Report) -> list[list[tuple[str, str]]]:
    """The groups of fields of the second part, unfolded by hand, so that no parser's mercy hides an injection."""
    boundary = re.search(rb'boundary="([^"]+)"', report.content)
    assert boundary
    second = report.content.split(b"--" + boundary[1])[2]
    body = second.split(b"\r\n\r\n", 1)[1]
    unfolded = re.sub(rb"\r\n(?=[ \t])", b"", body).decode().strip("\r\n")
    lists = [[line.split(": ", 1) for line in group.split("\r\n")] for group in unfolded.split("\r\n\r\n")]
    return [[(name, value) for name, value in fields] for fields in lists]


MESSAGE_FIELDS = ["Reporting-MTA", "X-Posthouse-Queue-ID", "Arrival-Date"]


@pytest.mark.conformance("C187")
@pytest.mark.conformance("C188")
@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("from_peer", [True, False])
@pytest.mark.parametrize("orcpt", [None, "rfc822;Nobdy+x@South.test"])
@pytest.mark.parametrize("envid", [None, "QQ 314=159"])
def test_fields_present_for_every_action(action: Action, from_peer: bool, orcpt: str | None, envid: str | None) -> None:
    report = build_report(request(recipient(action, from_peer=from_peer, original_recipient=orcpt), envelope_id=envid))
    assert [part.get_content_type() for part in parts(parsed(report))][:2] == ["text/plain", "message/delivery-status"]
    about_message, about_recipient = groups(report)
    assert [name for name, _ in about_message] == ["Original-Envelope-Id"] * (envid is not None) + MESSAGE_FIELDS
    assert [name for name, _ in about_recipient] == [
        *["Original-Recipient"] * (orcpt is not None),
        *["Final-Recipient", "Action", "Status"],
        *["Remote-MTA", "Diagnostic-Code"] * from_peer,
        "Last-Attempt-Date",
        *["Will-Retry-Until"] * (action is Action.DELAYED),
    ]
    fields = dict(about_message + about_recipient)
    assert fields["Reporting-MTA"] == "dns; mx.north.test"
    assert fields.get("Original-Envelope-Id") == envid
    assert fields["X-Posthouse-Queue-ID"] == "01ORIGINAL"
    assert fields["Arrival-Date"] == "Tue, 03 Mar 2026 10:12:44 +0000"
    assert fields["Final-Recipient"] == "rfc822; nobdy@south.test"
    assert fields.get("Original-Recipient") == (orcpt and "rfc822; Nobdy+x@South.test")
    assert fields["Action"] == action
    assert fields["Status"][0] == {"failed": "5", "delayed": "4"}.get(action, "2")
    if from_peer:
        assert fields["Remote-MTA"] == "dns; mx.south.test"
        assert fields["Diagnostic-Code"] == f"smtp; {REPLIES[action]}"


def test_header_section() -> None:
    message = parsed(build_report(request(recipient(), recipient(), recipient(Action.DELIVERED))))
    assert message["From"] == "Mail Delivery System <postmaster@north.test>"
    assert message["To"] == "ada@north.test"
    assert message["Subject"] == "Could not be delivered: nobdy@south.test and nobdy@south.test"
    assert message["Message-ID"] == "<01REPORT@mx.north.test>"
    assert message["Date"] == "Tue, 03 Mar 2026 10:13:45 +0000"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<1@north.test>"
    assert len(groups(build_report(request(recipient(), recipient())))) == 3


@pytest.mark.parametrize(
    ("action", "told", "status"),
    [
        (Action.FAILED, reply(550, "5.1.1", ""), "5.1.1"),
        (Action.FAILED, reply(550, None, ""), "5.0.0"),
        (Action.FAILED, reply(550, "2.1.5", ""), "5.0.0"),
        (Action.FAILED, reply(451, "4.4.1", ""), "4.4.1"),
        (Action.FAILED, reply(451, None, ""), "4.0.0"),
        (Action.FAILED, Reply(550, EnhancedCode(5, 1, 99999999999)), "5.0.0"),
        (Action.DELAYED, reply(451, "4.4.1", ""), "4.4.1"),
        (Action.DELAYED, reply(550, "5.1.1", ""), "4.0.0"),
        (Action.DELIVERED, reply(250, "2.1.5", ""), "2.1.5"),
        (Action.RELAYED, reply(250, None, ""), "2.0.0"),
        (Action.RELAYED, reply(250, "5.0.0", ""), "2.0.0"),
    ],
)
def test_status_fits_the_action(action: Action, told: Reply, status: str) -> None:
    assert status_code(recipient(action, reply=told)) == status


def test_the_human_part_tells_what_happened_and_what_to_do() -> None:
    text = parts(parsed(build_report(request())))[0].get_content()
    flat = " ".join(text.split())
    assert flat.startswith('Your message "Hello" to nobdy@south.test could not be delivered. It will not be tried')
    assert "There is no mailbox of that name there. The cause is the address; no server is at fault." in flat
    assert "What to do: Check the spelling" in flat
    assert "The other server, mx.south.test (192.0.2.7), answered: > 550 5.1.1 No such user here" in flat
    assert "Last tried on 3 March 2026, 10:13 UTC." in flat
    assert "01ORIGINAL" in flat
    assert max(map(len, text.splitlines())) <= 76


def test_a_delay_says_until_when_and_not_to_send_again() -> None:
    text = parts(parsed(build_report(request(recipient(Action.DELAYED)))))[0].get_content()
    flat = " ".join(text.split())
    assert "tried again until 8 March 2026, 10:12 UTC. You need not send it again." in flat


CANARIES = [
    "no\r\nAction: delivered\r\nX-Canary: 1",
    "no\r\n\r\nAction: delivered\r\nX-Canary: 1",
    "no\nAction: delivered\nX-Canary: 1",
    "no\rAction: delivered",
    "no\x00\x1b[2J\x85X-Canary: 1\u2028Action: delivered",
    "é" * 600 + "\udcff",
    "x" * 5000,
    "a b " * 5000,
    "\n" * 100,
    "",
    "--=_01REPORT\n--=_01REPORT--",
]


@pytest.mark.conformance("C189")
@pytest.mark.conformance("C283")
@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("place", ["reply", "host", "ip", "orcpt", "orcpt type", "envid", "message id"])
def test_nothing_that_others_chose_begins_a_field(canary: str, place: str) -> None:
    status = {
        "reply": recipient(reply=Reply(550, EnhancedCode(5, 1, 1), canary)),
        "host": recipient(remote_host=canary),
        "ip": recipient(remote_ip=canary),
        "orcpt": recipient(original_recipient=f"rfc822;{canary}"),
        "orcpt type": recipient(original_recipient=f"{canary};x@y.test"),
    }.get(place, recipient())
    asked = request(
        status,
        envelope_id=canary if place == "envid" else None,
        message_id=canary if place == "message id" else None,
    )
    report = build_report(asked)
    message = parsed(report)
    assert "X-Canary" not in message
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/report",
        "text/plain",
        "message/delivery-status",
        "text/plain",
        "text/plain",
        "message/rfc822",
        "text/plain",
    ]
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028]", parts(message)[0].get_content())
    about_message, about_recipient = groups(report)
    assert {name for name, _ in about_message} <= {*MESSAGE_FIELDS, "Original-Envelope-Id"}
    assert [value for name, value in about_recipient if name == "Action"] == ["failed"]
    assert "X-Canary" not in dict(about_recipient)
    assert not re.search(rb"^(X-Canary|Action: delivered)", report.content, re.MULTILINE)
    assert len(report.content) < 40_000


@given(st.text(), st.text(), st.text(), st.booleans())
@settings(max_examples=60)
def test_any_text_gives_a_report_without_defects(text: str, host: str, envid: str, smtputf8: bool) -> None:
    status = recipient(reply=Reply(550, None, text), remote_host=host, original_recipient=f"utf-8;{text}")
    parsed(build_report(request(status, envelope_id=envid, message_id=host, smtputf8=smtputf8)))


@pytest.mark.conformance("C174", "S22")
def test_many_long_answers_make_no_large_report() -> None:
    def evil(number: int) -> RecipientStatus:
        answer = Reply(550, EnhancedCode(5, 1, 1), "\n".join(f"{number} {'x' * 900}" for _ in range(100)))
        return recipient(final_recipient=parse_address(f"n{number}@south.test"), reply=answer)

    one, hundred = (build_report(request(*map(evil, range(count)))) for count in (1, 100))
    assert len(one.content) < 25_000
    assert len(hundred.content) < 400_000
    assert len(groups(hundred)) == 101


def test_a_long_diagnostic_is_folded_and_unfolds_to_itself() -> None:
    words = " ".join(f"word{n}" for n in range(60))
    report = build_report(request(recipient(reply=Reply(550, EnhancedCode(5, 7, 1), f"first\n{words}"))))
    assert dict(groups(report)[1])["Diagnostic-Code"] == f"smtp; 550-5.7.1 first 550 5.7.1 {words}"
    assert max(map(len, report.content.split(b"\r\n"))) < 100


@pytest.mark.parametrize(
    ("action", "ret", "content", "complete", "kind"),
    [
        (Action.FAILED, None, MESSAGE, True, "message/rfc822"),
        (Action.FAILED, Ret.FULL, MESSAGE, True, "message/rfc822"),
        (Action.FAILED, Ret.HDRS, MESSAGE, True, "text/rfc822-headers"),
        (Action.FAILED, Ret.FULL, MESSAGE, False, "text/rfc822-headers"),
        (Action.FAILED, Ret.FULL, MESSAGE + b"x" * RETURN_LIMIT_OCTETS, True, "text/rfc822-headers"),
        (Action.FAILED, Ret.FULL, MESSAGE + b"x" * 999, True, "text/rfc822-headers"),
        (Action.FAILED, Ret.FULL, MESSAGE + b"bare\nline", True, "text/rfc822-headers"),
        (Action.FAILED, Ret.FULL, MESSAGE + b"\r", True, "text/rfc822-headers"),
        (Action.FAILED, Ret.FULL, MESSAGE + b"\0", True, "text/rfc822-headers"),
        (Action.DELAYED, Ret.FULL, MESSAGE, True, "text/rfc822-headers"),
        (Action.DELIVERED, Ret.FULL, MESSAGE, True, "text/rfc822-headers"),
    ],
)
def test_what_is_returned(action: Action, ret: Ret | None, content: bytes, complete: bool, kind: str) -> None:
    report = build_report(request(recipient(action), ret=ret, beginning=content, complete=complete))
    third = parts(parsed(report))[2]
    assert third.get_content_type() == kind
    assert HEADER in report.content
    assert (MESSAGE in report.content) == (kind == "message/rfc822")


@pytest.mark.parametrize(
    ("beginning", "returned"),
    [
        (b"", b""),
        (b"Subject: cut in the mid", b""),
        (b"Subject: whole\r\nTo: cut in the mid", b"Subject: whole\r\n"),
        (b"\r\nno header section at all", b""),
        (b"Subject: " + b"x" * 1200 + b"\r\nTo: a\r\n\r\n", b"Subject: " + b"x" * 989 + b"\r\nTo: a\r\n"),
        (b"Subject: a\nX-Bare: \0 \r b\r\n\r\n", b"Subject: a?X-Bare: ? ? b\r\n"),
    ],
)
def test_odd_header_sections_are_made_fit(beginning: bytes, returned: bytes) -> None:
    report = build_report(request(beginning=beginning, complete=False))
    parsed(report)
    assert b"Content-Type: text/rfc822-headers\r\n\r\n" + returned + b"\r\n--=_01REPORT--\r\n" in report.content


def test_eight_bit_originals_are_declared() -> None:
    latin = HEADER + b"X-Latin: \xe9\r\n\r\nbody\r\n"
    report = build_report(request(beginning=latin))
    assert report.eight_bit
    assert not report.smtputf8
    assert latin in report.content
    message = parsed(report)
    assert message["Content-Transfer-Encoding"] == parts(message)[2]["Content-Transfer-Encoding"] == "8bit"
    assert not build_report(request()).eight_bit
    assert not build_report(request(beginning=HEADER + b"\r\nb\xc3\xa9\r\n", ret=Ret.HDRS)).eight_bit


@pytest.mark.conformance("C201")
def test_a_utf8_recipient_of_an_smtputf8_message() -> None:
    utf8_header = HEADER + "X-Name: Bj\u00f6rn\r\n".encode()
    bjorn = recipient(final_recipient=parse_address("bj\u00f6rn+x@s\u00fcd.test"))
    report = build_report(request(bjorn, smtputf8=True, beginning=utf8_header, complete=False))
    assert report.eight_bit
    assert not report.smtputf8
    message = email.message_from_bytes(report.content, policy=email.policy.default)
    kinds = [part.get_content_type() for part in cast("list[EmailMessage]", message.get_payload())]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert dict(groups(report)[1])["Final-Recipient"] == "utf-8; bj\u00f6rn\\x{2B}x@xn--sd-xka.test"
    assert message["Subject"] == "Could not be delivered: bj\u00f6rn+x@xn--sd-xka.test"
    assert "bj\u00f6rn+x" in cast("list[EmailMessage]", message.get_payload())[0].get_content()


@pytest.mark.conformance("C201")
def test_a_utf8_recipient_whose_sender_knows_ascii_only() -> None:
    bjorn = recipient(final_recipient=parse_address("bj\u00f6rn+x@south.test"))
    report = build_report(request(bjorn))
    assert report.content.isascii()
    assert parts(parsed(report))[1].get_content_type() == "message/delivery-status"
    assert dict(groups(report)[1])["Final-Recipient"] == "utf-8; bj\\x{F6}rn\\x{2B}x@south.test"


def test_a_utf8_sender_needs_smtputf8() -> None:
    report = build_report(request(reverse_path=parse_address("\u00e5da@north.test"), smtputf8=True))
    assert report.smtputf8
    assert "To: <\u00e5da@north.test>\r\n".encode() in report.content


def test_a_boundary_never_stands_in_a_part() -> None:
    report = build_report(request(beginning=MESSAGE + b"\r\n--=_01REPORT--\r\n"))
    assert len(parts(parsed(report))) == 3


@pytest.mark.conformance("C189")
def test_a_quoted_recipient_is_spelled_as_in_the_envelope() -> None:
    odd = Address('"a \\"b\\" ; Action: delivered"', "south.test")
    assert dict(groups(build_report(request(recipient(final_recipient=odd))))[1])["Final-Recipient"] == f"rfc822; {odd}"


def test_the_address_that_the_sender_wrote_is_named() -> None:
    text = parts(parsed(build_report(request(recipient(original_recipient="rfc822;bob@north.test")))))[0].get_content()
    assert "to nobdy@south.test (you wrote to bob@north.test) could" in " ".join(text.split())
