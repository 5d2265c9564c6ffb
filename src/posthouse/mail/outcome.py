"""What an attempt to serve a recipient came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from posthouse.mail.reply import Reply


@dataclass(frozen=True, slots=True)
class Delivered:
    """The next hop took responsibility with this reply."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not now. `reply` is the next hop's own, or ours in the same form where no reply came (`from_peer` false)."""

    reply: Reply
    from_peer: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """Never. The sender gets a report."""

    reply: Reply
    from_peer: bool = True


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The final dot was sent and its reply never seen: the message may have arrived."""

    reply: Reply


Outcome: TypeAlias = Delivered | Deferred | Failed | Uncertain
