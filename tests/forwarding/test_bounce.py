"""Which reports an attempt causes: to whom, how many, about whom, how much of the message (RFC 3461, RFC 3464)."""

from __future__ import annotations

import email
import email.policy
from collections import Counter
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import pytest

from posthouse.admission.admission import Admission
from posthouse.forwarding.transaction import MAY_HAVE_ARRIVED
from posthouse.forwarding.verdict import REPORT_IN_LINE
from posthouse.mail.acceptance import Notify
from posthouse.mail.address import Address, parse_address
from posthouse.mail.outcome import Deferred, Failed, Outcome, Uncertain
from posthouse.mail.reply import reply
from posthouse.mail.report_request import RETURN_LIMIT_OCTETS
from posthouse.storage.errors import StorageBusy
from tests.forwarding.rows import DAY_S
from tests.forwarding.runner_house import ADA, CONTENT, REPORTS_PER_MINUTE, RunnerHouse, runner_house

LATER = Deferred(reply(451, "4.7.1", "Greylisted"))
NEVER = Failed(reply(550, "5.1.1", "No such user"))
FULL = Failed(reply(552, "5.2.2", "Full"))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[RunnerHouse]:
    async with runner_house(tmp_path / "house") as opened:
        yield opened


def by_name(**answers: Outcome) -> Any:
    """Outcomes by local part; others wait."""
    return lambda row: answers.get(row.forward_path.local_part, LATER)


def read(octets: bytes) -> tuple[EmailMessage, list[dict[str, str]]]:
    """A report, and the fields of its message and recipients."""
    report = cast("EmailMessage", email.message_from_bytes(octets, policy=email.policy.default))
    status = cast("EmailMessage", list(report.iter_parts())[1])
    return report, [dict(cast("EmailMessage", group).items()) for group in status.iter_parts()]


def text_of(report: EmailMessage) -> str:
    return " ".join(next(report.iter_parts()).get_content().split())  # type: ignore[attr-defined]


@pytest.mark.conformance("C78", "C80", "C185")
async def test_three_of_five_fail_together(house: RunnerHouse) -> None:
    house.relay.answer = by_name(bob=NEVER, eve=FULL, joe=NEVER)
    queue_id = await house.queue(*(f"{name}@there.test" for name in ("ann", "bob", "cid", "eve", "joe")))
    await house.run_due()
    (octets,) = await house.reports()
    report, (_, *groups) = read(octets)
    assert report["Return-Path"] == "<>"
    assert [(group["Final-Recipient"], group["Status"]) for group in groups] == [
        ("rfc822; bob@there.test", "5.1.1"),
        ("rfc822; eve@there.test", "5.2.2"),
        ("rfc822; joe@there.test", "5.1.1"),
    ]
    (told,) = await house.reported(queue_id)
    assert told.forward_paths == ("bob@there.test", "eve@there.test", "joe@there.test")


@pytest.mark.conformance("C78")
@pytest.mark.parametrize("at_once", [True, False])
async def test_each_destination_reports_its_own_and_nobody_is_left_out(house: RunnerHouse, at_once: bool) -> None:
    """Not gathered over destinations (docs/decisions/0023): each failure is told in the commit that records it."""
    paths = [f"x@{place}.test" for place in ("one", "two", "three")]
    house.relay.answer = lambda row: NEVER if at_once or row.forward_path.domain == "one.test" else LATER
    await house.queue(*paths)
    await house.run_due()
    house.relay.answer = lambda _row: NEVER
    house.clock.advance(400)
    await house.run_due()
    named = Counter(group["Final-Recipient"] for octets in await house.reports() for group in read(octets)[1][1:])
    assert named == Counter(f"rfc822; {path}" for path in paths)


@pytest.mark.conformance("C79")
@pytest.mark.parametrize("answer", [NEVER, LATER])
async def test_nothing_is_returned_to_the_null_path(house: RunnerHouse, answer: Outcome) -> None:
    house.relay.answer = lambda _row: answer
    queue_id = await house.queue("bob@there.test", reverse_path=None)
    for _ in range(2):
        await house.run_due()
        house.clock.advance(6 * DAY_S)
    await house.run_due()
    assert await house.storage.spool.count() == 0
    assert await house.reports() == []
    told = [event for event in await house.reported(queue_id) if event.action == "failed"]
    assert [event.report_queue_id for event in told] == [None]


ASKED = {
    "nothing": None,
    "NEVER": frozenset({Notify.NEVER}),
    "FAILURE": frozenset({Notify.FAILURE}),
    "SUCCESS,DELAY": frozenset({Notify.SUCCESS, Notify.DELAY}),
}
OUTCOMES = {"failed": NEVER, "deferred": LATER, "delivered": None}
REPORTED = {
    ("nothing", "failed"): "failed",
    ("FAILURE", "failed"): "failed",
    ("nothing", "deferred"): "delayed",
    ("SUCCESS,DELAY", "deferred"): "delayed",
    ("SUCCESS,DELAY", "delivered"): "relayed",
}


@pytest.mark.conformance("C182", "C184", "C188")
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_the_matrix_of_notify_and_outcome(house: RunnerHouse, asked: str, outcome: str) -> None:
    """12 cells: which report, and which fields stand in it (RFC 3464 §2.2, §2.3)."""
    answer = OUTCOMES[outcome]
    if answer is not None:
        house.relay.answer = lambda _row: answer
    await house.queue("bob@there.test", notify=ASKED[asked])
    house.clock.advance(5 * 3600)
    await house.run_due()
    found = [read(octets)[1] for octets in await house.reports()]
    action = REPORTED.get((asked, outcome))
    assert [groups[1]["Action"] for groups in found] == ([action] if action else [])
    for of_all, group in found:
        assert sorted(of_all) == ["Arrival-Date", "Reporting-MTA", "X-Posthouse-Queue-ID"]
        fields = {"Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"}
        assert set(group) == fields | ({"Will-Retry-Until"} if action == "delayed" else set())


@pytest.mark.conformance("C188")
async def test_of_what_expired_the_last_answer_is_quoted(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: LATER
    await house.queue("bob@there.test", notify=frozenset({Notify.FAILURE}))
    house.clock.advance(6 * DAY_S)
    await house.run_due()
    ((report, (_, group)),) = [read(octets) for octets in await house.reports()]
    assert (group["Action"], group["Status"]) == ("failed", "4.4.7")
    assert (group["Remote-MTA"], group["Diagnostic-Code"]) == ("dns; mx", "smtp; 451 4.7.1 Greylisted")
    text = text_of(report)
    assert "could not be delivered within 6 days. It will not be tried again." in text
    assert "answered: > 451 4.7.1 Greylisted" in text


async def test_what_may_have_arrived_is_not_said_to_have_failed(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: Uncertain(MAY_HAVE_ARRIVED)
    await house.queue("bob@there.test", notify=frozenset({Notify.FAILURE}))
    house.clock.advance(6 * DAY_S)
    await house.run_due()
    ((report, (_, group)),) = [read(octets) for octets in await house.reports()]
    assert report["Subject"] == "May not have arrived: bob@there.test"
    assert "may have arrived, or not: nobody can tell" in text_of(report)
    assert "Ask the recipient" in text_of(report)
    assert "Diagnostic-Code" not in group


@pytest.mark.conformance("C191")
@pytest.mark.parametrize(("octets_about", "whole"), [(60_000, True), (70_000, False)])
async def test_a_report_returns_64_kib_at_most(house: RunnerHouse, octets_about: int, whole: bool) -> None:
    house.relay.answer = lambda _row: NEVER
    await house.queue("bob@there.test", content=CONTENT + (b"y" * 76 + b"\r\n") * (octets_about // 78))
    await house.run_due()
    (octets,) = await house.reports()
    assert (b"yyyy" in octets) is whole
    assert b"Subject: hello\r\n" in octets
    assert len(octets) < 64 * 1024


@pytest.mark.conformance("C191")
@pytest.mark.long
async def test_a_report_of_fifty_megabytes_is_small(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: NEVER
    await house.queue("bob@there.test", content=CONTENT + (b"y" * 76 + b"\r\n") * 640_000)
    await house.run_due()
    (octets,) = await house.reports()
    assert len(octets) < RETURN_LIMIT_OCTETS
    assert b"Subject: hello\r\n" in octets
    assert b"yyyy" not in octets


async def many_fail(house: RunnerHouse, count: int) -> list[int]:
    """`count` messages of one sender fail; the number of reports made in each minute, until all are told."""
    house.relay.answer = lambda _row: NEVER
    for number in range(count):
        await house.queue(f"no{number}@there.test")
    made, told = [], 0
    while await house.storage.spool.count():
        next_due = await house.storage.spool.next_due()
        assert next_due is not None
        minute_ends = house.clock.now() + 60
        while next_due is not None and next_due < minute_ends:
            house.clock.advance(max(0.0, next_due - house.clock.now()))
            await house.run_due()
            next_due = await house.storage.spool.next_due()
        house.clock.advance(minute_ends - house.clock.now())
        now_told = len(await house.reports())
        made.append(now_told - told)
        told = now_told
    return made


@pytest.mark.conformance("C191")
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
async def test_a_sender_hears_of_many_failures_bit_by_bit(house: RunnerHouse, count: int) -> None:
    made = await many_fail(house, count)
    assert sum(made) == count, "somebody failed untold"
    assert max(made) <= 2 * REPORTS_PER_MINUTE
    assert max(made[1:]) <= REPORTS_PER_MINUTE + 1
    assert max(Counter(path for paths in house.relay.attempts for path in paths).values()) == 2


@pytest.mark.conformance("C191")
async def test_what_waits_for_its_turn_outlives_a_restart(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: NEVER
    ids = [await house.queue(f"no{number}@there.test") for number in range(REPORTS_PER_MINUTE + 2)]
    await house.run_due()
    waiting = await house.storage.spool.list()
    assert len(waiting) == 2
    assert all(row.last_reply == f"451 4.3.0 {REPORT_IN_LINE}: 550 5.1.1 No such user" for row in waiting)
    house.renew()
    house.clock.advance(60)
    await house.run_due()
    assert await house.storage.spool.count() == 0
    named = {group["X-Posthouse-Queue-ID"] for octets in await house.reports() for group in read(octets)[1][:1]}
    assert named == set(ids)


async def test_another_sender_does_not_wait(house: RunnerHouse) -> None:
    house.relay.answer = lambda row: NEVER if row.forward_path.domain == "there.test" else LATER
    for number in range(REPORTS_PER_MINUTE + 2):
        await house.queue(f"no{number}@there.test")
    await house.run_due()
    rob = await house.queue("rob@there.test", reverse_path=parse_address("rob@elsewhere.test"))
    await house.run_due()
    (told,) = await house.reported(rob)
    assert told.report_queue_id is not None


async def test_a_sender_that_aliases_rewrote_is_one_sender(house: RunnerHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reverse-path of each alias, and of each day, is another; the report goes to one and the same person."""

    async def opened(_self: object, address: Address, _now: float | None) -> Address:
        return ADA if address.local_part.startswith("SRS0=") else address

    monkeypatch.setattr(Admission, "open", opened)
    house.relay.answer = lambda _row: NEVER
    for number in range(REPORTS_PER_MINUTE + 5):
        await house.queue("no@there.test", reverse_path=parse_address(f"SRS0=HASH{number}=AA=x.test=ada@here.test"))
    await house.run_due()
    assert await house.storage.spool.count() == 5
    assert len(await house.reports()) == REPORTS_PER_MINUTE


async def test_where_the_sender_cannot_be_looked_up_now_the_outcome_is_written_all_the_same(
    house: RunnerHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Address] = []

    async def busy(_self: object, address: Address, _now: float | None) -> Address:
        asked.append(address)
        if len(asked) == 1:
            raise StorageBusy
        return address

    monkeypatch.setattr(Admission, "open", busy)
    house.relay.answer = lambda _row: NEVER
    await house.queue("no@there.test")
    await house.run_due()
    assert await house.storage.spool.count() == 0
    assert len(await house.reports()) == 1
