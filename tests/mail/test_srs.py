"""Rewritten senders: what is wrapped comes out again, for us alone and for so long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.address import MAX_LOCAL_PART_OCTETS, Address, AddressError, parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.srs import VALID_DAYS, Srs, is_rewritten

DAY_S = 86400.0
NOW = 1_577_836_860.0
"""2020-01-01 00:01, the day `2W`: the one of PostSRSd's own tests."""
QUEUE_ID = QueueId("01DXF6DT00BBBBBBBBBBBBBBBB")
OURS = "example.com"
SRS = Srs(b"k" * 32)

ATOM = st.text("abcdefXYZ0189!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=12)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
SENDERS = st.builds(Address, st.lists(ATOM, min_size=1, max_size=5).map(".".join), DOMAINS)


def rewritten(sender: str, *, now: float = NOW) -> Address:
    return SRS.rewrite(parse_address(sender), OURS, QUEUE_ID, now)


@given(SENDERS, st.floats(0, 4e9), st.floats(0, VALID_DAYS * DAY_S))
def test_what_was_wrapped_is_opened_again(sender: Address, now: float, later_s: float) -> None:
    wrapped = SRS.rewrite(sender, OURS, QUEUE_ID, now)
    assert is_rewritten(wrapped.local_part)
    assert wrapped.domain == OURS
    assert len(wrapped.local_part) <= MAX_LOCAL_PART_OCTETS
    assert parse_address(str(wrapped)) == wrapped
    opened = SRS.open(wrapped.local_part, now + later_s)
    if isinstance(opened, str):
        assert opened == QUEUE_ID
    elif wrapped.local_part.startswith("SRS0="):
        assert opened == sender
    else:
        assert opened is not None
        assert opened.local_part.startswith("SRS0")


@given(SENDERS, st.sampled_from([str.lower, str.upper, str.swapcase]))
def test_letters_may_be_folded_on_the_way(sender: Address, fold: type[str]) -> None:
    wrapped = SRS.rewrite(sender, OURS, QUEUE_ID, NOW)
    opened = SRS.open(fold(wrapped.local_part), NOW)
    assert str(opened).lower() == str(SRS.open(wrapped.local_part, NOW)).lower()


@given(SENDERS, st.data())
def test_one_other_character_and_it_is_not_ours(sender: Address, data: st.DataObject) -> None:
    local_part = SRS.rewrite(sender, OURS, QUEUE_ID, NOW).local_part
    at = data.draw(st.integers(0, len(local_part) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    changed = local_part[:at] + other + local_part[at + 1 :]
    if changed.lower() != local_part.lower():
        assert SRS.open(changed, NOW) is None


@given(st.text())
def test_anything_may_be_opened(local_part: str) -> None:
    for text in (local_part, f"SRS0={local_part}", f"SRS1={local_part}", f"SRS0=AAAAAAAA=2W={local_part}"):
        assert SRS.open(text, NOW) is None


def test_another_key_opens_nothing() -> None:
    for sender in ("test@otherdomain.com", "SRS0=x@otherdomain.com", '"a b"@otherdomain.com'):
        assert Srs(b"l" * 32).open(rewritten(sender).local_part) is None


def test_the_hash_is_the_same_in_every_version() -> None:
    """What is on its way now is opened by the program that runs in three weeks."""
    assert str(rewritten("test@otherdomain.com")) == f"SRS0={HASH}=2W=otherdomain.com=test@example.com"


HASH = "SH3TJGXS"

# Senders as PostSRSd and libsrs2 make them: what comes from ours, its HASH left out, and whom it leads back to.
FORMS = {
    "test@otherdomain.com": ("SRS0==2W=otherdomain.com=test", "test@otherdomain.com"),
    "SRS0=opaque+string@otherdomain.com": (
        "SRS1==otherdomain.com==opaque+string",
        "SRS0=opaque+string@otherdomain.com",
    ),
    "SRS0+opaque+string@otherdomain.com": (
        "SRS1==otherdomain.com=+opaque+string",
        "SRS0+opaque+string@otherdomain.com",
    ),
    "SRS0-opaque+string@otherdomain.com": (
        "SRS1==otherdomain.com=-opaque+string",
        "SRS0-opaque+string@otherdomain.com",
    ),
    "SRS1=X=thirddomain.com==opaque+string@otherdomain.com": (
        "SRS1==thirddomain.com==opaque+string",
        "SRS0=opaque+string@thirddomain.com",
    ),
    "srs1=X=thirddomain.com=+opaque+string@otherdomain.com": (
        "SRS1==thirddomain.com=+opaque+string",
        "SRS0+opaque+string@thirddomain.com",
    ),
    "SRS0=XjO9=2V=far.test=test@otherdomain.com": (
        "SRS1==otherdomain.com==XjO9=2V=far.test=test",
        "SRS0=XjO9=2V=far.test=test@otherdomain.com",
    ),
}


@pytest.mark.parametrize("sender", FORMS)
def test_forms_are_those_of_the_scheme(sender: str) -> None:
    expected, leads_to = FORMS[sender]
    local_part = rewritten(sender).local_part
    scheme, mark, rest = local_part.split("=", 2)
    assert f"{scheme}=={rest}" == expected
    assert len(mark) == 8
    assert str(SRS.open(local_part, NOW)) == leads_to


def test_it_does_not_grow_from_house_to_house() -> None:
    houses = [(f"house{number}.test", Srs(bytes([number] * 32))) for number in range(3)]
    sender, longest = parse_address("somebody@far.test"), 0
    for number in range(30):
        domain, srs = houses[number % 3]
        sender = srs.rewrite(sender, domain, QUEUE_ID, NOW)
        longest = max(longest, len(sender.local_part))
    assert longest == len("SRS1=HHHHHHHH=house0.test==HHHHHHHH=2W=far.test=somebody")


@pytest.mark.parametrize(
    "sender",
    [
        "bounces+12345-0102-nobody=example.org@em1234.mailer.example.net",
        f"{'x' * 64}@far.test",
        f"SRS0=XjO9=2V=far.test={'x' * 41}@otherdomain.com",
        '"a b"@far.test',
        '"a@b"@far.test',
        "x@[192.0.2.1]",
        "x@[IPv6:2001:db8::1]",
        "jürgen@far.test",
        "x@invalid",
        "01DXF6DT00CCCCCCCCCCCCCCCC@invalid",
        "SRS1=HASH=no%host==HASH=DAY=far.test=x@far.test",
    ],
)
def test_what_cannot_be_wrapped_is_referred_to(sender: str) -> None:
    wrapped = rewritten(sender)
    assert wrapped.local_part.split("=")[3:] == ["invalid", QUEUE_ID]
    assert SRS.open(wrapped.local_part.lower(), NOW) == QUEUE_ID
    assert SRS.open(wrapped.local_part, NOW + (VALID_DAYS + 1) * DAY_S) is None


@pytest.mark.parametrize(
    ("days", "valid"), [(-2, False), (-1, True), (0, True), (VALID_DAYS, True), (VALID_DAYS + 1, False), (1000, False)]
)
def test_it_is_valid_for_three_weeks(days: int, valid: bool) -> None:
    """Over the end of the 1024 days too; a clock may have gone back by a day."""
    for start in (NOW, 1024 * 18 * DAY_S - DAY_S):
        local_part = rewritten("a@far.test", now=start).local_part
        assert (SRS.open(local_part, start + days * DAY_S) is not None) is valid
        assert SRS.open(local_part) is not None


def test_of_what_another_house_made_that_house_knows_the_age() -> None:
    assert SRS.open(rewritten("SRS0=x@far.test").local_part, NOW + 500 * DAY_S) is not None


def test_where_our_name_leaves_no_room_the_sender_stays() -> None:
    ours = ".".join(["o" * 60] * 4)
    sender = parse_address("a@far.test")
    assert SRS.rewrite(sender, ours, QUEUE_ID, NOW) == sender
    with pytest.raises(AddressError):
        parse_address(f"{rewritten('a@far.test').local_part}@{ours}")


@pytest.mark.parametrize(
    ("local_part", "expected"), [("SRS0=x", True), ("srs1=", True), ("SRS0", False), ("srs0-team", False), ("x", False)]
)
def test_our_own_are_known_by_their_beginning(local_part: str, expected: bool) -> None:
    assert is_rewritten(local_part) is expected
