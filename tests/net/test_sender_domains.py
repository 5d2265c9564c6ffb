"""Null MX of senders' domains: what is remembered, and that silent name servers hold nobody up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from posthouse.net import sender_domains
from posthouse.net.dns import DnsResolver, MxHost
from posthouse.net.sender_domains import AT_ONCE, DEAD_AFTER, DEAD_S, KEEP_FAILURE_S, KEEP_S, SenderDomains
from tests.dns_server import Fault, dns_server
from tests.fake_world import FakeClock, FakeResolver

NULL = (MxHost(0, ""),)


class SilentResolver(FakeResolver):
    """Nobody answers while `silent`."""

    silent = True

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        self.asked.append(domain)
        if self.silent:
            await asyncio.Event().wait()
        return NULL


async def together(questions: list[Coroutine[None, None, bool]]) -> list[bool]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(question) for question in questions]
    return [task.result() for task in tasks]


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_domains, "WAIT_S", 0.001)


@pytest.mark.conformance("C208")
@pytest.mark.parametrize(
    ("records", "refused"),
    [
        (["0 ."], True),
        (["10 ."], True),
        (["0 .", "10 mx.far.test."], False),
        (["10 mx.far.test."], False),
        (Fault.SERVFAIL, False),
        (Fault.GARBAGE, False),
        (None, False),
    ],
)
async def test_only_a_null_mx_that_is_certain_counts(records: list[str] | Fault | None, refused: bool) -> None:
    zone = {("far.test", "A"): ["192.0.2.1"]} | ({("far.test", "MX"): records} if records is not None else {})
    async with dns_server(zone) as server:
        domains = SenderDomains(DnsResolver((server.address,)), FakeClock())
        assert await domains.takes_no_mail("far.test") is refused
        assert domains.known("far.test") is refused
        assert await domains.takes_no_mail("nowhere.test") is False


async def test_an_answer_is_believed_for_a_while() -> None:
    clock, resolver = FakeClock(), FakeResolver({"null.test": NULL, "far.test": (MxHost(1, "mx.far.test"),)})
    domains = SenderDomains(resolver, clock)
    assert domains.known("null.test") is None
    for _ in range(3):
        assert await domains.takes_no_mail("null.test")
        assert not await domains.takes_no_mail("far.test")
    assert resolver.asked == ["null.test", "far.test"]
    clock.advance(KEEP_S)
    assert domains.known("null.test") is None
    assert await domains.takes_no_mail("null.test")
    assert resolver.asked == ["null.test", "far.test", "null.test"]


@pytest.mark.conformance("C208")
async def test_a_failure_refuses_nobody_and_is_remembered_for_less() -> None:
    clock, resolver = FakeClock(), FakeResolver({"null.test": NULL}, broken=frozenset({"null.test"}))
    domains = SenderDomains(resolver, clock)
    assert not await domains.takes_no_mail("null.test")
    assert not await domains.takes_no_mail("null.test")
    assert resolver.asked == ["null.test"]
    resolver.broken = frozenset()
    clock.advance(KEEP_FAILURE_S)
    assert await domains.takes_no_mail("null.test")


@pytest.mark.conformance("C208")
async def test_silent_name_servers_are_asked_twice_then_once_a_minute(short_wait: None) -> None:
    clock, resolver = FakeClock(), SilentResolver()
    domains = SenderDomains(resolver, clock)
    for number in range(100):
        assert not await domains.takes_no_mail(f"{number}.test")
    assert len(resolver.asked) == DEAD_AFTER
    for minute in range(1, 4):
        clock.advance(DEAD_S)
        # Of those who come at once, one finds out for all.
        answers = [domains.takes_no_mail(f"{minute}-{number}.test") for number in range(10)]
        assert await together(answers) == [False] * 10
        assert len(resolver.asked) == DEAD_AFTER + minute
    resolver.silent = False
    clock.advance(DEAD_S)
    assert await domains.takes_no_mail("back.test")
    assert await domains.takes_no_mail("again.test")


async def test_one_silent_domain_does_not_silence_the_others(short_wait: None) -> None:
    resolver = SilentResolver()
    domains = SenderDomains(resolver, FakeClock())
    for number in range(3 * DEAD_AFTER):
        resolver.silent = True
        assert not await domains.takes_no_mail(f"silent{number}.test")
        resolver.silent = False
        assert await domains.takes_no_mail(f"null{number}.test")


async def test_so_many_at_once(short_wait: None) -> None:
    resolver = SilentResolver()
    domains = SenderDomains(resolver, FakeClock())
    asked = [domains.takes_no_mail(f"{number}.test") for number in range(3 * AT_ONCE)]
    assert await together(asked) == [False] * 3 * AT_ONCE
    assert len(resolver.asked) == AT_ONCE


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_domains, "CACHE_ENTRIES", 3)
    resolver = FakeResolver({f"{number}.test": NULL for number in range(5)})
    domains = SenderDomains(resolver, FakeClock())
    for number in range(5):
        await domains.takes_no_mail(f"{number}.test")
    assert [domains.known(f"{number}.test") for number in range(5)] == [None, None, True, True, True]
