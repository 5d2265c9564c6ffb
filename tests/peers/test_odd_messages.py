"""The odd messages themselves: they are valid on the wire, or the tests that send them would prove nothing."""

from __future__ import annotations

from tests.peers import odd_messages


def test_lines_end_in_crlf_only() -> None:
    for content in [*odd_messages.all_odd(200), *odd_messages.well_formed(200), odd_messages.huge(100_000)]:
        assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n"), content[:200]
        assert not content or content.endswith(b"\r\n"), content[-200:]


def test_they_are_different() -> None:
    assert len(set(odd_messages.all_odd(200))) == 200


def test_numbers_are_found_again() -> None:
    assert [odd_messages.number_of(content) for content in odd_messages.well_formed(100)] == list(range(100))


def test_a_huge_message_is_as_large_as_asked() -> None:
    assert len(odd_messages.huge(1_000_000)) >= 1_000_000
