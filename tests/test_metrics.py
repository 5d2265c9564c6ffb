"""What is counted: each kind of event once, under labels that are known; what is told of several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import (
    Accepted,
    Attempted,
    Deleted,
    JourneyEvent,
    Operated,
    Placed,
    Queued,
    Refused,
    Reported,
    Retrieved,
)
from posthouse.mail.report_request import Action
from posthouse.metrics import ACTIONS, HouseFacts, Metrics, exposition, from_octets, source_of, to_octets

ID = QueueId("01")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Of one series; None where there is none."""
    found = [
        sample.value
        for metric in metrics.collect()
        for sample in metric.samples
        if sample.name == f"posthouse_{name}" and sample.labels == labels
    ]
    return found[0] if found else None


def facts(**changes: Any) -> HouseFacts:
    return HouseFacts(**{"ready": True, "build": {"version": "1"}, "certificates": {}, "workers": {0: True}, **changes})


def lines(parts: Mapping[int, Any], of: HouseFacts, accept: str = "") -> list[str]:
    return [line for line in exposition(parts, of, accept)[0].decode().splitlines() if not line.startswith("#")]


class Traffic:
    """A connection over which so many octets went."""

    def __init__(self) -> None:
        self.octets = (0, 0)

    def take_octets(self) -> tuple[int, int]:
        taken, self.octets = self.octets, (0, 0)
        return taken


def accepted(**changes: Any) -> Accepted:
    known: dict[str, Any] = {
        "queue_id": ID,
        "at": 1.0,
        "reverse_path": "",
        "forward_paths": (),
        "size_octets": 7,
        "peer": "",
        "hello": "",
        "protocol": "",
    }
    return Accepted(**{**known, **changes})


def attempted(outcome: str) -> Attempted:
    return Attempted(
        queue_id=ID,
        at=1.0,
        forward_path="",
        outcome=outcome,
        reply="",
        from_peer=True,
        next_hop="",
        address="",
        attempt=1,
        duration_s=1.0,
    )


def reported(action: str, report: QueueId | None = ID) -> Reported:
    return Reported(queue_id=ID, at=1.0, forward_paths=(), action=action, report_queue_id=report)


EVENTS: list[tuple[JourneyEvent, str, dict[str, str]]] = [
    (accepted(), "messages_accepted_total", {"source": "exchange"}),
    (accepted(login="ada@here.test"), "messages_accepted_total", {"source": "submission"}),
    (accepted(source="report"), "messages_accepted_total", {"source": "report"}),
    (
        Placed(queue_id=ID, at=1.0, forward_path="", login="", folder="", uidl=""),
        "recipients_total",
        {"kind": "here"},
    ),
    (Queued(queue_id=ID, at=1.0, forward_path="", domain=""), "recipients_total", {"kind": "elsewhere"}),
    (attempted("delivered"), "attempts_total", {"outcome": "delivered"}),
    (attempted("uncertain"), "attempts_total", {"outcome": "uncertain"}),
    (reported("failed"), "reports_total", {"action": "failed"}),
    (Retrieved(queue_id=ID, at=1.0, login="", uidl="", peer=""), "messages_retrieved_total", {}),
    (Deleted(queue_id=ID, at=1.0, login="", uidl="", peer=""), "messages_deleted_total", {}),
]


@pytest.mark.parametrize(("event", "name", "labels"), EVENTS)
def test_each_event_is_counted(event: JourneyEvent, name: str, labels: dict[str, str]) -> None:
    metrics = Metrics()
    assert value(metrics, name, **labels) == 0.0
    metrics.happened([event, event])
    assert value(metrics, name, **labels) == 2.0


def test_each_kind_of_event_is_counted_or_not_on_purpose() -> None:
    counted = {type(event) for event, _, _ in EVENTS}
    assert counted | {Operated, Refused} == set(get_args(JourneyEvent))


def test_octets_accepted_are_added_up() -> None:
    metrics = Metrics()
    metrics.happened([accepted(size_octets=5), accepted(size_octets=6)])
    assert value(metrics, "accepted_octets_total") == 11.0


def test_a_report_that_was_not_made_is_not_counted() -> None:
    metrics = Metrics()
    metrics.happened([reported("failed", None)])
    assert value(metrics, "reports_total", action="failed") == 0.0


def test_every_action_of_a_report_is_known() -> None:
    assert set(ACTIONS) == set(Action)


def test_what_is_new_is_counted_under_its_own_name() -> None:
    metrics = Metrics()
    metrics.happened([attempted("postponed"), attempted("postponed")])
    assert value(metrics, "attempts_total", outcome="postponed") == 2.0


def test_where_a_message_came_from() -> None:
    assert source_of("collection", None) == "exchange"


def test_sessions_and_their_octets_are_counted_while_they_last() -> None:
    metrics, traffic = Metrics(), Traffic()
    metrics.session_began("pop3", traffic)
    traffic.octets = (10, 300)
    assert value(metrics, "sessions_open", door="pop3") == 1.0
    assert value(metrics, "sent_octets_total", door="pop3") == 300.0
    traffic.octets = (1, 2)
    metrics.session_ended(traffic)
    assert value(metrics, "sessions_open", door="pop3") == 0.0
    assert value(metrics, "sessions_total", door="pop3") == 1.0
    assert value(metrics, "received_octets_total", door="pop3") == 11.0
    assert value(metrics, "sent_octets_total", door="pop3") == 302.0


def test_who_was_turned_away_is_counted_once() -> None:
    metrics, away = Metrics(), {"exchange": 2}
    metrics.turned_away(lambda: away)
    assert value(metrics, "sessions_turned_away_total", service="exchange") == 2.0
    away["exchange"] = 5
    assert value(metrics, "sessions_turned_away_total", service="exchange") == 5.0


def test_logins_and_refusals() -> None:
    metrics = Metrics()
    metrics.logged_in("pop3", "refused")
    metrics.logged_in("web", "refused")
    metrics.refused("relaying")
    assert value(metrics, "logins_total", protocol="pop3", result="refused") == 1.0
    assert value(metrics, "refused_total", reason="relaying") == 1.0


def test_what_storage_tells() -> None:
    metrics = Metrics()
    metrics.committed(3, 0.004)
    metrics.commit_failed()
    metrics.content_synced(0.5)
    assert value(metrics, "commit_items_sum") == 3.0
    assert value(metrics, "commit_seconds_bucket", le="0.005") == 1.0
    assert value(metrics, "commit_seconds_bucket", le="0.002") == 0.0
    assert value(metrics, "commits_failed_total") == 1.0
    assert value(metrics, "content_sync_seconds_count") == 1.0


def test_two_houses_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.refused("loop")
    assert value(other, "refused_total", reason="loop") == 0.0


def test_each_worker_has_its_own_series() -> None:
    one, other = Metrics(), Metrics()
    one.refused("loop")
    other.refused("loop")
    other.refused("loop")
    told = lines({0: one.collect(), 1: from_octets(to_octets(other.collect()))}, facts())
    assert 'posthouse_refused_total{reason="loop",worker="0"} 1.0' in told
    assert 'posthouse_refused_total{reason="loop",worker="1"} 2.0' in told


def test_a_family_is_told_once_for_all_workers() -> None:
    text = exposition({0: Metrics().collect(), 1: Metrics().collect()}, facts(), "")[0].decode()
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert "_created" not in text


def test_what_is_true_of_the_house() -> None:
    told = lines(
        {},
        facts(
            ready=False,
            queue={"waiting": 4, "held": 0, "claimed": 1},
            queue_oldest_s=60.0,
            queue_overdue_s=1.5,
            storage_octets={"database": 10},
            disk_free_octets=3,
            disk_octets=4,
            certificates={"*": 1.8e9, "mx.here.test": 1.9e9},
            workers={0: True, 1: False},
        ),
    )
    assert set(told) == {
        'posthouse_build_info{version="1"} 1.0',
        "posthouse_ready 0.0",
        'posthouse_worker_up{worker="0"} 1.0',
        'posthouse_worker_up{worker="1"} 0.0',
        'posthouse_certificate_expiry_timestamp_seconds{host="*"} 1.8e+09',
        'posthouse_certificate_expiry_timestamp_seconds{host="mx.here.test"} 1.9e+09',
        'posthouse_queue_recipients{state="waiting"} 4.0',
        'posthouse_queue_recipients{state="held"} 0.0',
        'posthouse_queue_recipients{state="claimed"} 1.0',
        "posthouse_queue_oldest_seconds 60.0",
        "posthouse_queue_overdue_seconds 1.5",
        'posthouse_storage_octets{part="database"} 10.0',
        "posthouse_disk_free_octets 3.0",
        "posthouse_disk_octets 4.0",
    }


def test_what_cannot_be_found_out_is_not_told() -> None:
    assert not [line for line in lines({}, facts()) if "queue" in line or "disk" in line or "storage" in line]


def test_the_format_is_the_one_that_was_asked_for() -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    text, media_type = exposition({0: Metrics().collect()}, facts(), accept)
    assert media_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert exposition({}, facts(), "")[1].startswith("text/plain; version=0.0.4")
