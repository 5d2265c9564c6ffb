"""The part of `posthouse check` about the doors: can each be opened, or does it answer where the house runs.

Ports that fare alike share a line: eight ports that need root are one thing to mend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from posthouse.cli.findings import OK, PROBLEM, Finding
from posthouse.cli.obstacles import port_advice

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.config_values import Endpoint

Fared = tuple[str, str, str]
"""`ok` or `problem`, what is said of one port, what is said of several."""


def ports(config: Config, *, served: bool) -> Iterator[Finding]:
    """One finding for all ports that fare alike. `served`: a house runs, and has them open."""
    endpoints = [
        (door, endpoint) for door in type(config.listen).model_fields for endpoint in getattr(config.listen, door)
    ]
    if not endpoints and not config.is_personal:
        yield Finding("port", PROBLEM, "[listen] opens no door; add for example smtp = ['127.0.0.1:2525']")
    yield from _told(
        (door, each, _answers(each) if served else _is_free(each)) for door, each in endpoints if each.port
    )


def free_ports(doors: Iterable[tuple[str, Endpoint]]) -> list[Finding]:
    """Ports of a house that does not run."""
    return list(_told((door, endpoint, _is_free(endpoint)) for door, endpoint in doors))


def _told(each: Iterable[tuple[str, Endpoint, Fared]]) -> Iterator[Finding]:
    alike: dict[Fared, list[tuple[str, str]]] = {}
    for door, endpoint, fared in each:
        alike.setdefault(fared, []).append((door, str(endpoint)))
    for (state, one, several), found in alike.items():
        yield Finding("port", state, f"{_names(found)} {one if len(found) == 1 else several}")


def _names(found: list[tuple[str, str]]) -> str:
    """`smtp 0.0.0.0:25 and [::]:25, pop3s 0.0.0.0:995`."""
    doors: dict[str, list[str]] = {}
    for door, endpoint in found:
        doors.setdefault(door, []).append(endpoint)
    return ", ".join(f"{door} {' and '.join(endpoints)}" for door, endpoints in doors.items())


def _answers(endpoint: Endpoint) -> Fared:
    import socket

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(endpoint.host, endpoint.host)
    mend = "run: systemctl restart posthouse"
    try:
        socket.create_connection((host, endpoint.port), timeout=5).close()
    except OSError:
        return PROBLEM, f"does not answer; {mend}", f"do not answer; {mend}"
    return OK, "answers", "answer"


def _is_free(endpoint: Endpoint) -> Fared:
    from posthouse.net.listener import PortTaken, bind

    try:
        bind(endpoint.host, endpoint.port).close()
    except PortTaken as exc:
        text = f"cannot be opened: {exc.reason}{port_advice(exc)}"
        return PROBLEM, text, text
    return OK, "is free", "are free"
