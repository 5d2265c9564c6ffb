"""Which octets of a dialogue a network fails after: every one, and how. See `every_break`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from tests.faults.proxy import Break, How, Way

EVERY_KIND = os.environ.get("POSTHOUSE_CUTS") == "all"
"""Every fault after every octet, which takes some minutes; else the faults take turns, and the seed says who begins."""
KINDS = (How.CLOSE, How.RESET, How.HALF, How.STOP)


def every_break(
    lengths: Mapping[Way, int], seed: int, kinds: Sequence[How] = KINDS, stride: int = 1
) -> Iterator[Break]:
    """A break after each octet of a dialogue of these lengths, before its first one too; and two that dribble.

    `stride`: only after every so many octets, where not every kind is asked for.
    """
    for way, octets in lengths.items():
        for count, after_octets in enumerate(range(0, octets, 1 if EVERY_KIND else stride)):
            chosen = kinds if EVERY_KIND else (kinds[(count + seed) % len(kinds)],)
            for how in chosen:
                yield Break(way, after_octets, how)
        yield Break(way, 0, How.DRIBBLE)
