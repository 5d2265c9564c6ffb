"""How the tour is shown: numbered steps, what was said and what it means, the time it took."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from posthouse.mail.words import duration

WIDTH = 96
_SAID_COLUMNS = 46
_BOLD, _DIM, _GREEN, _RED, _CYAN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[36m", "\x1b[0m"


class Stage:
    """Prints the tour as it happens; colours on a terminal only."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout
        self._coloured = self._out.isatty()
        self._number = 0
        self._began = 0.0
        self._lines: list[tuple[str, str, str]] = []
        self.failed = False

    def title(self, text: str) -> None:
        """A line above the tour."""
        self._print(self._paint(_BOLD, text))

    def begin(self) -> None:
        """Start the clock of the next step."""
        self._began = time.monotonic()
        self._lines.clear()

    def said(self, who: str, line: str, meaning: str = "") -> None:
        """A line of the dialogue for this step: `who` is "they" or "we"."""
        self._lines.append((who, line, meaning))

    def step(self, sentence: str, *, ok: bool = True) -> None:
        """Show the step that just happened, with its time and its dialogue."""
        self._number += 1
        took = duration(time.monotonic() - self._began)
        mark = self._paint(_GREEN, "ok") if ok else self._paint(_RED, "FAILED")
        self.failed = self.failed or not ok
        head = f"{self._number}  {sentence}"
        self._print(f"{self._paint(_BOLD, head)}{' ' * max(2, WIDTH - 12 - len(head))}{took:>8}  {mark}")
        for who, line, meaning in self._lines:
            said = _cut(line, _SAID_COLUMNS)
            told = self._paint(_DIM, meaning)
            self._print(f"     {self._paint(_CYAN, who.ljust(5))} {said.ljust(_SAID_COLUMNS)}  {told}".rstrip())

    def plain(self, text: str = "") -> None:
        """A line of its own."""
        self._print(text)

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured and text else text


def _cut(line: str, columns: int) -> str:
    return line if len(line) <= columns else line[: columns - 1] + "…"
