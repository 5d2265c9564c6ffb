"""Replies in plain words: enhanced code first, then basic code, then first digit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.explain import Side, explain, meaning, reply_from_text, trusted_enhanced
from posthouse.mail.reply import EnhancedCode, Reply, reply


@pytest.mark.parametrize(
    ("code", "enhanced", "word", "side"),
    [
        (550, "5.1.1", "no mailbox of that name", Side.ADDRESS),
        (550, "5.1.2", "does not exist", Side.ADDRESS),
        (501, "5.1.3", "not written as", Side.ADDRESS),
        (556, "5.1.10", "null MX", Side.ADDRESS),
        (550, "5.2.1", "disabled", Side.RECIPIENT),
        (552, "5.2.2", "full", Side.RECIPIENT),
        (452, "4.2.2", "full", Side.RECIPIENT),
        (552, "5.3.4", "larger", Side.SENDER),
        (452, "4.3.1", "no room", Side.RECIPIENT),
        (453, "4.3.2", "no mail at the moment", Side.RECIPIENT),
        (451, "4.4.1", "does not answer", Side.NETWORK),
        (421, "4.4.2", "broke off", Side.NETWORK),
        (451, "4.4.7", "time allowed", Side.NETWORK),
        (550, "5.4.4", "No server", Side.ADDRESS),
        (554, "5.4.6", "circles", Side.RECIPIENT),
        (500, "5.5.2", "could not read", Side.OURS),
        (452, "4.5.3", "recipients", Side.SENDER),
        (554, "5.6.3", "beyond ASCII", Side.RECIPIENT),
        (550, "5.6.7", "beyond ASCII", Side.RECIPIENT),
        (554, "5.6.11", "bare line end", Side.SENDER),
        (550, "5.7.0", "policy", Side.RECIPIENT),
        (550, "5.7.1", "rules", Side.RECIPIENT),
        (450, "4.7.1", "does not know the sender yet", Side.RECIPIENT),
        (535, "5.7.8", "our login", Side.OURS),
        (534, "5.7.9", "too weak", Side.OURS),
        *((550, f"5.7.{n}", "DKIM", Side.SENDER) for n in (20, 21, 22)),
        (550, "5.7.23", "SPF", Side.SENDER),
        (550, "5.7.24", "SPF", Side.SENDER),
        (550, "5.7.25", "reverse DNS", Side.OURS),
        (550, "5.7.26", "origin", Side.SENDER),
        (550, "5.7.27", "null MX", Side.SENDER),
        (450, "4.2.0", "does not know the sender yet", Side.RECIPIENT),
        (450, "4.7.0", "later", Side.RECIPIENT),
        (421, "4.7.28", "Too much mail", Side.SENDER),
        (450, "4.7.500", "Too much mail", Side.SENDER),
        (550, "5.4.1", "nobody has this address", Side.ADDRESS),
        (550, "5.1.351", "cannot find the mailbox", Side.ADDRESS),
        (550, "5.4.310", "does not exist", Side.ADDRESS),
        (550, "5.7.133", "chosen senders", Side.RECIPIENT),
        (550, "5.7.509", "did not prove", Side.SENDER),
        (550, "5.7.511", "blocks the host", Side.OURS),
        (550, "5.7.515", "did not prove", Side.SENDER),
        (550, "5.7.606", "blocks the host", Side.OURS),
        (550, "5.7.999", "policy", Side.RECIPIENT),
        (530, None, "login or an encrypted connection", Side.OURS),
        (550, "5.99.1", "refuses the mailbox", Side.RECIPIENT),
        (550, None, "refuses the mailbox", Side.RECIPIENT),
        (421, None, "busy", Side.RECIPIENT),
        (571, None, "for good", Side.UNKNOWN),
        (471, None, "cannot do it now", Side.UNKNOWN),
        (250, "2.0.0", "did what was asked", Side.RECIPIENT),
        (999, None, "none", Side.UNKNOWN),
    ],
)
def test_a_reply_in_words(code: int, enhanced: str | None, word: str, side: Side) -> None:
    explained = explain(reply(code, enhanced, "peer's words"))
    assert word in explained.sentence
    assert explained.side == side


# Subjects and the details of each that the registry of RFC 5248 lists; those of class 2 alone have no sentence here.
REGISTERED = {1: range(11), 2: range(5), 3: range(7), 4: range(8), 5: range(7), 6: range(12), 7: range(31)}


def test_every_registered_code_has_a_sentence_of_its_own() -> None:
    """Those of one subject differ: nothing fell back to the sentence of a whole subject (6.9: 6.8 by another name)."""
    for subject, details in REGISTERED.items():
        general = explain(reply(550, f"5.{subject}.0", "")).sentence
        for detail in details[1:]:
            assert explain(reply(550, f"5.{subject}.{detail}", "")).sentence != general, (subject, detail)


@pytest.mark.conformance("C174")
@pytest.mark.parametrize("lie", ["2.0.0", "4.1.1", "5.1.99999", "9.1.1"])
def test_an_enhanced_code_that_cannot_be_is_not_believed(lie: str) -> None:
    klass, subject, detail = map(int, lie.split("."))
    told = Reply(550, EnhancedCode(klass, subject, detail), "x")
    assert trusted_enhanced(told) is None
    assert explain(told) == explain(Reply(550))


def test_what_is_tried_again_says_so_unless_it_is_final() -> None:
    full = reply(452, "4.2.2", "full")
    assert explain(full).advice.startswith("Nothing yet")
    assert not explain(full, final=True).advice.startswith("Nothing yet")


@given(st.integers(0, 999), st.tuples(*[st.integers(0, 999)] * 3) | st.none(), st.text(), st.booleans())
def test_every_reply_has_an_explanation_free_of_the_peers_words(
    code: int, enhanced: tuple[int, int, int] | None, text: str, final: bool
) -> None:
    explained = explain(Reply(code, EnhancedCode(*enhanced) if enhanced else None, text), final=final)
    assert explained == explain(Reply(code, EnhancedCode(*enhanced) if enhanced else None), final=final)
    for sentence in (explained.sentence, explained.advice):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert sentence.isascii()
        assert sentence.isprintable()


def test_meanings_are_a_few_words() -> None:
    assert meaning(250) == "OK, done"
    assert meaning(354) == "send the message, end with a dot"
    assert meaning(499) == "not now, try again later"
    assert meaning(0) == meaning(999) == ""
    assert all(len(meaning(code).split()) <= 8 for code in range(1000))


@given(st.integers(200, 599), st.tuples(st.integers(2, 5), *[st.integers(0, 999)] * 2) | st.none(), st.text("ab 1.\n"))
def test_a_stored_reply_is_read_back(code: int, enhanced: tuple[int, int, int] | None, text: str) -> None:
    stored = Reply(code, EnhancedCode(*enhanced) if enhanced else None, text)
    again = reply_from_text(str(stored))
    assert again is not None
    assert str(again) == str(stored)
    assert again.code == code
    assert enhanced is None or again.enhanced == stored.enhanced


@pytest.mark.parametrize("text", ["", "hello", "25", "2500 x", "999 x", "250x"])
def test_what_is_no_reply_is_none(text: str) -> None:
    assert reply_from_text(text) is None
