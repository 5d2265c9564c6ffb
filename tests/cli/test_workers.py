"""`workers = 2`: processes that share the ports and the store, and one that dies is replaced."""

from __future__ import annotations

import json
import os
import poplib
import select
import signal
import smtplib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.net.tls import make_self_signed
from posthouse.workers import AlreadyServed, Part, lock_folder
from tests.cli.conftest import CONFIG, Command, spawn
from tests.running_house import PASSWORD


class Served:
    """A house with two workers; `lines` reads its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = spawn("serve", folder=folder)
        opened = self.wait_for("house open")
        self.ports = {door: int(opened[door].rpartition(":")[2]) for door in ("smtp", "submission", "pop3")}

    def wait_for(self, event: str) -> dict[str, str]:
        """The next line of the log with this event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found: dict[str, str] = json.loads(line)
            if found["event"] == event:
                return found
        raise AssertionError(f"the log ended without: {event}")

    def workers(self) -> list[int]:
        """Process ids of the workers, in the order of their start."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def deliver(self) -> int:
        """Hand a letter over a connection of its own; which worker took it."""
        with smtplib.SMTP("127.0.0.1", self.ports["smtp"], "c.test", timeout=20) as client:
            client.sendmail("a@far.test", ["ada@here.test"], b"Subject: x\r\n\r\nx\r\n")
        return int(self.wait_for("message accepted")["worker"])

    def submit(self, *recipients: str) -> int:
        """Send a letter as ada; which worker took it."""
        with smtplib.SMTP("127.0.0.1", self.ports["submission"], "c.test", timeout=20) as client:
            client.login("ada@here.test", PASSWORD)
            client.sendmail("ada@here.test", list(recipients), b"From: ada@here.test\r\nSubject: x\r\n\r\nx\r\n")
        return int(self.wait_for("message accepted")["worker"])

    def reader(self) -> poplib.POP3:
        """A session that lacks only its password."""
        client = poplib.POP3("127.0.0.1", self.ports["pop3"], timeout=20)
        client.user("ada@here.test")
        return client

    def shown(self) -> str:
        """The certificate that a worker shows, PEM."""
        with smtplib.SMTP("127.0.0.1", self.ports["smtp"], "c.test", timeout=20) as client:
            client.starttls(context=ssl._create_unverified_context())
            assert isinstance(client.sock, ssl.SSLSocket)
            octets = client.sock.getpeercert(binary_form=True)
        assert octets is not None
        return ssl.DER_cert_to_PEM_cert(octets)

    def stored(self) -> int:
        client = self.reader()
        client.pass_(PASSWORD)
        count = client.stat()[0]
        client.quit()
        return count


@pytest.fixture
def served(furnished: Command) -> Iterator[Served]:
    (furnished.folder / "posthouse.toml").write_text("workers = 2\n" + CONFIG)
    house = Served(furnished.folder)
    try:
        yield house
    finally:
        house.process.kill()
        house.process.communicate()


def test_every_worker_takes_mail_into_the_one_store(served: Served) -> None:
    first, second = served.workers()
    took = set()
    for stopped in (first, second):
        # A stopped process takes no connections: it is the other's turn.
        os.kill(stopped, signal.SIGSTOP)
        took.add(served.deliver())
        os.kill(stopped, signal.SIGCONT)
    assert took == {0, 1}
    assert served.stored() == 2


@pytest.mark.long
def test_a_sending_limit_holds_for_all_workers_together(furnished: Command) -> None:
    """Whichever took it; and postmaster is told once, also where the worker that tells is replaced."""
    config = furnished.folder / "posthouse.toml"
    config.write_text(f"workers = 2\n{CONFIG}\n[reception]\nrecipients_per_hour = 3\n")
    house = Served(furnished.folder)
    try:
        first, second = house.workers()
        os.kill(first, signal.SIGSTOP)
        assert house.submit("one@far.test", "two@far.test") == 1
        os.kill(first, signal.SIGCONT)
        os.kill(second, signal.SIGSTOP)
        assert house.submit("three@far.test", "four@far.test") == 0
        os.kill(second, signal.SIGCONT)
        held = json.loads(furnished.run("queue", "list", "held:limit", "--json").out)
        assert [row["forward_path"] for row in held] == ["four@far.test"]
        # The first one tells, each 15 s and when it begins.
        os.kill(first, signal.SIGKILL)
        assert house.wait_for("sending limit reached")["worker"] == 0
        (again,) = {*house.workers()} - {second}
        os.kill(again, signal.SIGKILL)
        house.wait_for("worker died")
        # It begins anew, and has nothing to tell.
        os.kill(second, signal.SIGSTOP)
        assert house.submit("five@far.test") == 0
        os.kill(second, signal.SIGCONT)
        held = json.loads(furnished.run("queue", "list", "held:limit", "--json").out)
        assert [row["forward_path"] for row in held] == ["four@far.test", "five@far.test"]
        assert house.stored() == 1
    finally:
        house.process.kill()
        house.process.communicate()


def test_a_worker_that_dies_is_replaced(served: Served) -> None:
    first, second = served.workers()
    os.kill(second, signal.SIGKILL)
    assert served.wait_for("worker died")["status"] == -signal.SIGKILL
    assert served.deliver() == 0
    os.kill(first, signal.SIGKILL)
    assert served.wait_for("worker died")["worker"] == 0
    # Whoever connects meanwhile waits in the shared backlog for a worker that lives.
    assert served.deliver() in (0, 1)
    assert served.stored() == 2


@pytest.mark.conformance("C240", "C247", "S31", "S37")
def test_a_maildrop_is_locked_across_workers_and_freed_by_death(served: Served) -> None:
    first, second = served.workers()
    served.deliver()
    os.kill(second, signal.SIGSTOP)
    holder = served.reader()
    assert holder.pass_(PASSWORD).startswith(b"+OK")
    holder.dele(1)
    os.kill(second, signal.SIGCONT)
    os.kill(first, signal.SIGSTOP)
    # Now the other worker answers.
    thief = served.reader()
    with pytest.raises(poplib.error_proto, match="IN-USE"):
        thief.pass_(PASSWORD)
    thief.close()
    os.kill(first, signal.SIGKILL)
    assert served.wait_for("worker died")["worker"] == 0
    holder.close()
    assert served.stored() == 1, "a session that was killed deleted something"


@pytest.mark.long
def test_a_signal_ends_all_of_it_gracefully(served: Served) -> None:
    workers = [os.pidfd_open(pid) for pid in served.workers()]
    served.process.send_signal(signal.SIGTERM)
    _out, err = served.process.communicate(timeout=30)
    assert served.process.returncode == 0
    assert "house closed" in err
    assert "Traceback" not in err
    for worker in workers:
        assert select.select([worker], [], [], 20)[0]
        os.close(worker)


@pytest.mark.long
def test_the_folder_is_locked_until_the_last_worker_has_ended(served: Served) -> None:
    workers = [os.pidfd_open(pid) for pid in served.workers()]
    held = served.workers()[1]
    os.kill(held, signal.SIGSTOP)
    try:
        served.process.kill()
        assert select.select([workers[0]], [], [], 30)[0]
        with pytest.raises(AlreadyServed):
            lock_folder(served.folder)
    finally:
        os.kill(held, signal.SIGCONT)
    assert select.select([workers[1]], [], [], 30)[0]
    os.close(lock_folder(served.folder))
    for worker in workers:
        os.close(worker)


@pytest.mark.long
def test_workers_end_when_their_parent_is_killed(served: Served) -> None:
    workers = [os.pidfd_open(pid) for pid in served.workers()]
    served.process.kill()
    for worker in workers:
        assert select.select([worker], [], [], 30)[0]
        os.close(worker)


def test_a_worker_that_is_replaced_stays_in_the_folder(served: Served, tmp_path: Path) -> None:
    """The lock is the folder's of old, and so are the other workers' maildrops."""
    config = served.folder / "posthouse.toml"
    config.write_text(config.read_text().replace('data_dir = "."', f'data_dir = "{tmp_path / "new"}"'))
    first, second = served.workers()
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    served.wait_for("worker died")
    served.wait_for("worker died")
    served.deliver()
    assert served.stored() == 1


def test_a_worker_that_is_replaced_needs_no_file(served: Served) -> None:
    """The parent holds the configuration in use, whatever becomes of the file."""
    (served.folder / "posthouse.toml").write_text("hostname = [")
    first, second = served.workers()
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    served.wait_for("worker died")
    served.wait_for("worker died")
    served.deliver()
    assert served.stored() == 1


def test_a_broken_certificate_stops_neither_a_replaced_worker_nor_the_house(furnished: Command) -> None:
    """The one before stays in use, and a reload is refused, as a house of one process does."""
    folder = furnished.folder
    certificate = folder / "self-signed.crt"
    make_self_signed("mx.here.test", certificate, folder / "self-signed.key", time.time())
    (folder / "posthouse.toml").write_text("workers = 2\n" + CONFIG)
    house = Served(folder)
    try:
        shown = house.shown()
        certificate.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        for worker in house.workers():
            os.kill(worker, signal.SIGKILL)
        told = [house.wait_for("certificate cannot be used; the one before stays in use") for _ in range(2)]
        assert {line["worker"] for line in told} == {0, 1}
        assert house.shown() == shown
        house.process.send_signal(signal.SIGHUP)
        refused = house.wait_for("configuration not reloaded; the one before stays in use")
        assert "worker" not in refused, "the parent says it once"
        house.deliver()
    finally:
        house.process.kill()
        house.process.communicate()


def test_what_is_wrong_with_the_store_is_said_once(furnished: Command) -> None:
    (furnished.folder / "posthouse.toml").write_text("workers = 2\n" + CONFIG)
    (furnished.folder / "posthouse.db").write_bytes(b"no database" * 500)
    process = spawn("serve", folder=furnished.folder)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "is not a database" in err
    assert err.count("\n") == 1, err


def test_a_part_has_its_share_of_limits() -> None:
    part = Part(number=1, count=4)
    assert not part.leads
    assert (part.of(100), part.of(2)) == (25, 1)
