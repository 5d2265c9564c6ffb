"""`listen.admin` as commands see it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, Command


def configure(endpoint: str) -> None:
    Path("posthouse.toml").write_text(CONFIG.replace("[listen]", f'[listen]\nadmin = ["{endpoint}"]'))


def test_check_looks_at_the_admin_door(furnished: Command) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{other.getsockname()[1]}"
    configure(endpoint)
    assert f"admin {endpoint} is free" in furnished.run("check").out


@pytest.mark.parametrize("name", ["serve", "check"])
def test_an_admin_door_for_strangers_is_an_error(furnished: Command, name: str) -> None:
    configure("0.0.0.0:8026")
    assert furnished.run(name).failed_with("listen.admin", "0.0.0.0:8026", "strangers", "listen on 127.0.0.1")


@pytest.mark.parametrize("name", ["serve", "check"])
def test_a_taken_admin_port_is_told(furnished: Command, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        configure(endpoint)
        ran = furnished.run(name)
        assert ran.status != 0
        assert f"{endpoint} cannot be opened: another program listens there already" in ran.out + ran.err
