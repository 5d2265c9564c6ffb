"""What answers begin with."""

from __future__ import annotations

import pytest
from tests.mail.test_mime import parse

from posthouse.mail.address import Address
from posthouse.mail.answer import Answer, answer_to

OWN = {"ada@here.test", "ada@provider.test"}


def answer(header: str, body: str = "Text\n", *, everyone: bool = False) -> Answer:
    def is_own(address: Address) -> bool:
        return address.key in OWN

    return answer_to(parse(f"{header}\n\n{body}".encode()), is_own, everyone=everyone, written="Monday")


def names(people: object) -> list[str]:
    return [f"{each.name}|{each.address}" for each in people]  # type: ignore[attr-defined]


HEADER = """\
From: =?utf-8?q?M=C3=BCller=2C_Bob?= <bob@far.test>
To: Ada <ada@provider.test>, carol@far.test
Cc: dan@far.test, BOB@far.test, ada@here.test
Subject: Re: Plan
Message-ID: <3@far.test>
References: <1@x>
 <2@x>"""


def test_an_answer_goes_to_its_author() -> None:
    begun = answer(HEADER)
    assert (names(begun.to), begun.cc) == (["Müller, Bob|bob@far.test"], ())
    assert begun.subject == "Re: Plan"
    assert begun.in_reply_to == "<3@far.test>"
    assert begun.references == ("<1@x>", "<2@x>", "<3@far.test>")
    assert [str(address) for address in begun.addressed] == ["ada@provider.test", "ada@here.test"]
    assert begun.quoted == "On Monday, Müller, Bob wrote:\n> Text\n"


def test_an_answer_to_all_goes_to_each_once_and_not_to_oneself() -> None:
    begun = answer(HEADER, everyone=True)
    assert [str(each.address) for each in begun.to] == ["bob@far.test", "carol@far.test"]
    assert [str(each.address) for each in begun.cc] == ["dan@far.test"]


def test_reply_to_is_where_answers_are_wanted() -> None:
    assert names(answer("From: bob@far.test\nReply-To: list@far.test").to) == ["|list@far.test"]


def test_an_answer_to_oneself_goes_to_whom_it_went() -> None:
    begun = answer("From: ada@here.test\nTo: bob@far.test\nCc: dan@far.test")
    assert (names(begun.to), [str(address) for address in begun.addressed]) == (["|bob@far.test"], ["ada@here.test"])
    assert names(answer("From: ada@here.test\nTo: ada@here.test").to) == ["|ada@here.test"]


@pytest.mark.parametrize(
    "header",
    [
        "From: broken <<bob@far.test>, (\nSubject: x",
        'From: "eve@evil.test <bob@far.test>',
        "From: bob@far.test\nSubject: a\x1b[2J\u202e\rBcc: eve@evil.test",
        "From: =?utf-8?q?a=0D=0ABcc:_eve@evil.test?= <bob@far.test>\nMessage-ID: <a b>\nReferences: <\x00@x> nonsense",
    ],
)
def test_nothing_of_a_foreign_header_becomes_one_of_ours(header: str) -> None:
    begun = answer(header, "\x1b]0;x\x07\n")
    assert [str(each.address) for each in begun.to] == ["bob@far.test"]
    assert all(each.name.isprintable() for each in begun.to)
    assert begun.subject.isprintable()
    assert (begun.in_reply_to, begun.references) == ("", ())
    assert begun.quoted.replace("\n", "").isprintable()


def test_quoted_lines_stay_quoted() -> None:
    assert answer("From: bob@far.test", "> old\nnew\n").quoted.splitlines()[1:3] == [">> old", "> new"]
