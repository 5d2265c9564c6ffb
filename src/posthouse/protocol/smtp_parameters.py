"""Parameters of MAIL and RCPT, each bound to the extension that brings it.

RFC 1870 (SIZE), 6152 (BODY), 6531 (SMTPUTF8), 3461 §4 (RET, ENVID, NOTIFY, ORCPT, xtext), 4954 §5 (AUTH),
6533 §3 (ORCPT=utf-8). A parameter whose extension is not offered does not exist: 555.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from posthouse.mail.acceptance import Notify, Ret
from posthouse.mail.reply import Reply, reply

MAX_ENVELOPE_ID = 100
MAX_ORIGINAL_RECIPIENT = 500
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-]*\Z")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_EMBEDDED_CODEPOINT = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-.]*\Z")

UNKNOWN_PARAMETER = reply(555, "5.5.4", "Parameter not recognised")
BAD_PARAMETER = reply(501, "5.5.4", "Syntax error in a parameter")
REPEATED_PARAMETER = reply(501, "5.5.4", "A parameter was given twice")


class Refused(Exception):
    """The line is not in the grammar; `reply` says why. Never leaves the grammar."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(str(answer))
        self.reply = answer


@dataclass(slots=True)
class MailParameters:
    """What MAIL asked for."""

    size_octets: int | None = None
    body: str = "7BIT"
    smtputf8: bool = False
    ret: Ret | None = None
    envelope_id: str | None = None


@dataclass(slots=True)
class RecipientParameters:
    """What RCPT asked for. `original_recipient` is `type;decoded`."""

    notify: frozenset[Notify] | None = None
    original_recipient: str | None = None


Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Parameter(Generic[Target]):
    """`take` puts the value (None: no "=") into its place, or raises ValueError: 501."""

    extension: str
    take: Callable[[Target, str | None], None]


def parse_parameters(
    text: str, table: Mapping[str, Parameter[Target]], offered: frozenset[str], target: Target
) -> None:
    """Parse ` KEYWORD[=value]…` into `target` (RFC 5321 §4.1.2). Raises Refused."""
    seen = set()
    for item in text.split(" "):
        if not item:
            continue
        name, equals, value = item.partition("=")
        if not _KEYWORD.match(name) or (equals and not _is_value(value)):
            raise Refused(BAD_PARAMETER)
        keyword = name.upper()
        parameter = table.get(keyword)
        if parameter is None or parameter.extension not in offered:
            raise Refused(UNKNOWN_PARAMETER)
        if keyword in seen:
            raise Refused(REPEATED_PARAMETER)
        seen.add(keyword)
        try:
            parameter.take(target, value if equals else None)
        except ValueError as exc:
            raise Refused(BAD_PARAMETER) from exc


def _is_value(value: str) -> bool:
    # esmtp-value; characters beyond ASCII are for RFC 6531 §3.3, and only ORCPT lets them through.
    return bool(value) and "=" not in value and " " not in value and value.isprintable()


def decode_xtext(text: str) -> str:
    """Undo xtext (RFC 3461 §4). Raises ValueError for what is not xtext or decodes to controls or 8 bits."""
    if not text.isascii() or _HEXCHAR.sub("", text).count("+"):
        raise ValueError("not xtext")
    decoded = _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), text)
    if not (decoded.isascii() and decoded.isprintable()):
        raise ValueError("xtext hides control characters")
    return decoded


def encode_xtext(text: str) -> str:
    """Spell printable ASCII as xtext. Raises ValueError for anything else."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("xtext carries printable ASCII only")
    return text.replace("+", "+2B").replace("=", "+3D").replace(" ", "+20")


def encode_original_recipient(text: str) -> str:
    """`type;decoded` as ORCPT's value; characters beyond ASCII as `\\x{…}` (RFC 6533 §3). Raises ValueError."""
    kind, semicolon, address = text.partition(";")
    if not semicolon or not _ADDRESS_TYPE.match(kind) or not address.isprintable():
        raise ValueError("not an original recipient")
    if kind.lower() == "utf-8":
        return f"{kind};" + "".join(_embedded(character) for character in address)
    return f"{kind};{encode_xtext(address)}"


def _embedded(character: str) -> str:
    if character in " +=\\" or not character.isascii():
        return f"\\x{{{ord(character):02X}}}"
    return character


def _take_size(target: MailParameters, value: str | None) -> None:
    # int() would take signs, underscores and other scripts' digits; RFC 1870 §3 gives 1 to 20 ASCII digits.
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise ValueError("not a size")
    target.size_octets = int(value)


def _take_body(target: MailParameters, value: str | None) -> None:
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise ValueError("not a body type")
    target.body = body


def _take_smtputf8(target: MailParameters, value: str | None) -> None:
    if value is not None:
        raise ValueError("SMTPUTF8 has no value")
    target.smtputf8 = True


def _take_ret(target: MailParameters, value: str | None) -> None:
    target.ret = Ret((value or "").upper())


def _take_envelope_id(target: MailParameters, value: str | None) -> None:
    if value is None or len(value) > MAX_ENVELOPE_ID:
        raise ValueError("not an envelope id")
    target.envelope_id = decode_xtext(value)


def _take_auth(target: MailParameters, value: str | None) -> None:
    # Checked and then ignored: no peer of ours is trusted to assert an identity (RFC 4954 §5).
    del target
    if value is None:
        raise ValueError("AUTH needs a value")
    if value != "<>":
        decode_xtext(value)


def _take_notify(target: RecipientParameters, value: str | None) -> None:
    wanted = [Notify(word) for word in (value or "").upper().split(",")]
    if len(set(wanted)) != len(wanted) or (Notify.NEVER in wanted and len(wanted) > 1):
        raise ValueError("NEVER stands alone, and nothing stands twice")
    target.notify = frozenset(wanted)


def _take_original_recipient(target: RecipientParameters, value: str | None) -> None:
    if value is None or len(value.encode()) > MAX_ORIGINAL_RECIPIENT:
        raise ValueError("not an original recipient")
    kind, semicolon, encoded = value.partition(";")
    if not semicolon or not encoded or not _ADDRESS_TYPE.match(kind):
        raise ValueError("not an original recipient")
    address = _decode_embedded(encoded) if kind.lower() == "utf-8" else decode_xtext(encoded)
    target.original_recipient = f"{kind};{address}"


def _decode_embedded(text: str) -> str:
    """Undo utf-8-addr-xtext (RFC 6533 §3)."""
    if "\\" in _EMBEDDED_CODEPOINT.sub("", text) or "+" in text:
        raise ValueError("not utf-8-addr-xtext")
    decoded = _EMBEDDED_CODEPOINT.sub(lambda found: chr(int(found[1], 16)), text)
    if not decoded.isprintable():
        raise ValueError("the address hides control characters")
    return decoded


MAIL_PARAMETERS: Mapping[str, Parameter[MailParameters]] = {
    "SIZE": Parameter("SIZE", _take_size),
    "BODY": Parameter("8BITMIME", _take_body),
    "SMTPUTF8": Parameter("SMTPUTF8", _take_smtputf8),
    "RET": Parameter("DSN", _take_ret),
    "ENVID": Parameter("DSN", _take_envelope_id),
    "AUTH": Parameter("AUTH", _take_auth),
}
RECIPIENT_PARAMETERS: Mapping[str, Parameter[RecipientParameters]] = {
    "NOTIFY": Parameter("DSN", _take_notify),
    "ORCPT": Parameter("DSN", _take_original_recipient),
}
