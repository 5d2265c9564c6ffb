"""HTML as text: what people see of it, and what they must not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.html_text import text_of_html


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>Hello <b>you</b></p><p>Second", "Hello you\n\nSecond"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul><li>one<li>two</ul>", "* one\n* two"),
        ("<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc"),
        ("<style>p{}</style>x<script>alert('<p>')</script>y", "xy"),
        ("<head><title>t</title></head><body>x", "x"),
        ("<head><meta>x", "x"),
        ("<!-- <p>hidden --> shown", "shown"),
        ("<blockquote>quoted<br>more</blockquote>answer", "> quoted\n> more\n>\nanswer"),
        ("<pre>a  b\n  c</pre>", "a  b\n  c"),
        ("&lt;&amp;&#228;&#xE4;&nbsp;&unknown;&#99999999999999;", "<&ää\xa0&unknown;&#99999999999999;"),
        ("1 < 2 <3", "1 < 2 <3"),
        ("<img src=http://track.test/x.gif alt='a cat'>", "[a cat]"),
        ("<img src=http://track.test/x.gif>", ""),
        ("a\u200b\u00adb", "ab"),
        ("<p>", ""),
        ("", ""),
    ],
)
def test_text(source: str, text: str) -> None:
    assert text_of_html(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('<a href="https://a.test/x">here</a>', "here[1]\n\n[1] https://a.test/x"),
        ("<a href=https://a.test/>https://a.test</a>", "https://a.test"),
        ("<a href='https://evil.test'>https://bank.test</a>", "https://bank.test[1]\n\n[1] https://evil.test"),
        ("<a href='mailto:a@b.test'>a@b.test</a>", "a@b.test"),
        ("<a href='javascript:x()'>x</a><a href=#top>y</a>", "xy"),
        ("<a title='>' href='http://a.test?a=1&amp;b=2'>x</a>", "x[1]\n\n[1] http://a.test?a=1&b=2"),
        ("<a href=http://a.test>x<a href=http://a.test>y", "x[1]y[1]\n\n[1] http://a.test"),
    ],
)
@pytest.mark.conformance("C276")
def test_links_say_where_they_lead(source: str, text: str) -> None:
    assert text_of_html(source) == text


TAGS = st.sampled_from(
    [
        *(
            "<p>",
            "</p>",
            "<a href=",
            "'",
            '"',
            ">",
            "<",
            "</",
            "<!--",
            "-->",
            "<script>",
            "</script",
            "<pre>",
            "&",
            "&#",
        ),
        *("9", "x", " ", "\n", "<blockquote>", "<li>", "=", "http://a.test", "<head>", "<td>", "<img alt="),
    ]
)


@given(st.lists(TAGS | st.text(max_size=5), max_size=40).map("".join))
def test_anything_is_read(source: str) -> None:
    text_of_html(source)


@given(st.lists(TAGS, max_size=20).map("".join), st.text(alphabet="xyz", min_size=1))
def test_no_script_is_shown(source: str, script: str) -> None:
    assert "SCRIPT" not in text_of_html(f"<script>SCRIPT{script}</script>{source}")


@pytest.mark.parametrize(
    "bomb",
    ["<", '<a "', "<head>", "<!--", "<a b='", "<blockquote>", "<a href=http://x>", "&#9", "<pre>\n", "<a ", "<script"],
)
def test_bombs_end(bomb: str) -> None:
    text_of_html(bomb * 50_000)
