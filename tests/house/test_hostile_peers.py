"""Peers by the thousand, without end, or without reading: memory stays bounded, others are answered within a second.

The bounds stand in docs/guarantees.md. Endless lines, floods and heaps of fields are in `test_exhaustion.py`.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.net.tls import make_self_signed, server_context
from tests.house.far_hosts import FarHosts, Fault
from tests.house.served import ServedHouse
from tests.house.test_exhaustion import ADA, BOB, CAROL, GROWTH_KIB, answered_within_a_second, bounded
from tests.house.wire import Wire, stored
from tests.running_house import DOORS

pytestmark = pytest.mark.long

PATIENCE_S = 60.0


@pytest.fixture
def descriptors() -> Iterator[int]:
    """How many this process, and each that it starts, may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def served(folder: Path, more: str, doors: tuple[str, ...] = DOORS) -> Iterator[ServedHouse]:
    make_self_signed("mx.here.test", folder / SELF_SIGNED[0], folder / SELF_SIGNED[1], time.time())
    with ServedHouse(folder, (ADA, BOB, CAROL), more, doors) as house:
        house.start()
        answered_within_a_second(house)
        yield house
        house.kill()


# Ten thousand at once.

CROWD = 10_000
ADDRESSES = 40
KIB_FOR_EACH = 16
ADMITTED = 2000
"""`sessions` of each service, by default."""


def connected(port: int, number: int) -> socket.socket:
    """From one of many addresses: one alone may not have so many sessions."""
    source = f"127.66.{number % ADDRESSES}.1"
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_S, (source, 0))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def first_words(clients: list[socket.socket]) -> Counter[bytes]:
    """What each of them hears first, by its beginning; who hears nothing fails the test."""
    found: Counter[bytes] = Counter()
    for client in clients:
        found[client.recv(4096)[:4]] += 1
    return found


def dribble(clients: list[socket.socket]) -> None:
    """One octet from each."""
    for client in clients:
        with contextlib.suppress(OSError):
            client.send(b"N")


@pytest.mark.conformance("C285", "S26")
def test_ten_thousand_sessions_that_dribble(tmp_path: Path, descriptors: int) -> None:
    """Where so many are allowed: each has its session, and costs no more than it should."""
    crowd = min(CROWD, descriptors - 2000)
    limits = "sessions = 20_000\nsessions_per_address = 1000\n"
    with served(tmp_path, f"[reception]\n{limits}[retrieval]\n{limits}") as house, contextlib.ExitStack() as held:
        before = house.memory_kib("VmRSS")
        doors = [house.ports[door] for door in ("smtp", "submission", "pop3")]
        clients = [held.enter_context(connected(doors[n % 3], n)) for n in range(crowd)]
        assert set(first_words(clients)) == {b"220 ", b"+OK "}
        for _ in range(3):
            dribble(clients)
            answered_within_a_second(house)
        each = (house.memory_kib("VmHWM") - before) / crowd
        print(f"{crowd} sessions, {each:.1f} KiB each")
        assert each < KIB_FOR_EACH


@pytest.mark.conformance("C285", "S26")
def test_of_ten_thousand_those_beyond_the_limit_are_told_so(tmp_path: Path, descriptors: int) -> None:
    """With the limits as they are by default, but for those of one address, which 40 addresses share here."""
    crowd = min(CROWD, descriptors - 2000)
    limits = "sessions_per_address = 1000\n"
    with served(tmp_path, f"[reception]\n{limits}[retrieval]\n{limits}") as house, contextlib.ExitStack() as held:
        before = house.memory_kib("VmRSS")
        heard: Counter[bytes] = Counter()
        for door in ("smtp", "pop3"):
            clients = [held.enter_context(connected(house.ports[door], n)) for n in range(crowd // 2)]
            heard += first_words(clients)
            dribble(clients)
        assert heard == {
            b"220 ": ADMITTED,
            b"+OK ": ADMITTED,
            b"421 ": crowd // 2 - ADMITTED,
            b"-ERR": crowd // 2 - ADMITTED,
        }
        grown = house.memory_kib("VmHWM") - before
        print(f"{grown / (2 * ADMITTED):.1f} KiB for each that was admitted")
        assert grown < 2 * ADMITTED * KIB_FOR_EACH
        # Submission has its own places: its users are not kept out.
        with Wire(house.ports["submission"]) as wire:
            wire.greet()


# Small steps by the hundred thousand.

CHUNKS = 100_000


@pytest.mark.conformance("C287")
@pytest.mark.parametrize("commands", [5000, 200_000], ids=["usual", "enough"])
def test_a_hundred_thousand_chunks_of_one_octet(tmp_path: Path, commands: int) -> None:
    """By default the session ends for too many commands; where they are allowed, the message is stored as it came."""
    with served(tmp_path, f"[reception]\ncommands = {commands}\n") as house, Wire(house.ports["smtp"]) as wire:
        wire.greet().envelope(BOB)
        answers = bytearray()

        def read() -> None:
            with contextlib.suppress(OSError):
                while octets := wire.socket.recv(1 << 16):
                    answers.extend(octets)
                    del answers[:-4096]

        reader = threading.Thread(target=read)
        with bounded(house, 2 * GROWTH_KIB):
            reader.start()
            with contextlib.suppress(OSError):
                for number in range(CHUNKS // 50):
                    wire.send(b"BDAT 1\r\nx" * 50)
                    if number % 500 == 250:
                        answered_within_a_second(house)
                wire.send(b"BDAT 2 LAST\r\n\r\nQUIT\r\n")
            reader.join(PATIENCE_S)
            assert not reader.is_alive()
        *_, last_but_one, last = bytes(answers).splitlines()
        if commands == 5000:
            assert last.startswith(b"421 4.7.0 Too many commands"), last
            return
        stored(last_but_one)
        with Wire(house.ports["pop3"]) as reading:
            assert reading.login(BOB).startswith(b"+OK")
            assert reading.retrieve(1).endswith(b"\r\n" + b"x" * CHUNKS + b"\r\n")


POP3_COMMANDS = 100_000
MESSAGES = 300


@pytest.mark.conformance("C287")
@pytest.mark.parametrize("command", [b"LIST", b"UIDL", b"TOP 1 1", b"RETR 2"])
def test_a_hundred_thousand_commands_and_nobody_reads(tmp_path: Path, command: bytes) -> None:
    """The house reads no further than it can answer, and ends the session when its patience does."""
    with served(tmp_path, '[retrieval]\nwrite_timeout = "3s"\n') as house:
        with Wire(house.ports["smtp"]) as wire:
            wire.greet()
            for _ in range(MESSAGES):
                wire.deliver(b"Subject: x\r\n\r\n" + b"y" * 500 + b"\r\n", BOB)
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login(BOB).startswith(b"+OK")
            with bounded(house, 2 * GROWTH_KIB):
                wire.socket.settimeout(1.0)
                sent = 0
                with contextlib.suppress(OSError):
                    while sent < POP3_COMMANDS:
                        wire.send((command + b"\r\n") * 100)
                        sent += 100
                answered_within_a_second(house)
                _until(lambda: _is_free(house), "the session goes on for ever")
        answered_within_a_second(house)


def _is_free(house: ServedHouse) -> bool:
    with Wire(house.ports["pop3"]) as wire:
        return wire.login(BOB).startswith(b"+OK")


def _until(condition: Callable[[], bool], reason: str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, reason
        time.sleep(0.1)


# Handshakes.

HANDSHAKES = 1000


@pytest.mark.conformance("C147")
def test_a_storm_of_handshakes(tmp_path: Path) -> None:
    """As many as four threads can, each of them whole, half of them over STARTTLS."""
    with served(tmp_path, "", (*DOORS, "submissions")) as house:
        trust = ssl.create_default_context(cafile=tmp_path / SELF_SIGNED[0])
        done = [0] * 4

        def storm(part: int) -> None:
            for _ in range(HANDSHAKES // 4):
                with contextlib.suppress(OSError):
                    if part % 2:
                        with Wire(house.ports["submissions"], tls=trust) as wire:
                            wire.reply()
                    else:
                        with Wire(house.ports["smtp"]) as wire:
                            assert wire.greet().say("STARTTLS").startswith(b"220 ")
                            wire.start_tls(trust)
                    done[part] += 1

        threads = [threading.Thread(target=storm, args=(part,)) for part in range(4)]
        with bounded(house, 4 * GROWTH_KIB):
            for thread in threads:
                thread.start()
            answered_within_a_second(house)
            for thread in threads:
                thread.join(PATIENCE_S)
        assert sum(done) == HANDSHAKES
        answered_within_a_second(house)


def test_nobody_may_begin_another_handshake(tmp_path: Path) -> None:
    """To renegotiate is cheap to ask for and dear to grant; OpenSSL's own client asks when told `R`."""
    with served(tmp_path, "", (*DOORS, "submissions")) as house:
        place = f"127.0.0.1:{house.ports['submissions']}"
        made = server_context(tmp_path / SELF_SIGNED[0], tmp_path / SELF_SIGNED[1])
        assert made.options & ssl.OP_NO_RENEGOTIATION
        if shutil.which("openssl") is None:
            return
        asking = subprocess.run(
            ["openssl", "s_client", "-connect", place, "-tls1_2", "-crlf"],
            input=b"R\n",
            capture_output=True,
            timeout=PATIENCE_S,
        )
        assert b"RENEGOTIATING" in asking.stderr
        assert b"no renegotiation" in asking.stderr
        answered_within_a_second(house)


# Next hops.


@pytest.mark.conformance("C310")
def test_next_hops_that_never_stop_talking(tmp_path: Path) -> None:
    """Twenty that send one reply, or one line, without end: none of it is kept."""
    settings = (
        '[reception]\ntrusted_networks = ["127.0.0.0/8"]\n[forwarding]\nallow_private_next_hops = true\n'
        'retry = ["1h"]\nport = {port}\n[dns]\nservers = ["{dns}"]\n'
    )
    with FarHosts() as far:
        for number in range(20):
            fault = (Fault.LINE, Fault.LINES)[number % 2]
            far.add(f"mx{number}.test", {("greeting", "EHLO", "MAIL", ".")[number % 4]: fault})
            far.mail_for(f"d{number}.test", f"mx{number}.test")
        with served(tmp_path, settings.format(port=far.port, dns=far.name_server)) as house:
            with bounded(house, 2 * GROWTH_KIB):
                with Wire(house.ports["smtp"]) as wire:
                    wire.greet().deliver(b"Subject: x\r\n\r\n", *(f"eva@d{number}.test" for number in range(20)))
                _until(lambda: all(host.sessions for host in far.hosts.values()), "not all were tried")
                answered_within_a_second(house)


LARGE = b"Subject: large\r\n\r\n" + (b"z" * 998 + b"\r\n") * 20_000


def test_a_next_hop_that_reads_one_octet_a_second(tmp_path: Path) -> None:
    """Twenty megabytes on their way to it are not held in memory, and it does not have its place for ever."""
    with socket.create_server(("127.0.0.1", 0)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ended = threading.Event()
        begun = threading.Event()
        thread = threading.Thread(target=_read_slowly, args=(slow, begun, ended), daemon=True)
        thread.start()
        settings = (
            '[reception]\ntrusted_networks = ["127.0.0.0/8"]\n[forwarding]\nretry = ["1h"]\ncontent_timeout = "3s"\n'
            f'routes = {{ "*" = "127.0.0.1:{slow.getsockname()[1]}" }}\n'
        )
        try:
            with served(tmp_path, settings) as house:
                sockets = house.sockets()
                with bounded(house, 2 * GROWTH_KIB):
                    with Wire(house.ports["smtp"]) as wire:
                        wire.greet().deliver(LARGE, "eva@far.test")
                    assert begun.wait(PATIENCE_S)
                    answered_within_a_second(house)
                    _until(lambda: house.sockets() <= sockets, "it still has its place")
        finally:
            ended.set()
            thread.join(PATIENCE_S)


def _read_slowly(slow: socket.socket, begun: threading.Event, ended: threading.Event) -> None:
    """A next hop which takes the content at an octet a second."""
    connection, _ = slow.accept()
    with connection, contextlib.suppress(OSError):
        connection.sendall(b"220 slow ESMTP\r\n")
        heard = b""
        while b"DATA\r\n" not in heard:
            heard = connection.recv(4096)
            connection.sendall(b"354 go on\r\n" if b"DATA" in heard else b"250 OK\r\n")
        begun.set()
        while not ended.wait(1.0):
            connection.recv(1)
