from __future__ import annotations

from pathlib import Path

from posthouse.cli.check_outgoing import outgoing
from posthouse.cli.findings import OK, PROBLEM
from posthouse.config import parse


def told(folder: Path, **forwarding: object) -> list[tuple[str, str, str]]:
    table = {"hostname": "mx.here.test", "data_dir": ".", "forwarding": forwarding}
    return [(each.check, each.state, each.text) for each in outgoing(parse(table, folder / "posthouse.toml"))]


def test_nothing_configured_is_nothing_to_say(tmp_path: Path) -> None:
    assert told(tmp_path) == []


def test_logins_whose_passwords_can_be_read_and_not(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("geheim")
    (tmp_path / "p").chmod(0o600)
    logins = {f"{name}.test:587": {"user": "me", "password_file": file} for name, file in [("a", "p"), ("b", "none")]}
    good, bad = told(tmp_path, login=logins)
    assert good == ("login", OK, "as me at a.test:587")
    assert bad == ("login", PROBLEM, f"b.test:587: {tmp_path}/none does not exist; write the password into it")


def test_authorities_that_are_none(tmp_path: Path) -> None:
    ((check, state, text),) = told(tmp_path, tls_authorities="a.pem")
    assert (check, state) == ("authorities", PROBLEM)
    assert "a.pem" in text


def test_source_addresses_of_this_machine_and_of_others(tmp_path: Path) -> None:
    ours, others = told(tmp_path, source_addresses=["127.0.0.1", "2001:db8::1"])
    assert ours == ("source", OK, "connections come from 127.0.0.1")
    assert others[:2] == ("source", PROBLEM)
    assert others[2].startswith("nothing can come from 2001:db8::1: ")
