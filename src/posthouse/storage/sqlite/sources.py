"""Sources, and what was collected from each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import apsw

from posthouse.mail.acceptance import Collected
from posthouse.mail.account import Identity
from posthouse.mail.address import Address
from posthouse.mail.folders import TRASH
from posthouse.mail.ids import AccountId, QueueId, SourceId
from posthouse.mail.source import (
    Keeping,
    KnownMessage,
    Mechanism,
    Policy,
    Protection,
    Server,
    Source,
    SourceSettings,
    SourceState,
)
from posthouse.storage.errors import DirectoryConflict
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.directory import bump
from posthouse.storage.sqlite.identities import delete_identity, find_identity, insert_identity, update_identity
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

_ALL = """
SELECT source, account, local_part, domain, host, port, protection, login, secret, mechanism, folder, keeping,
    keeping_days, interval_s, collected_at, next_at, failures, failure, refused, empty FROM sources"""
_ORDERED = f"{_ALL} ORDER BY domain, address_key"
_ONE = f"{_ALL} WHERE address_key = ?"
_ADD = """
INSERT INTO sources(account, address_key, local_part, domain, host, port, protection, login, secret, mechanism,
    folder, keeping, keeping_days, interval_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_CHANGE = """
UPDATE sources SET host = ?, port = ?, protection = ?, login = ?, secret = ?, mechanism = ?, folder = ?, keeping = ?,
    keeping_days = ?, interval_s = ?, next_at = 0, failures = 0, failure = '', refused = 0 WHERE address_key = ?"""
_NOTE = """
UPDATE sources SET collected_at = ?, next_at = ?, failures = ?, failure = ?, refused = ?, empty = ? WHERE source = ?"""
_KNOWN = """
SELECT uidl, queue_id, size_octets, fingerprint, collected_at, gone_at, EXISTS (
    SELECT 1 FROM entries JOIN folders USING (folder)
    WHERE entries.queue_id = collected.queue_id AND entries.account = ? AND folders.name <> ?)
FROM collected WHERE source = ? ORDER BY uidl"""
_IS_KNOWN = "SELECT 1 FROM collected WHERE source = ? AND uidl = ?"
_COLLECTED = """
INSERT INTO collected(source, uidl, queue_id, size_octets, fingerprint, collected_at) VALUES (?, ?, ?, ?, ?, ?)"""
_GONE = "UPDATE collected SET gone_at = ? WHERE source = ? AND uidl = ? AND gone_at IS NULL"
_BACK = "UPDATE collected SET gone_at = NULL WHERE source = ? AND uidl = ?"
_FORGET = "DELETE FROM collected WHERE source = ? AND gone_at < ?"
_RENAME = "UPDATE OR REPLACE collected SET uidl = ?, gone_at = NULL WHERE source = ? AND uidl = ?"


class SqliteSources:
    """Implements `storage.interfaces.Sources`."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    async def add(self, settings: SourceSettings, identity: Identity | None = None) -> SourceId:
        address = settings.address

        def work(connection: apsw.Connection) -> SourceId:
            if row(connection, _ONE, (address.key,)) is not None:
                raise DirectoryConflict(f"mail is collected from {address} already; see: posthouse collect --list")
            whose = (settings.account, address.key, address.local_part, address.domain)
            connection.execute(_ADD, (*whose, *_spelled(settings)))
            source = SourceId(connection.last_insert_rowid())
            if identity is not None:
                insert_identity(connection, identity)
                bump(connection)
            return source

        return await self._writer.submit(work)

    async def change(self, settings: SourceSettings, identity: Identity | None = None) -> None:
        def work(connection: apsw.Connection) -> None:
            connection.execute(_CHANGE, (*_spelled(settings), settings.address.key))
            _require_one(connection, settings.address)
            if identity is not None:
                if find_identity(connection, identity.address.key) is None:
                    insert_identity(connection, identity)
                else:
                    update_identity(connection, identity)
                bump(connection)

        await self._writer.submit(work)

    async def remove(self, address: Address, *, identity: bool = False) -> None:
        def work(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM sources WHERE address_key = ?", (address.key,))
            _require_one(connection, address)
            if identity:
                delete_identity(connection, address)
                bump(connection)

        await self._writer.submit(work)

    async def all(self) -> tuple[Source, ...]:
        found = await self._readers.query(lambda connection: rows(connection, _ORDERED))
        return tuple(_source(*values) for values in found)

    async def find(self, address: Address) -> Source | None:
        found = await self._readers.query(lambda connection: row(connection, _ONE, (address.key,)))
        return None if found is None else _source(*found)

    async def note(self, source: SourceId, state: SourceState) -> None:
        values = (state.collected_at, state.next_at, state.failures, state.failure, state.refused, state.empty, source)
        await self._writer.submit(lambda connection: connection.execute(_NOTE, values))

    async def known(self, source: Source) -> Mapping[str, KnownMessage]:
        wanted = (source.settings.account, TRASH, source.source)
        found = await self._readers.query(lambda connection: rows(connection, _KNOWN, wanted))
        return {
            uidl: KnownMessage(uidl, QueueId(queue_id), size, fingerprint, collected_at, gone_at, bool(here))
            for uidl, queue_id, size, fingerprint, collected_at, gone_at, here in found
        }

    async def note_listed(
        self, source: SourceId, *, gone: Collection[str], back: Collection[str], now: float, forget_before: float
    ) -> None:
        def work(connection: apsw.Connection) -> None:
            connection.executemany(_GONE, [(now, source, uidl) for uidl in gone])
            connection.executemany(_BACK, [(source, uidl) for uidl in back])
            connection.execute(_FORGET, (source, forget_before))

        await self._writer.submit(work)

    async def rename(self, source: SourceId, names: Mapping[str, str]) -> None:
        renamed = [(new, source, old) for old, new in names.items()]
        await self._writer.submit(lambda connection: connection.executemany(_RENAME, renamed))


def insert_collected(connection: apsw.Connection, collected: Collected, queue_id: QueueId, now: float) -> None:
    """It is remembered from the commit on that has the message itself."""
    spelled = (collected.source, collected.uidl, queue_id, collected.size_octets, collected.fingerprint, now)
    connection.execute(_COLLECTED, spelled)


def is_collected(connection: apsw.Connection, collected: Collected) -> bool:
    """Whether a message of that name is here, or was."""
    return row(connection, _IS_KNOWN, (collected.source, collected.uidl)) is not None


def _require_one(connection: apsw.Connection, address: Address) -> None:
    if not connection.changes():
        raise DirectoryConflict(f"no mail is collected from {address}; see: posthouse collect --list")


def _spelled(settings: SourceSettings) -> tuple[str | int | float, ...]:
    server, policy = settings.server, settings.policy
    return (
        server.host,
        server.port,
        server.protection,
        settings.login,
        settings.secret,
        settings.mechanism,
        settings.folder,
        policy.keeping,
        policy.days,
        settings.interval_s,
    )


def _source(
    source: int,
    account: int,
    local_part: str,
    domain: str,
    host: str,
    port: int,
    protection: str,
    login: str,
    secret: str,
    mechanism: str,
    folder: str,
    keeping: str,
    keeping_days: int,
    interval_s: float,
    collected_at: float | None,
    next_at: float,
    failures: int,
    failure: str,
    refused: int,
    empty: int,
) -> Source:
    settings = SourceSettings(
        address=Address(local_part, domain),
        account=AccountId(account),
        server=Server(host, port, Protection(protection)),
        login=login,
        secret=secret,
        mechanism=Mechanism(mechanism),
        folder=folder,
        policy=Policy(Keeping(keeping), keeping_days),
        interval_s=interval_s,
    )
    state = SourceState(
        collected_at=collected_at,
        next_at=next_at,
        failures=failures,
        failure=failure,
        refused=bool(refused),
        empty=empty,
    )
    return Source(SourceId(source), settings, state)
