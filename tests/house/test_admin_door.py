"""The admin door of a running house: what it tells, and when it says that the house is not ready."""

from __future__ import annotations

import asyncio
import json
import poplib
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from posthouse.net.listener import PortTaken
from posthouse.storage.errors import StorageFull
from tests.house.faults import faulty_house
from tests.running_house import PASSWORD, RunningHouse

LISTEN = {door: ["127.0.0.1:0"] for door in ("smtp", "pop3", "admin")}


class Door:
    """Who asks there."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(self._address + path, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def metrics(self) -> dict[str, float]:
        """The value of each series."""
        status, text = self.get("/metrics")
        assert status == 200
        series = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name.removeprefix("posthouse_"): float(value) for name, _, value in series}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path_factory.mktemp("house"), listen=LISTEN) as running:
        yield running


@pytest.fixture
def door(house: RunningHouse) -> Door:
    return Door(house.ports["admin"])


def deliver(port: int, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, "c.test", timeout=20) as client:
        client.sendmail("a@far.test", recipients, b"Subject: x\r\n\r\nx\r\n")


def test_a_house_that_takes_mail_is_ready(door: Door) -> None:
    assert door.get("/healthz") == (200, "ready\n")
    assert door.get("/livez") == (200, "alive\n")


def test_who_looks_in_is_told_what_there_is(door: Door) -> None:
    status, text = door.get("/")
    assert status == 200
    assert [line.split()[0] for line in text.splitlines()] == ["/metrics", "/healthz", "/livez"]
    assert door.get("/nothing")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(house: RunningHouse, method: str) -> None:
    with socket.create_connection(("127.0.0.1", house.ports["admin"]), timeout=20) as peer:
        peer.sendall(
            f"{method} /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        assert peer.makefile("rb").readline() == b"HTTP/1.1 405 Method Not Allowed\r\n"


def test_what_is_no_http_is_refused(house: RunningHouse, door: Door) -> None:
    with socket.create_connection(("127.0.0.1", house.ports["admin"]), timeout=20) as peer:
        peer.sendall(b"EHLO x\r\n\r\n")
        assert peer.makefile("rb").readline().startswith(b"HTTP/1.1 400 ")
    assert door.get("/livez") == (200, "alive\n")


def test_mail_in_and_out_is_counted(house: RunningHouse, door: Door) -> None:
    before = door.metrics()
    deliver(house.ports["smtp"], "ada@here.test", "bob@here.test")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        deliver(house.ports["smtp"], "nobody@here.test")
    client = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=20)
    client.user("bob@here.test")
    client.pass_(PASSWORD)
    client.retr(1)
    client.dele(1)
    client.quit()
    after = door.metrics()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grown('sessions_total{door="smtp",worker="0"}') == 2
    assert grown('sessions_total{door="pop3",worker="0"}') == 1
    assert grown('messages_accepted_total{source="exchange",worker="0"}') == 1
    assert grown('recipients_total{kind="here",worker="0"}') == 2
    assert grown('acceptance_seconds_count{worker="0"}') == 1
    assert grown('refused_total{reason="unknown_recipient",worker="0"}') == 1
    assert grown('logins_total{protocol="pop3",result="accepted",worker="0"}') == 1
    assert grown('messages_retrieved_total{worker="0"}') == 1
    assert grown('messages_deleted_total{worker="0"}') == 1
    assert grown('commit_seconds_count{worker="0"}') >= 2
    assert grown('received_octets_total{door="smtp",worker="0"}') > 20
    assert grown('sent_octets_total{door="pop3",worker="0"}') > 20


def test_a_wrong_password_is_counted(house: RunningHouse, door: Door) -> None:
    name = 'logins_total{protocol="pop3",result="refused",worker="0"}'
    before = door.metrics()[name]
    client = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=20)
    client.user("bob@here.test")
    with pytest.raises(poplib.error_proto):
        client.pass_("wrong")
    client.close()
    assert door.metrics()[name] == before + 1


def test_sessions_that_are_open_are_told(house: RunningHouse, door: Door) -> None:
    name = 'sessions_open{door="smtp",worker="0"}'
    before = door.metrics()[name]
    with smtplib.SMTP("127.0.0.1", house.ports["smtp"], "c.test", timeout=20):
        assert door.metrics()[name] == before + 1


def test_what_waits_and_what_there_is_room_for_is_told(house: RunningHouse, door: Door) -> None:
    told = door.metrics()
    assert told["ready"] == 1.0
    assert told['worker_up{worker="0"}'] == 1.0
    assert told['queue_recipients{state="waiting"}'] == 0.0
    assert told["disk_free_octets"] > 0
    assert told['storage_octets{part="database"}'] > 0


def test_a_store_that_is_full_is_not_ready_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, faults = faulty_house(tmp_path, monkeypatch, listen=LISTEN)
    with running as house:
        door = Door(house.ports["admin"])
        faults["prove"] = StorageFull("no space is left")
        assert door.get("/healthz") == (503, "the store cannot commit: no space is left\n")
        assert door.metrics()["ready"] == 0.0


def test_what_cannot_be_read_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, faults = faulty_house(tmp_path, monkeypatch, listen=LISTEN)
    with running as house:
        faults["sizes"] = StorageFull("gone")
        told = Door(house.ports["admin"]).metrics()
        assert told["ready"] == 0.0
        assert "disk_free_octets" not in told
        assert 'queue_recipients{state="held"}' in told
        lines = [json.loads(line) for line in house.log.getvalue().splitlines()]
        assert [line["what"] for line in lines if line["event"] == "not found out"] == ["sizes"]


def test_two_houses_in_one_process_tell_of_themselves(tmp_path: Path, house: RunningHouse, door: Door) -> None:
    (tmp_path / "other").mkdir()
    with RunningHouse(tmp_path / "other", listen=LISTEN) as other:
        before = door.metrics()
        deliver(other.ports["smtp"], "ada@here.test")
        name = 'messages_accepted_total{source="exchange",worker="0"}'
        assert Door(other.ports["admin"]).metrics()[name] == 1.0
        assert door.metrics()[name] == before[name]


def test_a_house_without_that_door_answers_nobody(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        assert "admin" not in house.ports


def test_a_house_that_closes_is_not_ready_and_says_so(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, listen=LISTEN) as house:

        async def stop(_: object) -> None:
            house.house.stop()

        door = Door(house.ports["admin"])
        with smtplib.SMTP("127.0.0.1", house.ports["smtp"], "c.test", timeout=20) as client:
            client.helo()
            client.mail("a@far.test")
            client.rcpt("ada@here.test")
            client.putcmd("DATA")
            assert client.getreply()[0] == 354
            house.ask(stop)
            while (answer := door.get("/healthz"))[0] == 200:
                pass
            # The house waits for the message, and who asks meanwhile is answered.
            assert answer == (503, "the house is closing\n")
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert client.getreply()[0] == 250
            client.close()


def test_a_page_that_fails_is_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RunningHouse(tmp_path, listen=LISTEN) as house:
        with pytest.MonkeyPatch.context() as patch:

            def broken(*_: object) -> None:
                raise RuntimeError("a bug")

            patch.setattr("posthouse.watch.watch.exposition", broken)
            door = Door(house.ports["admin"])
            assert door.get("/metrics") == (500, "something went wrong; see the log\n")
        assert door.get("/healthz")[0] == 200
        lines = [json.loads(line) for line in house.log.getvalue().splitlines()]
        (told,) = (line for line in lines if line["event"] == "admin door: a request failed")
        assert told["path"] == "/metrics"
        assert "a bug" in told["exception"]
    assert not caplog.records


def test_the_loop_of_the_standard_library_will_do(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, listen=LISTEN, loop_factory=asyncio.new_event_loop) as house:
        assert Door(house.ports["admin"]).get("/healthz") == (200, "ready\n")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port} cannot be opened"):
            with RunningHouse(tmp_path, listen={**LISTEN, "admin": [f"127.0.0.1:{port}"]}):
                pass


def test_monitoring_that_keeps_its_connection_holds_up_no_end(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, listen=LISTEN) as house:
        peer = socket.create_connection(("127.0.0.1", house.ports["admin"]), timeout=20)
        peer.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.recv(15) == b"HTTP/1.1 200 OK"
    peer.close()
