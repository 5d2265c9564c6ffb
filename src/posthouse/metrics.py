"""What operators count and measure: one registry for each house and process, told in the formats of Prometheus.

Nothing here is global. Counters begin at 0 with their process, so each series carries the number of its worker: summed
over workers, one that was replaced would look like a house that lost its past. What is asked of the store when somebody
looks (`HouseFacts`) has no such label.
"""

from __future__ import annotations

import json
from collections import Counter as Count
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from posthouse.mail.journey import Accepted, Attempted, Deleted, JourneyEvent, Placed, Queued, Reported, Retrieved
from posthouse.mail.refusal import REASONS

DOORS = ("smtp", "submission", "submissions", "pop3", "pop3s")
SOURCES = ("exchange", "submission", "report")
OUTCOMES = ("delivered", "deferred", "failed", "uncertain")
ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded")
LOGIN_RESULTS = ("accepted", "refused", "put_off")
PROTOCOLS = ("smtp", "pop3")

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ITEMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
_CREATED = "_created"


Families: TypeAlias = Sequence[Metric]


class Traffic(Protocol):
    """An open connection."""

    def take_octets(self) -> tuple[int, int]:
        """Octets that came in and went out since this was last asked."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseFacts:
    """What is true of the whole house at this moment; None or nothing where it could not be found out.

    Times are in seconds, `certificates` maps server names to the Unix time of expiry, `workers` their number to whether
    they answer.
    """

    ready: bool
    build: Mapping[str, str]
    queue: Mapping[str, int] | None = None
    queue_oldest_s: float = 0.0
    queue_overdue_s: float = 0.0
    storage_octets: Mapping[str, int] | None = None
    disk_free_octets: int = 0
    disk_octets: int = 0
    certificates: Mapping[str, float]
    workers: Mapping[int, bool]


class _Tally:
    """A counter that only the loop adds to, in a dict of its own: the library's lock takes five times as long.

    Series of the known values of its label, if it has one, are there from the beginning, and so 0 instead of missing.
    """

    def __init__(self, counter: Counter, values: Iterable[str], *, labelled: bool) -> None:
        self._counter = counter
        self._labelled = labelled
        self._children: dict[str, Counter] = {}
        self._untold: dict[str, float] = {}
        for value in values:
            self.add(value, 0)
        self.settle()

    def add(self, value: str = "", amount: float = 1) -> None:
        untold = self._untold
        untold[value] = untold.get(value, 0) + amount

    def settle(self) -> None:
        """Hand on what was added since."""
        untold, self._untold = self._untold, {}
        for value, amount in untold.items():
            if value not in self._children:
                self._children[value] = self._counter.labels(value) if self._labelled else self._counter
            self._children[value].inc(amount)


class Metrics:
    """What one process counts. Told by the loop; of commits and their fsync, by any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._open: dict[Traffic, str] = {}
        self._tallies: list[_Tally] = []
        self._turned_away: Callable[[], Mapping[str, int]] = dict
        self._declare_sessions()
        self._declare_mail()
        self._declare_storage()
        self.loop_lag = Gauge(
            "posthouse_loop_lag_seconds",
            "The longest that anything had to wait for its turn in the last minute",
            registry=self._registry,
        )
        ProcessCollector(namespace="posthouse", registry=self._registry)

    def _declare_sessions(self) -> None:
        self._sessions = self._tally("sessions", "Sessions begun", "door", DOORS)
        self._sessions_open = self._gauges("sessions_open", "Sessions open now", "door", DOORS)
        self._received = self._tally("received_octets", "Octets from peers, inside TLS", "door", DOORS)
        self._sent = self._tally("sent_octets", "Octets to peers, inside TLS", "door", DOORS)
        self._away = self._tally("sessions_turned_away", "Connections that were one too many", "service")
        self._away_before: dict[str, int] = {}
        logins = self._counter("logins", "Logins by protocol and result", ["protocol", "result"])
        self._logins = {
            (protocol, result): logins.labels(protocol, result) for protocol in PROTOCOLS for result in LOGIN_RESULTS
        }

    def _declare_mail(self) -> None:
        self._refused = self._tally("refused", "Commands about mail refused, by reason", "reason", REASONS)
        self._accepted = self._tally("messages_accepted", "Messages accepted", "source", SOURCES)
        self._accepted_octets = self._tally("accepted_octets", "Octets of the content of messages accepted")
        self._recipients = self._tally("recipients", "Recipients accepted", "kind", ("here", "elsewhere"))
        self._attempts = self._tally("attempts", "Attempts to deliver elsewhere, by recipient", "outcome", OUTCOMES)
        self._reports = self._tally("reports", "Reports to senders", "action", ACTIONS)
        self._retrieved = self._tally("messages_retrieved", "Messages read whole by POP3")
        self._deleted = self._tally("messages_deleted", "Messages deleted by POP3")
        self.acceptance = self._histogram("acceptance_seconds", "From the end of content to its reply", _SECONDS)

    def _declare_storage(self) -> None:
        self._commit_time = self._histogram("commit_seconds", "One COMMIT, most of which is its fsync", _SECONDS)
        self._commit_items = self._histogram("commit_items", "Pieces of work in one commit", _ITEMS)
        self._commits_failed = self._counter("commits_failed", "Commits that failed")
        self._content_sync = self._histogram("content_sync_seconds", "One fsync of a file of content", _SECONDS)

    # What stages and storage tell.

    def session_began(self, door: str, traffic: Traffic) -> None:
        self._open[traffic] = door
        self._sessions.add(door)

    def session_ended(self, traffic: Traffic) -> None:
        self._count_traffic(traffic, self._open.pop(traffic))

    def turned_away(self, read: Callable[[], Mapping[str, int]]) -> None:
        """Where to read, when asked, how many connections each service has turned away."""
        self._turned_away = read

    def logged_in(self, protocol: str, result: str) -> None:
        """`result`: one of LOGIN_RESULTS."""
        if (protocol, result) in self._logins:
            self._logins[protocol, result].inc()

    def refused(self, reason: str) -> None:
        self._refused.add(reason)

    def happened(self, events: Iterable[JourneyEvent]) -> None:
        """Count what was committed."""
        for event in events:
            match event:
                case Accepted(source=source, login=login, size_octets=size_octets):
                    self._accepted.add(source_of(source, login))
                    self._accepted_octets.add("", size_octets)
                case Placed():
                    self._recipients.add("here")
                case Queued():
                    self._recipients.add("elsewhere")
                case Attempted(outcome=outcome):
                    self._attempts.add(outcome)
                case Reported(action=action, report_queue_id=report) if report is not None:
                    self._reports.add(action)
                case Retrieved():
                    self._retrieved.add()
                case Deleted():
                    self._deleted.add()
                case _:
                    pass

    def committed(self, items: int, seconds: float) -> None:
        """A commit of so many pieces of work took so long. Called by the thread that commits."""
        self._commit_time.observe(seconds)
        self._commit_items.observe(items)

    def commit_failed(self) -> None:
        self._commits_failed.inc()

    def content_synced(self, seconds: float) -> None:
        """A file of content was synced."""
        self._content_sync.observe(seconds)

    # What who looks gets.

    def collect(self) -> Families:
        """All that this process counts, as it is now."""
        opened = Count(self._open.values())
        for traffic, door in tuple(self._open.items()):
            self._count_traffic(traffic, door)
        for door in DOORS:
            self._sessions_open[door].set(opened[door])
        for service, number in self._turned_away().items():
            self._away.add(service, number - self._away_before.get(service, 0))
            self._away_before[service] = number
        for tally in self._tallies:
            tally.settle()
        return [_without_created(metric) for metric in self._registry.collect()]

    def _count_traffic(self, traffic: Traffic, door: str) -> None:
        received, sent = traffic.take_octets()
        self._received.add(door, received)
        self._sent.add(door, sent)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"posthouse_{name}", text, labels, registry=self._registry)

    def _tally(self, name: str, text: str, label: str = "", values: Iterable[str] = ()) -> _Tally:
        counter = self._counter(name, text, [label] if label else ())
        tally = _Tally(counter, values, labelled=bool(label))
        self._tallies.append(tally)
        return tally

    def _gauges(self, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, Gauge]:
        gauge = Gauge(f"posthouse_{name}", text, [label], registry=self._registry)
        return {value: gauge.labels(value) for value in values}

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"posthouse_{name}", text, registry=self._registry, buckets=buckets)


def source_of(source: str, login: str | None) -> str:
    """How a message came in: by which kind of door, or as a report of ours."""
    if source == "report":
        return source
    return "submission" if login is not None else "exchange"


def to_octets(metrics: Families) -> bytes:
    """What one process tells another."""
    return json.dumps(
        [
            (each.name, each.documentation, each.type, [(s.name, s.labels, s.value) for s in each.samples])
            for each in metrics
        ]
    ).encode()


def from_octets(octets: bytes) -> Families:
    """What `to_octets` wrote."""
    metrics = []
    for name, documentation, kind, samples in json.loads(octets):
        metric = Metric(name, documentation, kind)
        for sample in samples:
            metric.add_sample(*sample)
        metrics.append(metric)
    return metrics


def exposition(parts: Mapping[int, Families], facts: HouseFacts, accept: str) -> tuple[bytes, str]:
    """The text for an `Accept` header, and its media type. `parts`: what each worker counts, by its number."""
    encode, media_type = choose_encoder(accept)
    return encode(_All([*_of_house(facts), *_together(parts)])), media_type


class _All(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _together(parts: Mapping[int, Families]) -> list[Metric]:
    found: dict[str, Metric] = {}
    for number, metrics in parts.items():
        for metric in metrics:
            whole = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                whole.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
    return list(found.values())


def _without_created(metric: Metric) -> Metric:
    """Without when each counter began: that is when its process did, which `process_start_time_seconds` says once."""
    metric.samples = [sample for sample in metric.samples if not sample.name.endswith(_CREATED)]
    return metric


def _of_house(facts: HouseFacts) -> Iterable[Metric]:
    yield _gauge(
        "build_info", "Always 1; the versions are in the labels", {tuple(facts.build.values()): 1}, facts.build
    )
    yield _gauge("ready", "Whether /healthz would say 200", {(): facts.ready})
    workers = {(str(number),): answers for number, answers in facts.workers.items()}
    yield _gauge("worker_up", "Whether a worker answers", workers, ["worker"])
    expiries = {(host,): at for host, at in facts.certificates.items()}
    yield _gauge("certificate_expiry_timestamp_seconds", "Unix time at which a certificate expires", expiries, ["host"])
    if facts.queue is not None:
        states = {(state,): number for state, number in facts.queue.items()}
        yield _gauge("queue_recipients", "Recipients in the queue, by state", states, ["state"])
        yield _gauge("queue_oldest_seconds", "Age of the oldest message in the queue", {(): facts.queue_oldest_s})
        text = "How long the recipient that has waited longest for its attempt has been due"
        yield _gauge("queue_overdue_seconds", text, {(): facts.queue_overdue_s})
    if facts.storage_octets is not None:
        parts = {(part,): octets for part, octets in facts.storage_octets.items()}
        yield _gauge("storage_octets", "Size of the store, by part", parts, ["part"])
        yield _gauge("disk_free_octets", "Room on the disk of data_dir for us", {(): facts.disk_free_octets})
        yield _gauge("disk_octets", "Size of that disk", {(): facts.disk_octets})


def _gauge(name: str, text: str, values: Mapping[Any, float], labels: Iterable[str] = ()) -> Metric:
    gauge = GaugeMetricFamily(f"posthouse_{name}", text, labels=list(labels))
    for of_labels, value in values.items():
        gauge.add_metric(list(of_labels), float(value))
    return gauge
