"""The real connector raises OSError, whatever it is given."""

from __future__ import annotations

import pytest

from posthouse.net.connect import TcpConnector
from posthouse.net.listener import bind


async def test_connection_refused() -> None:
    free = bind("127.0.0.1", 0)
    port = free.getsockname()[1]
    free.close()
    with pytest.raises(ConnectionRefusedError, match=r"\] Connection refused$"):
        await TcpConnector().connect("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port"), [("a..test", 25), ("x" * 64 + ".test", 25), ("a\0b", 25), ("127.0.0.1", 65536)]
)
async def test_what_no_resolver_takes(host: str, port: int) -> None:
    with pytest.raises(OSError):  # noqa: PT011
        await TcpConnector().connect(host, port)


async def test_local_address() -> None:
    door = bind("127.0.0.1", 0)
    door.listen()
    with door:
        stream = await TcpConnector().connect("127.0.0.1", door.getsockname()[1], local_address="127.0.0.2")
        assert stream.local_address == "127.0.0.2"
        stream.abort()
