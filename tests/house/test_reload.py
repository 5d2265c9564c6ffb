"""SIGHUP and renewed certificates: the next session has what is new, open ones keep what they began with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posthouse.config import Config, ConfigError
from posthouse.doors import SELF_SIGNED
from posthouse.net.tls import make_self_signed
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse, house_config

DOORS = ("smtp", "submission", "submissions", "pop3", "pop3s")
LETTER = b"Subject: hi\r\n\r\nhello\r\n"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    make_self_signed("mx.here.test", tmp_path / SELF_SIGNED[0], tmp_path / SELF_SIGNED[1], time.time())
    with RunningHouse(tmp_path, listen={door: ["127.0.0.1:0"] for door in DOORS}) as house:
        yield house


def reload(house: RunningHouse, **tables: Any) -> bool:
    """As SIGHUP would, with these tables in the file."""
    return reload_with(house, lambda: house_config(house.config.data_dir, **tables))


def reload_with(house: RunningHouse, load: Any) -> bool:
    async def now(_storage: object) -> bool:
        return house.house.reload(load)

    return house.ask(now)


def events(house: RunningHouse) -> list[dict[str, Any]]:
    return [json.loads(line) for line in house.log.getvalue().splitlines()]


def told(house: RunningHouse, event: str) -> list[dict[str, Any]]:
    return [line for line in events(house) if line["event"].startswith(event)]


def size_offered(wire: Wire) -> int:
    assert wire.reply().startswith(b"220 ")
    wire.send(b"EHLO client.test\r\n")
    while not (line := wire.line())[4:].startswith(b"SIZE "):
        pass
    size = int(line[9:])
    while line[3:4] == b"-":
        line = wire.line()
    return size


def test_sessions_keep_what_they_began_with(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]) as before:
        assert size_offered(before) == 52_428_800
        assert reload(house, reception={"message_size_octets": 100_000, "errors": 1})
        with Wire(house.ports["smtp"]) as after:
            assert size_offered(after) == 100_000
            assert after.say("NONSENSE").startswith(b"500 ")
            after.send(b"NONSENSE\r\nNONSENSE\r\n")
            assert b"421 " in after.rest()
        for _ in range(5):
            assert before.say("NONSENSE").startswith(b"500 ")
        before.deliver(LETTER, "bob@here.test")


def test_limits_of_sessions_hold_for_the_next(house: RunningHouse) -> None:
    with Wire(house.ports["pop3"]) as before:
        assert before.line().startswith(b"+OK")
        assert reload(house, retrieval={"sessions_per_address": 1, "proxy_from": []})
        assert Wire(house.ports["pop3"]).rest().startswith(b"-ERR")
        assert before.pop3("CAPA").startswith(b"+OK")


def test_who_is_trusted_and_who_is_a_proxy(house: RunningHouse) -> None:
    assert reload(house, reception={"trusted_networks": ["127.0.0.0/8"]})
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("MAIL FROM:<a@far.test>").startswith(b"250 ")
        assert wire.say("RCPT TO:<b@far.test>").startswith(b"250 ")
    assert reload(house, reception={"trusted_networks": ["127.0.0.0/8"], "proxy_from": ["127.0.0.1/32"]})
    for header, answer in (
        (b"PROXY TCP4 127.0.0.2 192.0.2.1 4000 25\r\n", b"250 "),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 25\r\n", b"550 "),
        # A proxy that names nobody is trusted with nothing.
        (b"PROXY UNKNOWN\r\n", b"550 "),
    ):
        with Wire(house.ports["smtp"]) as wire:
            wire.send(header)
            wire.greet()
            assert wire.say("MAIL FROM:<a@far.test>").startswith(b"250 ")
            assert wire.say("RCPT TO:<b@far.test>").startswith(answer), header


def test_the_named_peer_stands_in_received_and_log(house: RunningHouse) -> None:
    assert reload(house, reception={"proxy_from": ["127.0.0.0/8"]}, retrieval={"proxy_from": ["127.0.0.0/8"]})
    with Wire(house.ports["smtp"]) as wire:
        wire.send(b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 25\r\n")
        wire.greet().deliver(LETTER, "bob@here.test")
        wire.say("QUIT")
        wire.rest()
    assert told(house, "message accepted")[-1]["peer"] == "2001:db8::7"
    with Wire(house.ports["pop3"]) as wire:
        wire.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 110\r\n")
        assert wire.login("bob@here.test", "wrong").startswith(b"-ERR")
        assert told(house, "login failed")[-1]["peer"] == "192.0.2.7"
        assert wire.pop3("USER bob@here.test").startswith(b"+OK")
        assert wire.pop3(f"PASS {PASSWORD}").startswith(b"+OK")
        assert b"[IPv6:2001:db8::7]" in wire.retrieve(1)


def test_a_header_from_anybody_else_is_an_unknown_command(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("PROXY TCP4 192.0.2.7 192.0.2.1 4000 25").startswith(b"500 ")
    with Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        assert wire.pop3("PROXY TCP4 192.0.2.7 192.0.2.1 4000 110").startswith(b"-ERR")


def test_what_only_a_restart_changes_is_named(house: RunningHouse) -> None:
    ports = dict(house.ports)
    assert reload(house, listen={"smtp": ["127.0.0.1:0"]}, workers=2, hostname="mx.there.test")
    (line,) = told(house, "changed, and ignored")
    assert line["keys"] == "listen workers"
    for door in ("smtp", "submission"):
        with Wire(ports[door]) as wire:
            assert wire.reply().startswith(b"220 mx.there.test ")
    assert reload(house, listen={"smtp": ["127.0.0.1:0"]})
    assert told(house, "changed, and ignored")[-1]["keys"] == "listen"


def _broken(_config: Config | None = None) -> Config:
    raise ConfigError("posthouse.toml: unknown key x")


def test_a_broken_file_changes_nothing(house: RunningHouse) -> None:
    assert not reload_with(house, _broken)
    missing = {"certificate": "none.pem", "key": "none.key"}
    assert not reload(house, tls=missing, reception={"message_size_octets": 100_000})
    reasons = [line["reason"] for line in told(house, "configuration not reloaded")]
    assert reasons[0] == "posthouse.toml: unknown key x"
    assert "none.pem does not exist" in reasons[1]
    with Wire(house.ports["smtp"]) as wire:
        assert size_offered(wire) == 52_428_800
    with Wire(house.ports["submissions"], tls=trusting(house.config.data_dir / SELF_SIGNED[0])) as wire:
        assert wire.reply().startswith(b"220 ")


def test_doors_that_stay_keep_clear_passwords_off(tmp_path: Path) -> None:
    """The file is safe by itself; with the doors that are open it is not."""
    with RunningHouse(tmp_path, listen={"pop3": ["0.0.0.0:0"]}, auth={"allow_cleartext": False}) as house:
        assert not reload(house, listen={"pop3": ["127.0.0.1:0"]}, auth={"allow_cleartext": True})
        assert "passwords in clear" in told(house, "configuration not reloaded")[0]["reason"]


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def put(folder: Path, made: str) -> None:
    """A new pair in the place of the old one."""
    make_self_signed("mx.here.test", folder / f"{made}.crt", folder / f"{made}.key", time.time())
    for name, suffix in zip(SELF_SIGNED, ("crt", "key"), strict=True):
        shutil.copy(folder / f"{made}.{suffix}", folder / "next")
        os.replace(folder / "next", folder / name)


@pytest.mark.conformance("C316", "S39")
@pytest.mark.parametrize("by", ["files", "signal"])
def test_certificates_are_renewed_under_fifty_sessions(house: RunningHouse, by: str) -> None:
    folder = house.config.data_dir
    old = trusting(folder / SELF_SIGNED[0])
    doors = ("submissions", "pop3s")
    open_before = [Wire(house.ports[doors[number % 2]], tls=old) for number in range(50)]
    greetings = [wire.line() for wire in open_before]
    assert all(greeting.startswith((b"220 ", b"+OK")) for greeting in greetings)
    put(folder, "new")
    if by == "signal":
        assert reload(house)
    else:
        clock = house.house.world.clock
        house.house.doors._certificates._looked_at = clock.monotonic() - 60  # type: ignore[union-attr]
    new = trusting(folder / "new.crt")
    for door in doors:
        with Wire(house.ports[door], tls=new) as wire:
            assert wire.line().startswith((b"220 ", b"+OK"))
        with pytest.raises(ssl.SSLCertVerificationError):
            Wire(house.ports[door], tls=old)
    for number, wire in enumerate(open_before):
        wire.send(b"QUIT\r\n")
        assert wire.line().startswith((b"221 ", b"+OK")[number % 2])
        wire.rest()


@pytest.mark.conformance("C316")
def test_the_name_of_the_house_is_checked_by_its_clients(house: RunningHouse) -> None:
    context = trusting(house.config.data_dir / SELF_SIGNED[0])
    make_self_signed("mx.other.test", *(house.config.data_dir / name for name in ("o.crt", "o.key")), time.time())
    tables = {"certificate": "o.crt", "key": "o.key"}
    assert reload(house, tls=tables)
    context.load_verify_locations(house.config.data_dir / "o.crt")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        Wire(house.ports["submissions"], tls=context)
    names = [{"host": "mx.here.test", "certificate": SELF_SIGNED[0], "key": SELF_SIGNED[1]}]
    assert reload(house, tls={**tables, "names": names})
    with Wire(house.ports["submissions"], tls=context) as wire:
        assert wire.reply().startswith(b"220 ")


@pytest.mark.conformance("C138")
def test_starttls_goes_on_when_the_key_is_gone(house: RunningHouse) -> None:
    """What was read is used; a house without a certificate does not offer it."""
    context = trusting(house.config.data_dir / SELF_SIGNED[0])
    (house.config.data_dir / SELF_SIGNED[1]).unlink()
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("STARTTLS x").startswith(b"501 ")
        assert wire.say("STARTTLS").startswith(b"220 ")
        wire.start_tls(context)
        assert wire.say("EHLO again.test").startswith(b"250 ")


def sockets() -> int:
    """How many sockets this process has open."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        # The one that listed them is gone by now.
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    return found


@pytest.mark.conformance("C147", "C285")
def test_five_hundred_half_open_handshakes_and_a_login(tmp_path: Path) -> None:
    make_self_signed("mx.here.test", tmp_path / SELF_SIGNED[0], tmp_path / SELF_SIGNED[1], time.time())
    tables = {"sessions_per_address": 600}
    before = sockets()
    with RunningHouse(
        tmp_path, listen={door: ["127.0.0.1:0"] for door in DOORS}, reception=tables, retrieval=tables
    ) as house:
        half = [Wire(house.ports[("submissions", "pop3s")[number % 2]]) for number in range(500)]
        for wire in half[::3]:
            wire.send(b"\x16\x03\x01\x02\x00\x01\x00")
        with Wire(house.ports["pop3s"], tls=trusting(tmp_path / SELF_SIGNED[0])) as wire:
            assert wire.login("ada@here.test").startswith(b"+OK")
        for wire in half:
            wire.drop()
    assert sockets() <= before
    assert max(map(len, house.log.getvalue().splitlines())) < 500
