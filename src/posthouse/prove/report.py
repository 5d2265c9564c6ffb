"""What a run came to: for people, and as JSON."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posthouse import __version__
from posthouse.mail.words import count, duration
from posthouse.prove.faults import Family
from posthouse.prove.ledger import Finding, Wrong


@dataclass(slots=True)
class Report:
    """Counts, and what was wrong. Times are in seconds."""

    seed: int
    processors: int
    faults: Counter[str] = field(default_factory=Counter)
    left_out: Mapping[Family, str] = field(default_factory=dict)
    rounds: int = 0
    took_s: float = 0.0
    checks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    recovered_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    stories: list[str] = field(default_factory=list)
    """Of each finding: the ledger's entry and the message's journey."""
    interrupted: bool = False
    kept: str = ""
    """The folder, where it was kept."""

    @property
    def failed(self) -> bool:
        return bool(self.findings or self.troubles)

    @property
    def wrongs(self) -> dict[Wrong, int]:
        """The five counters."""
        found = Counter(finding.wrong for finding in self.findings)
        return {wrong: found[wrong] for wrong in Wrong}

    def as_json(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "system": platform.platform(),
            "python": platform.python_version(),
            "processors": self.processors,
            "seed": self.seed,
            "rounds": self.rounds,
            "checks": self.checks,
            "took_s": round(self.took_s, 1),
            "interrupted": self.interrupted,
            "failed": self.failed,
            "faults": dict(sorted(self.faults.items())),
            "faults_left_out": {str(family): why for family, why in self.left_out.items()},
            "counts": dict(sorted(self.counts.items())),
            **{wrong.name.lower(): number for wrong, number in self.wrongs.items()},
            "recoveries": len(self.recovered_s),
            "recovered_p50_s": percentile(self.recovered_s, 50),
            "recovered_p99_s": percentile(self.recovered_s, 99),
            "recovered_processor_p50_s": percentile(self.processor_s, 50),
            "findings": [finding.text for finding in self.findings],
            "troubles": self.troubles,
            "folder": self.kept or None,
        }

    def lines(self) -> list[str]:
        """For people."""
        counts = self.counts
        lines = [
            f"Posthouse {__version__}, Python {platform.python_version()}, {platform.platform()}, "
            f"{count(self.processors, 'processor', 'processors')}",
            f"{count(self.rounds, 'round', 'rounds')} in {duration(self.took_s)}, seed {self.seed}, "
            f"{count(self.checks, 'check', 'checks')} of everything" + (", interrupted" if self.interrupted else ""),
            "",
            f"Faults injected: {self.faults.total():,}",
            *(f"  {kind:<44} {number:>8,}" for kind, number in sorted(self.faults.items())),
            *(f"  {family}: left out here, since {why}" for family, why in self.left_out.items()),
            "",
            f"{'Messages acknowledged':<46} {counts['acknowledged']:>8,}",
            *(f"  {wrong:<44} {number:>8,}" for wrong, number in self.wrongs.items()),
            "",
            f"{'Sent without an answer':<46} {counts['unanswered']:>8,}",
            f"  {'repeated by a sender that saw no 250':<44} {counts['repeated here']:>8,}",
            f"{'Refused, or taken later':<46} {counts['refused']:>8,}",
            f"{'Repeated at the next hop':<46} {counts['repeated elsewhere']:>8,}",
            f"{'Reports that came back':<46} {counts['reports']:>8,}",
            f"{'Entries read, each octet compared':<46} {counts['entries read']:>8,}",
            f"{'Entries deleted (+OK to QUIT)':<46} {counts['deleted']:>8,}",
            "",
            f"From start to the first 220, after a kill: {_recovery(self.recovered_s)}",
        ]
        if self.processor_s:
            worked = duration(percentile(self.processor_s, 50) or 0.0)
            lines.append(f"  of which a processor worked for it: p50 {worked}")
        return lines + self._verdict()

    def _verdict(self) -> list[str]:
        lines = [""]
        lines += [f"trouble: {trouble}" for trouble in self.troubles[:20]]
        lines += self.stories
        if self.failed:
            lines.append(f"FAILED. Repeat it with: posthouse prove --seed {self.seed} --rounds {self.rounds}")
        else:
            lines.append("Five zeros: nothing was lost, doubled, corrupted, resurrected, or stored though refused.")
        if self.kept:
            lines.append(f"Houses, logs and stores are kept in {self.kept}")
        return lines


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The value that so many percent of all do not exceed; None of nothing."""
    if not values:
        return None
    return round(sorted(values)[max(0, -(-len(values) * percent // 100) - 1)], 3)


def _recovery(values: Sequence[float]) -> str:
    if not values:
        return "nothing was killed"
    p50, p99 = (duration(percentile(values, percent) or 0.0) for percent in (50, 99))
    return f"p50 {p50}, p99 {p99} ({count(len(values), 'start', 'starts')})"
