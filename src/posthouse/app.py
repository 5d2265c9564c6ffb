"""The composition root: configuration becomes a `House`, its objects and its one TaskGroup. Nothing is global."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from dataclasses import replace

from posthouse.admission.admission import Admission, Seams
from posthouse.admission.limit_notices import LimitNotices
from posthouse.admission.peer import Role
from posthouse.admission.reports import ReportWriter
from posthouse.admission.rewriting import Rewriter
from posthouse.admission.rules import Rules
from posthouse.collecting import collector_of, turns_folder, vault_of
from posthouse.collection.runner import CollectionRunner
from posthouse.config import Config, ConfigError, reloaded
from posthouse.config_values import Endpoint, parse_endpoint
from posthouse.doors import Doors
from posthouse.engines import open_storage
from posthouse.forwarding.bounce import Bouncer
from posthouse.forwarding.logins import IdentityLogins
from posthouse.forwarding.outgoing import Outgoing, Remembered
from posthouse.forwarding.pace import ReportPace
from posthouse.forwarding.routes import Router
from posthouse.forwarding.runner import QueueRunner, RunnerLimits
from posthouse.forwarding.schedule import RetrySchedule
from posthouse.held import HeldFiles
from posthouse.identity.authenticator import Authenticator, IdentityRules
from posthouse.identity.limiter import LimiterRules
from posthouse.indexing import IndexRunner
from posthouse.log import Log
from posthouse.mail.world import Clock
from posthouse.metrics import Metrics
from posthouse.net.arrival import is_among
from posthouse.net.crowd import CrowdWatch
from posthouse.net.dns import DnsResolver, Resolver
from posthouse.net.sender_domains import SenderDomains
from posthouse.net.stream import Stream
from posthouse.net.tls import CertificateUnusable
from posthouse.protocol.pop3_options import Pop3Options
from posthouse.protocol.sasl import SCRAM_SHA_256
from posthouse.protocol.smtp_server import ServerOptions
from posthouse.reception.limits import SmtpLimits
from posthouse.reception.refusals import Refusals
from posthouse.reception.session import SmtpDoor, SmtpSession
from posthouse.retrieval.login_delay import LoginDelay
from posthouse.retrieval.session import Pop3Door, Pop3Limits, Pop3Session
from posthouse.retrieval.surrogate import Surrogates
from posthouse.service.watchdog import Pulse, go_on_beating
from posthouse.storage.errors import StorageError
from posthouse.storage.upkeep import Migrated, Retention
from posthouse.watch.watch import Watch
from posthouse.workers import Part, lock_folder
from posthouse.world import World

Make = Callable[[Stream], SmtpSession | Pop3Session]

SWEEP_EVERY_S = 60.0
NOTE_LOGINS_EVERY_S = 60.0
TELL_EVERY_S = 15.0
GRACE_S = 10.0


class House:
    """One house: `start`, then `serve` until `stop`. Several may live in one process, and one in several (`part`)."""

    def __init__(
        self,
        config: Config,
        log: Log,
        world: World | None = None,
        *,
        part: Part | None = None,
        pulse: Pulse | None = None,
        held: HeldFiles | None = None,
    ) -> None:
        """`pulse`: where it is shown that the loop and the writer go on; None: nobody looks.

        `held`: what the parent of several workers has read from files.
        """
        self.config = config
        self.part = part or Part()
        self.log = log
        self.world = world or World()
        self._held = held
        self.doors = Doors(self.part, self.world.clock, log, held.certificates if held is not None else None)
        self.metrics = Metrics()
        self._stop = asyncio.Event()
        self._makers: dict[tuple[str, bool], Make] = {}
        self._runner: QueueRunner | None = None
        self.login_delay: LoginDelay | None = None
        self._sessions: set[Stream] = set()
        self._sessions_changed = asyncio.Event()
        self._serve_lock = -1
        self._pulse = pulse

    async def start(self) -> None:
        """Open the doors' ports and the store.

        Raises PortTaken, StorageError, AlreadyServed, CertificateUnusable, ConfigError.
        """
        if self.part.doors is None:
            self._serve_lock = lock_folder(self.config.data_dir)
        try:
            self.storage = await open_storage(self.config, self.world, on_migrated=self._tell_migrated)
        except BaseException:
            self._unlock()
            raise
        try:
            self.outgoing = self._held.outgoing if self._held is not None else Outgoing.of(self.config.forwarding)
            self._found()
            self.runner = self._build()
            self.doors.use_certificates(self.config)
            self.doors.bind(self.config, self._run_session, self._refuse_session)
            self.watch = Watch(self)
            self._furnish()
        except BaseException:
            await self._close()
            raise

    @property
    def endpoints(self) -> dict[str, tuple[Endpoint, ...]]:
        """Where each door listens, with the ports that the system picked."""
        return self.doors.endpoints

    async def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Run until `stop` is called; then finish what can be finished within GRACE_S."""
        try:
            async with asyncio.TaskGroup() as group:
                await self.doors.start(group)
                attempts = [group.create_task(self.runner.run())] if self.part.leads else []
                chores = [group.create_task(self._note_logins())]
                if self._pulse is not None:
                    chores.append(group.create_task(go_on_beating(self._pulse, self.storage.tick)))
                if self.part.leads:
                    chores.append(group.create_task(self._sweep()))
                    chores.append(group.create_task(self.collecting.run()))
                    chores.append(group.create_task(IndexRunner(self.storage, self.log).run()))
                    chores.append(group.create_task(self._tell_of_limits()))
                group.create_task(self.refusals.run())
                group.create_task(self.watch.run())
                ready()
                await self._stop.wait()
                self.watch.closing()
                for chore in chores:
                    chore.cancel()
                await self._end_sessions(attempts)
                self.refusals.stop()
                self.watch.stop()
        finally:
            await self._close()

    def stop(self) -> None:
        """Ask `serve` to end gracefully."""
        self._stop.set()

    def reload(self, load: Callable[[], Config]) -> bool:
        """Use the configuration that `load` reads, and the certificates that the files hold now, for what begins now.

        Open sessions keep theirs. Whatever is wrong is one line in the log, and nothing has changed then.
        """
        try:
            config, ignored = reloaded(self.config, load())
            outgoing = Outgoing.of(config.forwarding)
            self.doors.use_certificates(config)
        except (ConfigError, CertificateUnusable) as exc:
            self.log.error("configuration not reloaded; the one before stays in use", reason=str(exc))
            return False
        self.config, self.outgoing = config, outgoing
        self._build()
        self._furnish()
        if ignored:
            self.log.warning("changed, and ignored until a restart", keys=" ".join(ignored))
        self.log.info("configuration reloaded", hostname=config.hostname)
        return True

    def _furnish(self) -> None:
        """What the next session at each door finds, where SCRAM is offered and where it is not."""
        for scram in (False, True):
            self._makers |= {
                ("smtp", scram): self._smtp("smtp", Role.EXCHANGE, scram=scram),
                ("submission", scram): self._smtp("submission", Role.SUBMISSION, scram=scram),
                ("submissions", scram): self._smtp("submissions", Role.SUBMISSION, scram=scram, implicit_tls=True),
                ("pop3", scram): self._pop3("pop3", scram=scram),
                ("pop3s", scram): self._pop3("pop3s", scram=scram, implicit_tls=True),
            }
        self.doors.furnish(self.config)

    def _found(self) -> None:
        """What lives as long as the house, since it remembers something."""
        self.authenticator = Authenticator(
            self.storage.directory,
            self.storage.credentials,
            self.world.clock,
            self.world.random,
            self.log,
            rules=_identity_rules(self.config),
            metrics=self.metrics,
        )
        self.crowd = CrowdWatch(self.config.data_dir, self.world.clock, self.log, workers=self.part.count)
        self.limit_notices = LimitNotices(self.storage, self.world.clock, self.world.random, self.log)
        self.surrogates = Surrogates(self.storage.maildrops)
        self.remembered = Remembered(self.world.clock)
        self.collecting = CollectionRunner(self.storage, turns_folder(self.config), self.world.clock, self.log)
        self.refusals = Refusals(self.storage.journey, self.world.clock, self.world.random, self.log, self.metrics)

    def _build(self) -> QueueRunner:
        """What decides, as the configuration has it; called again whenever that is read again."""
        config, world = self.config, self.world
        delay_s = config.retrieval.login_delay
        if delay_s is None or self.login_delay is None or self.login_delay.delay_s != delay_s:
            self.login_delay = LoginDelay(delay_s, world.clock) if delay_s is not None else None
        self.authenticator.reconfigure(_identity_rules(config))
        self.collecting.configure(collector_of(config, self.storage, world), config.collection.sessions)
        resolver = world.resolver or _resolver(config)
        router = Router(
            resolver=resolver,
            explicit=config.forwarding.next_hop,
            hostname=config.hostname,
            port=config.forwarding.port,
            allow_private=config.forwarding.allow_private_next_hops,
            random=world.random,
            is_own=self.doors.is_own,
        )
        self.admission = Admission(
            Seams(
                directory=self.storage.directory,
                maildrops=self.storage.maildrops,
                administration=self.storage.administration,
                elsewhere=router,
                rewriter=Rewriter.of(self.storage, config),
                sender_domains=_sender_domains(config, resolver, world.clock),
            ),
            Rules.of(config),
            world.clock,
            world.random,
        )
        logins = IdentityLogins(self.storage.directory, vault_of(config).read)
        content = self.storage.content
        relay = self.outgoing.relay(config, router, world.connector, content, world.clock, self.remembered, logins)
        self.report_writer = ReportWriter(self.storage.content, self.admission, world.random)
        bouncer = Bouncer(
            self.storage.content,
            self.report_writer,
            ReportPace(world.clock, config.forwarding.reports_per_minute),
        )
        schedule = RetrySchedule(
            intervals_s=config.forwarding.retry,
            delay_notice_after_s=config.forwarding.delay_notice_after,
            expire_after_s=config.forwarding.expire_after,
        )
        limits = RunnerLimits(
            concurrency=config.forwarding.concurrency,
            per_destination=config.forwarding.concurrency_per_destination,
        )
        if self._runner is None:
            self._runner = QueueRunner(
                self.storage, relay, bouncer, schedule, limits, world.clock, world.random, self.log
            )
        self._runner.configure(relay, bouncer, schedule, limits)
        return self._runner

    def _smtp(self, door_name: str, role: Role, *, scram: bool, implicit_tls: bool = False) -> Make:
        config = self.config
        tls_options = ServerOptions(
            hostname=config.hostname,
            message_size_octets=config.reception.message_size_octets,
            auth_mechanisms=_smtp_mechanisms(scram=scram) if role is Role.SUBMISSION else (),
            auth_required=role is Role.SUBMISSION,
            max_recipients=config.reception.recipients,
            max_messages=config.reception.messages,
        )
        tls = None if implicit_tls else self.doors.tls(door_name)
        clear_options = replace(
            tls_options,
            starttls=tls is not None,
            auth_mechanisms=tls_options.auth_mechanisms if config.auth.allow_cleartext else (),
            auth_after_tls=tls is not None and tls_options.auth_required and not config.auth.allow_cleartext,
        )
        door = SmtpDoor(
            role=role,
            options=tls_options if implicit_tls else clear_options,
            tls=tls,
            tls_options=tls_options,
            limits=SmtpLimits.of(config.reception),
            storage=self.storage,
            admission=self.admission,
            report_writer=self.report_writer,
            authenticator=self.authenticator,
            refusals=self.refusals,
            clock=self.world.clock,
            log=self.log,
            metrics=self.metrics,
        )

        def session(stream: Stream) -> SmtpSession:
            trusted = self._is_trusted(stream.peer_address)
            if role is Role.EXCHANGE:
                self.crowd.enter(stream.peer_address, trusted=trusted)
            return SmtpSession(stream, door, session=self._session_name(), trusted=trusted)

        return session

    def _pop3(self, door_name: str, *, scram: bool, implicit_tls: bool = False) -> Make:
        config, limits = self.config, self.config.retrieval
        delay = self.login_delay
        tls_options = Pop3Options(
            hostname=config.hostname,
            mechanisms=(SCRAM_SHA_256, "PLAIN") if scram else ("PLAIN",),
            login_delay_s=math.ceil(delay.delay_s) if delay is not None else None,
            implementation="Posthouse" if limits.implementation else None,
        )
        tls = None if implicit_tls else self.doors.tls(door_name)
        clear_options = replace(tls_options, stls=tls is not None)
        if not config.auth.allow_cleartext:
            clear_options = replace(clear_options, offer_login=False, mechanisms=())
        door = Pop3Door(
            options=tls_options if implicit_tls else clear_options,
            tls=tls,
            tls_options=tls_options,
            limits=Pop3Limits(
                idle_timeout_s=limits.idle_timeout,
                write_timeout_s=limits.write_timeout,
                session_s=limits.session_timeout,
                errors=limits.errors,
                failed_logins=limits.failed_logins,
            ),
            login_delay=delay,
            storage=self.storage,
            surrogates=self.surrogates,
            authenticator=self.authenticator,
            clock=self.world.clock,
            log=self.log,
        )

        def session(stream: Stream) -> Pop3Session:
            return Pop3Session(stream, door, session=self._session_name())

        return session

    async def _run_session(self, door: str, stream: Stream) -> None:
        """One connection from accept to close. Whatever goes wrong in it stays in it: the house goes on."""
        address = stream.peer_address
        self._sessions.add(stream)
        self.metrics.session_began(door, stream)
        if self._stop.is_set():
            # It was in the backlog, or in a handshake, when the others were told.
            stream.interrupt()
        try:
            # Nobody logs in where mail comes from other houses; there it is not even asked.
            scram = door != "smtp" and await self.authenticator.offers_scram()
            await self._makers[door, scram](stream).run()
        except Exception:
            self.log.exception("session broke", peer=address)
            stream.abort()
        finally:
            self._sessions.discard(stream)
            self.metrics.session_ended(stream)
            self._sessions_changed.set()

    async def _refuse_session(self, door: str, stream: Stream) -> None:
        """One session too many."""
        try:
            await self._makers[door, False](stream).refuse_service()
        except Exception:
            self.log.exception("session broke", peer=stream.peer_address)

    def _session_name(self) -> str:
        return self.world.random.octets(4).hex()

    def _is_trusted(self, address: str) -> bool:
        reception = self.config.reception
        # A proxy that names nobody speaks for anybody.
        return is_among(address, reception.trusted_networks) and not is_among(address, reception.proxy_from)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            journey = self.config.journey
            retention = Retention(
                journeys_s=journey.keep, refused_s=journey.refused_keep, refused_limit=journey.refused_limit
            )
            try:
                for snapshot in await self.storage.sweep(self.world.clock.now(), retention):
                    self.log.info("snapshot of an old upgrade removed", snapshot=str(snapshot))
            except Exception:
                self.log.exception("sweep failed")

    async def _tell_of_limits(self) -> None:
        """Postmaster learns of accounts that sent too much, within TELL_EVERY_S."""
        while True:
            try:
                await self.limit_notices.tell(self.admission)
            except Exception:
                self.log.exception("postmaster not told of a sending limit")
            await asyncio.sleep(TELL_EVERY_S)

    async def _note_logins(self) -> None:
        """Write when app passwords were last used, off the way of logins; every worker knows its own."""
        while True:
            await asyncio.sleep(NOTE_LOGINS_EVERY_S)
            try:
                await self.authenticator.flush()
            except Exception:
                self.log.exception("times of last use not written")

    def _tell_migrated(self, migrated: Migrated) -> None:
        self.log.warning(
            "database migrated",
            from_schema=migrated.before,
            to_schema=migrated.after,
            return_with="posthouse rollback",
            snapshot=str(migrated.snapshot),
        )

    async def _end_sessions(self, attempts: list[asyncio.Task[None]]) -> None:
        """Close the doors, tell idle sessions, give the others and the attempts under way GRACE_S."""
        self.doors.stop()
        self.runner.stop()
        for stream in tuple(self._sessions):
            stream.interrupt()
        deadline = asyncio.get_running_loop().time() + GRACE_S
        try:
            async with asyncio.timeout_at(deadline):
                while self._sessions:
                    self._sessions_changed.clear()
                    await self._sessions_changed.wait()
                if attempts:
                    await asyncio.wait(attempts)
        except TimeoutError:
            self.log.warning("closing on open sessions", sessions=len(self._sessions))
            for stream in tuple(self._sessions):
                stream.abort()
            for attempt in attempts:
                attempt.cancel()

    async def _close(self) -> None:
        self.doors.close()
        if hasattr(self, "authenticator"):
            self.authenticator.close()
            try:
                await self.authenticator.flush()
            except StorageError:
                self.log.warning("times of last use not written", exc_info=True)
        try:
            await self.storage.close()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._serve_lock >= 0:
            os.close(self._serve_lock)
            self._serve_lock = -1


def _identity_rules(config: Config) -> IdentityRules:
    auth = config.auth
    limiter = LimiterRules(
        failures=auth.failures_before_slowing,
        delay_s=auth.slowing_delay,
        longest_delay_s=auth.slowing_longest,
        window_s=auth.slowing_window,
    )
    return IdentityRules(limiter=limiter, scram=auth.scram, scram_for_passwords=auth.scram_for_passwords)


def _smtp_mechanisms(*, scram: bool) -> tuple[str, ...]:
    """What AUTH offers, the strongest first."""
    return (*((SCRAM_SHA_256,) if scram else ()), "PLAIN", "LOGIN")


def _sender_domains(config: Config, resolver: Resolver, clock: Clock) -> SenderDomains | None:
    return SenderDomains(resolver, clock) if config.reception.refuse_null_mx_senders else None


def _resolver(config: Config) -> Resolver:
    servers = (parse_endpoint(server, default_port=53) for server in config.dns.servers)
    return DnsResolver(tuple((server.host, server.port) for server in servers))
