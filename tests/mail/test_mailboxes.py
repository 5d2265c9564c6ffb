"""Mailboxes of From and Sender: what RFC 5322 allows is understood, the rest is an error and never a guess."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.address import AddressError, quoted
from posthouse.mail.mailboxes import parse_mailboxes

ADA, BOB = "ada@here.test", "bob@here.test"

GOOD = {
    ADA: [ADA],
    "Ada <ada@here.test>": [ADA],
    '"Ada, the first" <ada@here.test>': [ADA],
    "<ada@here.test>": [ADA],
    " \t<ada@here.test> \r\n\t": [ADA],
    "ada@here.test, bob@here.test": [ADA, BOB],
    "ada@here.test,,bob@here.test,": [ADA, BOB],
    "ada@here.test (Ada <evil@far.test>)": [ADA],
    "(a(b(c)d)e \\) x) ada@here.test": [ADA],
    '"evil@far.test" <ada@here.test>': [ADA],
    "=?utf-8?q?evil=40far=2Etest?= <ada@here.test>": [ADA],
    "Grüße 漢字 <ada@here.test>": [ADA],
    "A.\r\n B. <ada@here.test>": [ADA],
    "ada@HERE.Test": [ADA],
    '"ada"@here.test': ['"ada"@here.test'],
    '"a da"@here.test': ['"a da"@here.test'],
    '"evil@far.test y"@here.test': ['"evil@far.test y"@here.test'],
    "ada@[192.0.2.1]": ["ada@[192.0.2.1]"],
    "us: ada@here.test, Bob <bob@here.test>;": [ADA, BOB],
    "us: ;, them: bob@here.test;": [BOB],
    "nobody:;": [],
    "": [],
    # Obsolete spellings (RFC 5322 appendix A.6).
    'Joe Q. Public <"ada" @ here . test>': ['"ada"@here.test'],
    "ada(x)@(y)here(z).(w)test": [ADA],
    'first . "se cond" . third@here.test': ['"first.se cond.third"@here.test'],
    "<@far.test,@other.test:ada@here.test>": [ADA],
    "ü@bücher.test": ["ü@xn--bcher-kva.test"],
}

BAD = [
    "ada",
    "ada@",
    "@here.test",
    "ada@here.test bob@here.test",
    "ada bob@here.test",
    "evil@far.test <ada@here.test>",
    "<ada@here.test> evil@far.test",
    "<ada@here.test> <evil@far.test>",
    "<ada@here.test",
    "ada@here.test>",
    "<<ada@here.test>>",
    "<ada@here.test, bob@here.test>",
    "ada@here.test@far.test",
    "ada@here..test",
    "ada@here.test.",
    ".ada@here.test",
    "a..da@here.test",
    '"ada@here.test',
    '"ada""x"@here.test',
    "ada@here.test (x",
    "ada@here.test x)",
    "ada@here.test; bob@here.test",
    "us: ada@here.test",
    "us: them: ada@here.test;;",
    "us: ada@here.test; bob@here.test",
    ": ada@here.test;",
    "ada\0@here.test",
    "ada@here.test\0",
    '"a\0da"@here.test',
    "ada@here.test\\",
    "ada@[192.0.2.1",
    "ada@[nonsense]",
    'ada@"here.test"',
    "ada@far.test\\@here.test",
    "\udcff@here.test",
    "a" * 65 + "@here.test",
]


@pytest.mark.conformance("C109", "S15")
@pytest.mark.parametrize("text", GOOD)
def test_what_is_written_as_it_may_be(text: str) -> None:
    assert [str(mailbox) for mailbox in parse_mailboxes(text)] == GOOD[text]


@pytest.mark.conformance("S15")
@pytest.mark.parametrize("text", BAD)
def test_what_is_not(text: str) -> None:
    with pytest.raises(AddressError):
        parse_mailboxes(text)


@given(st.text(alphabet='ab@.<>,;:()"\\ \r\n\t[]=ü\0\udc80', max_size=40))
def test_any_text_is_an_address_list_or_an_address_error(text: str) -> None:
    try:
        mailboxes = parse_mailboxes(text)
    except AddressError:
        return
    for mailbox in mailboxes:
        assert parse_mailboxes(str(mailbox)) == (mailbox,)


_LOCAL_PART = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30).map(quoted)


@given(st.lists(_LOCAL_PART, max_size=5))
def test_what_was_written_is_what_is_read(local_parts: list[str]) -> None:
    addresses = [f"{local_part}@here.test" for local_part in local_parts]
    spelled = ", ".join(f'"a \\"b\\" c" (d <e@f.g>) <{address}>' for address in addresses)
    assert [str(mailbox) for mailbox in parse_mailboxes(spelled)] == addresses


STEPS = 100_000


@pytest.mark.conformance("C288", "S14", "S15", "S40")
@pytest.mark.parametrize(
    "bomb",
    [
        "(" * STEPS,
        "(" * STEPS + ")" * STEPS,
        '"' + "\\" * STEPS,
        '"' * STEPS,
        "a" * STEPS,
        "a." * STEPS,
        "<" * STEPS,
        "a:" * STEPS,
        "," * STEPS,
        "\r\n " * STEPS,
        "[" * STEPS,
        "@a," * STEPS,
        "<@" + "a" * STEPS,
        "x " * STEPS + "<ada@here.test>",
        "(\\" * STEPS,
    ],
    ids=lambda bomb: re.sub(r"[^a-z]", "_", bomb[:6]),
)
def test_bombs_are_read_once_from_front_to_back(bomb: str) -> None:
    """Each is a hundred thousand steps for a linear reader; a quadratic one would take hours, a recursive one die."""
    try:
        parse_mailboxes(bomb)
    except AddressError:
        pass
