"""What every half hands to its driver: commands to answer, notices to note, and two signals."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class Signal(Enum):
    """What `next_event()` returns when there is no event."""

    NEED_DATA = auto()
    """Nothing more to do until `receive()` brings octets."""
    CLOSED = auto()
    """The dialogue is over: write what is still outgoing, then close the connection."""


NEED_DATA: Final = Signal.NEED_DATA
CLOSED: Final = Signal.CLOSED


class Command:
    """An event that waits for exactly one `reply()`; no further event comes before it."""

    __slots__ = ()


class Notice:
    """An event that wants no answer."""

    __slots__ = ()
