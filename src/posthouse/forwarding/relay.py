"""Attempts: messages of one destination handed to its next hop, and what came of it for each recipient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from posthouse.config import Endpoint
from posthouse.forwarding.routes import Hop, NoRoute, Router
from posthouse.mail.outcome import Deferred, Delivered, Failed, Outcome, Uncertain
from posthouse.mail.reply import Reply, reply
from posthouse.mail.spool import SpoolMessage, SpoolRow
from posthouse.mail.world import Clock
from posthouse.net.connect import Connector
from posthouse.net.smtp_connection import (
    ConnectionBroke,
    ConnectionFailed,
    ContentUnfit,
    SmtpConnection,
    SmtpTimeouts,
)
from posthouse.protocol.smtp_client import ClientRecipient, ClientTransaction, TransactionEnded
from posthouse.storage.interfaces import Content

MAY_HAVE_ARRIVED = reply(451, "4.4.2", "The connection was lost after the final dot; the message may have arrived")
NOT_ANSWERED = reply(451, "4.4.2", "The connection was lost before the other server answered")
CANNOT_TAKE_8BIT = reply(554, "5.6.3", "The next hop takes no 8-bit content, and converting it would break signatures")
CANNOT_TAKE_UTF8 = reply(553, "5.6.7", "The next hop takes no internationalised addresses")
CONTENT_UNFIT = reply(554, "5.6.11", "The message holds a CR or LF alone, which cannot be sent by SMTP")
TOO_LARGE = reply(552, "5.3.4", "The message is larger than the next hop takes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try for some recipients of one message: `outcomes` are in the order of `rows`."""

    rows: tuple[SpoolRow, ...]
    outcomes: tuple[Outcome, ...]
    next_hop: str
    address: str
    duration_s: float
    transcript: tuple[str, ...] = ()


@dataclass(slots=True)
class _Hops:
    """Where the connection goes next: hosts still to try, and the failure that is told if none is left."""

    waiting: list[tuple[Hop, str]] = field(default_factory=list)
    failure: Outcome | None = None
    next_hop: str = ""
    address: str = ""


class Relay:
    """Hands messages to next hops. One connection serves all messages of a claim while it lives."""

    def __init__(
        self,
        router: Router,
        connector: Connector,
        content: Content,
        clock: Clock,
        *,
        hello_name: str,
        timeouts: SmtpTimeouts | None = None,
    ) -> None:
        self._router = router
        self._connector = connector
        self._content = content
        self._clock = clock
        self._hello_name = hello_name
        self._timeouts = timeouts or SmtpTimeouts()

    async def attempt(self, domain: str, messages: Sequence[tuple[SpoolRow, ...]]) -> AsyncGenerator[Attempt, None]:
        """Try each message (its rows share one reverse-path); yields each as soon as its outcome is known."""
        connection: SmtpConnection | None = None
        hops = _Hops()
        try:
            for rows in messages:
                started = self._clock.monotonic()
                seen = len(connection.transcript) if connection is not None else 0
                if connection is None:
                    hops = await self._find(domain)
                    connection = await self._open(hops)
                if connection is None:
                    outcomes: tuple[Outcome, ...] = (hops.failure or Deferred(NOT_ANSWERED, False),) * len(rows)
                    yield self._attempt(rows, outcomes, hops, started, ())
                    continue
                outcomes, alive = await self._deliver(connection, rows)
                transcript = tuple(connection.transcript[seen:])
                if not alive:
                    connection.abort()
                    connection = None
                yield self._attempt(rows, outcomes, hops, started, transcript)
        finally:
            if connection is not None:
                await connection.quit()

    def _attempt(
        self,
        rows: tuple[SpoolRow, ...],
        outcomes: tuple[Outcome, ...],
        hops: _Hops,
        started: float,
        transcript: tuple[str, ...],
    ) -> Attempt:
        return Attempt(
            rows=rows,
            outcomes=outcomes,
            next_hop=hops.next_hop,
            address=hops.address,
            duration_s=self._clock.monotonic() - started,
            transcript=transcript,
        )

    async def _find(self, domain: str) -> _Hops:
        route = await self._router.route(domain)
        if isinstance(route, NoRoute):
            return _Hops(failure=_by_reply(route.reply, from_peer=False))
        hops = _Hops()
        for hop in route:
            addresses = await self._router.addresses(hop)
            if isinstance(addresses, NoRoute):
                hops.failure = _worse(hops.failure, _by_reply(addresses.reply, from_peer=False))
            else:
                hops.waiting += [(hop, address) for address in addresses]
        return hops

    async def _open(self, hops: _Hops) -> SmtpConnection | None:
        """The first host that greets us. Failures along the way are kept in `hops`."""
        while hops.waiting:
            hop, address = hops.waiting.pop(0)
            hops.next_hop, hops.address = str(Endpoint(hop.host, hop.port)), address
            try:
                async with asyncio.timeout(self._timeouts.connect_s):
                    stream = await self._connector.connect(address, hop.port)
            except (OSError, TimeoutError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "no answer"
                text = f"No connection to {hop.host} ({address}): {reason}"
                hops.failure = _worse(hops.failure, Deferred(reply(451, "4.4.1", text), from_peer=False))
                continue
            connection = SmtpConnection(stream, self._hello_name, self._timeouts)
            try:
                await connection.start()
            except ConnectionFailed as exc:
                connection.abort()
                hops.failure = _worse(hops.failure, _greeting_outcome(exc))
                continue
            except BaseException:
                connection.abort()
                raise
            return connection
        return None

    async def _deliver(
        self, connection: SmtpConnection, rows: tuple[SpoolRow, ...]
    ) -> tuple[tuple[Outcome, ...], bool]:
        """The outcomes, and whether the connection can be used again."""
        message = rows[0].message
        refusal = _unsuitable(message, rows, connection.extensions)
        if refusal is not None:
            return (Failed(refusal, from_peer=False),) * len(rows), True
        try:
            ended = await connection.deliver(_transaction(rows), self._octets(message))
        except ConnectionBroke as exc:
            if exc.final_dot_sent:
                return (Uncertain(MAY_HAVE_ARRIVED),) * len(rows), False
            text = f"The connection was lost: {exc}"
            return (Deferred(reply(451, "4.4.2", text), from_peer=False),) * len(rows), False
        except ContentUnfit:
            return (Failed(CONTENT_UNFIT, from_peer=False),) * len(rows), False
        outcomes = tuple(_outcome(ended, index) for index in range(len(rows)))
        return outcomes, await _can_go_on(connection, ended)

    async def _octets(self, message: SpoolMessage) -> AsyncGenerator[bytes, None]:
        yield message.prefix
        async for chunk in self._content.open(message.content_id):
            yield chunk


def _transaction(rows: tuple[SpoolRow, ...]) -> ClientTransaction:
    message = rows[0].message
    utf8_needed = message.smtputf8 and not all(row.forward_path.is_ascii for row in rows)
    return ClientTransaction(
        reverse_path=rows[0].reverse_path,
        recipients=tuple(
            ClientRecipient(forward_path=row.forward_path, notify=row.notify, original_recipient=row.original_recipient)
            for row in rows
        ),
        size_octets=len(message.prefix) + message.content_octets,
        body="8BITMIME" if _is_eight_bit(message) else "7BIT",
        smtputf8=utf8_needed,
        ret=message.ret,
        envelope_id=message.envelope_id,
    )


def _unsuitable(message: SpoolMessage, rows: tuple[SpoolRow, ...], extensions: dict[str, str]) -> Reply | None:
    """Why this message cannot go to a host with these extensions."""
    if _is_eight_bit(message) and "8BITMIME" not in extensions:
        return CANNOT_TAKE_8BIT
    utf8 = not all(row.forward_path.is_ascii for row in rows) or not (
        rows[0].reverse_path is None or rows[0].reverse_path.is_ascii
    )
    if utf8 and "SMTPUTF8" not in extensions:
        return CANNOT_TAKE_UTF8
    limit = extensions.get("SIZE", "")
    if limit.isascii() and limit.isdigit() and len(limit) <= 20 and 0 < int(limit) < message.content_octets:
        return TOO_LARGE
    return None


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
    except ConnectionBroke:
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
