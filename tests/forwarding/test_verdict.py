from __future__ import annotations

from dataclasses import replace

import pytest

from posthouse.forwarding.schedule import RetrySchedule
from posthouse.forwarding.verdict import judge, said_by_peer, without_report
from posthouse.mail.acceptance import Destination, Notify
from posthouse.mail.outcome import Deferred, Delivered, Failed, Outcome, Uncertain
from posthouse.mail.reply import reply
from posthouse.mail.report_request import Action
from tests.fake_world import START, FakeRandom
from tests.forwarding.rows import DAY_S, a_row

SCHEDULE = RetrySchedule(intervals_s=(300.0, 600.0), delay_notice_after_s=3600.0)
RANDOM = FakeRandom(fixed=0.5)

TAKEN = Delivered(reply(250, "2.0.0", "Taken"))
LATER = Deferred(reply(451, "4.7.1", "Greylisted"))
NEVER = Failed(reply(550, "5.1.1", "No such user"))
UNSURE = Uncertain(reply(451, "4.4.2", "Lost after the final dot"))

NOTHING: frozenset[Notify] = frozenset({Notify.NEVER})
ALL = frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})
SOON, AFTER_NOTICE, EXPIRED = START + 10, START + 3600, START + 5 * DAY_S

REPORTS = [
    # outcome, NOTIFY, when, the report
    (TAKEN, None, SOON, None),
    (TAKEN, ALL, SOON, Action.RELAYED),
    (TAKEN, frozenset({Notify.FAILURE, Notify.DELAY}), EXPIRED, None),
    (TAKEN, NOTHING, EXPIRED, None),
    (NEVER, None, SOON, Action.FAILED),
    (NEVER, ALL, SOON, Action.FAILED),
    (NEVER, frozenset({Notify.SUCCESS}), SOON, None),
    (NEVER, frozenset({Notify.DELAY}), SOON, None),
    (NEVER, NOTHING, SOON, None),
    *(
        case
        for waits in (LATER, UNSURE)
        for case in [
            (waits, None, SOON, None),
            (waits, None, AFTER_NOTICE, Action.DELAYED),
            (waits, frozenset({Notify.DELAY}), AFTER_NOTICE, Action.DELAYED),
            (waits, frozenset({Notify.FAILURE}), AFTER_NOTICE, None),
            (waits, NOTHING, AFTER_NOTICE, None),
            (waits, None, EXPIRED, Action.FAILED),
            (waits, frozenset({Notify.FAILURE}), EXPIRED, Action.FAILED),
            (waits, frozenset({Notify.DELAY}), EXPIRED, None),
            (waits, NOTHING, EXPIRED, None),
        ]
    ),
]


@pytest.mark.conformance("C182", "C184")
@pytest.mark.parametrize(("outcome", "notify", "now", "report"), REPORTS)
def test_what_the_sender_is_told(
    outcome: Outcome, notify: frozenset[Notify] | None, now: float, report: Action | None
) -> None:
    assert judge(a_row(notify=notify), outcome, SCHEDULE, now, RANDOM).report is report


@pytest.mark.parametrize("outcome", [TAKEN, NEVER])
def test_what_is_decided_leaves_the_spool(outcome: Outcome) -> None:
    verdict = judge(a_row(), outcome, SCHEDULE, SOON, RANDOM)
    assert verdict.settled.not_before is None
    assert verdict.settled.last_reply == str(outcome.reply)


@pytest.mark.conformance("C100")
@pytest.mark.parametrize("outcome", [LATER, UNSURE])
def test_what_is_not_decided_waits_for_the_next_attempt(outcome: Outcome) -> None:
    verdict = judge(a_row(attempts=2), outcome, SCHEDULE, SOON, RANDOM)
    assert verdict.settled.not_before == SOON + 600
    assert verdict.outcome_name == type(outcome).__name__.lower()


def test_the_delay_notice_is_told_once() -> None:
    first = judge(a_row(), LATER, SCHEDULE, AFTER_NOTICE, RANDOM)
    assert first.settled.delay_notified
    second = judge(a_row(delay_notified=True), LATER, SCHEDULE, AFTER_NOTICE + 600, RANDOM)
    assert second.report is None
    assert second.settled.delay_notified


@pytest.mark.parametrize(("outcome", "from_peer"), [(LATER, True), (UNSURE, False)])
def test_expiry_is_a_failure_that_quotes_the_last_answer(outcome: Outcome, from_peer: bool) -> None:
    verdict = judge(a_row(), outcome, SCHEDULE, EXPIRED, RANDOM)
    assert isinstance(verdict.outcome, Failed)
    assert str(verdict.reply).startswith("550 5.4.7 ")
    assert outcome.reply.text in verdict.reply.text
    assert not verdict.from_peer, "the words that time ran out are ours"
    assert verdict.last is outcome
    assert said_by_peer(verdict.last) is from_peer
    assert verdict.settled.not_before is None


@pytest.mark.parametrize(
    ("outcome", "from_peer"),
    [(TAKEN, True), (LATER, True), (NEVER, True), (UNSURE, False), (Deferred(LATER.reply, from_peer=False), False)],
)
def test_who_said_it(outcome: Outcome, from_peer: bool) -> None:
    assert judge(a_row(), outcome, SCHEDULE, SOON, RANDOM).from_peer is from_peer


@pytest.mark.conformance("C143")
def test_what_our_own_rule_kept_here_fails_by_that_rule() -> None:
    no_tls = Deferred(reply(451, "4.7.4", "TLS is required, and it is not offered"), from_peer=False)
    verdict = judge(a_row(), no_tls, SCHEDULE, EXPIRED, RANDOM)
    assert isinstance(verdict.outcome, Failed)
    assert str(verdict.reply).startswith("550 5.7.4 ")
    # Policy of the other server is its own affair: time ran out.
    assert str(judge(a_row(), LATER, SCHEDULE, EXPIRED, RANDOM).reply).startswith("550 5.4.7 ")


@pytest.mark.parametrize("now", [SOON, EXPIRED])
def test_what_may_have_arrived_by_an_identitys_own_server_is_held(now: float) -> None:
    verdict = judge(a_row(destination=Destination("relay.test:587", "there.test")), UNSURE, SCHEDULE, now, RANDOM)
    assert verdict.settled.held
    assert verdict.settled.not_before is None
    assert verdict.report is None
    assert not judge(a_row(), UNSURE, SCHEDULE, SOON, RANDOM).settled.held


@pytest.mark.conformance("C97")
@pytest.mark.parametrize("now", [SOON, EXPIRED])
def test_whoever_was_left_alone_is_asked_before_anybody_is_given_up(now: float) -> None:
    verdict = judge(a_row(), LATER, SCHEDULE, now, RANDOM, not_before=now + 900)
    assert verdict.settled.not_before == now + 900
    early = judge(a_row(), LATER, SCHEDULE, SOON, RANDOM, not_before=SOON + 5)
    assert early.settled.not_before == SOON + 300


def test_success_is_told_by_the_next_hop_where_it_takes_notify() -> None:
    verdict = judge(a_row(notify=ALL), TAKEN, SCHEDULE, SOON, RANDOM, reports_passed_on=True)
    assert verdict.report is None


def test_without_its_report_a_failure_waits_and_is_not_forgotten() -> None:
    verdict = without_report(judge(a_row(), NEVER, SCHEDULE, SOON, RANDOM), SCHEDULE, SOON)
    assert isinstance(verdict.outcome, Deferred)
    assert verdict.settled.not_before == SOON + 300
    assert verdict.report is None
    assert "No such user" in verdict.settled.last_reply


def test_without_its_report_what_was_delivered_stays_delivered() -> None:
    verdict = without_report(judge(a_row(notify=ALL), TAKEN, SCHEDULE, SOON, RANDOM), SCHEDULE, SOON)
    assert verdict.outcome is TAKEN
    assert verdict.settled.not_before is None
    assert verdict.report is None


def test_without_its_report_a_delay_is_told_the_next_time() -> None:
    verdict = without_report(judge(a_row(), LATER, SCHEDULE, AFTER_NOTICE, RANDOM), SCHEDULE, AFTER_NOTICE)
    assert verdict.settled.not_before == AFTER_NOTICE + 300
    assert not verdict.settled.delay_notified
    assert verdict.report is None


@pytest.mark.conformance("C103", "C304")
def test_who_was_accepted_by_a_clock_that_was_ahead_expires_in_time() -> None:
    """Else it would be tried for as long as the clock was wrong, and nobody would be told."""
    schedule = replace(SCHEDULE, expire_after_s=5 * DAY_S)
    row = replace(a_row(), expires_at=START + 300 * DAY_S)
    first = judge(row, LATER, schedule, START, RANDOM).settled
    assert first.expires_at == START + 5 * DAY_S
    row = replace(row, expires_at=first.expires_at)
    assert judge(row, LATER, schedule, START + 4 * DAY_S, RANDOM).settled.expires_at == START + 5 * DAY_S
    assert judge(row, LATER, schedule, EXPIRED, RANDOM).report is Action.FAILED
