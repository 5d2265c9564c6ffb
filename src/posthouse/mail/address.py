"""Mail addresses: the one parser and the one spelling of each (RFC 5321 §4.1.2, §4.1.3; RFC 6531 §3.3).

An `Address` in hand is a valid one. It keeps the local part as it was spelled, because a relay must pass it
on unchanged (RFC 5321 §2.4); `key` is the spelling under which a mailbox is found.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import idna

MAX_LOCAL_PART_OCTETS = 64
MAX_DOMAIN_OCTETS = 255
MAX_PATH_OCTETS = 256
CACHED_ADDRESSES = 4096
"""How many are remembered: a message asks several times for the same two, and many have the same recipient."""

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*\Z")
_QUOTED_STRING = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"\Z')
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\Z")
_GENERAL_LITERAL = re.compile(r"[A-Za-z0-9\-]*[A-Za-z0-9]:[!-Z^-~]+\Z")
_ASCII_UPPER_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class AddressError(ValueError):
    """The text is not an address."""


class AddressTooLong(AddressError):
    """A part of the address is longer than RFC 5321 §4.5.3.1 lets it be."""


class AddressNeedsUtf8(AddressError):
    """The address is internationalised, and the transaction did not ask for SMTPUTF8 (RFC 6531 §3.2)."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: `local_part` as spelled (quotes included), `domain` as lower-case A-label or `[literal]`.

    `domain` is empty only for `<Postmaster>` without a domain (RFC 5321 §4.5.1); `local_part` only for the
    catch-all of a domain, which stands in the directory and in no envelope.
    """

    local_part: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}" if self.domain else self.local_part

    @property
    def key(self) -> str:
        """The spelling that is equal for all spellings of one mailbox: NFC, ASCII case folded, least quoting."""
        return _key(self.local_part, self.domain)

    @property
    def foreign_key(self) -> str:
        """As `key` for a mailbox of another house, which alone knows whether case means anything (RFC 5321 §2.4)."""
        return f"{quoted(unquoted(self.local_part))}@{self.domain}"

    @property
    def is_ascii(self) -> bool:
        """Whether a host without SMTPUTF8 can be given this address."""
        return self.local_part.isascii()


ReversePath: TypeAlias = Address | None
"""Whom mail is from; None is the null path `<>`, to which nothing is ever returned."""


def path_text(reverse_path: ReversePath) -> str:
    """The path between angle brackets, as it stands in MAIL and in Return-Path."""
    return f"<{reverse_path}>" if reverse_path is not None else "<>"


@lru_cache(CACHED_ADDRESSES)
def _key(local_part: str, domain: str) -> str:
    folded = unicodedata.normalize("NFC", unquoted(local_part)).translate(_ASCII_UPPER_TO_LOWER)
    # Again: W with a ring above has no composed form, w with a ring above has one.
    folded = unicodedata.normalize("NFC", folded)
    return f"{quoted(folded)}@{domain}"


def unquoted(local_part: str) -> str:
    """The characters that a local part stands for, without quotes and backslashes."""
    if not local_part.startswith('"'):
        return local_part
    return re.sub(r"\\(.)", r"\1", local_part[1:-1])


def quoted(plain: str) -> str:
    """The shortest spelling of a local part: quoted only where it must be."""
    if _DOT_STRING.match(plain):
        return plain
    return '"' + re.sub(r'(["\\])', r"\\\1", plain) + '"'


@lru_cache(CACHED_ADDRESSES)
def parse_address(text: str, *, utf8: bool = True, long: bool = False) -> Address:
    """Parse `local-part@domain`, all of it. `utf8` says whether internationalised addresses may stand here.

    `long`: the local part may fill the path. Reverse-paths of houses that rewrite senders, or count what comes back,
    often have more than 64 octets, and other servers take them.
    Raises AddressError, AddressTooLong or AddressNeedsUtf8.
    """
    if not text.isascii() and not utf8:
        raise AddressNeedsUtf8("the address is internationalised, but SMTPUTF8 was not asked for")
    if len(text) > 4 * MAX_PATH_OCTETS:
        raise AddressTooLong("the path is longer than 256 octets")
    local_part, at, domain = _split(text)
    if not at or not local_part or not domain:
        raise AddressError("an address is local-part@domain")
    address = Address(_checked_local_part(local_part, long=long), parse_domain(domain))
    if len(str(address).encode()) + 2 > MAX_PATH_OCTETS:
        raise AddressTooLong("the path is longer than 256 octets")
    return address


def _split(text: str) -> tuple[str, str, str]:
    """Split at the @ that ends the local part: in a quoted string, one may stand inside it."""
    if not text.startswith('"'):
        return text.partition("@")
    end = 1
    while end < len(text) and text[end] != '"':
        end += 2 if text[end] == "\\" else 1
    local_part, rest = text[: end + 1], text[end + 1 :]
    return local_part, rest[:1] if rest.startswith("@") else "", rest[1:]


def _checked_local_part(local_part: str, *, long: bool) -> str:
    if not long and len(local_part.encode("utf-8", "surrogatepass")) > MAX_LOCAL_PART_OCTETS:
        raise AddressTooLong("the local part is longer than 64 octets")
    if not (_DOT_STRING.match(local_part) or _QUOTED_STRING.match(local_part)):
        raise AddressError("the local part is neither a dot-string nor a quoted string")
    if not local_part.isascii() and any(unicodedata.category(c) in _FORBIDDEN_CATEGORIES for c in local_part):
        raise AddressError("the local part holds control or format characters")
    return local_part


def parse_domain(text: str) -> str:
    """A domain or address literal in its one spelling: lower-case A-labels, or `[...]`."""
    if text.startswith("["):
        return _checked_literal(text)
    try:
        ascii_domain = text if text.isascii() else idna.encode(text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as exc:
        raise AddressError("the domain is not a valid internationalised name") from exc
    if len(ascii_domain) > MAX_DOMAIN_OCTETS:
        raise AddressTooLong("the domain is longer than 255 octets")
    if not all(_LABEL.match(label) for label in ascii_domain.split(".")):
        raise AddressError("a label of the domain is not letters, digits and hyphens")
    return ascii_domain.lower()


def unicode_domain(domain: str) -> str:
    """A domain as people of its script read it, in U-labels; as it is where a label has no valid one."""
    if "xn--" not in domain:
        return domain
    try:
        return idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return domain


def _checked_literal(text: str) -> str:
    if not text.endswith("]") or not text.isascii():
        raise AddressError("an address literal ends with ]")
    inside = text[1:-1]
    if "%" in inside and inside[:5].lower() == "ipv6:":
        # IPv6Address takes any characters, line ends too, for a zone; RFC 5321 §4.1.3 knows none.
        raise AddressError("an address literal has no zone")
    try:
        if inside[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inside[5:])}]"
        if ":" not in inside:
            return f"[{ipaddress.IPv4Address(inside)}]"
    except ValueError as exc:
        raise AddressError("the address literal holds no IP address") from exc
    if not _GENERAL_LITERAL.match(inside):
        raise AddressError("the address literal is malformed")
    return text
