"""What `posthouse check` finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `state` is ok, note or problem; `text` says what mends a problem."""

    check: str
    state: str
    text: str
