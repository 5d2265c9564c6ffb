"""One SMTP session: a loop in which nothing about the protocol is decided.

The core (`protocol/smtp_server.py`) says what the peer wants, admission says whether it may, storage makes it
durable, and only then the `250` goes out (RFC 5321 §6.1).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from posthouse.admission import replies
from posthouse.admission.admission import Admission, MailTransaction
from posthouse.admission.peer import Peer, Role
from posthouse.admission.reports import Reports, ReportWriter, asks_for_success
from posthouse.identity.authenticator import Authenticator, TooManyLogins
from posthouse.log import Log
from posthouse.mail.account import Account
from posthouse.mail.address import Address, ReversePath
from posthouse.mail.reply import EnhancedCode, Reply, reply
from posthouse.mail.report_request import RETURN_LIMIT_OCTETS
from posthouse.mail.world import Clock
from posthouse.metrics import Metrics
from posthouse.net.arrival import begin_tls
from posthouse.net.stream import Interrupted, Stream
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Command
from posthouse.protocol.smtp import (
    Authenticate,
    BeginContent,
    EndOfContent,
    Hello,
    Mail,
    Recipient,
    ScramVerifierWanted,
    StartTls,
    Verify,
)
from posthouse.protocol.smtp_server import (
    ContentChunk,
    ContentRefused,
    Event,
    QuitReceived,
    Rejected,
    ServerOptions,
    SmtpServer,
    TransactionDropped,
)
from posthouse.reception import limits
from posthouse.reception.intake import Intake, not_stored
from posthouse.reception.limits import Pace, SmtpLimits
from posthouse.reception.refusals import Refusals
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Storage

_STORED = EnhancedCode(2, 0, 0)
_GREETS_YOU = reply(250, None, "greets you")
_GO_ON = reply(354, None, "End with <CRLF>.<CRLF>")
_BEGIN_TLS = reply(220, "2.0.0", "Begin TLS")
_LOGIN_OK = reply(235, "2.7.0", "Welcome")
_LOGIN_WRONG = reply(535, "5.7.8", "The login or the password is wrong")
_LOGIN_LATER = reply(454, "4.7.0", "Logins cannot be checked now; try again later")
_LOGIN_ENDED = reply(421, "4.7.0", "This login has ended; log in again")
_CANNOT_VERIFY = reply(252, "2.1.5", "Not verified; send the message and see")
_GOING_DOWN = reply(421, "4.3.2", "This house is closing; come back later")
_TOO_MANY_RECIPIENTS = replies.TOO_MANY_RECIPIENTS.enhanced
_TOO_MANY_SESSIONS = reply(421, "4.7.0", "Too many sessions are open; come back later")
_INTERNAL = reply(421, "4.3.0", "Something went wrong on our side; try again later")

WRITE_AFTER_EVENTS = 64
"""Replies to one read full of pipelined commands go out after so many events, not all at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpDoor:
    """What all sessions of one door share."""

    role: Role
    options: ServerOptions
    tls: ssl.SSLContext | None
    """For STARTTLS; None: not offered."""
    tls_options: ServerOptions
    """What is offered after STARTTLS."""
    limits: SmtpLimits
    storage: Storage
    admission: Admission
    report_writer: ReportWriter
    authenticator: Authenticator
    refusals: Refusals
    clock: Clock
    log: Log
    metrics: Metrics = field(default_factory=Metrics)


class SmtpSession:
    """Drives one connection from greeting to close. `trusted`: the peer is in `trusted_networks`."""

    def __init__(self, stream: Stream, door: SmtpDoor, *, session: str, trusted: bool) -> None:
        self.stream = stream
        self.door = door
        self.smtp = SmtpServer(door.options)
        self._session = session
        self._trusted = trusted
        self._log = door.log.bind(session=session, peer=stream.peer_address)
        self._account: Account | None = None
        self._transaction: MailTransaction | None = None
        self._intake: Intake | None = None
        self._pace = Pace(door.limits, door.clock)
        self._errors = 0
        self._unknown_recipients = 0
        self._failed_logins = 0
        self._accepted = 0
        self._lines_at_accept = 0

    async def run(self) -> None:
        """The whole session. Its own errors end it; they never reach its siblings."""
        outcome = "closed"
        try:
            if await self._talks_early():
                outcome = "talked early"
                self.smtp.close(limits.TALKED_EARLY)
            else:
                self.smtp.greet("Posthouse")
                await self._converse()
        except TimeoutError:
            outcome = "timed out"
            self.smtp.close(self._pace.farewell)
        except Interrupted:
            outcome = "house closes"
            self.smtp.close(_GOING_DOWN)
        except Exception:  # noqa: BLE001
            outcome = "failed"
            self._log.exception("session failed")
            self.smtp.close(_INTERNAL)
        finally:
            if self._intake is not None:
                await self._drop_transaction()
            self.stream.write(self.smtp.outgoing())
            await self.stream.close()
        self._log.info("session ended", how=outcome, accepted=self._accepted, errors=self._errors)

    async def refuse_service(self) -> None:
        """Turn the peer away before it said anything: too many sessions are open."""
        self.smtp.close(_TOO_MANY_SESSIONS)
        self.stream.write(self.smtp.outgoing())
        await self.stream.close()

    async def _talks_early(self) -> bool:
        """Whether a stranger speaks before it is greeted, as programs do that do not listen to what we answer."""
        delay_s = self.door.limits.greeting_delay_s
        if not delay_s or self._trusted or self.door.role is not Role.EXCHANGE:
            return False
        try:
            octets = await self.stream.read(interruptible=True, timeout_s=delay_s)
        except TimeoutError:
            return False
        if not octets:
            self.smtp.receive(b"")
        return bool(octets)

    async def _converse(self) -> None:
        bounds = self.door.limits
        unwritten = 0
        while (event := self.smtp.next_event()) is not CLOSED:
            if self._errors > bounds.errors:
                self.smtp.close(limits.TOO_MANY_ERRORS)
                continue
            if event is NEED_DATA:
                unwritten = 0
                lines = self.smtp.lines
                if lines - self._lines_at_accept > bounds.commands:
                    self.smtp.close(limits.TOO_MANY_COMMANDS)
                    continue
                self.stream.write(self.smtp.outgoing())
                if self.stream.is_full:
                    await self.stream.drain(bounds.command_timeout_s)
                if self._intake is None:
                    timeout_s = self._pace.command_timeout_s(lines, greeted=bool(self.smtp.hello_name))
                    octets = await self.stream.read(interruptible=True, timeout_s=timeout_s)
                else:
                    octets = await self.stream.read(timeout_s=self._pace.content_timeout_s())
                    self._pace.content_came(len(octets))
                self.smtp.receive(octets)
                continue
            if bounds.strict_pipelining and self._is_out_of_step(event):
                self.smtp.close(limits.OUT_OF_STEP)
                continue
            await self._handle(event)
            unwritten += 1
            if unwritten >= WRITE_AFTER_EVENTS:
                unwritten = 0
                await self._write()
                # What is here already is read without waiting, so nobody else would have a turn till its end.
                await asyncio.sleep(0)

    def _is_out_of_step(self, event: Event) -> bool:
        """Whether more came behind a command that must be the last of its group (RFC 2920 §3.1)."""
        if not self.smtp.has_more or not isinstance(event, Command):
            return False
        # Chunks announce their octets and may be sent ahead (RFC 3030 §4.2); DATA has to wait for its 354.
        waits = isinstance(event, Hello | BeginContent) and not (isinstance(event, BeginContent) and event.chunked)
        return waits or not self.smtp.extended

    async def _write(self) -> None:
        self.stream.write(self.smtp.outgoing())
        await self.stream.drain(self.door.limits.command_timeout_s)

    async def _handle(self, event: Event) -> None:
        match event:
            case ContentChunk(octets=octets):
                if self._intake is not None:
                    await self._intake.take(octets)
            case Mail():
                await self._begin_transaction(event)
            case Recipient():
                await self._add_recipient(event)
            case BeginContent():
                await self._begin_content()
            case EndOfContent():
                await self._end_content()
            case Hello():
                self.smtp.reply(_GREETS_YOU)
            case QuitReceived():
                pass
            case Authenticate():
                await self._authenticate(event)
            case ScramVerifierWanted(login=login):
                await self._provide_scram(login)
            case Verify():
                self.smtp.reply(_CANNOT_VERIFY)
            case StartTls():
                await self._start_tls()
            case TransactionDropped():
                await self._drop_transaction()
            case Rejected(line_verb=verb, reply=refusal):
                if verb in ("MAIL", "RCPT", "DATA", "BDAT") and refusal.enhanced != _TOO_MANY_RECIPIENTS:
                    self._note_refusal(verb, refusal)
                self._count_error(verb, refusal)
            case ContentRefused(reply=refusal):
                self._note_refusal("DATA", refusal)
                self._count_error("DATA", refusal)
                await self._drop_transaction()
            case _:
                raise LocalProtocolError(f"unknown event {event!r}")

    async def _start_tls(self) -> None:
        """STARTTLS: all that was said before is forgotten, and nothing may be waiting (RFC 3207 §4.2)."""
        assert self.door.tls is not None
        self.smtp.reply(_BEGIN_TLS)
        await self._write()
        if not await begin_tls(self.stream, self.door.tls):
            self._log.info("TLS handshake failed")
            self.smtp.close()
            self.stream.abort()
            return
        self._account = None
        self.smtp.tls_started(self.door.tls_options)

    async def _provide_scram(self, login: str) -> None:
        """What a SCRAM exchange needs of a login, known or not."""
        try:
            wanted = self.door.authenticator.scram_verifier(login, peer_address=self.stream.peer_address)
            self.smtp.provide_scram(*await wanted)
        except (TooManyLogins, StorageError):
            self._refuse("AUTH", _LOGIN_LATER)

    async def _account_of(self, event: Authenticate) -> Account | None:
        """Whom a login, by password or by SCRAM, has shown to be there. Raises TooManyLogins, StorageError."""
        return await self.door.authenticator.log_in(
            event.login,
            event.password,
            proven=event.proven,
            stored_key=event.stored_key,
            peer_address=self.stream.peer_address,
            protocol="smtp",
            session=self._session,
            authorization_id=event.authorization_id,
        )

    async def _authenticate(self, event: Authenticate) -> None:
        try:
            account = await self._account_of(event)
        except (TooManyLogins, StorageError):
            self._refuse("AUTH", _LOGIN_LATER)
            return
        if account is not None:
            self._account = account
            self.smtp.reply(_LOGIN_OK)
            return
        self._failed_logins += 1
        self._refuse("AUTH", _LOGIN_WRONG)
        if self._failed_logins >= self.door.limits.failed_logins:
            self.smtp.close(limits.TOO_MANY_ERRORS)

    async def _begin_transaction(self, event: Mail) -> None:
        peer = self._peer()
        try:
            if self._account is not None and not await self.door.authenticator.is_welcome(self._account):
                # Suspended or removed since: an open session must not go on sending for whoever stole the password.
                self._log.warning("login ended", login=self._account.login)
                self.smtp.reply(_LOGIN_ENDED)
                return
            judged = await self.door.admission.judge_sender(peer, event.reverse_path)
        except StorageError:
            judged = replies.DIRECTORY_UNAVAILABLE
        if not judged.is_positive:
            self._note_refusal("MAIL", judged, reverse_path=event.reverse_path)
            self._refuse("MAIL", judged)
            return
        self._transaction = MailTransaction(
            peer=peer,
            reverse_path=event.reverse_path,
            smtputf8=event.smtputf8,
            body=event.body,
            ret=event.ret,
            envelope_id=event.envelope_id,
            size_octets=event.size_octets,
        )
        self.smtp.reply(judged)

    async def _add_recipient(self, event: Recipient) -> None:
        assert self._transaction is not None
        try:
            judged = await self.door.admission.add_recipient(
                self._transaction,
                event.forward_path,
                notify=event.notify,
                original_recipient=event.original_recipient,
            )
        except StorageError:
            judged = replies.DIRECTORY_UNAVAILABLE
        if judged.is_positive:
            self.smtp.reply(judged)
            return
        if judged is replies.NO_SUCH_MAILBOX:
            self._unknown_recipients += 1
            if self._unknown_recipients > self.door.limits.unknown_recipients:
                judged = limits.TOO_MANY_UNKNOWN
        if judged is not replies.TOO_MANY_RECIPIENTS:
            self._note_refusal("RCPT", judged, event.forward_path)
        self._refuse("RCPT", judged, forward_path=str(event.forward_path))

    async def _begin_content(self) -> None:
        assert self._transaction is not None
        try:
            draft = await self.door.storage.content.draft()
        except StorageError as exc:
            self._refuse("DATA", not_stored(exc))
            return
        keep_octets = RETURN_LIMIT_OCTETS if asks_for_success(self._transaction) else 0
        submission = self.door.admission.submission(self._transaction)
        self._intake = Intake(draft, submission, self._log, keep_octets=keep_octets)
        self._pace.begin_content()
        self.smtp.reply(_GO_ON)

    async def _end_content(self) -> None:
        transaction, intake = self._transaction, self._intake
        assert transaction is not None
        assert intake is not None
        try:
            answer = await self._accept(transaction, intake)
            if not answer.is_positive:
                self._note_refusal("DATA", answer)
        finally:
            await self._drop_transaction()
        if answer.is_positive:
            self._lines_at_accept = self.smtp.lines
            self.smtp.reply(answer)
        else:
            self._refuse("DATA", answer)

    async def _accept(self, transaction: MailTransaction, intake: Intake) -> Reply:
        """Make the message durable, or say why not. The 250 exists only after `accept` returned."""
        started = self.door.clock.monotonic()
        content = await intake.seal()
        if isinstance(content, Reply):
            return content
        transaction.missing = intake.missing
        reports = Reports()
        try:
            refusal = await self.door.admission.judge_content(transaction, content)
            if refusal is not None:
                return refusal
            acceptance = self.door.admission.plan(transaction, content)
            if asks_for_success(transaction):
                writer = self.door.report_writer
                acceptance = await writer.add_successes(reports, transaction, acceptance, intake.beginning)
            await self.door.storage.accept(acceptance)
        except StorageError as exc:
            return not_stored(exc)
        finally:
            await reports.discard()
        self._accepted += 1
        took_s = self.door.clock.monotonic() - started
        self.door.metrics.acceptance.observe(took_s)
        self._log.info(
            "message accepted",
            queue_id=acceptance.queue_id,
            reverse_path=str(transaction.reverse_path or ""),
            recipients=len(transaction.recipients),
            size_octets=content.size_octets,
            commit_ms=round(took_s * 1000, 1),
        )
        return Reply(250, _STORED, f"Stored as {acceptance.queue_id}")

    async def _drop_transaction(self) -> None:
        self._transaction = None
        intake, self._intake = self._intake, None
        if intake is not None:
            await intake.discard()

    def _peer(self) -> Peer:
        return Peer(
            address=self.stream.peer_address,
            hello=self.smtp.hello_name,
            role=self.door.role,
            extended=self.smtp.extended,
            tls=self.stream.is_tls,
            trusted=self._trusted,
            account=self._account,
            session=self._session,
            local_address=self.stream.local_address,
        )

    def _note_refusal(
        self, verb: str, refusal: Reply, *forward_paths: Address, reverse_path: ReversePath | str = ""
    ) -> None:
        """Leave a journey of refused mail; without forward-paths it is about all recipients so far."""
        transaction = self._transaction
        if transaction is not None:
            reverse_path = transaction.reverse_path
            forward_paths = forward_paths or tuple(recipient.forward_path for recipient in transaction.recipients)
        self.door.refusals.note(
            command=verb,
            refusal=refusal,
            peer=self._peer(),
            reverse_path=reverse_path,
            forward_paths=forward_paths,
        )

    def _refuse(self, verb: str, refusal: Reply, **facts: str) -> None:
        self._count_error(verb, refusal, **facts)
        self.smtp.reply(refusal)

    def _count_error(self, verb: str, refusal: Reply, **facts: str) -> None:
        # A transient refusal is our trouble, or a limit of ours such as 452 to one recipient too many: whoever runs
        # into it did nothing wrong, and the recipients accepted before stay valid (RFC 5321 §4.5.3.1.10).
        self._errors += not refusal.is_transient
        self._log.info("refused", command=verb, reply=str(refusal), **facts)
