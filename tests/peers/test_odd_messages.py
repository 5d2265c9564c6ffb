"""The odd messages themselves: they are valid on the wire, or the tests that send them would prove nothing."""

from __future__ import annotations

from tests.peers import odd_messages


def test_lines_end_in_crlf_only() -> None:
    big = [odd_messages.huge(100_000), odd_messages.huge_header(100_000)]
    for content in [*odd_messages.all_odd(200), *odd_messages.well_formed(200), *odd_messages.lawful(200), *big]:
        assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n"), content[:200]
        assert not content or content.endswith(b"\r\n"), content[-200:]


def test_they_are_different() -> None:
    assert len(set(odd_messages.all_odd(200))) == 200


def test_lawful_lines_are_short_enough() -> None:
    assert all(len(line) <= 998 for content in odd_messages.lawful(1000) for line in content.split(b"\r\n"))


def test_numbers_are_found_again() -> None:
    assert [odd_messages.number_of(content) for content in odd_messages.well_formed(100)] == list(range(100))


def test_a_huge_message_is_as_large_as_asked() -> None:
    assert len(odd_messages.huge(1_000_000)) >= 1_000_000
