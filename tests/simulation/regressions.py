"""Seeds that found something, with what they found. A seed means the same world only as long as worlds are drawn alike:

where that changes, a line may go; what it found has a test of its own beside the code.
"""

from __future__ import annotations

REGRESSIONS: dict[int, str] = {
    149: "accepted while the clock was a year ahead: tried for a year after it was put right, and nobody was told",
}
