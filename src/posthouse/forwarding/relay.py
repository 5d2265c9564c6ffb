"""Attempts: messages of one destination handed to its next hop, and what came of it for each recipient."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from posthouse.config_values import Endpoint
from posthouse.forwarding.routes import Hop, NoRoute, Router
from posthouse.mail.outcome import Deferred, Delivered, Failed, Outcome, Uncertain
from posthouse.mail.reply import Reply, reply
from posthouse.mail.spool import SpoolMessage, SpoolRow
from posthouse.mail.world import Clock
from posthouse.net.connect import Connector
from posthouse.net.smtp_connection import (
    ConnectionBroke,
    ConnectionFailed,
    SmtpConnection,
    SmtpTimeouts,
)
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.smtp_client import ClientRecipient, ClientTransaction, TransactionEnded
from posthouse.storage.interfaces import Content

MAY_HAVE_ARRIVED = reply(451, "4.4.2", "The connection was lost after the final dot; the message may have arrived")
NOT_ANSWERED = reply(451, "4.4.2", "The connection was lost before the other server answered")
CANNOT_TAKE_8BIT = reply(554, "5.6.3", "The next hop takes no 8-bit content, and converting it would break signatures")
CANNOT_TAKE_UTF8 = reply(553, "5.6.7", "The next hop takes no internationalised addresses")
TOO_LARGE = reply(552, "5.3.4", "The message is larger than the next hop takes")
OUR_SIDE = reply(451, "4.3.0", "The attempt failed on our side")

CONNECTIONS_LIMIT = 20
"""How many addresses one search for a host that answers goes through."""
BREAKS_LIMIT = 2
"""After so many messages in a row that broke every connection, the rest of a claim waits."""
TRANSCRIPT_OCTETS = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try for some recipients of one message: `outcomes` are in the order of `rows`.

    `reports_passed_on`: the next hop offers DSN, so that a report of success is its business (RFC 3461 §5.2.2).
    """

    rows: tuple[SpoolRow, ...]
    outcomes: tuple[Outcome, ...]
    next_hop: str
    address: str
    duration_s: float
    transcript: tuple[str, ...] = ()
    reports_passed_on: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Hands messages to next hops; a session for each claim."""

    router: Router
    connector: Connector
    content: Content
    clock: Clock
    hello_name: str
    timeouts: SmtpTimeouts = field(default_factory=SmtpTimeouts)

    def session(self, domain: str, reached: Callable[[], None] = lambda: None) -> RelaySession:
        """Attempts at one destination. `reached` is called when a host of it has greeted us."""
        return RelaySession(self, domain, reached)


class RelaySession:
    """One connection serves all messages while it lives. `close` ends it politely, `abort` at once.

    A destination none of whose hosts answers is asked once: the messages that follow share that failure, so that a
    claim of a hundred messages does not wait a hundred times for a dead host.
    """

    def __init__(self, relay: Relay, domain: str, reached: Callable[[], None]) -> None:
        self._relay = relay
        self._domain = domain
        self._reached = reached
        self.has_reached = False
        self._connection: SmtpConnection | None = None
        self._hops: deque[Hop] | None = None
        self._addresses: deque[tuple[Hop, str]] = deque()
        self._connections_left = 0
        self._failure: Outcome | None = None
        self._failure_before: Outcome | None = None
        self._given_up: Outcome | None = None
        self._breaks = 0
        self._hop_count = 0
        self._nowhere: dict[Reply, Outcome] = {}
        self._next_hop = ""
        self._address = ""
        self._passes_reports_on = False
        self._transcript: list[str] = []

    async def attempt(self, rows: tuple[SpoolRow, ...]) -> Attempt:
        """Try one message; its rows share the reverse-path. Whatever is raised, nothing was decided."""
        started = self._relay.clock.monotonic()
        self._transcript = []
        self._passes_reports_on = False
        outcomes = await self._outcomes(rows)
        return Attempt(
            rows=rows,
            outcomes=outcomes,
            next_hop=self._next_hop,
            address=self._address,
            duration_s=self._relay.clock.monotonic() - started,
            transcript=bounded(self._transcript),
            reports_passed_on=self._passes_reports_on,
        )

    async def close(self) -> None:
        """QUIT, if there is a connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.quit()

    def abort(self) -> None:
        """Drop the connection, if there is one; another attempt begins with the best host."""
        self._hops = None
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def _outcomes(self, rows: tuple[SpoolRow, ...]) -> tuple[Outcome, ...]:
        broken: tuple[Outcome, ...] | None = None
        refusals: list[Reply] = []
        while self._given_up is None:
            fresh = self._connection is None
            if self._connection is None:
                self._connection = await self._open()
            if self._connection is None:
                if broken is not None:
                    return self._broken(broken)
                if refusals:
                    return self._fits_nowhere(refusals, rows)
                self._given_up = self._failure or Deferred(NOT_ANSWERED, from_peer=False)
                break
            refusal = _unsuitable(rows[0].message, rows, self._connection.extensions)
            if refusal is not None:
                if refusal in self._nowhere:
                    return (self._nowhere[refusal],) * len(rows)
                tried = bool(refusals)
                if fresh or self._hop_count == 1:
                    refusals.append(refusal)
                if await self._leave_for_others(fresh=fresh, tried=tried):
                    continue
                return self._broken(broken) if broken is not None else self._fits_nowhere(refusals, rows)
            outcomes, alive = await self._deliver(self._connection, rows)
            if alive:
                self._breaks = 0
                return outcomes
            self._drop()
            if not fresh:
                # It may only have been tired of us: begin again with the best host.
                self._hops = None
            if not all(isinstance(outcome, Deferred) for outcome in outcomes):
                self._hops = None
                return outcomes
            if fresh:
                broken = outcomes
                if not self._can_search_on():
                    return self._broken(broken)
        return (self._given_up,) * len(rows)

    async def _leave_for_others(self, *, fresh: bool, tried: bool) -> bool:
        """Leave a host that cannot take the message, for others that may (RFC 5321 §5.1). False: there are none.

        `tried`: others could not either, before this one.
        """
        if not fresh and self._hop_count > 1:
            # There may be better ones: begin again with the best host.
            self._hops = None
        # Another address of the same host would not help.
        self._addresses.clear()
        if not tried and self._hops is not None and not self._can_search_on():
            # Of those that answer it is the only one, and good for other messages.
            return False
        await self.close()
        return True

    def _fits_nowhere(self, refusals: Sequence[Reply], rows: Sequence[SpoolRow]) -> tuple[Outcome, ...]:
        """No host that answers takes this message. One that does not answer now might.

        What another extension is needed for, no other message will find either; a smaller one may fit.
        """
        outcome = _worse(self._failure, Failed(refusals[0], from_peer=False))
        if set(refusals) == {refusals[0]} - {TOO_LARGE}:
            self._nowhere[refusals[0]] = outcome
        return (outcome,) * len(rows)

    def _broken(self, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        """This message broke the connection to every host. Maybe it is the message, maybe it is the hosts."""
        self._hops = None
        self._breaks += 1
        if self._breaks >= BREAKS_LIMIT:
            self._given_up = outcomes[0]
        return outcomes

    async def _open(self) -> SmtpConnection | None:
        """A connection to the first host, of those not tried yet, that greets us. Else `_failure` tells why."""
        if self._hops is None:
            await self._search()
        while self._can_search_on():
            found = await self._next_address()
            if found is None:
                break
            self._connections_left -= 1
            connection = await self._connect(*found)
            if connection is not None:
                self.has_reached = True
                self._reached()
                # That another address of this host was dead says nothing any more.
                self._failure = self._failure_before
                return connection
        self._hops = None
        return None

    async def _search(self) -> None:
        self._failure = None
        self._addresses.clear()
        self._connections_left = CONNECTIONS_LIMIT
        self._next_hop = self._address = ""
        route = await self._relay.router.route(self._domain)
        if isinstance(route, NoRoute):
            self._failure = _by_reply(route.reply, from_peer=False)
            self._hops = deque()
        else:
            self._hops = deque(route)
            self._hop_count = len(route)

    def _can_search_on(self) -> bool:
        return bool(self._hops or self._addresses) and self._connections_left > 0

    async def _next_address(self) -> tuple[Hop, str] | None:
        """The next address to try; names are looked up only when their turn has come."""
        while not self._addresses and self._hops:
            hop = self._hops.popleft()
            self._failure_before = self._failure
            found = await self._relay.router.addresses(hop)
            if isinstance(found, NoRoute):
                self._failure = _worse(self._failure, _by_reply(found.reply, from_peer=False))
            else:
                self._addresses.extend((hop, address) for address in found)
        return self._addresses.popleft() if self._addresses else None

    async def _connect(self, hop: Hop, address: str) -> SmtpConnection | None:
        """A connection that has greeted us, or None, with the reason in `_failure`."""
        self._next_hop, self._address = str(Endpoint(hop.host, hop.port)), address
        self._transcript.append(f"C: (connects to {hop.host}, {Endpoint(address, hop.port)})")
        timeouts = self._relay.timeouts
        try:
            async with asyncio.timeout(timeouts.connect_s):
                stream = await self._relay.connector.connect(address, hop.port)
        except (OSError, TimeoutError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "no answer"
            self._transcript.append(f"S: ({reason})")
            text = f"No connection to {hop.host} ({address}): {reason}"
            self._failure = _worse(self._failure, Deferred(reply(451, "4.4.1", text), from_peer=False))
            return None
        connection = SmtpConnection(stream, self._relay.hello_name, timeouts)
        try:
            await connection.start()
        except ConnectionFailed as exc:
            connection.abort()
            self._failure = _worse(self._failure, _greeting_outcome(exc))
            return None
        except BaseException:
            connection.abort()
            raise
        finally:
            self._take_transcript(connection)
        return connection

    async def _deliver(
        self, connection: SmtpConnection, rows: tuple[SpoolRow, ...]
    ) -> tuple[tuple[Outcome, ...], bool]:
        """The outcomes, and whether the connection can be used again."""
        self._passes_reports_on = "DSN" in connection.extensions
        try:
            ended = await connection.deliver(_transaction(rows), self._octets(rows[0].message))
            outcomes = tuple(_outcome(ended, index) for index in range(len(rows)))
            return outcomes, await _can_go_on(connection, ended)
        except ConnectionBroke as exc:
            if exc.final_dot_sent:
                return (Uncertain(MAY_HAVE_ARRIVED),) * len(rows), False
            text = f"The connection was lost: {exc}"
            return (Deferred(reply(451, "4.4.2", text), from_peer=False),) * len(rows), False
        finally:
            self._take_transcript(connection)

    def _take_transcript(self, connection: SmtpConnection) -> None:
        """Each attempt tells its own part of the dialogue; the connection keeps none of it."""
        self._transcript += connection.transcript
        connection.transcript.clear()

    async def _octets(self, message: SpoolMessage) -> AsyncGenerator[bytes, None]:
        yield message.prefix
        async for chunk in self._relay.content.open(message.content_id):
            yield chunk


def bounded(transcript: Sequence[str]) -> tuple[str, ...]:
    """The beginning and the end of a dialogue, at most TRANSCRIPT_OCTETS in all: it is kept for each attempt."""
    if sum(map(len, transcript)) <= TRANSCRIPT_OCTETS:
        return tuple(transcript)
    head = _within(transcript, TRANSCRIPT_OCTETS // 2)
    tail = _within(transcript[: len(head) - 1 if head else None : -1], TRANSCRIPT_OCTETS // 2)[::-1]
    left_out = len(transcript) - len(head) - len(tail)
    return (*head, f"C: ({left_out} lines are left out here)", *tail)


def _within(lines: Sequence[str], limit: int) -> list[str]:
    kept: list[str] = []
    for line in lines:
        limit -= len(line)
        if limit < 0:
            break
        kept.append(line)
    return kept


def needs_utf8(message: SpoolMessage, rows: Sequence[SpoolRow]) -> bool:
    """Whether only a host with SMTPUTF8 can take it: an address or the header section has UTF-8 (RFC 6531 §3.3).

    A client that asked for SMTPUTF8 and did not need it does not make its mail undeliverable.
    """
    reverse_path = rows[0].reverse_path
    return (
        (message.smtputf8 and message.facts.eight_bit_header)
        or not all(row.forward_path.is_ascii for row in rows)
        or not (reverse_path is None or reverse_path.is_ascii)
    )


def _transaction(rows: tuple[SpoolRow, ...]) -> ClientTransaction:
    message = rows[0].message
    return ClientTransaction(
        reverse_path=rows[0].reverse_path,
        recipients=tuple(
            ClientRecipient(forward_path=row.forward_path, notify=row.notify, original_recipient=row.original_recipient)
            for row in rows
        ),
        size_octets=_size_octets(message),
        body="8BITMIME" if _is_eight_bit(message) else "7BIT",
        smtputf8=needs_utf8(message, rows),
        ret=message.ret,
        envelope_id=message.envelope_id,
    )


def _unsuitable(message: SpoolMessage, rows: tuple[SpoolRow, ...], extensions: dict[str, str]) -> Reply | None:
    """Why this message cannot go to a host with these extensions."""
    if needs_utf8(message, rows) and "SMTPUTF8" not in extensions:
        return CANNOT_TAKE_UTF8
    if _is_eight_bit(message) and "8BITMIME" not in extensions:
        return CANNOT_TAKE_8BIT
    limit = extensions.get("SIZE", "")
    if limit.isascii() and limit.isdigit() and len(limit) <= 20 and 0 < int(limit) < _size_octets(message):
        return TOO_LARGE
    return None


def _size_octets(message: SpoolMessage) -> int:
    return len(message.prefix) + message.content_octets


def _is_eight_bit(message: SpoolMessage) -> bool:
    return message.facts.eight_bit_body or message.facts.eight_bit_header


def _outcome(ended: TransactionEnded, index: int) -> Outcome:
    """One recipient's outcome: the first reply that was not positive decides, else the one to the final dot."""
    if not ended.mail.is_positive:
        return _by_reply(ended.mail)
    answer = ended.recipients[index]
    if answer is None:
        return Deferred(NOT_ANSWERED, from_peer=False)
    if answer.code == 552:
        # RFC 5321 §4.5.3.1.10: an old way to say "too many recipients".
        return Deferred(answer)
    if not answer.is_positive:
        return _by_reply(answer)
    if ended.final is not None:
        return _by_reply(ended.final)
    if ended.data is None:
        return Deferred(NOT_ANSWERED, from_peer=False)
    # A 2yz to DATA promises nothing: the content was never sent.
    return Failed(ended.data) if ended.data.is_permanent else Deferred(ended.data)


async def _can_go_on(connection: SmtpConnection, ended: TransactionEnded) -> bool:
    """Whether the connection can carry another message, after RSET where this one was not taken."""
    if any(_is_421(part) for part in (ended.mail, *ended.recipients, ended.data, ended.final)):
        return False
    if ended.final is not None and ended.final.is_positive:
        return True
    try:
        return (await connection.reset()).is_positive
    except (ConnectionBroke, LocalProtocolError):
        return False


def _by_reply(answer: Reply, *, from_peer: bool = True) -> Outcome:
    if answer.is_positive:
        return Delivered(answer)
    return Failed(answer, from_peer) if answer.is_permanent else Deferred(answer, from_peer)


def _greeting_outcome(failure: ConnectionFailed) -> Outcome:
    if failure.reply is None:
        return Deferred(reply(451, "4.4.2", f"No session: {failure}"), from_peer=False)
    return _by_reply(failure.reply)


def _worse(before: Outcome | None, now: Outcome) -> Outcome:
    """What to tell when several hosts failed: "later" wins over "never", since one of them may come back."""
    return before if isinstance(before, Deferred) and isinstance(now, Failed) else now


def _is_421(answer: Reply | None) -> bool:
    return answer is not None and answer.code == 421
