"""What is to be done in a session: which messages to fetch, which to delete, which names have gone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from posthouse.collection.listing import Listed
from posthouse.mail.source import DAY_S, Keeping, KnownMessage, Policy

BELIEVED_AFTER = 3
"""Sessions in a row that find a maildrop empty which was not, until that is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`suspects`: new names whose messages may be known under other ones, to be told by their headers first."""

    fetch: tuple[Listed, ...] = ()
    suspects: tuple[Listed, ...] = ()
    gone: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    empty: int = 0


def plan(listed: Sequence[Listed], known: Mapping[str, KnownMessage], *, empty: int) -> Plan:
    """`empty`: how many sessions in a row found nothing where something was."""
    names = {each.name for each in listed}
    present = [name for name, message in known.items() if message.gone_at is None]
    if not names and present:
        empty += 1
        # A server in trouble says that, too. What is believed then is little: that the names are not in use now.
        return Plan(gone=tuple(present) if empty >= BELIEVED_AFTER else (), empty=empty)
    new = tuple(each for each in listed if each.name not in known)
    gone = tuple(name for name in present if name not in names)
    back = tuple(name for name, message in known.items() if message.gone_at is not None and name in names)
    missing = [message for name, message in known.items() if name not in names]
    suspects = new if _is_migrated(len(new), len(present) - len(gone), len(missing)) else _alike(new, missing)
    chosen = {each.name for each in suspects}
    return Plan(fetch=tuple(each for each in new if each.name not in chosen), suspects=suspects, gone=gone, back=back)


def to_delete(
    listed: Sequence[Listed], known: Mapping[str, KnownMessage], policy: Policy, now: float
) -> tuple[Listed, ...]:
    """What of the listed messages may be deleted at the server. Only what is committed here is in `known`."""
    return tuple(each for each in listed if each.name in known and _is_done(known[each.name], policy, now))


@dataclass(slots=True)
class Recogniser:
    """Knows messages again under other names: each known one once, by its fingerprint, and by its size among those."""

    missing: list[KnownMessage]
    _by_print: dict[bytes, list[KnownMessage]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for message in self.missing:
            self._by_print.setdefault(message.fingerprint, []).append(message)

    def recognise(self, listed: Listed, fingerprint: bytes, *, is_telling: bool) -> str | None:
        """The name under which it is known. `is_telling`: the header has a Message-ID, so that sizes need not agree."""
        alike = self._by_print.get(fingerprint, [])
        same_size = [message for message in alike if message.size_octets == listed.size_octets]
        found = next(iter(same_size or (alike if is_telling else [])), None)
        if found is None:
            return None
        alike.remove(found)
        return found.uidl


def _is_migrated(new: int, still: int, missing: int) -> bool:
    """Whether most of what is there is new, and most of what was known is missing."""
    return bool(new and missing) and new > still and missing > still


def _alike(new: Sequence[Listed], missing: Sequence[KnownMessage]) -> tuple[Listed, ...]:
    sizes = {message.size_octets for message in missing}
    return tuple(each for each in new if each.size_octets in sizes)


def _is_done(message: KnownMessage, policy: Policy, now: float) -> bool:
    match policy.keeping:
        case Keeping.LEAVE:
            return False
        case Keeping.DAYS:
            return now - message.collected_at >= policy.days * DAY_S
        case Keeping.MIRROR:
            return not message.here
        case Keeping.DELETE:
            return True
