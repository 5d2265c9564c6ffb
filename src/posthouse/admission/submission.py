"""What a submitted message's header section must be, and what is done to it (RFC 6409 §6, §8; RFC 5322 §3.6).

The one change is that Bcc fields are left out (RFC 5321 appendix B). Date, Message-ID and Sender that are missing are
added above, beside our trace fields. All other octets pass as they came. What is ambiguous is refused, never mended.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from posthouse.admission import replies
from posthouse.mail.address import Address, AddressError
from posthouse.mail.content import MAX_HEADER_OCTETS, HeaderTooLarge
from posthouse.mail.mailboxes import parse_mailboxes
from posthouse.mail.reply import Reply, reply

MAX_AUTHORS_OCTETS = 10_000
"""Of a From or Sender field's value; each mailbox in it is looked up."""

MaySendAs = Callable[[Address], Awaitable[bool]]

_FIELD_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_BLANK = re.compile(rb"[ \t]*\Z")
_DROPPED = frozenset({b"bcc", b"resent-bcc"})
_ONCE = frozenset(
    b"date from sender reply-to to cc message-id in-reply-to references subject".split(),
)


class ContentUnacceptable(Exception):
    """The message is refused with `reply`."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(str(answer))
        self.reply = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The fields to add. `sender`: who submitted it, where From does not say so."""

    date: bool
    message_id: bool
    sender: Address | None


@dataclass(frozen=True, slots=True)
class _Field:
    """One header field: its octets with their CRLF, its name in lower case, its value's octets."""

    octets: bytes
    name: bytes
    value: bytes


class Submission:
    """Takes the content of one submitted message in chunks cut anywhere; gives out what is to be stored.

    Holds the header section until its end, then judges it at once. `missing` is known from then on.
    """

    def __init__(self, submitter: Address | None, may_send_as: MaySendAs) -> None:
        """`submitter`: whom to name in a Sender field that is missing."""
        self._submitter = submitter
        self._may_send_as = may_send_as
        self._held: bytearray | None = bytearray(b"\r\n")
        self.missing: Missing | None = None

    async def feed(self, octets: bytes) -> bytes:
        """What of the content may go on now. Raises ContentUnacceptable, HeaderTooLarge, StorageError."""
        if self._held is None:
            return octets
        # Held octets begin with a CRLF that is not the message's, so that an empty header section ends like others.
        seen = max(0, len(self._held) - 3)
        self._held += octets
        end = self._held.find(b"\r\n\r\n", seen)
        if end < 0:
            if len(self._held) > MAX_HEADER_OCTETS + 4:
                raise HeaderTooLarge
            return b""
        header, rest = bytes(self._held[2 : end + 2]), bytes(self._held[end + 2 :])
        self._held = None
        return await self._pass(header) + rest

    async def finish(self) -> bytes:
        """The rest at the end of the content: a header section that no empty line ended. Raises as `feed`."""
        if self._held is None:
            return b""
        header, self._held = bytes(self._held[2:]), None
        return await self._pass(header)

    async def _pass(self, header: bytes) -> bytes:
        if len(header) > MAX_HEADER_OCTETS:
            raise HeaderTooLarge
        fields = _split(header)
        self.missing = await self._judge(fields)
        if not any(field.name in _DROPPED for field in fields):
            return header
        return b"".join(field.octets for field in fields if field.name not in _DROPPED)

    async def _judge(self, fields: list[_Field]) -> Missing:
        named: dict[bytes, bytes] = {}
        for field in fields:
            if field.name in _ONCE:
                if field.name in named:
                    raise ContentUnacceptable(_twice(field.name))
                named[field.name] = field.value
        authors = await self._own(b"from", named)
        senders = await self._own(b"sender", named)
        if len(senders) > 1:
            raise ContentUnacceptable(replies.SENDER_UNCLEAR)
        says_who = len(authors) == 1 or bool(senders)
        return Missing(
            date=b"date" not in named,
            message_id=b"message-id" not in named,
            sender=None if says_who else self._submitter,
        )

    async def _own(self, name: bytes, named: dict[bytes, bytes]) -> tuple[Address, ...]:
        """The mailboxes of a field, each of which must be the submitter's own."""
        value = named.get(name)
        if value is None:
            return ()
        unclear = replies.FROM_UNCLEAR if name == b"from" else replies.SENDER_UNCLEAR
        if len(value) > MAX_AUTHORS_OCTETS:
            raise ContentUnacceptable(unclear)
        try:
            mailboxes = parse_mailboxes(value.decode("utf-8", "surrogateescape"))
        except AddressError as exc:
            raise ContentUnacceptable(unclear) from exc
        if not mailboxes:
            raise ContentUnacceptable(unclear)
        for mailbox in dict.fromkeys(mailboxes):
            if not await self._may_send_as(mailbox):
                raise ContentUnacceptable(replies.FROM_NOT_YOURS if name == b"from" else replies.SENDER_NOT_YOURS)
        return mailboxes


def _split(header: bytes) -> list[_Field]:
    """The fields of a header section. Raises ContentUnacceptable where a line is neither a field nor the rest of one.

    Readers differ about such lines: to some they end the header section, and what follows would be body to them and
    fields to us (RFC 5322 §2.2).
    """
    fields: list[_Field] = []
    lines: list[bytes] = []
    # Nothing but CRLF ends a line here: content with a CR or LF alone was refused before.
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if not lines or _BLANK.match(line):
                raise ContentUnacceptable(replies.HEADER_MALFORMED)
            lines.append(line)
            continue
        if lines:
            fields.append(_field(lines))
        lines = [line] if line else []
    if lines:
        fields.append(_field(lines))
    return fields


def _field(lines: list[bytes]) -> _Field:
    octets = b"\r\n".join(lines) + b"\r\n"
    name = _FIELD_NAME.match(octets)
    if name is None:
        raise ContentUnacceptable(replies.HEADER_MALFORMED)
    return _Field(octets, name[1].lower(), octets[name.end() : -2])


def _twice(name: bytes) -> Reply:
    return reply(550, "5.6.0", f"The header section has more than one {name.decode('ascii').title()} field")
