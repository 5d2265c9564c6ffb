"""Letters written in the user's own editor: a few lines for whom and what about, an empty line, the text."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from posthouse.cli.common import Problem
from posthouse.mail.address import Address, AddressError
from posthouse.mail.letter import quoted_name
from posthouse.mail.mailboxes import Mailbox, parse_named_mailboxes
from posthouse.mail.words import visible

_EDITORS = ("editor", "nano", "vi")
_HEADINGS = ("To", "Cc", "Bcc", "Subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a person said of a letter."""

    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    subject: str = ""
    text: str = ""


def edit(written: Written, author: Address) -> Written:
    """Let the user finish it. What cannot be understood stays in a file that is named. Raises Problem."""
    before = _spelled(written)
    descriptor, name = tempfile.mkstemp(prefix="posthouse-letter-", suffix=".txt")
    path = Path(name)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(before)
    print(f"Writing as {visible(str(author))}; save and leave the editor to send, save nothing to stop.")
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "") or [_first_editor()]
    try:
        status = subprocess.run([*command, name], check=False).returncode
    except OSError as exc:
        path.unlink()
        raise Problem(
            f"the editor {command[0]} cannot be started: {exc.strerror}; set $EDITOR, or give -m TEXT"
        ) from exc
    if status:
        raise Problem(f"the editor ended with {status}, so nothing was sent; the letter is in {path}")
    try:
        after = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise Problem(f"{path} is not text in UTF-8, so nothing was sent") from exc
    if after == before:
        path.unlink()
        raise Problem("nothing was written, so nothing was sent")
    try:
        understood = parse(after)
    except ValueError as exc:
        raise Problem(f"{exc}, so nothing was sent; the letter is in {path}") from exc
    path.unlink()
    return understood


def parse(text: str) -> Written:
    """What stands in an edited letter. Raises ValueError with a sentence for its writer."""
    head, _, body = text.partition("\n\n")
    said = dict.fromkeys(_HEADINGS, "")
    for line in head.splitlines():
        heading, colon, value = line.partition(":")
        name = heading.strip().title()
        if not colon or name not in said:
            raise ValueError(f"{line!r} is none of {', '.join(_HEADINGS)}; an empty line precedes the text")
        said[name] = f"{said[name]}, {value.strip()}" if said[name] else value.strip()
    return Written(
        to=_parsed(said["To"]),
        cc=_parsed(said["Cc"]),
        bcc=_parsed(said["Bcc"]),
        subject=said["Subject"],
        text=body,
    )


def _parsed(value: str) -> tuple[Mailbox, ...]:
    try:
        return parse_named_mailboxes(value)
    except AddressError as exc:
        raise ValueError(f"{value!r} is not a list of addresses ({exc})") from exc


def _spelled(written: Written) -> str:
    lines = [
        f"To: {_listed(written.to)}",
        f"Cc: {_listed(written.cc)}",
        f"Bcc: {_listed(written.bcc)}",
        f"Subject: {' '.join(written.subject.split())}",
    ]
    return "\n".join(lines) + f"\n\n{written.text}"


def _listed(mailboxes: Iterable[Mailbox]) -> str:
    return ", ".join(
        f"{quoted_name(mailbox.name)} <{mailbox.address}>" if mailbox.name else str(mailbox.address)
        for mailbox in mailboxes
    )


def _first_editor() -> str:
    import shutil

    return next((name for name in _EDITORS if shutil.which(name)), _EDITORS[-1])
