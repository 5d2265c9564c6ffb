"""One session with one source: what is new comes here, what may go is deleted there.

A message and its name are committed here before DELE is sent; the server deletes nothing before QUIT (RFC 1939 §6).
So a crash anywhere costs no message and makes no second copy.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from posthouse.collection.door import Login, LoginRefused, NotReached, enter
from posthouse.collection.fingerprint import fingerprint, has_message_id
from posthouse.collection.intake import Hear, House, Intake, TooLarge
from posthouse.collection.listing import Listed, NoNames, list_messages
from posthouse.collection.plan import Plan, Recogniser, plan, to_delete
from posthouse.mail.source import GONE_KEPT_S, KnownMessage, Source, SourceState
from posthouse.mail.words import count
from posthouse.net.connect import Connector
from posthouse.net.pop3_connection import Pop3Connection, Pop3Failed
from posthouse.net.tls import CertificateUnusable
from posthouse.protocol.errors import LocalProtocolError
from posthouse.vault import SecretMissing

FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a session. `failure`: why it ended early, "" where it did not; for the source's owner."""

    listed: int = 0
    collected: int = 0
    octets: int = 0
    deleted: int = 0
    recognised: int = 0
    failure: str = ""
    refused: bool = False
    asks_to_wait: bool = False


@dataclass(slots=True)
class _Tally:
    """A `Report` in the making."""

    listed: int = 0
    deleted: int = 0
    recognised: int = 0
    intake: Intake | None = None

    def report(self, failure: str = "", *, refused: bool = False, asks_to_wait: bool = False) -> Report:
        return Report(
            listed=self.listed,
            collected=self.intake.collected if self.intake else 0,
            octets=self.intake.octets if self.intake else 0,
            deleted=self.deleted,
            recognised=self.recognised,
            failure=failure,
            refused=refused,
            asks_to_wait=asks_to_wait,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """Collects from sources, one session at a time. `secret`: reads what a reference refers to.

    `context`: makes what verifies the servers' certificates.
    """

    house: House
    connector: Connector
    context: Callable[[], ssl.SSLContext]
    secret: Callable[[str], Awaitable[str]]

    async def collect(self, source: Source, login: str, hear: Hear | None = None) -> Report:
        """One session, with its outcome noted. `login`: whose account it is for. Raises StorageError."""
        tally = _Tally()
        state = source.state
        try:
            state = await self._session(source, login, tally, hear)
            report = tally.report(_not_given(tally))
        except LoginRefused as exc:
            report = tally.report(f"the login was refused: {exc}", refused=exc.certain)
        except SecretMissing as exc:
            report = tally.report(str(exc))
        except Pop3Failed as exc:
            asks = (exc.code or "").startswith(("IN-USE", "LOGIN-DELAY", "SYS/TEMP"))
            report = tally.report(f"{source.settings.server}: {exc}", asks_to_wait=asks)
        except (NotReached, NoNames, TooLarge, LocalProtocolError, CertificateUnusable) as exc:
            report = tally.report(str(exc))
        await self.house.storage.sources.note(source.source, self._next_state(source, state, report))
        return report

    async def _session(self, source: Source, login: str, tally: _Tally, hear: Hear | None) -> SourceState:
        settings, sources, clock = source.settings, self.house.storage.sources, self.house.clock
        secret = await self.secret(settings.secret)
        connection, _ = await enter(settings, Login(settings.login, secret), self.connector, self.context())
        try:
            listed = await list_messages(connection)
            tally.listed = len(listed)
            known = await sources.known(source)
            todo = plan(listed, known, empty=source.state.empty)
            fetch = await self._recognised(connection, source, known, todo, tally)
            tally.intake = Intake(self.house, source, login, hear)
            await tally.intake.take(connection, fetch)
            now = clock.now()
            forget_before = now - GONE_KEPT_S
            old = any(message.gone_at is not None and message.gone_at < forget_before for message in known.values())
            if todo.gone or todo.back or old:
                await sources.note_listed(
                    source.source, gone=todo.gone, back=todo.back, now=now, forget_before=forget_before
                )
            done = to_delete(listed, await sources.known(source), settings.policy, now)
            await connection.delete_all([each.number for each in done])
            await connection.quit()
            tally.deleted = len(done)
        except BaseException:
            connection.stream.abort()
            raise
        return replace(source.state, empty=todo.empty)

    async def _recognised(
        self,
        connection: Pop3Connection,
        source: Source,
        known: Mapping[str, KnownMessage],
        todo: Plan,
        tally: _Tally,
    ) -> Sequence[Listed]:
        """What is to be fetched, once those that are known under other names were told by their headers."""
        if not todo.suspects:
            return todo.fetch
        names = {each.name for each in (*todo.fetch, *todo.suspects)}
        gone = set(todo.gone)
        missing = [
            message
            for name, message in known.items()
            if name not in names and (message.gone_at is not None or name in gone)
        ]
        recogniser = Recogniser(missing)
        renamed: dict[str, str] = {}
        fetch = list(todo.fetch)
        for each in todo.suspects:
            header = await connection.header(each.number)
            found = recogniser.recognise(each, fingerprint(header), is_telling=has_message_id(header))
            if found is None:
                fetch.append(each)
            else:
                renamed[found] = each.name
        if renamed:
            await self.house.storage.sources.rename(source.source, renamed)
        tally.recognised = len(renamed)
        return sorted(fetch, key=lambda each: each.number)

    def _next_state(self, source: Source, state: SourceState, report: Report) -> SourceState:
        """When it is tried again: at its interval, or, after failures in a row, later and later."""
        now, interval = self.house.clock.now(), source.settings.interval_s
        if not report.failure:
            return SourceState(collected_at=now, next_at=now + interval, empty=state.empty)
        failures = source.state.failures + 1
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
        return replace(
            state,
            failures=failures,
            failure=report.failure,
            refused=report.refused,
            next_at=now + max(interval if report.asks_to_wait else 0.0, pause),
        )


def _not_given(tally: _Tally) -> str:
    missing = tally.intake.missing if tally.intake is not None else {}
    if not missing:
        return ""
    said = next(iter(missing.values()))
    return f"{count(len(missing), 'message was', 'messages were')} not given by the server: {said}"
