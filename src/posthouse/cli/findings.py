"""What `posthouse check` finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM, UNKNOWN = "ok", "note", "problem", "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `state` is ok, note, problem, or unknown; `text` says what mends a problem."""

    check: str
    state: str
    text: str
