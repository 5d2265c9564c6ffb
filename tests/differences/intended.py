"""Where Posthouse means to answer otherwise than Postfix or Dovecot do, each with its reason: the one table.

`python -m tests.differences.document` writes it into docs/differences.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.differences.talk import Turn

Before = tuple[Turn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """One difference. `pattern` matches what was said; `ours` and `theirs` are the classes of the answers.

    Several may stand in one. `when` asks more, of this turn and of those before it.
    """

    what: str
    pattern: bytes
    ours: str
    theirs: str
    reason: str
    when: Callable[[Turn, Before], bool] | None = None
    harmless: bytes | None = None
    """Of which commands both are in the same state all the same, so that the dialogue may go on."""

    def parts(self, turn: Turn) -> bool:
        """Whether the two servers are in different states after this."""
        return self.harmless is None or re.match(self.harmless, turn.octets, re.IGNORECASE | re.DOTALL) is None

    def explains(self, turn: Turn, before: Before) -> bool:
        return (
            turn.ours in self.ours
            and turn.theirs in self.theirs
            and re.match(self.pattern, turn.octets, re.IGNORECASE | re.DOTALL) is not None
            and (self.when is None or self.when(turn, before))
        )


def _after_helo(_turn: Turn, before: Before) -> bool:
    hellos = [turn.verb for turn in before if turn.verb in ("EHLO", "HELO") and turn.ours == "2"]
    return hellos[-1:] == ["HELO"]


def _they_said(*words: bytes) -> Callable[[Turn, Before], bool]:
    """Now, or the last time."""
    return lambda turn, before: any(word in each.their_answer for each in (*before[-1:], turn) for word in words)


def _after_too_large(_turn: Turn, before: Before) -> bool:
    return any(re.search(rb"SIZE=[0-9]{7}", turn.octets) and turn.theirs == "5" for turn in before)


SMTP: tuple[Intended, ...] = (
    Intended(
        what="White space before a command",
        pattern=rb"[ \t]",
        ours="5",
        theirs="2",
        reason="A line begins with its verb (RFC 5321 §4.1.1). Postfix skips what stands before it.",
        harmless=rb"[ \t]+NOOP",
    ),
    Intended(
        what="`QUIT` with an argument",
        pattern=rb"QUIT [^\r ]",
        ours="5",
        theirs="2",
        reason="QUIT has none (RFC 5321 §4.1.1.10), so it is refused and the session goes on.",
    ),
    Intended(
        what="`HELP`",
        pattern=rb"HELP",
        ours="2",
        theirs="5",
        reason="RFC 5321 §4.1.1.8 asks for it, and one line costs nothing.",
        harmless=rb"HELP",
    ),
    Intended(
        what="A command line of more than 512 octets",
        pattern=rb"(?!MAIL|RCPT|AUTH)[^\r\n]{511,}\r\n",
        ours="5",
        theirs="2",
        reason="RFC 5321 §4.5.3.1.4; only MAIL, RCPT and AUTH have room for more. Postfix takes 2048 for all.",
        harmless=rb"NOOP",
    ),
    Intended(
        what="Octets beyond ASCII where a command takes any text",
        pattern=rb"NOOP [^\r]*[\x80-\xff]",
        harmless=rb"NOOP",
        ours="2",
        theirs="5",
        reason="What NOOP carries means nothing, so nothing in it is refused. Postfix demands UTF-8.",
    ),
    Intended(
        what="Parameters of MAIL and RCPT after `HELO`",
        pattern=rb"(?:MAIL|RCPT)[^\r]*> [^\r]*\S",
        ours="5",
        theirs="2",
        reason="A parameter exists where EHLO offered its extension (RFC 5321 §4.1.1.11), and HELO offers none.",
        when=_after_helo,
    ),
    Intended(
        what="`AUTH=` at MAIL where no AUTH is offered",
        pattern=rb"MAIL[^\r]* AUTH=",
        ours="5",
        theirs="2",
        reason="The parameter belongs to the extension (RFC 4954 §5), which is not offered without TLS.",
    ),
    Intended(
        what="`ETRN`",
        pattern=rb"ETRN ",
        ours="5",
        theirs="4",
        reason="Not implemented here; Postfix implements it, and refuses for now.",
    ),
    Intended(
        what="`BDAT` after `HELO`",
        pattern=rb"BDAT",
        ours="5",
        theirs="2",
        reason="As above: nobody offered CHUNKING in this session (RFC 3030 §2).",
        when=_after_helo,
    ),
    Intended(
        what="The same parameter twice",
        pattern=rb"(?:MAIL|RCPT)[^\r]*? (\w+)=?[^\r]* \1[= \r]",
        ours="5",
        theirs="2",
        reason="Which of the two counts is written nowhere; two readers would differ.",
    ),
    Intended(
        what="A space between the colon and the path",
        pattern=rb"(?:MAIL FROM|RCPT TO): ",
        ours="5",
        theirs="2",
        reason="RFC 5321 §3.3 forbids it in so many words.",
    ),
    Intended(
        what="An address without its domain",
        pattern=rb"(?:MAIL FROM|RCPT TO): ?<[^@> ]+>",
        ours="5",
        theirs="2",
        reason="Only <Postmaster> may stand so (RFC 5321 §4.5.1). Postfix would add its own domain.",
    ),
    Intended(
        what="Addresses that the grammar does not have: `a@@b`, `a@b..c`, `a@b.`, `a@-b`, `.a@b`",
        pattern=rb"(?:MAIL FROM|RCPT TO): ?<"
        rb"(?:[^>]*@@|[^>]*@[^>]*\.\.|[^>]*\.>|[^>]*@-|\.|@[^:>]*>|[^\">]* [^>]*>|[^>\r]*\r)",
        ours="5",
        theirs="2",
        reason="An address in hand is a valid one (RFC 5321 §4.1.2), or it could not be passed on to stricter houses.",
    ),
    Intended(
        what="A greeting that names no host",
        pattern=rb"(?:EHLO|HELO)[ \t]+\S+[ \t]+\S",
        ours="5",
        theirs="2",
        reason="A domain holds no space (RFC 5321 §4.1.1.1), and the name stands in Received.",
    ),
    Intended(
        what="MAIL after one whose SIZE was too large",
        pattern=rb"MAIL ",
        ours="2",
        theirs="5",
        reason="Each MAIL stands for itself. Postfix 3.7 goes on counting the size that it refused.",
        when=_after_too_large,
    ),
    Intended(
        what="After 421 or 521 Postfix has left",
        pattern=rb"",
        ours="235",
        theirs="-",
        reason="It closes after a BDAT that it cannot read. Where we know how many follow, we read them and stay.",
        when=_they_said(b"521 ", b"421 "),
    ),
)
POP3: tuple[Intended, ...] = (
    Intended(
        what="An argument where a command has none",
        pattern=rb"(?:CAPA|STAT|NOOP|RSET) +\S",
        ours="E",
        theirs="+",
        reason="RFC 1939 §5 gives these commands no arguments; Dovecot does not look.",
        harmless=rb"CAPA|STAT|NOOP",
    ),
    Intended(
        what="`USER` without a name",
        pattern=rb"USER *\r\n",
        ours="E",
        theirs="+",
        reason="The name is not optional (RFC 1939 §7); the refusal comes a command earlier.",
    ),
    Intended(
        what="Two spaces before an argument",
        pattern=rb"(?:DELE|RETR|LIST|UIDL|TOP)(?: [0-9]+)?  ",
        ours="E",
        theirs="+",
        reason="Arguments are separated by a single space (RFC 1939 §3).",
        harmless=rb"RETR|LIST|UIDL|TOP",
    ),
    Intended(
        what="A space behind a message number",
        pattern=rb"(?:DELE|RETR|LIST|UIDL|TOP) [0-9 ]+ \r\n",
        ours="+",
        theirs="E",
        reason="Forgiven, as with commands that have no argument: some programs send it.",
        harmless=rb"RETR|LIST|UIDL|TOP",
    ),
    Intended(
        what="Dovecot leaves after a few bad commands",
        pattern=rb"",
        ours="+E",
        theirs="E-",
        reason="Before a login it bears with four of them. We count errors too, up to a limit that is configured.",
        when=_they_said(b"Too many"),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What Postfix does to content that we keep as it came. `as_theirs` makes of ours what they hold."""

    what: str
    reason: str
    as_theirs: Callable[[bytes], bytes]


_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")


def _with_empty_line(content: bytes) -> bytes:
    lines = content.split(b"\r\n")
    for number, line in enumerate(lines[:-1]):
        if not line:
            return content
        if not (_FIELD.match(line) or (number and line[:1] in (b" ", b"\t"))):
            return b"\r\n".join([*lines[:number], b"", *lines[number:]])
    return content


CONTENT: tuple[Rewritten, ...] = (
    Rewritten(
        what="A header section that ends without an empty line",
        reason="Content is never rewritten; Postfix puts in the empty line.",
        as_theirs=_with_empty_line,
    ),
)
