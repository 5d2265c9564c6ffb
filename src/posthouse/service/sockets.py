"""Listening sockets that systemd opened for us (sd_listen_fds(3)), so that no right to low ports is needed.

`FileDescriptorName=` is the name of the door: smtp, submission, submissions, pop3, pop3s. Whatever is handed over has
to stand in `[listen]` too, since that is what `check` and everybody else reads: a mismatch is an error.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

from posthouse.config_values import Endpoint
from posthouse.net.plain_socket import PlainSocket

FIRST_DESCRIPTOR = 3
COUNT, NAMES, PROCESS = "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"
MOST_SOCKETS = 1000


class WrongSockets(Exception):
    """What was handed over does not fit the configuration; the message says what to change."""


@dataclass(frozen=True, slots=True)
class HandedSocket:
    """A listening socket of systemd's, and the door it is for."""

    door: str
    endpoint: Endpoint
    listening: socket.socket


def handed_over(environment: MutableMapping[str, str], process: int) -> tuple[HandedSocket, ...]:
    """The sockets for this process; the variables are taken out, for they are nobody else's. Raises WrongSockets."""
    found = {name: environment.pop(name, "") for name in (COUNT, NAMES, PROCESS)}
    if found[PROCESS] != str(process) or not found[COUNT].isascii() or not found[COUNT].isdigit():
        return ()
    names = found[NAMES].split(":") if found[NAMES] else []
    descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + min(int(found[COUNT]), MOST_SOCKETS))
    return tuple(_taken(number, names[place] if place < len(names) else "") for place, number in enumerate(descriptors))


def _taken(descriptor: int, name: str) -> HandedSocket:
    os.set_inheritable(descriptor, False)
    try:
        listening = PlainSocket(fileno=descriptor)
    except OSError as exc:
        raise WrongSockets(f"descriptor {descriptor} ({name}) is no socket; use ListenStream=") from exc
    if listening.family not in (socket.AF_INET, socket.AF_INET6) or listening.type != socket.SOCK_STREAM:
        raise WrongSockets(f"the socket named {name!r} is not one of TCP; use ListenStream= with an address and a port")
    if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise WrongSockets(f"the socket named {name!r} is a connection, not a door; set Accept=no")
    host, port = listening.getsockname()[:2]
    endpoint = Endpoint(host, port)
    if listening.family == socket.AF_INET6 and not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise WrongSockets(f"the socket {endpoint} takes IPv4 too; set BindIPv6Only=ipv6-only")
    listening.setblocking(False)
    return HandedSocket(name, endpoint, listening)


def for_doors(
    handed: Iterable[HandedSocket], doors: Mapping[str, tuple[Endpoint, ...]]
) -> dict[tuple[str, Endpoint], socket.socket]:
    """Each socket under the door and endpoint of `[listen]` that it is for. Raises WrongSockets.

    A name that is no door's (systemd's default is the unit's) goes by the endpoint.
    """
    found: dict[tuple[str, Endpoint], socket.socket] = {}
    for one in handed:
        door = one.door if one.door in doors else _door_at(one, doors)
        if one.endpoint not in doors[door]:
            listed = ", ".join(map(str, doors[door])) or "nothing"
            raise WrongSockets(
                f"systemd hands over {one.endpoint} for {door}, and listen.{door} names {listed}; "
                "make ListenStream= and [listen] the same"
            )
        found[door, one.endpoint] = one.listening
    return found


def _door_at(one: HandedSocket, doors: Mapping[str, tuple[Endpoint, ...]]) -> str:
    for door, endpoints in doors.items():
        if one.endpoint in endpoints:
            return door
    raise WrongSockets(
        f"systemd hands over {one.endpoint} under the name {one.door!r}, which is no door and stands not in [listen]; "
        f"set FileDescriptorName= to one of {', '.join(doors)}"
    )
