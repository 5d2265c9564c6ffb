"""What a person reads of a message: which of its parts are its text, which are attachments, and the text itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from posthouse.mail.charsets import decoded
from posthouse.mail.file_names import harmless_file_name
from posthouse.mail.html_text import text_of_html
from posthouse.mail.mime import Message, Part
from posthouse.mail.transfer import undone
from posthouse.mail.words import visible

_ZERO_WIDTH = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200d\u2060-\u2064\ufeff]")
MAX_LINE = 20_000


@dataclass(frozen=True, slots=True)
class Attached:
    """A file in a message. `number` counts them from 1; `part` is what to read; `file_name` is harmless."""

    number: int
    part: Part
    file_name: str

    @property
    def is_picture_of_text(self) -> bool:
        """Whether it belongs into the text, as pictures of HTML do."""
        return bool(self.part.content_id) and self.part.disposition != "attachment"

    @property
    def octets(self) -> int:
        """About how large the file is."""
        return self.part.octets * 3 // 4 if self.part.encoding == "base64" else self.part.octets


@dataclass(frozen=True, slots=True)
class Text:
    """The text of a message. `is_cut`: there is more of it than was kept."""

    text: str
    is_html: bool = False
    is_cut: bool = False


def text_parts(message: Message) -> tuple[Part, ...]:
    """The parts that are the text, in order; of alternatives one (RFC 2046 §5.1.4)."""
    return tuple(_chosen(_children(message.parts), 0))


def text(message: Message) -> Text:
    """The text as a person reads it, lines ended by LF."""
    parts = text_parts(message)
    texts = [plain_text(part) for part in parts]
    return Text(
        "\n\n".join(filter(None, (each.strip("\n") for each in texts))),
        is_html=any(part.media_type == "text/html" for part in parts),
        is_cut=message.is_cut or not all(part.is_whole for part in parts),
    )


def plain_text(part: Part) -> str:
    """A text part without markup."""
    source = source_of(part)
    return text_of_html(source) if part.media_type == "text/html" else source


def source_of(part: Part) -> str:
    """A text part as it was written, lines ended by LF."""
    octets = undone(part.beginning, part.encoding)
    return decoded(octets, part.charset).replace("\r\n", "\n").replace("\r", "\n")


def attachments(message: Message) -> tuple[Attached, ...]:
    """What can be saved: all that is neither its text nor another spelling of it."""
    children = _children(message.parts)
    spellings = {part.number for part in text_parts(message)}
    for part in message.parts:
        parent = message.parts[part.parent - 1] if part.parent else None
        is_text = part.media_type in ("text/plain", "text/html") and part.disposition != "attachment" and not part.name
        if is_text and parent is not None and parent.media_type == "multipart/alternative":
            spellings.add(part.number)
    leaves = [part for part in message.parts if part.number not in children and part.number not in spellings]
    return tuple(
        Attached(number, part, harmless_file_name(part.name, number, part.media_type))
        for number, part in enumerate((leaf for leaf in leaves if not _is_nothing(leaf)), 1)
    )


def harmless(text: str) -> Iterator[str]:
    """The lines of a foreign text as they may stand on a terminal."""
    for line in text.split("\n"):
        for at in range(0, max(len(line), 1), MAX_LINE):
            yield visible(_ZERO_WIDTH.sub("", line[at : at + MAX_LINE].expandtabs())).rstrip()


def _is_nothing(part: Part) -> bool:
    return part.media_type.startswith("text/") and not part.octets and not part.name


def _children(parts: Sequence[Part]) -> dict[int, list[Part]]:
    found: dict[int, list[Part]] = {}
    for part in parts:
        found.setdefault(part.parent, []).append(part)
    return found


def _chosen(children: dict[int, list[Part]], parent: int, *, is_alternative: bool = False) -> list[Part]:
    """The text parts below a part. (Multiparts are nested at most MAX_DEPTH deep.)"""
    below = []
    for part in children.get(parent, ()):
        if part.number in children:
            below.append(_chosen(children, part.number, is_alternative=part.media_type == "multipart/alternative"))
        else:
            below.append([part] if _is_text(part) else [])
    if not is_alternative:
        return [part for some in below for part in some]
    # Plain text first: it is what its writer saw. Where it only says that there is HTML, it is short.
    plain = [some for some in below if some and all(part.media_type == "text/plain" for part in some)]
    good = [some for some in plain if any(source_of(part).strip() for part in some)]
    others = [some for some in below if some]
    marked_up = [some for some in others if some not in plain]
    return (good or marked_up or others or [[]])[0]


def _is_text(part: Part) -> bool:
    return part.media_type in ("text/plain", "text/html", "text/enriched") and not (
        part.disposition == "attachment" or (part.name and part.media_type != "text/plain")
    )
