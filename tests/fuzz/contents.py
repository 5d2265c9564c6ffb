"""Targets: what looks into content, and what is written of it: facts, submission, downgrade, titles, reports."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.fuzz.draw import Draw, run_without_io, same_however_cut
from tests.fuzz.texts import NOW, QUEUE_ID, parsed_message, sender_of

from posthouse.admission.submission import ContentUnacceptable, Submission
from posthouse.mail.acceptance import Ret
from posthouse.mail.address import Address
from posthouse.mail.content import MAX_DELIVERED_TO, ContentFacts, ContentScanner, HeaderTooLarge
from posthouse.mail.header import MAX_LINE_OCTETS
from posthouse.mail.reply import EnhancedCode, Reply
from posthouse.mail.report import build_report
from posthouse.mail.report_request import RETURN_LIMIT_OCTETS, Action, OriginalMessage, RecipientStatus, ReportRequest
from posthouse.mail.title import title_of
from posthouse.protocol.pop3_top import TopCutter
from posthouse.retrieval.downgrade import NOTE, downgraded

ADA = Address("ada", "here.test")
ORIGINAL = OriginalMessage(queue_id=QUEUE_ID, reverse_path=ADA, arrived_at=NOW, beginning=b"", complete=True, ret=None)
STATUS = RecipientStatus(
    final_recipient=Address("bob", "there.test"), action=Action.FAILED, reply=Reply(550), from_peer=True
)
GROWTH = 16
"""How many times longer a downgraded field may be: an octet that is no UTF-8 becomes nine, in words of 75."""


def content_facts(octets: bytes) -> None:
    """Facts about content: as a plain reading of the whole finds them, however it is cut."""
    draw = Draw(octets)
    seed, content = draw.number(), draw.rest()

    def run(pieces: list[bytes]) -> tuple[bytes, ContentFacts] | None:
        scanner = ContentScanner()
        try:
            for piece in pieces:
                scanner.feed(piece)
        except HeaderTooLarge:
            return None
        return scanner.header, scanner.facts()

    found = same_however_cut(content, seed, run)
    assert found is not None, "the header section is short"
    header, facts = found
    end = (b"\r\n" + content).find(b"\r\n\r\n")
    wanted = content[:end] if end >= 0 else content
    assert header == wanted
    assert facts.eight_bit_header == (not wanted.isascii())
    assert facts.eight_bit_body == (not content[len(wanted) :].isascii())
    assert facts.longest_line_octets == max(map(len, content.split(b"\r\n")))
    assert facts.dot_lines == (b"\r\n." in b"\r\n" + content)
    assert len(facts.delivered_to) <= MAX_DELIVERED_TO
    for text in (facts.message_id or "", *facts.delivered_to):
        assert not any(line_end in text for line_end in "\r\n")
        assert len(text) <= 1000


def submission(octets: bytes) -> None:
    """A submitted header section: refused, or passed on without Bcc and otherwise as it is, however it is cut."""
    draw = Draw(octets)
    seed, content = draw.number(), draw.rest()

    async def may_send_as(mailbox: Address) -> bool:
        return mailbox.domain == "here.test"

    async def pass_on(pieces: list[bytes]) -> tuple[bytes, object]:
        taken = Submission(ADA, may_send_as)
        passed = b"".join([await taken.feed(piece) for piece in pieces]) + await taken.finish()
        return passed, taken.missing

    def run(pieces: list[bytes]) -> object:
        try:
            return run_without_io(pass_on(pieces))
        except ContentUnacceptable as exc:
            return exc.reply

    found = same_however_cut(content, seed, run)
    if isinstance(found, Reply):
        assert found.is_permanent
        assert found.text.isprintable()
        return
    passed, _missing = found
    header, _, body = (b"\r\n" + content).partition(b"\r\n\r\n")
    assert passed.endswith(body)
    assert b"\r\nbcc:" not in (b"\r\n" + passed).partition(b"\r\n\r\n")[0].lower()
    # What is left is there, line for line and in order.
    left = iter((b"\r\n" + content).split(b"\r\n"))
    assert all(line in left for line in passed.removesuffix(b"\r\n").split(b"\r\n"))
    assert b"\r\nbcc" in header.lower() or b"\r\nresent-bcc" in header.lower() or passed.startswith(header[2:])


def downgrade(octets: bytes) -> None:
    """Any header section for a program that knows only ASCII: fields, in ASCII, bounded, and again the same."""
    header = re.sub(rb"\n+", b"\r\n", octets.replace(b"\r", b"").lstrip(b"\n"))
    made = downgraded(header)
    assert made.isascii()
    assert downgraded(made) == made
    assert (made == header) == header.isascii()
    assert len(made) <= GROWTH * len(header) + 200 + len(NOTE)
    if header.isascii():
        return
    assert made.endswith(NOTE)
    assert b"\r\n\r\n" not in made
    # No more fields than there were, with the note of ours: nothing that was data became structure.
    assert _fields(made) <= _fields(header) + 1
    assert b"\n" not in made.replace(b"\r\n", b"")
    assert b"\r" not in made.replace(b"\r\n", b"")


def _fields(header: bytes) -> int:
    return sum(1 for line in header.split(b"\r\n") if line and line[:1] not in (b" ", b"\t"))


def title(octets: bytes) -> None:
    """A Subject, whatever its encoded words say: text on one line."""
    found = title_of(octets)
    assert len(found) <= 4000
    assert not any(line_end in found for line_end in "\r\n")
    assert found == " ".join(found.split())


def top(octets: bytes) -> None:
    """TOP: header section, empty line and so many lines, as a plain reading has it, however it is cut."""
    draw = Draw(octets)
    seed, lines = draw.number(), draw.number(6)
    content = draw.rest()

    def run(pieces: list[bytes]) -> bytes:
        cutter = TopCutter(lines)
        return b"".join(map(cutter.cut, pieces))

    found = same_however_cut(content, seed, run)
    end = (b"\r\n" + content).find(b"\r\n\r\n") + 2
    if end < 2:
        assert found == content
        return
    body = content[end:].split(b"\r\n")
    wanted = b"".join(line + b"\r\n" for line in body[:lines]) if len(body) > lines else content[end:]
    assert found == content[:end] + wanted


def report(octets: bytes) -> None:
    """A report about any message and any reply: a message that can be read, in which nothing became structure."""
    draw = Draw(octets)
    action, code, flags = draw.choice(tuple(Action)), draw.choice((250, 451, 550)), draw.number()
    enhanced = EnhancedCode(code // 100, draw.number(), draw.number()) if flags & 1 else None
    said, host, envelope_id = draw.text(), draw.text(), draw.text()
    original_recipient, reverse_path, final = draw.text(), draw.text(), draw.text()
    beginning = draw.rest()
    status = replace(
        STATUS,
        final_recipient=sender_of(final, STATUS.final_recipient),
        action=action,
        reply=Reply(code, enhanced, said),
        from_peer=bool(flags & 2),
        remote_host=host,
        original_recipient=f"rfc822;{original_recipient}" if flags & 4 else None,
        expired=bool(flags & 8),
        may_have_arrived=bool(flags & 16),
    )
    original = replace(
        ORIGINAL,
        reverse_path=sender_of(reverse_path, ADA),
        beginning=beginning,
        envelope_id=envelope_id if flags & 32 else None,
        message_id=original_recipient if flags & 64 else None,
        ret=Ret.HDRS if flags & 128 else None,
        smtputf8=bool(flags & 16),
    )
    request = ReportRequest(
        queue_id=QUEUE_ID, now=NOW, hostname="mx.test", postmaster=ADA, original=original, recipients=(status,)
    )
    made = build_report(request)
    _check_report(made.content)
    assert made.smtputf8 == (not made.content.partition(b"\r\n\r\n")[0].isascii())
    assert len(made.content) <= 2 * RETURN_LIMIT_OCTETS + 40_000


def _check_report(content: bytes) -> None:
    assert content.endswith(b"--\r\n")
    without_line_ends = content.replace(b"\r\n", b"")
    assert b"\r" not in without_line_ends
    assert b"\n" not in without_line_ends
    assert b"\0" not in without_line_ends
    assert max(map(len, content.split(b"\r\n"))) <= MAX_LINE_OCTETS
    message = parsed_message(content)
    names = [name.lower() for name in message]
    assert len(names) == len(set(names))
    assert message.get_content_type() == "multipart/report"
    assert len(message.get_payload()) == 3
    fields = content.split(b"\r\n--=_", 3)[2].partition(b"\r\n\r\n")[2]
    for line in fields.split(b"\r\n"):
        known = line.partition(b":")[0] in _STATUS_FIELDS
        assert known or not line or line[:1] == b" ", line


_STATUS_FIELDS = frozenset(
    b"Original-Envelope-Id Reporting-MTA X-Posthouse-Queue-ID Arrival-Date Original-Recipient Final-Recipient Action"
    b" Status Remote-MTA Diagnostic-Code Last-Attempt-Date Will-Retry-Until".split()
)
