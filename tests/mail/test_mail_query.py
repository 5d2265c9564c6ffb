"""What people type when they look for mail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.mail_query import MailQuery, QueryError, Words, parse_query
from posthouse.storage.sqlite.mail_search import match_of

DAY_S = 86_400.0


def test_everything_at_once() -> None:
    found = parse_query('from:Bob invoice "exact words" pre* -not has:attachment in:SENT is:unread after:1970-01-02')
    assert found == MailQuery(
        words=(
            Words(text="Bob", column="sender"),
            Words(text="invoice"),
            Words(text="exact words"),
            Words(text="pre", is_prefix=True),
            Words(text="not", is_not=True),
        ),
        folder="Sent",
        attached=True,
        seen=False,
        since=2 * DAY_S,
    )


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", MailQuery()),
        ("  ", MailQuery()),
        ('""', MailQuery()),
        ("*", MailQuery()),
        ('in:"my folder"', MailQuery(folder="my folder")),
        ("-is:unread -has:attachment", MailQuery(seen=True, attached=False)),
        ("is:flagged is:answered", MailQuery(flagged=True, answered=True)),
        ("on:1970-01-02", MailQuery(since=DAY_S, before=2 * DAY_S)),
        ("since:1970-01-02 before:1970-02", MailQuery(since=DAY_S, before=31 * DAY_S)),
        ("after:1970", MailQuery(since=365 * DAY_S)),
        ("https://x.test/a", MailQuery(words=(Words(text="https://x.test/a"),))),
        ('subject:"a b"', MailQuery(words=(Words(text="a b", column="subject"),))),
        ('"not closed', MailQuery(words=(Words(text="not closed"),))),
        ('"phrase of"*', MailQuery(words=(Words(text="phrase of", is_prefix=True),))),
    ],
)
def test_queries(text: str, query: MailQuery) -> None:
    assert parse_query(text) == query


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size:9", "size: is not known"),
        ("is:nice", "is:nice is not known"),
        ("has:unicorns", "has:unicorns is not known"),
        ("before:tomorrow", "'tomorrow' is not a day such as"),
        ("before:2026-02-31", "'2026-02-31' is not a day that there is"),
        ("before:9999", "is not a day that there is"),
        ("before:0000", "is not a day that there is"),
        ("-in:sent", "-in: is not known"),
        ("-before:2026", "-before: is not known"),
        ("is:read is:unread", "contradicts"),
        ("in:sent in:trash", "contradicts"),
        ("a " * 40, "more than 32 words"),
        ("a" * 1001, "longer than 1000"),
    ],
)
def test_what_is_not_understood_is_said(text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        parse_query(text)


@given(st.text(max_size=100))
def test_anything_is_a_query_or_an_error(text: str) -> None:
    try:
        query = parse_query(text)
    except QueryError:
        return
    assert query.has_words == any(not words.is_not for words in query.words)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a", '"a"'),
        ("a b", '"a" AND "b"'),
        ("from:a b*", '{sender} : "a" AND "b" *'),
        ("a -b -c", '("a") NOT ("b" OR "c")'),
        ("NEAR OR", '"NEAR" AND "OR"'),
    ],
)
def test_no_word_is_an_operator(text: str, match: str) -> None:
    assert match_of(parse_query(text).words) == match


def test_quotes_in_words_stay_in_them() -> None:
    assert match_of([Words(text='a"b')]) == '"a""b"'
