"""Who is told what storage did, once it is durable, and how long the disk took. Telling decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from posthouse.mail.journey import JourneyEvent


class Observer(Protocol):
    """Quick, and without errors of its own: whoever is told is in the way of mail."""

    def happened(self, events: Iterable[JourneyEvent]) -> None:
        """These were committed."""
        ...

    def committed(self, items: int, seconds: float) -> None:
        """So many pieces of work became durable together; COMMIT took so long. Called by the thread that commits."""
        ...

    def commit_failed(self) -> None:
        """Likewise; whoever waited for it was told."""
        ...

    def content_synced(self, seconds: float) -> None:
        """A file of content became durable. Called by any thread."""
        ...


class Nobody:
    """Who is told while nobody asked."""

    def happened(self, events: Iterable[JourneyEvent]) -> None:
        pass

    def committed(self, items: int, seconds: float) -> None:
        pass

    def commit_failed(self) -> None:
        pass

    def content_synced(self, seconds: float) -> None:
        pass
