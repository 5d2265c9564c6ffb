"""HTML mail as text that a person reads: no scripts, no styles, nothing fetched; where links lead is listed at the end.

One pass without going back: what is never closed reaches to the end. No parser's tree, no recursion.
"""

from __future__ import annotations

import html
import re
from typing import Final

MAX_CHARACTERS = 400_000
"""Of the source; of a mail that is longer, the beginning is read."""
MAX_LINKS = 300
MAX_LINK = 2000
MAX_QUOTED = 20

_SKIPPED: Final = frozenset({"script", "style", "title", "template", "noscript", "iframe", "object", "svg", "head"})
_PARAGRAPHS: Final = frozenset(
    {"p", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "ul", "ol", "table", "dl"}
)
_BLOCKS: Final = _PARAGRAPHS | {
    *("address", "article", "aside", "body", "br", "center", "dd", "div", "dt", "fieldset", "figure", "footer", "form"),
    *("header", "hr", "html", "li", "main", "nav", "section", "tbody", "tfoot", "thead", "tr"),
}
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:\-]{0,30})")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}(?![0-9])|#[xX][0-9a-fA-F]{1,6}(?![0-9a-fA-F])|[A-Za-z][A-Za-z0-9]{1,31});?")
_ATTRIBUTE = re.compile(r"""[\s/]*([^\s=>/"']{1,60})?(?:\s*=\s*)?""")
_BARE = re.compile(r"[^> \t\r\n\f]*")
_SPACES = re.compile(r"[ \t\r\n\f]+")
_SAFE_LINK = re.compile(r"(?:https?|ftp|mailto|tel|sip|xmpp):", re.IGNORECASE)
# They are no characters of their own: senders hide words with them, and fill their previews.
_ZERO_WIDTH = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200d\u2060-\u2064\ufeff]")


def text_of_html(source: str) -> str:
    """The readable text, lines ended by LF. It may hold controls: make it harmless before it is shown."""
    return _Reader(source[:MAX_CHARACTERS]).read()


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._folded = source.translate(_ASCII_LOWER)
        self._last_head = self._folded.rfind("</head")
        self._at = 0
        self._lines: list[str] = []
        self._line: list[str] = []
        self._quoted = 0
        self._pre = 0
        self._links: list[str] = []
        self._numbers: dict[str, int] = {}
        self._link = ""
        self._link_text: list[str] = []

    def read(self) -> str:
        source = self._source
        while self._at < len(source):
            opened = _MARKUP.search(source, self._at)
            if opened is None:
                self._say(source[self._at :])
                break
            self._say(source[self._at : opened.start()])
            self._at = opened.start()
            self._markup()
        self._end_link()
        self._end_line()
        text = "\n".join(self._lines).strip("\n")
        links = "\n".join(f"[{number}] {link}" for number, link in enumerate(self._links, 1))
        return f"{text}\n\n{links}" if links and text else text or links

    def _markup(self) -> None:
        """What begins with `<` at `_at`; what follows is text again."""
        if self._source.startswith("<!--", self._at):
            self._pass("-->", 4)
        elif tag := _TAG.match(self._source, self._at):
            name = tag[2].lower()
            self._at = tag.end()
            attributes = self._attributes()
            if tag[1]:
                self._closed(name)
            else:
                self._opened(name, attributes)
        else:
            self._pass(">", 2)

    def _pass(self, end: str, length: int) -> None:
        found = self._folded.find(end, self._at + length)
        self._at = len(self._source) if found < 0 else found + len(end)

    def _attributes(self) -> dict[str, str]:
        """Those of the tag whose name ends at `_at`, which is behind the tag then."""
        found: dict[str, str] = {}
        source = self._source
        while self._at < len(source):
            if source[self._at] == ">":
                self._at += 1
                return found
            attribute = _ATTRIBUTE.match(source, self._at)
            assert attribute is not None
            name, self._at = (attribute[1] or "").lower(), max(attribute.end(), self._at)
            value = self._value() if attribute[0].rstrip().endswith("=") else ""
            if not attribute[0] and not value:
                self._at += source[self._at : self._at + 1] != ">"
            if name in ("href", "alt"):
                found.setdefault(name, value)
        return found

    def _value(self) -> str:
        source, at = self._source, self._at
        quote = source[at : at + 1]
        if quote in ('"', "'"):
            end = source.find(quote, at + 1)
            if end >= 0:
                self._at = end + 1
                return _entities(source[at + 1 : min(end, at + 1 + MAX_LINK)])
            # (It is the last of its kind: none is looked for in vain a second time.)
        bare = _BARE.match(source, at)
        self._at = bare.end() if bare else at
        return _entities(source[at : min(self._at, at + MAX_LINK)]).strip("\"'")

    def _opened(self, name: str, attributes: dict[str, str]) -> None:
        if name in _SKIPPED:
            # (A head that is not closed is not all of the message.)
            if name == "head" and self._at > self._last_head:
                return
            self._pass(f"</{name}", 0)
            self._pass(">", 0)
        elif name in _BLOCKS:
            self._end_line(paragraph=name in _PARAGRAPHS)
            if name == "li":
                self._line.append("* ")
            elif name == "hr":
                self._line.append("-" * 20)
                self._end_line()
            elif name == "pre":
                self._pre += 1
            elif name == "blockquote":
                self._quoted = min(self._quoted + 1, MAX_QUOTED)
        elif name in ("td", "th"):
            self._say(" ")
        elif name == "img":
            if alt := " ".join(attributes.get("alt", "").split()):
                self._say(f"[{alt}]", is_text=False)
        elif name == "a":
            self._end_link()
            self._link = attributes.get("href", "").strip()

    def _closed(self, name: str) -> None:
        if name == "a":
            self._end_link()
        elif name in _BLOCKS and name != "br":
            self._end_line(paragraph=name in _PARAGRAPHS)
            if name == "pre":
                self._pre = max(0, self._pre - 1)
            elif name == "blockquote":
                self._quoted = max(0, self._quoted - 1)

    def _end_link(self) -> None:
        link, text = self._link, " ".join("".join(self._link_text).split())
        self._link, self._link_text = "", []
        if not _SAFE_LINK.match(link):
            return
        shown = "".join(link.split())
        if shown.lower().removeprefix("mailto:") == text.lower() or shown.rstrip("/") == text.rstrip("/"):
            return
        if shown not in self._numbers:
            if len(self._links) >= MAX_LINKS:
                return
            self._links.append(shown)
            self._numbers[shown] = len(self._links)
        self._line.append(f"[{self._numbers[shown]}]")

    def _say(self, text: str, *, is_text: bool = True) -> None:
        if not text:
            return
        said = _ZERO_WIDTH.sub("", _entities(text)) if is_text else text
        if self._link:
            self._link_text.append(said)
        if not self._pre:
            self._line.append(_SPACES.sub(" ", said))
            return
        first, *others = said.replace("\r\n", "\n").split("\n")
        self._line.append(first)
        for other in others:
            self._end_line(keep=True)
            self._line.append(other)

    def _end_line(self, *, paragraph: bool = False, keep: bool = False) -> None:
        line = "".join(self._line)
        self._line = []
        if not keep and not self._pre:
            line = re.sub(" {2,}", " ", line).strip(" ")
        marks = "> " * self._quoted
        if line.strip() or keep:
            self._lines.append(f"{marks}{line}".rstrip())
        if paragraph and self._lines and self._lines[-1].strip("> "):
            self._lines.append(marks.rstrip())


def _entities(text: str) -> str:
    """Character references read; numbers that are none stay (`html.unescape` alone would count long ones)."""
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text


_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
