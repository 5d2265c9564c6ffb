"""Delivery status notifications: a multipart/report of three parts (RFC 3464, RFC 6522, RFC 3461 §6, RFC 6533).

Everything that a peer or a sender chose is data: it is made printable, bounded and folded before it stands in a field,
so it can never begin one.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from email.header import Header

from posthouse.mail.acceptance import Ret
from posthouse.mail.explain import trusted_enhanced
from posthouse.mail.header import MAX_LINE_OCTETS, clipped, date_time, field, fold
from posthouse.mail.report_request import (
    RETURN_LIMIT_OCTETS,
    Action,
    OriginalMessage,
    RecipientStatus,
    Report,
    ReportRequest,
)
from posthouse.mail.report_text import human_text, reply_lines, subject
from posthouse.mail.words import visible

_MAX_VALUE_CHARACTERS = 800
_SAFE_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,200}@[!-;=?-~]{1,200}>\Z")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-]{0,39}\Z")
_NOT_QUCHAR = re.compile(r"[\x00- +=\\\x7f-\x9f]")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOT_IN_MAIL = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_LONG_LINE = re.compile(rb"[^\r\n]{%d}" % (MAX_LINE_OCTETS + 1))
_CLASSES = {Action.FAILED: (5, 4), Action.DELAYED: (4,)}


@dataclass(frozen=True, slots=True)
class _Part:
    content_type: str
    body: bytes
    encoding: str = "7bit"

    def octets(self) -> bytes:
        encoding = field("Content-Transfer-Encoding", self.encoding) if self.encoding != "7bit" else b""
        return field("Content-Type", self.content_type) + encoding + b"\r\n" + self.body


def build_report(request: ReportRequest) -> Report:
    """The report's whole content: lines end in CRLF and have at most 998 octets, the original's own ones too."""
    assert request.recipients, "a report is about a recipient"
    utf8 = request.original.smtputf8 or not request.original.reverse_path.is_ascii
    returned, said = _returned(request, utf8)
    parts = (_human(human_text(request, said)), _status(request, utf8), returned)
    eight_bit = any(part.encoding == "8bit" for part in parts)
    boundary = _boundary(request, parts)
    header = _header(request, boundary, eight_bit)
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), part.octets()) for part in parts)
    content = header + b"\r\n" + body + b"--%b--\r\n" % boundary.encode()
    return Report(content, eight_bit, not header.isascii())


def status_code(status: RecipientStatus) -> str:
    """The Status field: the peer's enhanced code where it can be believed and fits the action, else x.0.0.

    "failed" may stand beside a transient status: what lasts until it is given up is of class 4 (RFC 3463 §2), and time
    that ran out is 4.4.7; the last answer stands in Diagnostic-Code.
    """
    if status.expired and status.action is Action.FAILED:
        return "4.4.7"
    classes = _CLASSES.get(status.action, (2,))
    enhanced = trusted_enhanced(status.reply)
    if enhanced is not None and enhanced.klass in classes:
        return str(enhanced)
    klass = status.reply.code // 100
    return f"{klass if klass in classes else classes[0]}.0.0"


def _boundary(request: ReportRequest, parts: tuple[_Part, ...]) -> str:
    """The report's queue id has 80 bits that nobody could know; still, what it must not meet is checked."""
    boundary = f"=_{request.queue_id}"
    while any(boundary.encode() in part.body for part in parts):
        boundary += "="
    return boundary


def _header(request: ReportRequest, boundary: str, eight_bit: bool) -> bytes:
    original = request.original
    to = original.reverse_path
    title = visible(subject(request.recipients))
    if not title.isascii() and to.is_ascii:
        title = Header(title, "utf-8", header_name="Subject").encode(linesep="\r\n")
    else:
        title = fold("Subject", clipped(title))
    fields = [
        field("Date", date_time(request.now)),
        field("From", f"Mail Delivery System <{request.postmaster}>"),
        field("To", f"<{to}>"),
        field("Subject", title),
        field("Message-ID", f"<{request.queue_id}@{request.hostname}>"),
        field("Auto-Submitted", "auto-replied"),
        field("MIME-Version", "1.0"),
        field("Content-Type", f'multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"'),
    ]
    if eight_bit:
        fields.append(field("Content-Transfer-Encoding", "8bit"))
    if original.message_id and _SAFE_MESSAGE_ID.match(original.message_id):
        fields += [field("In-Reply-To", original.message_id), field("References", original.message_id)]
    return b"".join(fields)


def _human(text: str) -> _Part:
    if text.isascii():
        return _Part("text/plain; charset=us-ascii", text.replace("\n", "\r\n").encode())
    lines = (binascii.b2a_qp(line.encode(), istext=True) for line in text.split("\n"))
    return _Part("text/plain; charset=utf-8", b"\r\n".join(lines).replace(b"=\n", b"=\r\n"), "quoted-printable")


def _status(request: ReportRequest, utf8: bool) -> _Part:
    """The machine's part (RFC 3464 §2.2, §2.3); message/global-delivery-status only where UTF-8 stands in it."""
    original = request.original
    fields = [field("Reporting-MTA", f"dns; {request.hostname}")]
    if original.envelope_id is not None:
        fields.insert(0, field("Original-Envelope-Id", _plain(original.envelope_id)))
    fields.append(field("X-Posthouse-Queue-ID", original.queue_id))
    fields.append(field("Arrival-Date", date_time(original.arrived_at)))
    body = b"".join(fields)
    for status in request.recipients:
        body += b"\r\n" + _recipient_fields(status, utf8, reply_lines(status, len(request.recipients)))
    if body.isascii():
        return _Part("message/delivery-status", body)
    return _Part("message/global-delivery-status", body, "8bit")


def _recipient_fields(status: RecipientStatus, utf8: bool, answer: list[str]) -> bytes:
    fields = []
    if status.original_recipient is not None:
        kind, _, decoded = status.original_recipient.partition(";")
        fields.append(field("Original-Recipient", _typed(kind, decoded, utf8)))
    fields.append(field("Final-Recipient", _typed("rfc822", str(status.final_recipient), utf8)))
    fields.append(field("Action", status.action))
    fields.append(field("Status", status_code(status)))
    if status.from_peer:
        if status.remote_host:
            fields.append(field("Remote-MTA", f"dns; {_plain(status.remote_host)}"))
        lines = "\r\n ".join(fold("Diagnostic-Code: smtp", clipped(_plain(line))) for line in answer)
        fields.append(field("Diagnostic-Code", f"smtp; {lines}"))
    if status.last_attempt_at is not None:
        fields.append(field("Last-Attempt-Date", date_time(status.last_attempt_at)))
    if status.action is Action.DELAYED and status.will_retry_until is not None:
        fields.append(field("Will-Retry-Until", date_time(status.will_retry_until)))
    return b"".join(fields)


def _typed(kind: str, address: str, utf8: bool) -> str:
    """`address-type; generic-address`. What ASCII cannot say has the type utf-8 (RFC 6533 §3)."""
    address = address[:_MAX_VALUE_CHARACTERS]
    if not address.isascii():
        outside = _NOT_QUCHAR if utf8 and visible(address) == address else _NOT_QCHAR
        return "utf-8; " + outside.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", address)[:_MAX_VALUE_CHARACTERS]
    return f"{kind if _ADDRESS_TYPE.match(kind) else 'unknown'}; {_plain(address)}"


def _returned(request: ReportRequest, utf8: bool) -> tuple[_Part, str]:
    """The third part, and what the first one says of it (RFC 3461 §6.2: all of it only for a failure)."""
    original = request.original
    beginning = original.beginning[:RETURN_LIMIT_OCTETS]
    complete = original.complete and len(beginning) == len(original.beginning)
    failed = any(status.action is Action.FAILED for status in request.recipients)
    if failed and complete and original.ret is not Ret.HDRS and not _unfit(beginning):
        kind = "message/global" if utf8 and _is_utf8_text(_header_section(original)) else "message/rfc822"
        return _Part(kind, beginning, _encoding(beginning)), "The whole message is attached."
    header = _fit(_header_section(original))
    kind = "message/global-headers" if utf8 and _is_utf8_text(header) else "text/rfc822-headers"
    return _Part(kind, header, _encoding(header)), "Its header section is attached."


def _header_section(original: OriginalMessage) -> bytes:
    """The header section with the CRLF of its last line; of one that is cut, its whole lines."""
    octets = original.beginning[:RETURN_LIMIT_OCTETS]
    if octets.startswith(b"\r\n"):
        return b""
    end = octets.find(b"\r\n\r\n")
    if end < 0:
        end = octets.rfind(b"\r\n")
    return octets[: end + 2] if end >= 0 else b""


def _unfit(octets: bytes) -> bool:
    """Whether it holds what no message may hold, so that it cannot be passed on as it is."""
    return _NOT_IN_MAIL.search(octets) is not None or _LONG_LINE.search(octets) is not None


def _fit(octets: bytes) -> bytes:
    return b"\r\n".join(line[:MAX_LINE_OCTETS] for line in _NOT_IN_MAIL.sub(b"?", octets).split(b"\r\n"))


def _encoding(octets: bytes) -> str:
    return "7bit" if octets.isascii() else "8bit"


def _is_utf8_text(octets: bytes) -> bool:
    """UTF-8 beyond ASCII: what RFC 6532 allows in a header section and RFC 5322 does not."""
    try:
        return not octets.decode().isascii()
    except UnicodeDecodeError:
        return False


def _plain(text: str) -> str:
    """Printable ASCII, bounded: what else there was is shown as an escape."""
    return visible(text).encode("ascii", "backslashreplace").decode()[:_MAX_VALUE_CHARACTERS]
