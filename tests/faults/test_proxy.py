"""The proxy itself: exactly so many octets pass, and each end sees what it should."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Break, How, Link, Network, Way

SAID = b"0123456789" * 10


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


class Echo:
    """Answers everything with itself; what it heard, and how its connection ended."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard = bytearray()
        self.end = ""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self._listener.close()
        with connection:
            try:
                while octets := connection.recv(65_536):
                    self.heard += octets
                    connection.sendall(octets)
                self.end = "end"
            except OSError:
                self.end = "reset"

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def linked(network: Network, echo: Echo, broken: Break | None) -> tuple[Link, socket.socket]:
    link = network.run(network.link(echo.port, broken))
    assert link.client is not None
    link.client.settimeout(10)
    return link, link.client


def rest(client: socket.socket) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while octets := client.recv(65_536):
            said += octets
    return said


def told(client: socket.socket) -> bytes:
    """What comes back, where there may be nobody any more."""
    with contextlib.suppress(ConnectionError):
        client.sendall(SAID)
    return rest(client)


def test_all_passes_both_ways_where_nothing_breaks(network: Network) -> None:
    echo = Echo()
    link, client = linked(network, echo, None)
    with client:
        client.sendall(SAID)
        client.shutdown(socket.SHUT_WR)
        assert rest(client) == SAID
    echo.join()
    assert link.passed == {Way.UP: 100, Way.DOWN: 100}


@pytest.mark.parametrize("how", [How.CLOSE, How.RESET, How.HALF])
@pytest.mark.parametrize("after_octets", [0, 1, 99])
def test_no_octet_more_goes_up(network: Network, how: How, after_octets: int) -> None:
    echo = Echo()
    _, client = linked(network, echo, Break(Way.UP, after_octets, how))
    with client:
        said = told(client)
    echo.join()
    assert echo.heard == SAID[:after_octets]
    assert echo.end == ("reset" if how is How.RESET else "end")
    if how is How.HALF:
        assert said == SAID[:after_octets], "the other way goes on"


@pytest.mark.parametrize("how", [How.CLOSE, How.RESET, How.HALF])
@pytest.mark.parametrize("after_octets", [0, 1, 99])
def test_no_octet_more_comes_down(network: Network, how: How, after_octets: int) -> None:
    echo = Echo()
    _, client = linked(network, echo, Break(Way.DOWN, after_octets, how))
    with client:
        assert told(client) == SAID[:after_octets]
    echo.join()
    assert how is How.HALF or len(echo.heard) <= 100


@pytest.mark.parametrize("way", Way)
def test_a_connection_that_stops_tells_nobody(network: Network, way: Way) -> None:
    echo = Echo()
    link, client = linked(network, echo, Break(way, 10, How.STOP))
    client.settimeout(0.2)
    client.sendall(SAID[:50])
    with pytest.raises(TimeoutError):
        rest(client)
    client.close()
    assert echo.end == ""
    assert link.passed[way] == 10


def test_what_dribbles_comes_whole(network: Network) -> None:
    echo = Echo()
    link, client = linked(network, echo, Break(Way.UP, 3, How.DRIBBLE))
    with client:
        client.sendall(SAID)
        client.shutdown(socket.SHUT_WR)
        assert rest(client) == SAID
    echo.join()
    assert link.passed[Way.UP] == 100


def test_listeners_have_a_plan_for_each_connection(network: Network) -> None:
    echo = Echo()
    plans = iter((Break(Way.UP, 4, How.CLOSE),))
    place = network.run(network.listen(("127.0.0.2", 0), ("127.0.0.1", echo.port), lambda: next(plans)))
    with socket.create_connection(place, 10) as client:
        told(client)
    echo.join()
    assert echo.heard == SAID[:4]
