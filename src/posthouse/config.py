"""The configuration: one TOML file becomes one frozen `Config`, checked whole before anything starts.

Only this module reads the file or the environment. Errors name the key and, where one is near, the key meant.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from posthouse.mail.address import Address, AddressError, parse_address, parse_domain

ENVIRONMENT_KEY = "POSTHOUSE_CONFIG"
SEARCHED = (Path("posthouse.toml"), Path("/etc/posthouse/posthouse.toml"))

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)\Z")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class ConfigError(Exception):
    """The configuration cannot be used; the message is one line for the operator."""


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
    """Seconds from `"5m"`, `"4h"`, `"30d"`. Raises ValueError."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is not a duration: write a number and a unit, such as "30s", "5m", "4h" or "5d"')
    return int(match[1]) * _SECONDS[match[2]]


def _listen_endpoint(value: object) -> Endpoint:
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


def _domain(value: object) -> str:
    try:
        return parse_domain(str(value))
    except AddressError as exc:
        raise ValueError(f"{value!r} is not a host name: {exc}") from exc


def _address(value: object) -> Address | None:
    if value is None or isinstance(value, Address):
        return value
    try:
        return parse_address(str(value))
    except AddressError as exc:
        raise ValueError(f"{value!r} is not an address: {exc}") from exc


Duration = Annotated[float, BeforeValidator(parse_duration)]
ListenEndpoint = Annotated[Endpoint, BeforeValidator(_listen_endpoint)]
Domain = Annotated[str, BeforeValidator(_domain)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, strict=False)


class Listen(_Section):
    """Doors. An empty list closes one; port 0 lets the system pick."""

    smtp: tuple[ListenEndpoint, ...] = ()
    submission: tuple[ListenEndpoint, ...] = ()
    submissions: tuple[ListenEndpoint, ...] = ()
    pop3: tuple[ListenEndpoint, ...] = ()
    pop3s: tuple[ListenEndpoint, ...] = ()


class Tls(_Section):
    """The certificate and key, PEM. Absent: the self-signed pair that `init` makes in data_dir."""

    certificate: Path | None = None
    key: Path | None = None


class Storage(_Section):
    """Which engine keeps the state."""

    database: str = "sqlite"
    content: str = "local"

    @model_validator(mode="after")
    def _known(self) -> Storage:
        if self.database != "sqlite":
            raise ValueError('this version has only database = "sqlite"')
        if self.content != "local":
            raise ValueError('this version has only content = "local"')
        return self


class Auth(_Section):
    """Who may log in, and how."""

    allow_cleartext: bool = False


class Reception(_Section):
    """Limits and trust at the SMTP doors."""

    trusted_networks: tuple[Network, ...] = ()
    message_size_octets: int = Field(default=52_428_800, ge=65_536)
    recipients: int = Field(default=1000, ge=100)
    sessions: int = Field(default=2000, ge=1)
    sessions_per_address: int = Field(default=100, ge=1)
    errors: int = Field(default=20, ge=1)
    command_timeout: Duration = 300.0
    content_timeout: Duration = 180.0


class Retrieval(_Section):
    """Limits at the POP3 doors."""

    sessions: int = Field(default=2000, ge=1)
    sessions_per_address: int = Field(default=100, ge=1)
    idle_timeout: Duration = 600.0


class Forwarding(_Section):
    """How mail leaves."""

    routes: dict[str, str] = Field(default_factory=dict)
    retry: tuple[Duration, ...] = (300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0, 14400.0)
    expire_after: Duration = 5 * 86400.0
    delay_notice_after: Duration = 4 * 3600.0
    allow_private_next_hops: bool = False
    concurrency: int = Field(default=20, ge=1)
    concurrency_per_destination: int = Field(default=5, ge=1)
    port: int = Field(default=25, ge=1, le=65535)

    @model_validator(mode="after")
    def _checked(self) -> Forwarding:
        if not self.retry or any(interval <= 0 for interval in self.retry):
            raise ValueError("retry needs at least one interval above zero")
        for pattern, next_hop in self.routes.items():
            if pattern != "*":
                _domain(pattern)
            if next_hop:
                parse_endpoint(next_hop, default_port=25)
        return self

    def next_hop(self, domain: str) -> Endpoint | None:
        """The explicit next hop for a domain, or None where MX records decide."""
        named = self.routes.get(domain, self.routes.get("*", ""))
        return parse_endpoint(named, default_port=25) if named else None


class Dns(_Section):
    """Which name servers to ask; absent: the system's."""

    servers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _checked(self) -> Dns:
        for server in self.servers:
            parse_endpoint(server, default_port=53)
        return self


class Config(_Section):
    """The whole file. Relative paths in it are relative to it."""

    hostname: Domain
    data_dir: Path
    postmaster: Annotated[Address | None, BeforeValidator(_address)] = None
    listen: Listen = Listen()
    tls: Tls = Tls()
    storage: Storage = Storage()
    auth: Auth = Auth()
    reception: Reception = Reception()
    retrieval: Retrieval = Retrieval()
    forwarding: Forwarding = Forwarding()
    dns: Dns = Dns()

    @model_validator(mode="after")
    def _safe(self) -> Config:
        if "." not in self.hostname and not self.hostname.startswith("["):
            raise ValueError(f"hostname {self.hostname!r} is not a full name such as mx.example.org")
        if self.auth.allow_cleartext:
            for endpoint in (*self.listen.submission, *self.listen.pop3):
                if not endpoint.is_loopback:
                    raise ValueError(
                        f"auth.allow_cleartext would send passwords in clear over {endpoint}; listen on 127.0.0.1"
                    )
        return self


def find(path: Path | None) -> Path:
    """The configuration file to use: as told, else `$POSTHOUSE_CONFIG`, else where it usually is."""
    if path is not None:
        return path
    if named := os.environ.get(ENVIRONMENT_KEY):
        return Path(named)
    for candidate in SEARCHED:
        if candidate.exists():
            return candidate
    raise ConfigError("there is no posthouse.toml here or in /etc/posthouse; make a house with: posthouse init")


def load(path: Path) -> Config:
    """Read and check a file. Raises ConfigError, whose message names the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ConfigError(f"{path} does not exist; make a house with: posthouse init") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path} is not valid TOML: {exc}") from exc
    return parse(table, path)


def parse(table: dict[str, Any], path: Path) -> Config:
    """Check a parsed file; `path` is what relative paths are relative to. Raises ConfigError."""
    try:
        config = Config.model_validate(table)
    except ValidationError as exc:
        raise ConfigError(f"{path}: {_first_problem(exc)}") from exc
    folder = path.absolute().parent
    certificate, key = config.tls.certificate, config.tls.key
    if (certificate is None) != (key is None):
        raise ConfigError(f"{path}: tls.certificate and tls.key belong together: give both or neither")
    tls = Tls(certificate=folder / certificate if certificate else None, key=folder / key if key else None)
    return config.model_copy(update={"data_dir": folder / config.data_dir, "tls": tls})


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"] if part not in ("IPv4Network", "IPv6Network"))
    match problem["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(problem["loc"][-1]), _keys_beside(problem["loc"]), 1)
            return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")
        case "missing":
            return f"{key} is missing"
        case _:
            text = problem["msg"].removeprefix("Value error, ")
            return f"{key}: {text}" if key else text


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where an unknown one stood."""
    fields: dict[str, FieldInfo] = Config.model_fields
    for part in location[:-1]:
        annotation = fields[str(part)].annotation if str(part) in fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        fields = annotation.model_fields
    return list(fields)
