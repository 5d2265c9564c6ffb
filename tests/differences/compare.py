"""The same dialogue with two servers: where they part, and whether a line of the table explains it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.differences.intended import POP3, SMTP, Intended
from tests.differences.talk import GONE, SILENT, Answer, Dialogue, Talk, Turn

NOTHING = frozenset({GONE, SILENT})
CONTENT = b"\r\n.\r\n"


@dataclass(slots=True)
class Compared:
    """`explained` are lines of the table that were used; `unexplained` says what no line explains.

    `whole`: both went all the way, so what they hold now must be the same.
    """

    dialogue: Dialogue
    explained: list[Intended] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    whole: bool = False
    accepted: set[str] = field(default_factory=set)
    """Tokens of the messages that both took."""


def smtp(dialogue: Dialogue, our_port: int, their_port: int) -> Compared:
    compared = Compared(dialogue)
    ours, theirs = Talk(our_port), Talk(their_port)
    try:
        _turn(compared, SMTP, b"", ours.smtp_answer(), theirs.smtp_answer())
        in_data = False
        for group in dialogue.groups:
            if in_data is not group[-1].endswith(CONTENT) and (in_data or _is_content(group)):
                # Content that nobody waits for would be commands; commands in content would be content.
                if in_data:
                    break
                continue
            for talk in (ours, theirs):
                talk.say(b"".join(group))
            for unit in group:
                answers = ours.smtp_answer(), theirs.smtp_answer()
                if not _turn(compared, SMTP, unit, *answers):
                    return compared
                _note_accepted(compared, unit, in_data, answers[0])
                in_data = unit[:4].upper() == b"DATA" and answers[0].kind == "3"
    finally:
        ours.close()
        theirs.close()
    return compared


def _is_content(group: list[bytes]) -> bool:
    return group[0].startswith(b"X-Token: ")


def _note_accepted(compared: Compared, unit: bytes, in_data: bool, answer: Answer) -> None:
    last = in_data or re.match(rb"BDAT [0-9]+ LAST", unit)
    if last and answer.accepts:
        compared.accepted.add(_token(compared.dialogue))


def _token(dialogue: Dialogue) -> str:
    """The token of the message whose content was said last."""
    for turn in reversed(dialogue.turns):
        if found := re.search(rb"X-Token: (\S+)", turn.octets):
            return found[1].decode()
    return ""


def pop3(dialogue: Dialogue, our_port: int, their_port: int) -> Compared:
    compared = Compared(dialogue)
    ours, theirs = Talk(our_port), Talk(their_port)
    try:
        _turn(compared, POP3, b"", ours.pop3_answer(b""), theirs.pop3_answer(b""))
        for group in dialogue.groups:
            for talk in (ours, theirs):
                talk.say(b"".join(group))
            for unit in group:
                if not _turn(compared, POP3, unit, ours.pop3_answer(unit), theirs.pop3_answer(unit)):
                    return compared
        compared.whole = True
    finally:
        ours.close()
        theirs.close()
    return compared


def _turn(compared: Compared, table: tuple[Intended, ...], unit: bytes, ours: Answer, theirs: Answer) -> bool:
    """Note a pair of answers; False where the two servers are in different states now, or gone."""
    turn = Turn(unit, ours.kind, theirs.kind, ours.octets, theirs.octets)
    before = tuple(compared.dialogue.turns)
    compared.dialogue.turns.append(turn)
    if ours.kind == theirs.kind:
        problem = _data_problem(turn) if table is POP3 else None
        if problem is not None and not (found := _explanation(table, turn, before)):
            compared.unexplained.append(problem)
        elif problem is not None and found:
            compared.explained.append(found)
        return ours.kind not in NOTHING and problem is None
    found = _explanation(table, turn, before)
    if found is None:
        compared.unexplained.append(f"ours {ours.kind}, theirs {theirs.kind} to {unit[:120]!r}")
        return False
    compared.explained.append(found)
    return (ours.accepts == theirs.accepts or not found.parts(turn)) and not NOTHING & {ours.kind, theirs.kind}


def _explanation(table: tuple[Intended, ...], turn: Turn, before: tuple[Turn, ...]) -> Intended | None:
    return next((each for each in table if each.explains(turn, before)), None)


def _data_problem(turn: Turn) -> str | None:
    """What a client reads behind the status has to be the same: numbers, sizes, messages."""
    if turn.ours != "+" or not turn.octets:
        return None
    verb = turn.verb
    ours, theirs = (answer.split(b"\r\n") for answer in (turn.our_answer, turn.their_answer))
    if verb == "STAT":
        same = ours[0].split()[:3] == theirs[0].split()[:3]
    elif verb == "LIST":
        same = ours[1:] == theirs[1:] and (len(ours) > 2 or ours[0].split()[:3] == theirs[0].split()[:3])
    elif verb == "UIDL":
        same = [line.split()[:1] for line in ours[1:]] == [line.split()[:1] for line in theirs[1:]]
    elif verb in ("RETR", "TOP"):
        same = ours[1:] == theirs[1:]
    else:
        same = True
    return None if same else f"other data in the answers to {turn.octets[:120]!r}"
