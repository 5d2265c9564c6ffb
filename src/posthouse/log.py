"""Structured logging: one line for each finished thing, with `key=value`; text on a terminal, JSON otherwise.

Passwords, AUTH lines and content are never logged. Each house has its own logger; nothing is global. What a peer says
may stand in any value: it is escaped and cut, so that it can neither forge a line nor fill the disk.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from json.encoder import encode_basestring_ascii as _quoted
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Log = FilteringBoundLogger

VALUE_CHARACTERS = 1000
TRACE_CHARACTERS = 20_000
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_NUMBERS = frozenset({int, float, bool, type(None)})
_SECRET_WORDS = ("password", "passwd", "secret", "verifier", "token", "credential", "authorization")


def make_log(
    stream: TextIO | None = None,
    *,
    json: bool | None = None,
    house: str | None = None,
    level: str = "info",
    form: str = "auto",
) -> Log:
    """A logger that writes to `stream` (stderr) what is of this level or graver.

    `form` auto: JSON unless the stream is a terminal. `json` says it outright.
    """
    out = stream if stream is not None else sys.stderr
    as_json = (form == "json" or (form == "auto" and not out.isatty())) if json is None else json
    render = _json_line if as_json else _text_line
    log: Log = structlog.wrap_logger(
        _Lines(out),
        processors=[partial(_finish, _with_priority(render) if _is_journal(out) else render)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    # Bound even to nothing: until then it is a proxy, which makes the logger anew for each session.
    return log.bind(house=house) if house else log.bind()


def _is_journal(out: TextIO) -> bool:
    """Whether the stream leads into systemd's journal (`$JOURNAL_STREAM`, systemd.exec(5))."""
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _with_priority(render: Callable[[EventDict], str]) -> Callable[[EventDict], str]:
    """The level in front of the line, which the journal takes off again (sd-daemon(3)): for `journalctl -p`."""

    def line(event: EventDict) -> str:
        return f"<{_PRIORITIES.get(event['level'], 6)}>{render(event)}"

    return line


class _Lines:
    """Writes lines to a stream, and cannot fail: a full disk or a closed terminal must not end a session."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """Write a line and flush, or lose it."""
        with self._lock:
            try:
                self._out.write(line + "\n")
                self._out.flush()
            except (OSError, ValueError):
                pass

    debug = info = warning = error = critical = exception = msg


def _finish(render: Callable[[EventDict], str], logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Time, level, and every value short, with nothing under a name that tells a secret.

    One step instead of structlog's five, since a message writes two lines: they took a tenth of its time.
    """
    if "exc_info" in event:
        event = dict(structlog.processors.format_exc_info(logger, method, event))
    event["level"] = "error" if method == "exception" else method
    event["timestamp"] = _timestamp(time.time())
    return render(event)


def _timestamp(now: float) -> str:
    """ISO 8601 with microseconds, in UTC."""
    seconds = int(now)
    return f"{_second(seconds)}.{int((now - seconds) * 1_000_000):06d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=512)
def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in _SECRET_WORDS)


def _bounded_value(key: str, value: object) -> object:
    if _is_secret(key):
        return "(secret)"
    if type(value) in _NUMBERS:
        return value
    text = value if isinstance(value, str) else str(value)
    limit = TRACE_CHARACTERS if key == "exception" else VALUE_CHARACTERS
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def _json_line(event: EventDict) -> str:
    # Most values are short texts under harmless names: those go without a call, and quoting alone is a third of what
    # an encoder does.
    parts = [
        _json_name(key) + _quoted(value)
        if type(value) is str and len(value) <= VALUE_CHARACTERS and not _is_secret(key)
        else _json_name(key) + _json_value(_bounded_value(key, value))
        for key, value in event.items()
    ]
    return "{" + ", ".join(parts) + "}"


@lru_cache(maxsize=512)
def _json_name(key: str) -> str:
    return f"{_quoted(key)}: "


def _json_value(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(value)
    return json.dumps(value)


def _text_line(event: EventDict) -> str:
    """One line whatever the values hold; only a traceback has more, each of them indented."""
    event = {key: _bounded_value(key, value) for key, value in event.items()}
    head = [event.pop("timestamp"), event.pop("level"), _escaped(str(event.pop("event")))]
    trace = event.pop("exception", None)
    pairs = [f"{_escaped(key)}={_shown(value)}" for key, value in event.items()]
    line = " ".join([*(str(part) for part in head), *pairs])
    if not trace:
        return line
    # Its last lines are the text of the exception, which may hold anything.
    return line + "".join(f"\n    {_escaped(part)}" for part in str(trace).split("\n"))


def _escaped(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _shown(value: object) -> str:
    text = str(value)
    if text.isascii() and text.isprintable() and " " not in text and '"' not in text and text:
        return text
    return ascii(text)
