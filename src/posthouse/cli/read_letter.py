"""One message on a terminal: who, when, what about, its text, its attachments. Nothing in it can steer the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from posthouse.cli.read_list import Line
from posthouse.mail.encoded_words import text_of
from posthouse.mail.indexed import Listed
from posthouse.mail.mime import Message
from posthouse.mail.readable import Attached, attachments, harmless, source_of, text, text_parts
from posthouse.mail.words import cut, size, visible

WIDEST = 100
_SHOWN = (
    ("from", "From"),
    ("to", "To"),
    ("cc", "Cc"),
    ("bcc", "Bcc"),
    ("reply-to", "Reply to"),
    ("subject", "Subject"),
)
_MOST_SHOWN = 1500


def shown(
    message: Message, letter: Listed, *, name: str, state: str, others: Sequence[Line], width: int | None
) -> Iterator[str]:
    """The lines of a message. `others`: of its conversation."""
    values = {known: ", ".join(text_of(value) for value in message.all(known)) for known, _ in _SHOWN}
    if values["reply-to"] == values["from"]:
        values["reply-to"] = ""
    for known, title in _SHOWN:
        if value := values[known]:
            yield from _wrapped(f"{title + ':':<10}", cut(visible(value), _MOST_SHOWN), width)
    yield f"{'Date:':<10}{_written(letter.date)}"
    yield f"{'Folder:':<10}{visible(letter.folder)}{f' ({state})' if state else ''}"
    files = attachments(message)
    yield ""
    found = text(message)
    for line in harmless(found.text):
        yield from _body_line(line, width)
    if not found.text.strip():
        yield "(no text)"
    if found.is_cut:
        yield ""
        yield f"(This is not all of it; the whole message: posthouse read {name} --raw)"
    if files:
        yield ""
        yield "Attachments:"
        for each in files:
            yield _attachment(each)
        yield f"To save them: posthouse read {name} --save FOLDER"
    if others:
        yield ""
        yield f"Others of this conversation ({len(others)}): posthouse read {name} --conversations"


def header_lines(message: Message, width: int | None) -> Iterator[str]:
    """All fields, decoded, in order."""
    for known, value in message.fields:
        for number, line in enumerate(harmless(text_of(value))):
            yield from _wrapped("" if number else f"{known.title()}: ", line, width)


def html_source(message: Message) -> Iterator[str]:
    """The HTML as it was written, harmless."""
    for part in message.parts:
        if part.media_type == "text/html" and part.beginning:
            yield from harmless(source_of(part))


def json_of(message: Message, row: dict[str, Any]) -> dict[str, Any]:
    found = text(message)
    return {
        **row,
        "message_id": message.text("message-id") or None,
        "text": found.text,
        "html": any(part.media_type == "text/html" for part in text_parts(message)),
        "cut": found.is_cut,
        "files": [
            {
                "number": each.number,
                "name": each.file_name,
                "media_type": each.part.media_type,
                "size_octets": each.octets,
            }
            for each in attachments(message)
        ],
    }


def page(lines: Iterable[str]) -> None:
    """To standard output; on a terminal through a pager where there are more lines than it has."""
    if not sys.stdout.isatty():
        for line in lines:
            print(line)
        return
    told = list(lines)
    height = shutil.get_terminal_size().lines
    command = shlex.split(os.environ.get("PAGER") or "less -FX")
    if len(told) < height or not command or shutil.which(command[0]) is None:
        print("\n".join(told))
        return
    # It may start nothing and write nothing: what it shows came from somewhere else.
    environment = {**os.environ, "LESSSECURE": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as pager:
        try:
            pager.communicate("\n".join([*told, ""]).encode("utf-8", "replace"))
        except (BrokenPipeError, KeyboardInterrupt):
            pager.kill()


def terminal_width() -> int | None:
    return min(shutil.get_terminal_size().columns, WIDEST) if sys.stdout.isatty() else None


def _attachment(each: Attached) -> str:
    about = f"{cut(visible(each.part.media_type), 60)}, {size(each.octets)}"
    return f"  {each.number:>3}  {visible(each.file_name)} ({about})"


def _written(at: float) -> str:
    return time.strftime("%A, %Y-%m-%d %H:%M", time.localtime(at))


def _body_line(line: str, width: int | None) -> Iterator[str]:
    if width is None or len(line) <= width:
        yield line
        return
    # What is quoted stays so on each line.
    rest = line.lstrip("> ")
    marks = line[: len(line) - len(rest)][: width // 2]
    yield from textwrap.wrap(
        rest, width, initial_indent=marks, subsequent_indent=marks, break_on_hyphens=False, break_long_words=False
    )


def _wrapped(before: str, value: str, width: int | None) -> Iterator[str]:
    if width is None:
        yield before + value
        return
    indent = " " * min(len(before), 10)
    yield from textwrap.wrap(value, width, initial_indent=before, subsequent_indent=indent, break_on_hyphens=False) or [
        before.rstrip()
    ]
