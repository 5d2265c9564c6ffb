"""The composition root: configuration becomes a `House`, its objects and its one TaskGroup. Nothing is global."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random as random_module
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from posthouse.admission.admission import Admission, Rules
from posthouse.admission.peer import Role
from posthouse.config import Config, Endpoint, Reception, Retrieval, parse_endpoint
from posthouse.forwarding.bounce import Bouncer
from posthouse.forwarding.relay import Relay
from posthouse.forwarding.routes import Router
from posthouse.forwarding.runner import QueueRunner, RunnerLimits
from posthouse.forwarding.schedule import RetrySchedule
from posthouse.identity.authenticator import Authenticator
from posthouse.log import Log
from posthouse.mail.world import Clock, Random
from posthouse.net.connect import Connector, TcpConnector
from posthouse.net.dns import DnsResolver, Resolver
from posthouse.net.listener import Admittance, Listener, Serve, SessionCounter, bind
from posthouse.net.stream import Stream
from posthouse.net.tls import server_context
from posthouse.protocol.pop3_server import Pop3Options
from posthouse.protocol.smtp_server import ServerOptions
from posthouse.reception.session import SmtpDoor, SmtpLimits, SmtpSession
from posthouse.retrieval.session import Pop3Door, Pop3Limits, Pop3Session
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.interfaces import Storage
from posthouse.storage.sqlite.restore import restore_backup, restore_snapshot
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.upkeep import Migrated, Restored, Retention, Tell
from posthouse.workers import Part, lock_folder

SELF_SIGNED = ("self-signed.crt", "self-signed.key")
SWEEP_EVERY_S = 60.0
GRACE_S = 10.0


class SystemClock:
    """The machine's time."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class SystemRandom:
    """The machine's chance."""

    def __init__(self) -> None:
        self._chance = random_module.SystemRandom()

    def octets(self, count: int) -> bytes:
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        return self._chance.uniform(low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a house is handed from outside. Tests and simulation hand in their own."""

    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=SystemRandom)
    connector: Connector = field(default_factory=TcpConnector)
    resolver: Resolver | None = None


async def open_storage(
    config: Config, world: World, *, create: bool = False, on_migrated: Callable[[Migrated], None] | None = None
) -> Storage:
    """The storage engine that the configuration names. Without `on_migrated` an older database is refused."""
    return await SqliteStorage.open(
        config.data_dir, clock=world.clock, random=world.random, create=create, on_migrated=on_migrated
    )


def restore_storage(config: Config, world: World, source: Path, tell: Tell) -> Restored:
    """Return to a backup (a folder) or to a snapshot (a file). The caller keeps `serve` away. Raises StorageError."""
    restore = restore_backup if source.is_dir() else restore_snapshot
    return restore(source, config.data_dir, now=world.clock.now(), disk=RealFileSystem(), tell=tell)


class House:
    """One house: `start`, then `serve` until `stop`. Several may live in one process, and one in several (`part`)."""

    def __init__(self, config: Config, log: Log, world: World | None = None, *, part: Part | None = None) -> None:
        self.config = config
        self.part = part or Part()
        self.log = log
        self.world = world or World()
        self.endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._stop = asyncio.Event()
        self._listeners: list[Listener] = []
        self._sessions: set[Stream] = set()
        self._sessions_changed = asyncio.Event()
        self._serve_lock = -1

    async def start(self) -> None:
        """Open the doors' ports and the store. Raises PortTaken, StorageError, CertificateUnusable, AlreadyServed."""
        if self.part.doors is None:
            self._serve_lock = lock_folder(self.config.data_dir)
        try:
            self.storage = await open_storage(self.config, self.world, on_migrated=self._tell_migrated)
        except BaseException:
            self._unlock()
            raise
        try:
            self._build()
            self._bind()
        except BaseException:
            await self._close()
            raise

    async def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Run until `stop` is called; then finish what can be finished within GRACE_S."""
        try:
            async with asyncio.TaskGroup() as group:
                for listener in self._listeners:
                    await listener.start(group)
                attempts = [group.create_task(self.runner.run())] if self.part.leads else []
                sweeper = group.create_task(self._sweep()) if self.part.leads else None
                ready()
                await self._stop.wait()
                if sweeper is not None:
                    sweeper.cancel()
                await self._end_sessions(attempts)
        finally:
            await self._close()

    def stop(self) -> None:
        """Ask `serve` to end gracefully."""
        self._stop.set()

    def _build(self) -> None:
        config, world = self.config, self.world
        self.admission = Admission(
            self.storage.directory,
            Rules(
                hostname=config.hostname,
                postmaster=config.postmaster,
                max_recipients=config.reception.recipients,
                expire_after_s=config.forwarding.expire_after,
            ),
            world.clock,
            world.random,
        )
        self.authenticator = Authenticator(self.storage.directory, world.clock, world.random)
        router = Router(
            resolver=world.resolver or _resolver(config),
            explicit=config.forwarding.next_hop,
            hostname=config.hostname,
            port=config.forwarding.port,
            allow_private=config.forwarding.allow_private_next_hops,
            random=world.random,
        )
        relay = Relay(
            router=router,
            connector=world.connector,
            content=self.storage.content,
            clock=world.clock,
            hello_name=config.hostname,
        )
        self.runner = QueueRunner(
            self.storage,
            relay,
            Bouncer(self.storage.content, self.admission, world.random),
            RetrySchedule(
                intervals_s=config.forwarding.retry, delay_notice_after_s=config.forwarding.delay_notice_after
            ),
            RunnerLimits(
                concurrency=config.forwarding.concurrency,
                per_destination=config.forwarding.concurrency_per_destination,
            ),
            world.clock,
            world.random,
            self.log,
        )

    def _bind(self) -> None:
        """Bind every door before any of them opens, so that a taken port is told before mail is taken."""
        listen, auth = self.config.listen, self.config.auth
        smtp, pop3 = self._counter(self.config.reception), self._counter(self.config.retrieval)
        self._open("smtp", listen.smtp, self._smtp(Role.EXCHANGE, smtp))
        self._open("submission", listen.submission, self._smtp(Role.SUBMISSION, smtp))
        self._open("submissions", listen.submissions, self._smtp(Role.SUBMISSION, smtp, implicit_tls=True), self._tls)
        self._open("pop3", listen.pop3, self._pop3(pop3, login=auth.allow_cleartext))
        self._open("pop3s", listen.pop3s, self._pop3(pop3, login=True), self._tls)

    def _open(
        self,
        door: str,
        endpoints: tuple[Endpoint, ...],
        serve: Serve,
        make_tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        opened: list[Endpoint] = []
        bound = self.part.doors.get(door, ()) if self.part.doors is not None else bind_all(endpoints)
        for listening in bound:
            context = make_tls() if make_tls is not None else None
            listener = Listener(listening, serve, tls=context, log=self.log)
            self._listeners.append(listener)
            opened.append(Endpoint(listener.host, listener.port))
        self.endpoints[door] = tuple(opened)

    def _counter(self, limits: Reception | Retrieval) -> SessionCounter:
        return SessionCounter(Admittance(self.part.of(limits.sessions), self.part.of(limits.sessions_per_address)))

    def _tls(self) -> ssl.SSLContext:
        return server_context(*self._certificate())

    def _certificate(self) -> tuple[Path, Path]:
        tls, folder = self.config.tls, self.config.data_dir
        return tls.certificate or folder / SELF_SIGNED[0], tls.key or folder / SELF_SIGNED[1]

    def _smtp(self, role: Role, counter: SessionCounter, *, implicit_tls: bool = False) -> Serve:
        config = self.config
        tls_options = ServerOptions(
            hostname=config.hostname,
            message_size_octets=config.reception.message_size_octets,
            auth_mechanisms=("PLAIN",) if role is Role.SUBMISSION else (),
            auth_required=role is Role.SUBMISSION,
            max_recipients=config.reception.recipients,
        )
        starttls = not implicit_tls and (config.tls.certificate is not None or self._certificate()[0].exists())
        clear_options = replace(
            tls_options,
            starttls=starttls,
            auth_mechanisms=tls_options.auth_mechanisms if config.auth.allow_cleartext else (),
        )
        door = SmtpDoor(
            role=role,
            options=tls_options if implicit_tls else clear_options,
            tls=self._tls() if starttls else None,
            tls_options=tls_options,
            limits=SmtpLimits(
                command_timeout_s=config.reception.command_timeout,
                content_timeout_s=config.reception.content_timeout,
                errors=config.reception.errors,
            ),
            storage=self.storage,
            admission=self.admission,
            authenticator=self.authenticator,
            clock=self.world.clock,
            log=self.log,
        )

        def session(stream: Stream) -> SmtpSession:
            trusted = self._is_trusted(stream.peer_address)
            return SmtpSession(stream, door, session=self._session_name(), trusted=trusted)

        return lambda stream: self._run_session(stream, counter, session)

    def _pop3(self, counter: SessionCounter, *, login: bool) -> Serve:
        door = Pop3Door(
            options=Pop3Options(hostname=self.config.hostname, offer_login=login),
            limits=Pop3Limits(idle_timeout_s=self.config.retrieval.idle_timeout),
            storage=self.storage,
            authenticator=self.authenticator,
            clock=self.world.clock,
            log=self.log,
        )

        def session(stream: Stream) -> Pop3Session:
            return Pop3Session(stream, door, session=self._session_name())

        return lambda stream: self._run_session(stream, counter, session)

    async def _run_session(
        self, stream: Stream, counter: SessionCounter, make: Callable[[Stream], SmtpSession | Pop3Session]
    ) -> None:
        """One connection from accept to close. Whatever goes wrong in it stays in it: the house goes on."""
        address = stream.peer_address
        self._sessions.add(stream)
        if self._stop.is_set():
            # It was in the backlog, or in a handshake, when the others were told.
            stream.interrupt()
        try:
            session = make(stream)
            if not counter.enter(address):
                await session.refuse_service()
                return
            try:
                await session.run()
            finally:
                counter.leave(address)
        except Exception:
            self.log.exception("session broke", peer=address)
            stream.abort()
        finally:
            self._sessions.discard(stream)
            self._sessions_changed.set()

    def _session_name(self) -> str:
        return self.world.random.octets(4).hex()

    def _is_trusted(self, address: str) -> bool:
        networks = self.config.reception.trusted_networks
        if not networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            # A peer that has gone already has no address any more.
            return False
        return any(parsed in network for network in networks)

    async def _sweep(self) -> None:
        journey = self.config.journey
        retention = Retention(
            journeys_s=journey.keep, refused_s=journey.refused_keep, refused_limit=journey.refused_limit
        )
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await self.storage.sweep(self.world.clock.now(), retention)
            except Exception:
                self.log.exception("sweep failed")

    def _tell_migrated(self, migrated: Migrated) -> None:
        self.log.warning(
            "database migrated",
            from_schema=migrated.before,
            to_schema=migrated.after,
            return_with=f"posthouse restore {migrated.snapshot}",
        )

    async def _end_sessions(self, attempts: list[asyncio.Task[None]]) -> None:
        """Close the doors, tell idle sessions, give the others and the attempts under way GRACE_S."""
        for listener in self._listeners:
            listener.stop()
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
        for listener in self._listeners:
            listener.stop()
        if hasattr(self, "authenticator"):
            self.authenticator.close()
        await self.storage.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._serve_lock >= 0:
            os.close(self._serve_lock)
            self._serve_lock = -1


def bind_doors(config: Config) -> dict[str, tuple[socket.socket, ...]]:
    """Listening sockets for every door of the configuration. Raises PortTaken, with none left open."""
    listen = config.listen
    doors = ("smtp", "submission", "submissions", "pop3", "pop3s")
    bound: dict[str, tuple[socket.socket, ...]] = {}
    try:
        for door in doors:
            bound[door] = bind_all(getattr(listen, door))
    except BaseException:
        for sockets in bound.values():
            for opened in sockets:
                opened.close()
        raise
    return bound


def bind_all(endpoints: tuple[Endpoint, ...]) -> tuple[socket.socket, ...]:
    """A bound socket for each. Raises PortTaken, with none left open."""
    bound: list[socket.socket] = []
    try:
        for endpoint in endpoints:
            bound.append(bind(endpoint.host, endpoint.port))
    except BaseException:
        for opened in bound:
            opened.close()
        raise
    return tuple(bound)


def _resolver(config: Config) -> Resolver:
    servers = (parse_endpoint(server, default_port=53) for server in config.dns.servers)
    return DnsResolver(tuple((server.host, server.port) for server in servers))
