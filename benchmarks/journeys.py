"""What it costs to find a journey among many, to index old journeys at migration, and what the index takes on disk.

    PYTHONPATH=src python benchmarks/journeys.py [--count 1000000]

Half of the journeys were delivered elsewhere at the second try; of the others 1 of 50 was refused. One JSON line, with
the slowest of five for each way to find one, in ms, on a connection with the cache of a house's readers.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.storage.contract.world import SeededRandom

from posthouse.mail.ids import QueueId, new_queue_id
from posthouse.mail.journey import Accepted, Attempted, JourneyEvent, Placed, Queued, Refused, kind_of, parties, to_json
from posthouse.storage.sqlite.connection import open_reader, open_writable
from posthouse.storage.sqlite.journey_index import index_old_journeys, party_key
from posthouse.storage.sqlite.journey_search import Search, journeys_beginning_with
from posthouse.storage.sqlite.migrate import migrations

NOW = 1_800_000_000.0
SPAN_S = 30 * 86_400
ROUNDS = 5
DIALOGUE = ("S: 220 mx.far.test ESMTP", "C: EHLO mx.house.test", "S: 250-mx.far.test", "S: 250 PIPELINING") * 4
REFUSALS = (
    "421 4.7.28 Our system has detected an unusual rate of mail from your IP address; please visit our help page",
    "450 4.7.1 Greylisted, please try again in 300 seconds",
    "452 4.2.2 The mailbox is over quota, please try again later",
)


def events_of(number: int, at: float, chance: random.Random, queue_id: QueueId) -> list[JourneyEvent]:
    """What a house writes of one message."""
    sender = "list@far.test" if number % 5 == 0 else f"s{chance.randrange(50_000)}@far.test"
    to = "ada@house.test" if number % 3 == 0 else f"u{chance.randrange(20_000)}@house.test"
    if number % 100 == 1:
        refusal = "550 5.1.1 There is no such mailbox here"
        known: dict[str, Any] = {"peer": "192.0.2.1", "hello": "far.test"}
        return [
            Refused(
                queue_id=queue_id,
                at=at,
                command="RCPT",
                reply=refusal,
                reverse_path=sender,
                forward_paths=(to,),
                **known,
            )
        ]
    accepted = Accepted(
        queue_id=queue_id,
        at=at,
        reverse_path=sender,
        forward_paths=(to,),
        size_octets=4096,
        peer="192.0.2.1",
        hello="far.test",
        protocol="ESMTPS",
        message_id=f"<{chance.getrandbits(96):x}.{number}@mail.far.test>",
    )
    if number % 2:
        return [accepted, Placed(queue_id=queue_id, at=at, forward_path=to, login=to, folder="Inbox", uidl=queue_id)]
    queued = Queued(queue_id=queue_id, at=at, forward_path=to, domain="house.test")
    delivered = f"250 2.0.0 Ok: queued as {chance.getrandbits(44):X}"
    tries = [
        Attempted(
            queue_id=queue_id,
            at=at + 1 + 300 * attempt,
            forward_path=to,
            outcome="delivered" if attempt else "deferred",
            reply=delivered if attempt else REFUSALS[number // 2 % 3],
            from_peer=True,
            next_hop="mx.far.test:25",
            address="192.0.2.9",
            attempt=attempt + 1,
            duration_s=0.25,
            transcript=DIALOGUE,
            transcript_ms=tuple(range(len(DIALOGUE))),
        )
        for attempt in range(2)
    ]
    return [accepted, queued, *tries]


def fill(connection: apsw.Connection, count: int) -> list[Any]:
    """Journeys as a version without the index left them; what one of them is found by."""
    chance, ids = random.Random(1), SeededRandom(1)
    wanted: list[Any] = []

    def rows() -> Iterator[tuple[str, int, float, str, str]]:
        for number in range(count):
            at = NOW - SPAN_S + SPAN_S * number / count
            queue_id = new_queue_id(at, ids)
            events = events_of(number, at, chance, queue_id)
            named.extend((role, party_key(path), queue_id) for event in events for role, path in parties(event))
            if number == count // 3 // 2 * 2:
                wanted.extend(events)
            for place, event in enumerate(events, 1):
                yield queue_id, place, event.at, kind_of(event), to_json(event)

    named: list[tuple[str, str, str]] = []
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows())
    connection.executemany("INSERT OR IGNORE INTO parties VALUES (?, ?, ?)", sorted(named))
    connection.execute("COMMIT")
    return wanted


def octets_of(connection: apsw.Connection) -> int:
    return int(str(connection.pragma("page_count"))) * int(str(connection.pragma("page_size")))


def searches(wanted: list[Any]) -> dict[str, Search]:
    """Each way to find something, rare and common."""
    accepted, *_, delivered = wanted
    return {
        "message id": Search(message_id=accepted.message_id, limit=21),
        "unknown message id": Search(message_id="<nobody@nowhere.test>", limit=21),
        "to": Search(forward_path="ada@house.test", limit=21),
        "to and from": Search(forward_path="ada@house.test", reverse_path="list@far.test", limit=21),
        "to and from, in vain": Search(forward_path="nobody@house.test", reverse_path="list@far.test", limit=21),
        "refused": Search(refused=True, limit=21),
        "refused, to": Search(refused=True, forward_path="ada@house.test", limit=21),
        "their queue id": Search(reply=delivered.reply.split()[-1], limit=21),
        "code": Search(reply="4.7.28", limit=21),
        "common words": Search(reply="please try again", limit=21),
        "a word in vain": Search(reply="please dane", limit=21),
        "words of different replies": Search(reply="greylisted quota", limit=21),
        "words, to": Search(reply="4.7.28 rate", forward_path="ada@house.test", limit=21),
        "words, rare to": Search(reply="4.7.28 rate", forward_path="u7@house.test", limit=21),
        "words, from and to in vain": Search(
            reply="please", forward_path="list@far.test", reverse_path="ada@house.test", limit=21
        ),
        "words, refused, in vain": Search(reply="greylisted", refused=True, limit=21),
        "words of the last two hours": Search(reply="please", since=NOW - 7200, limit=21),
        "words, last second": Search(reply="please", since=NOW - 1 + 600, limit=21),
        "last two hours": Search(since=NOW - 7200, limit=21),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "posthouse.db"
        connection = open_writable(path, vfs=None, create=True)
        for number, sql in migrations():
            if number < 8:
                connection.execute(sql)
        wanted = fill(connection, count)
        before = octets_of(connection)
        started = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(dict(migrations())[8])
        index_old_journeys(connection)
        connection.execute("COMMIT")
        indexed_s = time.perf_counter() - started
        result: dict[str, Any] = {"journeys": count, "index_old_s": round(indexed_s, 1)}
        result["octets_per_journey"] = round(before / count)
        result["index_octets_per_journey"] = round((octets_of(connection) - before) / count)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        reader = open_reader(path, vfs=None)
        found = {}
        for what, search in searches(wanted).items():
            taken = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                hits = len(search.run(reader))
                taken.append((time.perf_counter() - started) * 1000)
            found[what] = [round(max(taken), 1), hits]
        started = time.perf_counter()
        hits = len(journeys_beginning_with(reader, wanted[0].queue_id[:8], 10))
        found["first letters"] = [round((time.perf_counter() - started) * 1000, 1), hits]
        print(json.dumps(result | {"slowest_ms_and_hits": found}))


if __name__ == "__main__":
    main()
