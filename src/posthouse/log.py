"""Structured logging: one line for each finished thing, with `key=value`; text on a terminal, JSON otherwise.

Passwords, AUTH lines and content are never logged. Each house has its own logger; nothing is global.
"""

from __future__ import annotations

import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Log = FilteringBoundLogger


def make_log(stream: TextIO | None = None, *, json: bool | None = None, house: str | None = None) -> Log:
    """A logger that writes to `stream` (stderr). `json` None: JSON unless the stream is a terminal."""
    out = stream if stream is not None else sys.stderr
    as_json = not out.isatty() if json is None else json
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=True) if as_json else _render_text
    )
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )
    return log.bind(house=house) if house else log


def _render_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One line whatever the values hold: everything unprintable is escaped, so nobody can forge a line."""
    head = [event.pop("timestamp"), event.pop("level"), event.pop("event")]
    trace = event.pop("exception", None)
    pairs = [f"{key}={_shown(value)}" for key, value in event.items()]
    line = " ".join([*(str(part) for part in head), *pairs])
    return f"{line}\n{trace}" if trace else line


def _shown(value: object) -> str:
    text = str(value)
    if text.isascii() and text.isprintable() and " " not in text and '"' not in text and text:
        return text
    return ascii(text)
