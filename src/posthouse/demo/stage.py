"""How the tour is shown: numbered steps, what was said and what it means, the time it took."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from typing import TextIO

from posthouse.mail.words import count, cut, duration

WIDEST, NARROWEST = 100, 72
_SAID_COLUMNS = 46
_MEANING_COLUMNS = 41
_BOLD, _DIM, _GREEN, _RED, _CYAN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[36m", "\x1b[0m"


class Stage:
    """Prints the tour as it happens; colours on a terminal only."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout
        # NO_COLOR: any value but the empty one, as on no-color.org.
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = self._out.isatty() and not plain
        self._width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))
        self._said_columns = min(_SAID_COLUMNS, self._width - _MEANING_COLUMNS - 13)
        self._opened = time.monotonic()
        self._number = 0
        self._began = 0.0
        self._lines: list[tuple[str, str, str]] = []
        self.failed = False

    def title(self, text: str) -> None:
        """A line above the tour."""
        for line in textwrap.wrap(text, self._width):
            self._print(self._paint(_BOLD, line))

    def begin(self) -> None:
        """Start the clock of the next step."""
        self._began = time.monotonic()
        self._lines.clear()

    def said(self, who: str, line: str, meaning: str = "") -> None:
        """A line of the dialogue for this step: `who` is the name of who says it."""
        self._lines.append((who, line, meaning))

    def step(self, sentence: str, *, ok: bool = True) -> None:
        """Show the step that just happened, with its time and its dialogue."""
        self._number += 1
        took = duration(time.monotonic() - self._began)
        mark = self._paint(_GREEN, "ok") if ok else self._paint(_RED, "FAILED")
        self.failed = self.failed or not ok
        head = f"{self._number}  {sentence}"
        self._print(f"{self._paint(_BOLD, head)}{' ' * max(2, self._width - 16 - len(head))}{took:>8}  {mark}")
        for who, line, meaning in self._lines:
            said = cut(line, self._said_columns)
            told = self._paint(_DIM, meaning)
            self._print(f"     {self._paint(_CYAN, who.ljust(5))} {said.ljust(self._said_columns)}  {told}".rstrip())

    def end(self) -> None:
        """The line below the last step."""
        steps = count(self._number, "step", "steps")
        verdict = "The last step failed." if self.failed else f"{steps}, and each went as it should"
        self.plain(verdict if self.failed else f"{verdict}, in {duration(time.monotonic() - self._opened)}.")

    def plain(self, text: str = "") -> None:
        """A line of its own."""
        self._print(text)

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured and text else text
