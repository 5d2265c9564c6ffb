"""Posthouse beside Postfix and Dovecot: what is not in the table of intended differences fails with its dialogue."""

from __future__ import annotations

import pytest
from tests.differences import document, run, servers
from tests.differences.intended import POP3, SMTP, Intended
from tests.differences.pop3_dialogues import pop3_dialogue
from tests.differences.smtp_dialogues import smtp_dialogue
from tests.differences.talk import Turn

SMTP_DIALOGUES = 250
POP3_DIALOGUES = 60


def turn(line: bytes, ours: str, theirs: str) -> Turn:
    return Turn(line + b"\r\n", ours, theirs, b"", b"")


def test_the_document_is_the_table() -> None:
    assert document.PATH.read_text("utf-8") == document.page(), "run: python -m tests.differences.document"


def test_a_seed_is_a_dialogue() -> None:
    assert smtp_dialogue(7, "t").groups == smtp_dialogue(7, "t").groups != smtp_dialogue(8, "t").groups
    assert pop3_dialogue(7, "a", "b").groups == pop3_dialogue(7, "a", "b").groups != pop3_dialogue(8, "a", "b").groups


@pytest.mark.parametrize("each", SMTP + POP3, ids=lambda each: each.what)
def test_no_line_of_the_table_explains_what_is_usual(each: Intended) -> None:
    """A line that explained too much would hide what the comparison is for."""
    usual = [b"EHLO a.test", b"MAIL FROM:<a@b.test> SIZE=1 BODY=8BITMIME", b"RCPT TO:<ada@here.test> NOTIFY=NEVER"]
    usual += [b"DATA", b"BDAT 4 LAST", b"RSET", b"NOOP", b"QUIT", b"USER ada", b"PASS x", b"STAT", b"LIST", b"LIST 1"]
    usual += [b"RETR 1", b"DELE 1", b"TOP 1 0", b"UIDL", b"CAPA", b"MAIL FROM:<>", b"RCPT TO:<nobody@here.test>"]
    before = (turn(b"EHLO a.test", "2", "2"),)
    for line in usual:
        for ours, theirs in ("25", "52", "45", "54", "+E", "E+", "2-", "E-", "2…"):
            assert not each.explains(turn(line, ours, theirs), before), line


@pytest.mark.peers
@pytest.mark.long
@pytest.mark.skipif(servers.why_not() is not None, reason=str(servers.why_not()))
class TestDifferences:
    def test_postfix(self, seed: int) -> None:
        result = run.smtp(seed, SMTP_DIALOGUES)
        assert not result.problems, "\n\n".join(result.problems)[:20_000]
        assert result.turns > 5 * SMTP_DIALOGUES
        assert result.used, "not even the differences that are known were found"

    def test_dovecot(self, seed: int) -> None:
        result = run.pop3(seed, POP3_DIALOGUES)
        assert not result.problems, "\n\n".join(result.problems)[:20_000]
        assert result.turns > 5 * POP3_DIALOGUES
