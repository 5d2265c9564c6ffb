"""Replies of SMTP: a code, an enhanced status code, a text (RFC 5321 §4.2, RFC 2034, RFC 3463)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnhancedCode:
    """`class.subject.detail` of RFC 3463 §2."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answers. `text` may hold several lines, separated by a line feed."""

    code: int
    enhanced: EnhancedCode | None = None
    text: str = ""

    @property
    def is_positive(self) -> bool:
        """2yz: the command was carried out."""
        return 200 <= self.code < 300

    @property
    def is_transient(self) -> bool:
        """4yz: try again later."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5yz: do not try again."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        parts = [str(self.code), str(self.enhanced) if self.enhanced else "", self.text.replace("\n", " ")]
        return " ".join(part for part in parts if part)

    def __repr__(self) -> str:
        return f"Reply({self})"


def reply(code: int, enhanced: str | None, text: str) -> Reply:
    """Short form for the tables of replies: `reply(250, "2.1.5", "Recipient OK")`."""
    return Reply(code, EnhancedCode(*map(int, enhanced.split("."))) if enhanced else None, text)
