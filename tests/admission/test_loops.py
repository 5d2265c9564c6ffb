"""What an alias led away is known when it comes back."""

from __future__ import annotations

import pytest

from posthouse.admission import replies
from posthouse.admission.loops import came_back
from posthouse.mail.address import parse_address
from posthouse.mail.content import MAX_DELIVERED_TO, ContentFacts, ContentScanner, SealedContent
from tests.admission.test_rewriting import AWAY, CONTENT, House

INSIDE = "inside@here.test"


def facts_of(content: bytes) -> ContentFacts:
    scanner = ContentScanner()
    scanner.feed(content)
    return scanner.facts()


@pytest.mark.conformance("C295")
@pytest.mark.parametrize(
    ("alias", "value", "expected"),
    [
        ("away@here.test", "away@here.test", True),
        ("AWAY@here.test", "Away@HERE.test", True),
        ("away+b@here.test", "away+a+b@here.test", True),
        ('"away"@here.test', "away@here.test", True),
        ("+a@here.test", "+b@here.test", False),
        ("away@here.test", "away@there.test", False),
        ("away@here.test", "away", False),
        ("away@here.test", "", False),
        ("away@here.test", "x <away@here.test>", False),
    ],
)
def test_an_alias_knows_its_name(alias: str, value: str, expected: bool) -> None:
    assert came_back(parse_address(alias), ["other@far.test", value]) is expected


def test_the_field_is_read_wherever_it_stands_in_the_header() -> None:
    content = (
        b"delivered-to:Away@here.test \r\nSubject: x\r\nDelivered-To : b@c.test\r\n\r\nDelivered-To: no@x.test\r\n"
    )
    assert facts_of(content).delivered_to == ("away@here.test", "b@c.test")
    assert len(facts_of(b"Delivered-To: x\r\n" * 1000).delivered_to) == MAX_DELIVERED_TO


@pytest.mark.conformance("C295")
@pytest.mark.parametrize(
    ("recipients", "login", "refused"),
    [
        ((AWAY,), "", True),
        (("both@here.test",), "", False),
        ((AWAY, INSIDE), "", False),
        ((INSIDE,), "", False),
        ((AWAY,), "ada@here.test", False),
    ],
)
async def test_mail_is_refused_that_only_goes_in_circles(
    recipients: tuple[str, ...], login: str, refused: bool
) -> None:
    """Those here have it from before; whoever logs in may send an old message on again."""
    house = House()
    first = await house.accept("carol@far.test", AWAY)
    assert b"\r\nDelivered-To: away@here.test\r\n" in first.prefix
    again = SealedContent(handle="h", size_octets=9, sha256=b"", facts=facts_of(first.prefix + b"\r\n"))
    transaction = house.transaction("carol@far.test", login=login)
    for recipient in recipients:
        assert (await house.admission.add_recipient(transaction, parse_address(recipient))).is_positive
    answer = await house.admission.judge_content(transaction, again)
    assert answer is (replies.IN_A_CIRCLE if refused else None)
    assert await house.admission.judge_content(transaction, CONTENT) is None


async def test_nobody_learns_of_an_alias_who_was_named_beside_it() -> None:
    house = House()
    for recipients in ((AWAY, "both@here.test"), (INSIDE,), ("ada@here.test",)):
        assert b"Delivered-To" not in (await house.accept("carol@far.test", *recipients)).prefix
