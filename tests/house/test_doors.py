"""What one connection may not do to the others: the parts of `app.py` that open doors and end sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthouse import app
from posthouse.net.stream import Stream
from posthouse.workers import AlreadyServed
from tests.house.wire import Wire
from tests.running_house import RunningHouse


def test_a_peer_without_an_address_is_no_trusted_one_and_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has gone before its session begins has no address any more."""
    with RunningHouse(tmp_path, reception={"trusted_networks": ["127.0.0.0/8"]}) as house:
        with Wire(house.ports["smtp"]).greet() as other:
            with monkeypatch.context() as patch:
                patch.setattr(Stream, "peer_address", "")
                with Wire(house.ports["smtp"]).greet() as peer:
                    assert peer.say("MAIL FROM:<a@far.test>").startswith(b"250 ")
                    assert peer.say("RCPT TO:<b@far.test>").startswith(b"550 5.7.1 ")
            assert other.say("NOOP").startswith(b"250 ")


@pytest.mark.conformance("C312", "S20")
@pytest.mark.parametrize("made", ["SmtpSession", "Pop3Session"])
def test_a_session_that_cannot_even_begin_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    with RunningHouse(tmp_path) as house, Wire(house.ports["smtp"]).greet() as other:
        with monkeypatch.context() as patch:
            patch.setattr(app, made, broken)
            for _ in range(2):
                assert Wire(house.ports["smtp" if made == "SmtpSession" else "pop3"]).rest() == b""
        assert other.say("NOOP").startswith(b"250 ")
        assert "ZeroDivisionError" in house.log.getvalue()
        house.log.truncate(0)


@pytest.mark.conformance("C18")
def test_a_session_that_begins_while_the_house_closes_is_told(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        busy = Wire(house.ports["smtp"]).greet().envelope("bob@here.test")
        assert busy.say("DATA").startswith(b"354 ")
        late = Wire(house.ports["smtp"])
        house._loop.call_soon_threadsafe(house.house._stop.set)
        said = late.rest()
        busy.send(b".\r\n")
        assert busy.reply().startswith(b"250 ")
        assert busy.rest().startswith(b"421 4.3.2 ")
    # Before it is accepted, the connection may just be closed; what it never does is wait.
    assert said == b"" or said.endswith(b"421 4.3.2 This house is closing; come back later\r\n")


def test_late_sessions_are_interrupted_at_once(tmp_path: Path) -> None:
    """The one whose TLS handshake ended after the others were told."""
    with RunningHouse(tmp_path) as house:
        house.house.stop = lambda: None  # type: ignore[method-assign]
        with Wire(house.ports["smtp"]).greet() as before:
            real = house.house._stop
            house.house._stop = type("Set", (), {"is_set": lambda _: True})()
            late = Wire(house.ports["smtp"])
            assert late.rest().endswith(b"421 4.3.2 This house is closing; come back later\r\n")
            assert before.say("NOOP").startswith(b"250 ")
        house.house._stop = real
        del house.house.stop


def test_two_processes_cannot_serve_one_folder(tmp_path: Path) -> None:
    with RunningHouse(tmp_path):
        with pytest.raises(AlreadyServed, match="another process serves"):
            RunningHouse(tmp_path).__enter__()


@pytest.mark.conformance("S26")
def test_strangers_who_fill_port_25_keep_nobody_from_submission(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"sessions": 1}) as house, Wire(house.ports["smtp"]).greet():
        assert Wire(house.ports["smtp"]).rest().startswith(b"421 4.7.0 ")
        with Wire(house.ports["submission"]).greet() as user:
            assert user.say("NOOP").startswith(b"250 ")
