"""Every schema that a version had: upgraded, used, rolled back, and opened again by the very program of then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, get_args

import apsw
import pytest

import posthouse
from posthouse.indexing import bring_up_to_date
from posthouse.mail.acceptance import Acceptance, Destination, Forward
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import JourneyEvent, from_json
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.changes_of_schema import shape_of
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.migrate import migrations
from posthouse.storage.sqlite.rollback import roll_back
from posthouse.storage.sqlite.schema import upgrade
from posthouse.storage.sqlite.trial import try_migration
from posthouse.storage.upkeep import RolledBack, tell_nobody
from tests.storage.sqlite import then

RELEASED = Path(__file__).parent / "released"
NEWEST = migrations()[-1][0]
NOW = then.START + 50 * 86_400
DISK = RealFileSystem()
OWN_SERVER = Destination("submit.mail.test:465", "mail.test")
OWN_QUEUE_ID = QueueId("01M00000000000000000000000")
SCHEMAS = sorted(int(path.name.split("-")[1].split(".")[0]) for path in RELEASED.glob("*.tar.xz"))


class Then:
    """A version of the program, and a house that it made."""

    def __init__(self, program: Path, house: Path) -> None:
        self.program = program
        self.house = house
        self.kinds: set[str] = set()
        """Of journey events that it knows; told by `look`."""

    def run(self, *arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.program)}
        command = [sys.executable, then.__file__, arguments[0], str(self.house), *arguments[1:]]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def look(self) -> Any:
        seen = json.loads(self.run("look"))
        assert Path(seen.pop("program")).is_relative_to(self.program)
        assert seen.pop("flaws", []) == []
        self.kinds = set(seen.pop("kinds"))
        return seen


def unpacked(schema: int, folder: Path) -> Then:
    with tarfile.open(RELEASED / f"schema-{schema}.tar.xz") as packed:
        # (Debian 12's Python has no filters yet.)
        packed.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
        packed.extractall(folder)
    (folder / "house").chmod(0o700)
    return Then(folder, folder / "house")


async def look(house: Path) -> Any:
    """As this version sees it; there is no flaw, which the first versions could not look for."""
    seen = json.loads(json.dumps(await then.look(house)))
    assert seen.pop("flaws") == []
    assert seen.pop("program") == posthouse.__file__
    assert seen.pop("kinds")
    return seen


async def use_all(house: Path) -> None:
    """What only later versions know."""
    storage, clock, _ = await then.opened(house, seed=60)
    now = clock.now()
    await storage.credentials.add_app_password(then.LOGINS[0], "phone", verifier="$app$1", scram=None, now=now)
    await storage.credentials.secret("session")
    await storage.administration.add_identity(parse_address("ada@mail.test"), then.LOGINS[0], via=OWN_SERVER.via)
    await send_through_own_server(storage, clock)
    (first, *_) = await storage.spool.list()
    kinds = [kind.__name__.lower() for kind in get_args(JourneyEvent)]
    await storage.journey.append([from_json(kind, first.message.queue_id, now, "{}") for kind in kinds])
    await storage.administration.add_alias(parse_address("x@there.test"), [parse_address(then.LOGINS[0])])
    reader = await storage.directory.account(then.LOGINS[0])
    assert reader is not None
    await storage.reading.begin(reader.account)
    assert await bring_up_to_date(storage, reader.account)
    await storage.close()
    # As a restore holds it.
    connection = apsw.Connection(str(house / DATABASE))
    connection.execute("UPDATE spool SET held = 2 WHERE held = 1")
    connection.close()


async def send_through_own_server(storage: Any, clock: then.Ticking) -> None:
    """Two recipients that must leave through a provider's server."""
    now = clock.now()
    forwards = [
        Forward(
            forward_path=parse_address(f"{name}@mail.test"),
            reverse_path=parse_address("ada@mail.test"),
            destination=OWN_SERVER,
            not_before=now,
            expires_at=now + 432_000,
            identity="ada@mail.test",
        )
        for name in "xy"
    ]
    draft = await storage.content.draft()
    await draft.write(b"Subject: own\r\n\r\n")
    await storage.accept(
        Acceptance(
            queue_id=OWN_QUEUE_ID,
            accepted_at=now,
            reverse_path=parse_address("ada@mail.test"),
            prefix=b"",
            content=await draft.seal(ContentFacts()),
            forwards=tuple(forwards),
        )
    )


async def die_while_sending(house: Path) -> None:
    """The final dot to a provider's server may have left when the house was killed."""
    storage, clock, _ = await then.opened(house, seed=65)
    claim = await storage.spool.claim(OWN_SERVER, 1, clock.now() + 1)
    assert claim is not None
    keys = [(row.message.queue_id, row.recipient_number) for row in claim.rows]
    assert await storage.spool.mark_sending(claim.token, keys, clock.now())
    storage.abandon()


def told_in(seen: Any, kinds: set[str]) -> Any:
    """With events of these kinds only: a way back leaves out the others."""
    journeys = {
        queue_id: [event for event in told if event.split()[0] in kinds] for queue_id, told in seen["journeys"].items()
    }
    return {**seen, "journeys": journeys}


def without_own_server(seen: Any) -> tuple[Any, list[Any]]:
    """What was seen but the recipients behind a provider's server, and those."""
    own = [row for row in seen["queue"] if row[0] == OWN_QUEUE_ID]
    journeys = {queue_id: told for queue_id, told in seen["journeys"].items() if queue_id != OWN_QUEUE_ID}
    return {**seen, "queue": [row for row in seen["queue"] if row not in own], "journeys": journeys}, own


def roll(house: Path, now: float = NOW + 60) -> RolledBack:
    return roll_back(house, now=now, disk=DISK, tell=tell_nobody)


def raise_to_newest(house: Path) -> None:
    migrated, _ = upgrade(house, now=NOW, disk=DISK, tell=tell_nobody)
    assert migrated is not None


def shape(house: Path) -> Any:
    connection = apsw.Connection(str(house / DATABASE))
    try:
        found = shape_of(connection)
        tables = {
            name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall()
            + connection.execute(f"PRAGMA foreign_key_list({name})").fetchall()
            for name in found.tables
        }
        return tables, found.indexes, connection.pragma("user_version")
    finally:
        connection.close()


def test_every_schema_but_the_newest_is_kept_here() -> None:
    assert SCHEMAS[0] == 1
    assert {number for number, _ in migrations()} - {NEWEST} <= set(SCHEMAS), (
        "run: python tests/storage/sqlite/released/make.py COMMIT, for the last commit of the schema before"
    )


def test_a_new_kind_of_event_comes_with_a_migration(tmp_path: Path) -> None:
    last = unpacked(SCHEMAS[-1], tmp_path)
    last.look()
    now = {kind.__name__ for kind in get_args(JourneyEvent)}
    assert SCHEMAS[-1] < NEWEST or last.kinds == now, "its way back deletes what older programs cannot read"


@pytest.mark.conformance("C251")
@pytest.mark.parametrize("schema", [schema for schema in SCHEMAS if schema < NEWEST])
async def test_an_upgrade_and_its_rollback_lose_nothing(schema: int, tmp_path: Path) -> None:
    old = unpacked(schema, tmp_path)
    before = old.look()
    assert sum(map(len, before["maildrops"].values())) == 47
    assert len(before["queue"]) == 7
    shape_before = shape(old.house)
    trial = await try_migration(old.house, now=NOW, disk=DISK, tell=tell_nobody)
    assert (trial.before, trial.after, trial.flaws) == (schema, NEWEST, ())
    assert shape(old.house) == shape_before
    raise_to_newest(old.house)
    assert await look(old.house) == before
    await then.go_on(old.house, 20)
    await use_all(old.house)
    since = await look(old.house)
    assert len(since["accounts"]) == 4
    await die_while_sending(old.house)
    done = roll(old.house)
    assert (done.before, done.after) == (NEWEST, schema)
    assert shape(old.house) == shape_before
    seen, own = without_own_server(old.look())
    assert seen == told_in(without_own_server(since)[0], old.kinds)
    # What an older program would send by other ways, or a second time, waits for somebody.
    assert schema > 5 or ([row[7] for row in own], done.held) == ([True, True], 2)
    assert ["451 4.4.2" in (row[11] or "") for row in own] == [True, False]
    # The older program goes on with it, and comes back.
    old.run("go_on_again")
    seen = old.look()
    raise_to_newest(old.house)
    assert await look(old.house) == seen
