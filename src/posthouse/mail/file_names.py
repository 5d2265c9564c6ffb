"""Names that messages give to files, as names that a folder can hold: on any system, and harmlessly."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_OCTETS = 180
"""In UTF-8: with a number added, every file system takes it."""
_MAX_ENDING = 20

_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(?:\.|\Z)", re.IGNORECASE
)
_ENDINGS: Final = {
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "message/rfc822": ".eml",
    "text/calendar": ".ics",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/plain": ".txt",
    "text/vcard": ".vcf",
}


def harmless_file_name(name: str, number: int, media_type: str = "") -> str:
    """The name without folders, controls, or what a shell or another system takes for something else.

    `number` and `media_type` name a file of which nothing is left.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name[:4000]))[-1]
    plain = "".join("_" if _is_forbidden(character) else character for character in last)
    plain = " ".join(plain.split()).lstrip(".-~ ").rstrip(". ")
    if not plain.strip("_"):
        return f"attachment-{number}{_ENDINGS.get(media_type, '.bin')}"
    return _short(f"_{plain}" if _RESERVED.match(plain) else plain)


def numbered(name: str, number: int) -> str:
    """`report (2).pdf`: another name for the same."""
    stem, ending = _split(name)
    return f"{stem} ({number}){ending}"


def _is_forbidden(character: str) -> bool:
    if character in '<>:"|?*`$' or character == "\ufffd":
        return True
    return not character.isprintable() and unicodedata.category(character) != "Zs"


def _split(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending) > _MAX_ENDING or not ending.isalnum():
        return name, ""
    return stem, dot + ending


def _short(name: str) -> str:
    stem, ending = _split(name)
    room = MAX_OCTETS - len(ending.encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(". ") + ending
