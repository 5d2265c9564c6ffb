"""Things told from one process to another over a socket: pickles with their length before them."""

from __future__ import annotations

import pickle
import socket
from typing import Any

_LENGTH_OCTETS = 8


def tell(to: socket.socket, thing: object) -> None:
    """By `sendto`, which no test here lets fail."""
    octets = pickle.dumps(thing)
    to.sendall(len(octets).to_bytes(_LENGTH_OCTETS) + octets)


def hear(of: socket.socket) -> Any:
    """The next thing. Raises EOFError when the other side is gone."""
    return pickle.loads(_exactly(of, int.from_bytes(_exactly(of, _LENGTH_OCTETS))))


def _exactly(of: socket.socket, count: int) -> bytes:
    octets = bytearray()
    while len(octets) < count:
        more = of.recv(count - len(octets))
        if not more:
            raise EOFError
        octets += more
    return bytes(octets)
