"""The attempts of one claim at one destination, over one connection while it lives.

A destination none of whose hosts answers is asked once: the messages that follow share that failure, so that a claim
of a hundred messages does not wait a hundred times for a dead host.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from posthouse.forwarding.attempt import Attempt, bounded
from posthouse.forwarding.dial import OpenConnection
from posthouse.forwarding.pool import Pool
from posthouse.forwarding.search import HostSearch, worse
from posthouse.forwarding.transaction import (
    CONTENT_UNFIT,
    MAY_HAVE_ARRIVED,
    NOT_ANSWERED,
    NOT_ASKED,
    OWNER_DECIDES,
    TOO_LARGE,
    needs_utf8,
    outcome_of,
    pressure,
    refused_recipients,
    said_421,
    transaction,
    unsuitable,
    were_too_many,
)
from posthouse.mail.outcome import Deferred, Failed, Outcome, Uncertain
from posthouse.mail.pressure import is_about_address
from posthouse.mail.reply import Reply, reply
from posthouse.mail.spool import SpoolMessage, SpoolRow
from posthouse.mail.world import Clock
from posthouse.net.smtp_connection import ConnectionBroke, ContentUnfit, SmtpConnection
from posthouse.net.smtp_transcript import Dialogue
from posthouse.storage.interfaces import Content

BREAKS_LIMIT = 2
"""After so many messages in a row that broke every connection, the rest of a claim waits."""

Rows = tuple[SpoolRow, ...]
Mark = Callable[[Sequence[SpoolRow]], Awaitable[bool]]
"""Notes durably that the final dot for these rows may leave; False: they are not ours any more."""


class ClaimLost(Exception):
    """Somebody else has the claim; nothing was sent, and there is nothing to settle."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """What became of some rows. `alive`: the connection can be used again. `mail` is the reply to MAIL, if any."""

    rows: Rows
    outcomes: tuple[Outcome, ...]
    alive: bool = False
    mail: Reply | None = None


class RelaySession:
    """`attempt` any number of messages; then `close` ends it politely, `abort` at once."""

    def __init__(
        self,
        search: HostSearch,
        pool: Pool,
        content: Content,
        clock: Clock,
        reached: Callable[[], None] = lambda: None,
        mark: Mark | None = None,
    ) -> None:
        """`reached` is called when a host has greeted us. `mark`: asked before each final dot (an identity's rows)."""
        self._search = search
        self._pool = pool
        self._content = content
        self._clock = clock
        self._reached = reached
        self._mark = mark
        self.has_reached = False
        self._opened: OpenConnection | None = None
        self._given_up: Outcome | None = None
        self._breaks = 0
        self._nowhere: dict[Reply, Outcome] = {}
        self._passes_reports_on = False
        self._slow_down: Reply | None = None
        self._transcript = Dialogue(clock.monotonic)

    async def attempt(self, rows: Rows) -> Attempt:
        """Try one message; its rows share the reverse-path. Whatever is raised, nothing was decided.

        The attempt's rows may be fewer: the others belong in another transaction, at once.
        """
        started = self._clock.monotonic()
        self._transcript = Dialogue(self._clock.monotonic)
        self._passes_reports_on = False
        self._slow_down = None
        self._search.asks_dead = any(row.wanted_at_once for row in rows)
        tried = await self._try(rows)
        left_alone_s = self._search.skipped_for_s
        steps = bounded(self._transcript.steps)
        return Attempt(
            rows=tried.rows,
            outcomes=tried.outcomes,
            next_hop=self._search.next_hop,
            address=self._search.address,
            duration_s=self._clock.monotonic() - started,
            transcript=tuple(step.line for step in steps),
            transcript_ms=tuple(max(0, round((step.at_s - started) * 1000)) for step in steps),
            reports_passed_on=self._passes_reports_on,
            not_before=self._clock.now() + left_alone_s if left_alone_s is not None else None,
            slow_down=self._slow_down,
        )

    async def close(self) -> None:
        """Leave the connection, if there is one, to the next claim; or QUIT."""
        opened, self._opened = self._opened, None
        if opened is not None and opened.clean and opened.is_quiet and opened.connection.may_carry_another:
            opened = self._pool.put(opened)
        if opened is not None:
            await opened.connection.quit()

    def abort(self) -> None:
        """Drop the connection, if there is one; another attempt begins with the best host."""
        self._search.restart()
        self._drop()

    def _drop(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.connection.abort()

    async def _quit(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.connection.quit()

    async def _try(self, rows: Rows) -> _Tried:
        broken: _Tried | None = None
        refused: _Tried | None = None
        refusals: list[Reply] = []
        while self._given_up is None:
            opened = await self._connected()
            if opened is None:
                if broken is not None:
                    return self._broken(broken)
                if refused is not None:
                    return refused
                if refusals:
                    return self._fits_nowhere(refusals, rows)
                self._given_up = self._search.failure or Deferred(NOT_ANSWERED, from_peer=False)
                self._slow_down = self._search.pressure
                break
            fresh, opened.fresh = opened.fresh, False
            rows = _taken_without_utf8(rows, opened.connection) or rows
            refusal = unsuitable(rows[0].message, rows, opened.connection.extensions)
            if refusal is not None:
                if refusal in self._nowhere:
                    return _Tried(rows, (self._nowhere[refusal],) * len(rows))
                if opened.by_helo:
                    self._search.failure = Deferred(NOT_ASKED, from_peer=False)
                tried = bool(refusals)
                if fresh or self._search.hop_count == 1:
                    refusals.append(refusal)
                if await self._leave_for_others(fresh=fresh, tried=tried):
                    continue
                if broken is not None:
                    return self._broken(broken)
                return refused or self._fits_nowhere(refusals, rows)
            was_clean = opened.clean
            tried_now = await self._deliver(opened, rows[: opened.recipients_limit])
            if was_clean and await self._was_only_tired(tried_now):
                continue
            if fresh and refused is None and await self._may_be_taken_elsewhere(tried_now):
                refused = tried_now
                continue
            if tried_now.alive:
                self._breaks = 0
                return tried_now
            self._drop()
            if not fresh:
                # It may only have been tired of us: begin again with the best host.
                self._search.restart()
            if not all(isinstance(outcome, Deferred) for outcome in tried_now.outcomes):
                self._search.restart()
                return tried_now
            if fresh:
                broken = tried_now
                if not self._search.can_go_on:
                    return self._broken(broken)
        return _Tried(rows, (self._given_up,) * len(rows))

    async def _connected(self) -> OpenConnection | None:
        """The connection, or another where it has had as many transactions as its host takes."""
        if self._opened is not None and not self._opened.connection.may_carry_another:
            await self._quit()
            self._search.restart()
        if self._opened is None:
            self._opened = await self._search.open(self._transcript)
            if self._opened is not None:
                self.has_reached = True
                self._reached()
        return self._opened

    async def _was_only_tired(self, tried: _Tried) -> bool:
        """Whether a connection that has taken a message takes nothing more: that says nothing about the next one."""
        if not (tried.alive and tried.mail is not None and tried.mail.is_transient):
            return False
        await self._quit()
        self._search.restart()
        return True

    async def _may_be_taken_elsewhere(self, tried: _Tried) -> bool:
        """Leave a host that takes no mail at the moment for the next (RFC 5321 §5.1); one of them, not all."""
        refused = tried.mail is not None and tried.mail.is_transient and not is_about_address(tried.mail)
        if not (tried.alive and refused):
            return False
        self._search.skip_host()
        if not self._search.can_go_on:
            return False
        await self._quit()
        return True

    async def _leave_for_others(self, *, fresh: bool, tried: bool) -> bool:
        """Leave a host that cannot take the message, for others that may (RFC 5321 §5.1). False: there are none.

        `tried`: others could not either, before this one.
        """
        if not fresh and self._search.hop_count > 1:
            # There may be better ones: begin again with the best host.
            self._search.restart()
        self._search.skip_host()
        if not tried and self._search.has_begun and not self._search.can_go_on:
            # Of those that answer it is the only one, and good for other messages.
            return False
        await self._quit()
        return True

    def _fits_nowhere(self, refusals: Sequence[Reply], rows: Rows) -> _Tried:
        """No host that answers takes this message. One that does not answer now might.

        What another extension is needed for, no other message will find either; a smaller one may fit.
        """
        outcome = worse(self._search.failure, Failed(refusals[0], from_peer=False))
        if set(refusals) == {refusals[0]} - {TOO_LARGE}:
            self._nowhere[refusals[0]] = outcome
        return _Tried(rows, (outcome,) * len(rows))

    def _broken(self, tried: _Tried) -> _Tried:
        """This message broke the connection to every host. Maybe it is the message, maybe it is the hosts."""
        self._search.restart()
        self._breaks += 1
        if self._breaks >= BREAKS_LIMIT:
            self._given_up = tried.outcomes[0]
        return tried

    async def _deliver(self, opened: OpenConnection, rows: Rows) -> _Tried:
        """One transaction. Those of whom the host had too many are left out of what was tried."""
        connection, opened.clean = opened.connection, False
        self._passes_reports_on = "DSN" in connection.extensions
        try:
            async with aclosing(self._octets(rows)) as chunks:
                note = self._before_end(rows, connection)
                ended = await connection.deliver(transaction(rows), chunks, before_end=note)
            too_many = were_too_many(ended)
            if too_many:
                opened.recipients_limit = max(1, min(too_many))
            self._slow_down = pressure(ended)
            self._search.still_there(opened)
            opened.clean = ended.final is not None and ended.final.is_positive
            tried = [index for index in range(len(rows)) if index not in too_many]
            return _Tried(
                rows=tuple(rows[index] for index in tried),
                outcomes=tuple(outcome_of(ended, index) for index in tried),
                alive=not said_421(ended),
                mail=ended.mail,
            )
        except ContentUnfit:
            return _Tried(rows, (Failed(CONTENT_UNFIT, from_peer=False),) * len(rows))
        except ConnectionBroke as exc:
            return self._after_loss(exc, rows)
        finally:
            # Each attempt tells its own part of the dialogue; the connection keeps none of it.
            self._transcript.take(connection.steps)

    def _after_loss(self, loss: ConnectionBroke, rows: Rows) -> _Tried:
        """A connection that was lost says nothing of those who were refused before: their outcome is known."""
        refused = refused_recipients(loss.recipients)
        if loss.final_dot_sent:
            unknown = Uncertain(OWNER_DECIDES if self._mark else MAY_HAVE_ARRIVED)
            return _Tried(rows, tuple(refused.get(index, unknown) for index in range(len(rows))))
        failed = {index: outcome for index, outcome in refused.items() if isinstance(outcome, Failed)}
        if failed:
            # The others, if there are any, may still be taken elsewhere, at once.
            return _Tried(tuple(rows[index] for index in failed), tuple(failed.values()))
        text = f"The connection was lost: {loss}"
        return _Tried(rows, (Deferred(reply(451, "4.4.2", text), from_peer=False),) * len(rows))

    def _before_end(self, rows: Rows, connection: SmtpConnection) -> Callable[[], Awaitable[None]] | None:
        mark = self._mark
        if mark is None:
            return None

        async def note() -> None:
            refused = refused_recipients(connection.recipient_replies)
            if not await mark([row for index, row in enumerate(rows) if index not in refused]):
                raise ClaimLost

        return note

    async def _octets(self, rows: Rows) -> AsyncGenerator[bytes, None]:
        message: SpoolMessage = rows[0].message
        yield message.prefix
        async for chunk in self._content.open(message.content_id):
            yield chunk


def _taken_without_utf8(rows: Rows, connection: SmtpConnection) -> Rows:
    """Those that a host without SMTPUTF8 can take, if there are others beside them: each recipient has its outcome."""
    if "SMTPUTF8" in connection.extensions:
        return ()
    return tuple(row for row in rows if not needs_utf8(row.message, (row,)))
