"""Which waiting recipients are meant: the words of `posthouse queue`, such as `to:@gmail.com older:2h reply:4.7.28`.

Each word is a condition; all of them must hold. A queue id may stand without `id:`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from posthouse.mail.address import AddressError, parse_address, parse_domain
from posthouse.mail.ids import QUEUE_ID_PATTERN, QueueId
from posthouse.mail.spool import Hold
from posthouse.mail.words import visible

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d|w)\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_NUMBER = re.compile(r"(>=|<=|>|<|=|)([0-9]{1,15})([KMGT]?)\Z", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_CODE = re.compile(r"[2-5][0-9][0-9]\Z")
_ENHANCED = re.compile(r"[2-5](?:\.[0-9]{1,3}){1,2}\Z")


class FilterError(ValueError):
    """A word that is no filter; the message is one line that says what to write instead."""


class Comparison(StrEnum):
    """How a number is compared; the values are SQL's too."""

    ABOVE = ">"
    FROM = ">="
    EQUAL = "="
    UP_TO = "<="
    BELOW = "<"


@dataclass(frozen=True, slots=True)
class OfMessage:
    queue_id: QueueId


@dataclass(frozen=True, slots=True)
class To:
    """The recipient. Without a local part: everybody in that domain."""

    local_part: str
    domain: str


@dataclass(frozen=True, slots=True)
class From:
    """The sender, as the message came. Without a local part: everybody in that domain; without both: nobody (`<>`)."""

    local_part: str
    domain: str


@dataclass(frozen=True, slots=True)
class Toward:
    """The domain that it is sent on to, with all below it."""

    domain: str


@dataclass(frozen=True, slots=True)
class Through:
    """The submission server of its sender's identity: `host`, or `host:port`."""

    via: str


@dataclass(frozen=True, slots=True)
class SentBy:
    """Who had logged in when it was handed in."""

    login_key: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long it has waited, in seconds."""

    comparison: Comparison
    seconds: float


@dataclass(frozen=True, slots=True)
class RepliedCode:
    """The code of the last reply: `451`, or an enhanced one, `4.7.28`, of which the end may be left out."""

    code: str


@dataclass(frozen=True, slots=True)
class RepliedText:
    """What stands somewhere in the last reply, whatever its case. Empty: there is none, it was never tried."""

    text: str


@dataclass(frozen=True, slots=True)
class Held:
    """Whether and why it is held; `hold` None: for any reason."""

    held: bool = True
    hold: Hold | None = None


@dataclass(frozen=True, slots=True)
class Attempts:
    comparison: Comparison
    number: int


@dataclass(frozen=True, slots=True)
class Size:
    """Octets of the message as it is sent."""

    comparison: Comparison
    octets: int


Condition: TypeAlias = (
    OfMessage | To | From | Toward | Through | SentBy | Waiting | RepliedCode | RepliedText | Held | Attempts | Size
)
QueueFilter: TypeAlias = tuple[Condition, ...]
"""All of these hold; an empty one means everything."""


def parse_filter(words: Iterable[str]) -> QueueFilter:
    """The conditions that these words name. Raises FilterError."""
    return tuple(_condition(word) for word in words)


def names_uncertain(wanted: QueueFilter) -> bool:
    """Whether somebody decided about what may have arrived, and did not only mean others."""
    return any(isinstance(each, Held) and each.hold is Hold.UNCERTAIN for each in wanted)


def _condition(word: str) -> Condition:
    key, colon, value = word.partition(":")
    if not colon:
        if QUEUE_ID_PATTERN.match(word.upper()):
            return OfMessage(QueueId(word.upper()))
        if "@" in word:
            raise FilterError(f"{word!r}: say which side is meant, to:{visible(word)} or from:{visible(word)}")
        raise FilterError(f"{word!r} is neither a queue id nor a filter such as to:@example.org or older:2h")
    parse = _PARSERS.get(key.lower())
    if parse is None:
        near = difflib.get_close_matches(key.lower(), _PARSERS, 1)
        known = f"did you mean {near[0]}:?" if near else f"there are {', '.join(f'{name}:' for name in _PARSERS)}"
        raise FilterError(f"there is no filter {visible(key)}:; {known}")
    if not value and key.lower() != "held":
        raise FilterError(f"{word!r} says nothing behind the colon; write for example {_EXAMPLES[key.lower()]}")
    try:
        return parse(value)
    except AddressError as exc:
        raise FilterError(f"{word!r}: {exc}; write for example {_EXAMPLES[key.lower()]}") from exc
    except ValueError as exc:
        raise FilterError(f"{word!r}: write for example {_EXAMPLES[key.lower()]}") from exc


def _of_message(value: str) -> OfMessage:
    if not QUEUE_ID_PATTERN.match(value.upper()):
        raise ValueError(value)
    return OfMessage(QueueId(value.upper()))


def _party(value: str) -> tuple[str, str]:
    if value.startswith("@"):
        return "", parse_domain(value[1:])
    address = parse_address(value)
    return address.local_part, address.domain


def _from(value: str) -> From:
    return From("", "") if value == "<>" else From(*_party(value))


def _waiting(comparison: Comparison) -> Callable[[str], Waiting]:
    def parse(value: str) -> Waiting:
        match = _DURATION.match(value)
        if match is None:
            raise ValueError(value)
        return Waiting(comparison, float(int(match[1]) * _SECONDS[match[2]]))

    return parse


def _reply(value: str) -> RepliedCode | RepliedText:
    if _CODE.match(value) or _ENHANCED.match(value):
        return RepliedCode(value)
    return RepliedText("" if value == "none" else value)


def _held(value: str) -> Held:
    if value in ("", "yes"):
        return Held()
    return Held(held=False) if value == "no" else Held(hold=Hold(value))


def _number(value: str) -> tuple[Comparison, int]:
    match = _NUMBER.match(value)
    if match is None:
        raise ValueError(value)
    return Comparison(match[1] or "="), int(match[2]) * 1000 ** _POWERS[match[3].upper()]


def _attempts(value: str) -> Attempts:
    if not value[-1:].isdigit():
        raise ValueError(value)
    return Attempts(*_number(value))


_PARSERS: dict[str, Callable[[str], Condition]] = {
    "id": _of_message,
    "to": lambda value: To(*_party(value)),
    "from": _from,
    "account": lambda value: SentBy(parse_address(value).key),
    "domain": lambda value: Toward(parse_domain(value)),
    "via": lambda value: Through(value.lower()),
    "older": _waiting(Comparison.ABOVE),
    "younger": _waiting(Comparison.BELOW),
    "reply": _reply,
    "held": _held,
    "attempts": _attempts,
    "size": lambda value: Size(*_number(value)),
}
_EXAMPLES = {
    "id": "id:01K5XJ6TQ0M8V3N2R7B4C9D1EF",
    "to": "to:bob@example.org or to:@example.org",
    "from": "from:ada@example.org, from:@example.org or from:<>",
    "account": "account:ada@example.org",
    "domain": "domain:example.org",
    "via": "via:smtp.example.net or via:smtp.example.net:587",
    "older": "older:30m, older:2h or older:3d",
    "younger": "younger:30m, younger:2h or younger:3d",
    "reply": "reply:451, reply:4.7.28, reply:none or a word of the reply",
    "held": "held:, held:no, held:operator, held:limit, held:restore or held:uncertain",
    "attempts": "attempts:0, attempts:>3 or attempts:<=10",
    "size": "size:>1M or size:<20K",
}
FILTER_HELP = (
    "A queue id, or filters that all must hold: to:@example.org, to:bob@example.org, from:, account:, domain:, via:, "
    "older:2h, younger:, reply:4.7.28, held:, held:no, attempts:>3, size:>1M."
)
