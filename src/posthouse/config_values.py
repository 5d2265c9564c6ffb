"""Values of the configuration as they stand in the file: endpoints, durations, names, networks.

Each parser raises ValueError with words that go behind the key.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, Strict

from posthouse.mail.address import Address, AddressError, parse_address, parse_domain

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)\Z")
PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
"""Where no stranger comes from: this machine, private and shared networks (RFC 1918, 6598, 4193), one link."""
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Section(BaseModel):
    """A table of the file: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, strict=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (name or IP address, without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """`host:port`, `[v6]:port`, or either without the port where there is a default. Raises ValueError."""
    match = re.match(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?\Z", text)
    if match is None:
        raise ValueError(f"{text!r} is not host:port (an IPv6 address stands in brackets)")
    if match[3] is None and default_port is None:
        raise ValueError(f"{text!r} lacks a port")
    port = int(match[3]) if match[3] is not None else default_port or 0
    if port > 65535:
        raise ValueError(f"{text!r} has a port above 65535")
    return Endpoint(match[1] or match[2], port)


def parse_duration(value: object) -> float:
    """Seconds, above zero, from `"5m"`, `"4h"`, `"30d"`. Raises ValueError."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is not a duration: write a number and a unit, such as "30s", "5m", "4h" or "5d"')
    if not int(match[1]):
        raise ValueError(f"{value!r} must be longer than nothing")
    return int(match[1]) * _SECONDS[match[2]]


def parse_wait(value: object) -> float:
    """Like `parse_duration`, and `"0s"` for no wait at all. Raises ValueError."""
    return 0.0 if value == "0s" else parse_duration(value)


def parse_role(value: object) -> str:
    if not isinstance(value, str) or not re.match(r"[a-z0-9][a-z0-9._-]{0,63}\Z", value):
        raise ValueError(f'{value!r} is not the name of a role such as "webmaster"')
    return value


def parse_user(value: object) -> str | None:
    """The name of a user, as useradd(8) takes it, or a number."""
    if value is None:
        return None
    if not isinstance(value, str) or not re.match(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}\$?\Z", value):
        raise ValueError(f"{value!r} is not the name of a user")
    if value in ("root", "0"):
        raise ValueError("a house must not stay root; name another user, such as posthouse")
    return value


def parse_listen_endpoint(value: object) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string like 127.0.0.1:25")
    endpoint = parse_endpoint(value)
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError as exc:
        raise ValueError(f"{value!r}: listen on an IP address, not on a name") from exc
    return endpoint


def parse_private_endpoint(value: object) -> Endpoint:
    """An endpoint that only this machine, or a private network, can reach."""
    endpoint = parse_listen_endpoint(value)
    address = ipaddress.ip_address(endpoint.host)
    if not any(address in network for network in PRIVATE_NETWORKS):
        raise ValueError(
            f"{endpoint} can be reached by strangers, and asks nobody who they are; listen on 127.0.0.1, on [::1]"
            " or on an address of a private network"
        )
    return endpoint


def parse_next_hop(text: str) -> Endpoint:
    """A next hop: a host name or an IP address, port 25 unless it says another."""
    endpoint = parse_endpoint(text, default_port=25)
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        parse_host(endpoint.host)
    if not endpoint.port:
        raise ValueError(f"{text!r} has port 0")
    return endpoint


def parse_host(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    try:
        return parse_domain(value)
    except AddressError as exc:
        raise ValueError(f"{value!r} is not a host name: {exc}") from exc


def is_full_name(name: str) -> bool:
    """Whether a host may call itself so: a name with a dot, or an address literal (RFC 5321 §4.1.1.1)."""
    return name.startswith("[") or "." in name


def parse_host_pattern(value: object) -> str:
    """A host name, or `*.` and a domain."""
    if isinstance(value, str) and value.startswith("*."):
        return "*." + parse_host(value[2:])
    return parse_host(value)


def parse_postmaster(value: object) -> Address | None:
    if value is None or isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    try:
        return parse_address(value)
    except AddressError as exc:
        raise ValueError(f"{value!r} is not an address: {exc}") from exc


def parse_path(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError(f"{value!r} is not a path")
    return value


def parse_network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    # A number would be taken for an address.
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string like 10.0.0.0/8")
    return ipaddress.ip_network(value)


# In TOML a number is a number: "20" and true are mistakes.
Count = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
FilePath = Annotated[Path, BeforeValidator(parse_path)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Wait = Annotated[float, BeforeValidator(parse_wait)]
UserName = Annotated[str, BeforeValidator(parse_user)]
RoleName = Annotated[str, BeforeValidator(parse_role)]
PrivateEndpoint = Annotated[Endpoint, BeforeValidator(parse_private_endpoint)]
ListenEndpoint = Annotated[Endpoint, BeforeValidator(parse_listen_endpoint)]
Domain = Annotated[str, BeforeValidator(parse_host)]
Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, PlainValidator(parse_network)]
