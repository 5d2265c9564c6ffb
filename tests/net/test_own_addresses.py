from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from posthouse.config_values import Endpoint
from posthouse.net import own_addresses
from posthouse.net.own_addresses import is_of_this_machine, listens_at

LISTENS = [
    ("192.0.2.1", 25, "192.0.2.1", True),
    ("192.0.2.1", 25, "192.0.2.2", False),
    ("192.0.2.1", 587, "192.0.2.1", False),
    ("2001:db8::1", 25, "2001:db8:0::1", True),
    ("0.0.0.0", 25, "127.0.0.9", True),
    ("0.0.0.0", 25, "::1", False),
    ("0.0.0.0", 25, "198.51.100.77", False),
    ("::", 25, "::1", True),
    ("::", 25, "127.0.0.1", False),
    ("::", 25, "2001:db8::77", False),
    ("::", 587, "::1", False),
]


@pytest.mark.conformance("C77")
@pytest.mark.parametrize(("host", "port", "address", "ours"), LISTENS)
def test_a_door_on_the_wildcard_is_at_each_address_of_the_machine(
    host: str, port: int, address: str, ours: bool
) -> None:
    assert listens_at([Endpoint("192.0.2.200", 110), Endpoint(host, port)], address, 25) is ours


def test_without_doors_nothing_is_ours() -> None:
    assert not listens_at([], "127.0.0.1", 25)


def machines_own(family: socket.AddressFamily, towards: str) -> str:
    """An address of this machine that is not loopback, if it has one."""
    return own_addresses.source_towards(family, towards)


@pytest.mark.parametrize(("family", "towards"), [(socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1")])
@pytest.mark.parametrize("binds_any", [False, True])
def test_the_addresses_of_this_machine(
    family: socket.AddressFamily, towards: str, binds_any: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an administrator lets programs bind addresses that the machine does not have."""
    own = machines_own(family, towards)
    if binds_any:
        monkeypatch.setattr(own_addresses, "_can_bind", lambda _family, _address: True)
    if own:
        assert is_of_this_machine(own)
    assert not is_of_this_machine(towards)
    assert is_of_this_machine("127.0.0.1")


@pytest.mark.skipif(sys.byteorder != "little", reason="the file is as a little-endian kernel writes it")
def test_the_router_that_everything_goes_through(tmp_path: Path) -> None:
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    near = "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    far = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    routes = tmp_path / "route"
    routes.write_text(head + near + far)
    assert own_addresses.default_gateway(routes) == "172.17.0.1"
    routes.write_text(head + near)
    assert own_addresses.default_gateway(routes) is None
    assert own_addresses.default_gateway(tmp_path / "gone") is None
