"""Letters that a person writes: from words and files to the octets of a message (RFC 5322, RFC 2045 to 2047, 2231).

Nothing that was typed can become a field, a line or a parameter of its own: text is made printable, addresses are
parsed ones, and whatever is not plain ASCII is encoded. Bcc is in the envelope only.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from quopri import encodestring

from posthouse.mail.address import Address
from posthouse.mail.header import MAX_LINE_OCTETS, date_time, field, fold
from posthouse.mail.mailboxes import Mailbox

WORD_OCTETS = 45
"""Of text in one encoded word: as base 64 with its frame, at most 75 characters (RFC 2047 §2)."""
TEXT_LINE = 900
"""Characters in a line of text that is sent as it is."""
PIECE_OCTETS = 57 * 1024
"""Of an attachment, encoded at once: whole lines of 76 characters."""
MAX_MESSAGE_ID = MAX_LINE_OCTETS - 100
MAX_REFERENCES = 50
"""Message-IDs in References; of a longer conversation the first and the last ones."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NOT_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_PLAIN_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?: [A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*\Z")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+\-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+\-]{0,126}\Z")
_PLAIN_FILE_NAME = re.compile(r"[A-Za-z0-9 !#$&+,.;=@^_`{}~()\[\]\-]{1,60}\Z")
_ATTRIBUTE_CHARACTER = re.compile(rb"[A-Za-z0-9!#$&+\-.^_`{|}~]")
_PARAMETER_OCTETS = 60


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file to go with a letter. `name` is its own name, without a folder."""

    name: str
    octets: bytes
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What is to be sent. `message_id` and `in_reply_to` have their brackets; `date` is in Unix seconds.

    `references`: the Message-IDs of the conversation so far, the oldest first, that of the answered message last.
    """

    author: Mailbox
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    subject: str = ""
    text: str = ""
    attachments: tuple[Attachment, ...] = ()
    message_id: str
    date: float
    in_reply_to: str = ""
    references: tuple[str, ...] = ()

    @property
    def recipients(self) -> tuple[Address, ...]:
        """The forward-paths, each once."""
        return tuple(dict.fromkeys(mailbox.address for mailbox in (*self.to, *self.cc, *self.bcc)))

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address in it has no spelling in ASCII (RFC 6531)."""
        shown = (self.author, *self.to, *self.cc)
        return not all(mailbox.address.is_ascii for mailbox in shown)


def octets_of(letter: Letter) -> Iterator[bytes]:
    """The message in pieces. All lines end in CRLF; the header is ASCII unless the letter `needs_smtputf8`.

    Raises ValueError for a Message-ID or media type that is none.
    """
    if not letter.attachments:
        yield _header(letter) + _text(letter.text)
        return
    boundary = _boundary(letter)
    yield _header(letter) + field("Content-Type", f'multipart/mixed;\r\n\tboundary="{boundary}"') + b"\r\n"
    delimiter = b"--%b" % boundary.encode()
    yield delimiter + b"\r\n" + _text(letter.text)
    for attachment in letter.attachments:
        yield b"\r\n%b\r\n%b" % (delimiter, _attachment_header(attachment))
        yield from _base64(attachment.octets)
    yield b"\r\n%b--\r\n" % delimiter


def bcc_field(letter: Letter) -> bytes:
    """The Bcc field, for the writer's own copies only; empty where nobody is in it."""
    return _mailboxes("Bcc", letter.bcc)


def reply_subject(subject: str) -> str:
    """`Re: ` before a subject that does not have it (RFC 5322 §3.6.5)."""
    return subject if re.match(r"re:", subject, re.IGNORECASE) else f"Re: {subject}".rstrip()


def references_of(message_ids: Sequence[str]) -> tuple[str, ...]:
    """What of a conversation is named in References: those that are Message-IDs, not more than MAX_REFERENCES."""
    good = [
        found for found in dict.fromkeys(message_ids) if _MESSAGE_ID.fullmatch(found) and len(found) <= MAX_MESSAGE_ID
    ]
    return tuple(good if len(good) <= MAX_REFERENCES else [good[0], *good[1 - MAX_REFERENCES :]])


def _header(letter: Letter) -> bytes:
    for message_id in (letter.message_id, *filter(None, (letter.in_reply_to,)), *letter.references):
        if not _MESSAGE_ID.fullmatch(message_id):
            raise ValueError(f"{message_id!r} is not a Message-ID")
    fields = [
        field("Date", date_time(letter.date)),
        _mailboxes("From", (letter.author,)),
        _mailboxes("To", letter.to),
        _mailboxes("Cc", letter.cc),
        b"" if letter.to or letter.cc else field("To", "undisclosed-recipients:;"),
        field("Subject", encoded(letter.subject, "Subject")),
        field("Message-ID", letter.message_id),
    ]
    if letter.in_reply_to:
        fields.append(field("In-Reply-To", letter.in_reply_to))
    if letter.references:
        fields.append(field("References", fold("References", " ".join(letter.references))))
    fields.append(field("MIME-Version", "1.0"))
    return b"".join(fields)


def encoded(text: str, name: str = "", *, phrase: bool = False) -> str:
    """Text as it may stand in a field: as it is where that is safe, else as encoded words (RFC 2047 §5).

    `phrase`: of the name before an address, where fewer characters are safe; what is ASCII is quoted then.
    """
    text = _CONTROLS.sub(" ", text).strip()
    is_short = all(len(word) <= 70 for word in text.split(" "))
    if text.isascii() and "=?" not in text and is_short:
        if not phrase:
            return fold(name, text)
        if _PLAIN_PHRASE.match(text):
            return text
        if len(text) <= 60:
            return _quoted(text)
    return _words(text)


def quoted_name(name: str) -> str:
    """A name as it stands before an address, for people to read and change: what is not ASCII stays as it is."""
    plain = " ".join(_CONTROLS.sub(" ", name).split())
    return plain if _PLAIN_PHRASE.match(plain) else _quoted(plain)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _words(text: str) -> str:
    """Encoded words on lines of their own, no character cut."""
    words, piece = [], ""
    for character in text:
        if len((piece + character).encode()) > WORD_OCTETS:
            words.append(piece)
            piece = ""
        piece += character
    words += [piece] if piece else []
    return "\r\n ".join(f"=?utf-8?b?{_in_base64(word.encode())}?=" for word in words)


def _mailboxes(name: str, mailboxes: Sequence[Mailbox]) -> bytes:
    if not mailboxes:
        return b""
    return field(name, ",\r\n ".join(map(_mailbox, mailboxes)))


def _mailbox(mailbox: Mailbox) -> str:
    if not mailbox.name.strip():
        return str(mailbox.address)
    return f"{encoded(mailbox.name, phrase=True)} <{mailbox.address}>"


def _text(text: str) -> bytes:
    """The text's part from its Content-Type on: as it is where no line is long or strange, else quoted-printable."""
    plain = _NOT_IN_TEXT.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = plain.removesuffix("\n").split("\n")
    # A relay that trims what is at a line's end, or that adds to a line that begins with From, would break signatures.
    is_safe = plain.isascii() and all(
        len(line) <= TEXT_LINE and not line.startswith("From ") and line == line.rstrip() for line in lines
    )
    body = "\n".join(lines).encode()
    if is_safe:
        head = field("Content-Type", "text/plain; charset=us-ascii")
        return head + b"\r\n" + body.replace(b"\n", b"\r\n") + b"\r\n"
    # The line ends after it, so that it stays within 76 characters.
    quoted = re.sub(rb"(?m)^From (?=.)", b"=46rom=\n ", encodestring(body)).replace(b"\n", b"\r\n")
    head = field("Content-Type", "text/plain; charset=utf-8") + field("Content-Transfer-Encoding", "quoted-printable")
    return head + b"\r\n" + quoted + b"\r\n"


def _attachment_header(attachment: Attachment) -> bytes:
    if not _MEDIA_TYPE.match(attachment.media_type):
        raise ValueError(f"{attachment.media_type!r} is not a media type")
    # A message or a multipart may not be in base 64 (RFC 2045 §6.4): it goes as a file.
    is_composite = attachment.media_type.lower().partition("/")[0] in ("message", "multipart")
    media_type = "application/octet-stream" if is_composite else attachment.media_type
    disposition = "".join(f";\r\n\t{parameter}" for parameter in _file_name(attachment.name))
    return (
        field("Content-Type", media_type)
        + field("Content-Disposition", f"attachment{disposition}")
        + field("Content-Transfer-Encoding", "base64")
        + b"\r\n"
    )


def _file_name(name: str) -> Iterator[str]:
    """The parameters that name a file (RFC 2183 §2.3, RFC 2231 §3, §4)."""
    name = _CONTROLS.sub(" ", name).replace("/", "_").replace("\\", "_").strip() or "attachment"
    if _PLAIN_FILE_NAME.match(name):
        yield f'filename="{name}"'
        return
    pieces, piece = [], ""
    for character in name:
        quoted = "".join(
            chr(octet) if _ATTRIBUTE_CHARACTER.match(bytes((octet,))) else f"%{octet:02X}"
            for octet in character.encode()
        )
        if len(piece) + len(quoted) > _PARAMETER_OCTETS:
            pieces.append(piece)
            piece = ""
        piece += quoted
    pieces.append(piece)
    if len(pieces) == 1:
        yield f"filename*=utf-8''{piece}"
        return
    for number, piece in enumerate(pieces):
        charset = "utf-8''" if number == 0 else ""
        yield f"filename*{number}*={charset}{piece}"


def _base64(octets: bytes) -> Iterator[bytes]:
    for at in range(0, len(octets), PIECE_OCTETS):
        piece = octets[at : at + PIECE_OCTETS]
        yield b"".join(
            binascii.b2a_base64(piece[line : line + 57], newline=False) + b"\r\n" for line in range(0, len(piece), 57)
        )


def _in_base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode()


def _boundary(letter: Letter) -> str:
    """From the Message-ID, which nobody could know. It cannot stand in what is encoded, nor in the text (`=_`)."""
    unique = re.sub(r"[^A-Za-z0-9]", "", letter.message_id)[:48]
    boundary = f"=_{unique}"
    while f"--{boundary}" in letter.text:
        boundary += "_"
    return boundary
