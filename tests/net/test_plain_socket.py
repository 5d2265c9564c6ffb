"""Sockets whose family and type are plain numbers, for whoever they accept too."""

from __future__ import annotations

import socket

from posthouse.net.listener import bind
from posthouse.net.plain_socket import PlainSocket


def test_a_door_and_those_it_accepts_have_numbers_for_family_and_type() -> None:
    with bind("127.0.0.1", 0) as door:
        door.listen()
        with socket.create_connection(door.getsockname()) as peer:
            door.setblocking(True)
            accepted, name = door.accept()
            with accepted:
                assert name == peer.getsockname()
                assert isinstance(accepted, PlainSocket)
                for each in (door, accepted):
                    assert type(each.family) is int
                    assert type(each.type) is int
                accepted.sendall(b"220")
                assert peer.recv(3) == b"220"
