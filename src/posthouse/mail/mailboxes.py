"""Lists of mailboxes in header fields such as From (RFC 5322 §3.4, with the obsolete spellings of §4.4; RFC 6854).

One pass over the text makes tokens, one over the tokens makes addresses: no recursion, no backtracking, time grows
with the length alone. What is left over, or means two things, is an error and never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from posthouse.mail.address import Address, AddressError, parse_address, quoted, unquoted

_SPACE = re.compile(r"[ \t\r\n]+")
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+")
_QUOTED = re.compile(r'"(?:[^"\\\r\n\0]|\\[^\r\n\0]|\r\n[ \t])*"')
_LITERAL = re.compile(r"\[[^\[\]\\\x00-\x1f]*\]")
_COMMENT_PART = re.compile(r"(?:[^()\\\0]|\\.)+", re.DOTALL)
_FOLD = re.compile(r"\r\n(?=[ \t])")
_SPECIALS = frozenset("<>@,;:.")


class _Kind(Enum):
    ATOM = auto()
    QUOTED = auto()
    LITERAL = auto()
    SPECIAL = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str

    def is_special(self, character: str) -> bool:
        return self.kind is _Kind.SPECIAL and self.text == character


_END = _Token(_Kind.END, "")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with the name before it, "" for none; encoded words in it are not decoded."""

    address: Address
    name: str = ""


def parse_mailboxes(text: str) -> tuple[Address, ...]:
    """The addresses of a field's value, those in groups included, in order. Raises AddressError.

    Domains are checked as in an envelope, so that an address here is the same as the same address there.
    """
    return tuple(mailbox.address for mailbox in parse_named_mailboxes(text))


def parse_named_mailboxes(text: str) -> tuple[Mailbox, ...]:
    """The same with the names that stand before the addresses. Raises AddressError."""
    return tuple(_mailboxes(list(_tokens(text))))


def _tokens(text: str) -> Iterator[_Token]:
    """Words and specials; white space and comments are only between them."""
    at = 0
    while at < len(text):
        character = text[at]
        if space := _SPACE.match(text, at):
            at = space.end()
        elif character == "(":
            at = _comment_end(text, at)
        elif character in _SPECIALS:
            yield _Token(_Kind.SPECIAL, character)
            at += 1
        elif atom := _ATOM.match(text, at):
            yield _Token(_Kind.ATOM, atom[0])
            at = atom.end()
        elif string := _QUOTED.match(text, at):
            yield _Token(_Kind.QUOTED, _FOLD.sub("", string[0]))
            at = string.end()
        elif literal := _LITERAL.match(text, at):
            yield _Token(_Kind.LITERAL, literal[0])
            at = literal.end()
        else:
            raise AddressError("a character that cannot stand there")


def _comment_end(text: str, at: int) -> int:
    """Where the comment that begins here has ended, others nested in it included."""
    depth = 0
    while at < len(text):
        if text[at] == "(":
            depth += 1
            at += 1
        elif text[at] == ")":
            depth -= 1
            at += 1
            if not depth:
                return at
        elif part := _COMMENT_PART.match(text, at):
            at = part.end()
        else:
            break
    raise AddressError("a comment without an end")


def _mailboxes(tokens: list[_Token]) -> Iterator[Mailbox]:
    tokens.append(_END)
    at, in_group = 0, False
    while (token := tokens[at]) is not _END:
        if token.is_special(","):
            at += 1
        elif token.is_special(";") and in_group:
            at, in_group = at + 1, False
            _expect_end_of_mailbox(tokens[at], in_group)
        else:
            end = _words_end(tokens, at)
            if tokens[end].is_special(":"):
                if in_group or end == at:
                    raise AddressError("a group inside a group")
                at, in_group = end + 1, True
                continue
            mailbox, at = _mailbox(tokens, at, end)
            _expect_end_of_mailbox(tokens[at], in_group)
            yield mailbox
    if in_group:
        raise AddressError("a group without an end")


def _words_end(tokens: list[_Token], at: int) -> int:
    """Where the words and dots that begin here end."""
    while tokens[at].kind in (_Kind.ATOM, _Kind.QUOTED) or tokens[at].is_special("."):
        at += 1
    return at


def _expect_end_of_mailbox(token: _Token, in_group: bool) -> None:
    if token is not _END and not token.is_special(",") and not (in_group and token.is_special(";")):
        raise AddressError("something stands behind an address")


def _mailbox(tokens: list[_Token], at: int, end: int) -> tuple[Mailbox, int]:
    """The mailbox that begins at `at`, whose words end at `end`, and where it has ended."""
    if not tokens[end].is_special("<"):
        address, at = _address(tokens, at, end)
        return Mailbox(address), at
    name = _name(tokens[at:end])
    at = _after_route(tokens, end + 1)
    address, at = _address(tokens, at, _words_end(tokens, at))
    if not tokens[at].is_special(">"):
        raise AddressError("an address without its closing bracket")
    return Mailbox(address, name), at + 1


def _name(words: list[_Token]) -> str:
    """The phrase before an address, its quotes taken off; a dot belongs to the word before it (RFC 5322 §4.1)."""
    texts = [unquoted(word.text) if word.kind is _Kind.QUOTED else word.text for word in words]
    return "".join(text if text == "." or not number else f" {text}" for number, text in enumerate(texts))


def _after_route(tokens: list[_Token], at: int) -> int:
    """Behind an obsolete route `@a,@b:`, which means nothing any more (RFC 5322 §4.4)."""
    if not (tokens[at].is_special("@") or tokens[at].is_special(",")):
        return at
    while tokens[at].kind is not _Kind.END and not tokens[at].is_special(":"):
        if tokens[at].kind is _Kind.QUOTED or tokens[at].is_special("<") or tokens[at].is_special(">"):
            raise AddressError("a route that is none")
        at += 1
    return at + 1 if tokens[at].is_special(":") else at


def _address(tokens: list[_Token], at: int, at_sign: int) -> tuple[Address, int]:
    """`local-part@domain`, whose local part stands at `at` and whose @ is at `at_sign`."""
    if at == at_sign or not tokens[at_sign].is_special("@"):
        raise AddressError("an address is local-part@domain")
    local_part = _local_part(tokens[at:at_sign])
    first = at_sign + 1
    if tokens[first].kind is _Kind.LITERAL:
        return parse_address(f"{local_part}@{tokens[first].text}"), first + 1
    end = _words_end(tokens, first)
    domain = tokens[first:end]
    _alternating(domain, quoted_words=False)
    return parse_address(f"{local_part}@{''.join(token.text for token in domain)}"), end


def _local_part(words: list[_Token]) -> str:
    """The one spelling of a local part; words between dots may each be quoted (RFC 5322 §4.4)."""
    if len(words) == 1:
        return words[0].text
    _alternating(words, quoted_words=True)
    return quoted("".join(unquoted(word.text) for word in words))


def _alternating(words: list[_Token], *, quoted_words: bool) -> None:
    """Word, dot, word …: two words beside each other are no name."""
    for number, word in enumerate(words):
        is_dot = word.is_special(".")
        if is_dot is (number % 2 == 0) or (word.kind is _Kind.QUOTED and not quoted_words):
            raise AddressError("words and dots do not alternate")
    if not len(words) % 2:
        raise AddressError("words and dots do not alternate")
