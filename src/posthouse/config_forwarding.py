"""`[forwarding]` of the configuration: where mail goes, how it is protected on its way, how long is tried."""

from __future__ import annotations

import ipaddress
import os
import stat
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from posthouse.config_values import (
    Count,
    Duration,
    Endpoint,
    FilePath,
    Flag,
    Section,
    is_full_name,
    parse_host,
    parse_next_hop,
)
from posthouse.mail.source import Mechanism

IMPLICIT_TLS_PORT = 465
PASSWORD_OCTETS = 4096


class TlsMode(StrEnum):
    """How a connection to a next hop is protected; the later ones are stricter.

    `required` and `implicit` verify the certificate, and send nothing where that fails.
    """

    NEVER = "never"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    IMPLICIT = "implicit"


class UnusablePassword(Exception):
    """The file of a password cannot be used; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login at a next hop."""

    user: str
    password: str = field(repr=False)
    mechanism: Mechanism = Mechanism.PASSWORD
    """Whether `password` is an OAuth 2 token."""
    tls: TlsMode | None = None
    """How the connection has to be protected, where the configuration does not say it."""


def _parse_user(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{value!r} is not the name of a login")
    return value


def _parse_source(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string like 192.0.2.1")
    return str(ipaddress.ip_address(value))


def _parse_hello(value: object) -> str:
    name = parse_host(value)
    if not is_full_name(name) or "localhost" in name.split(".") or name.rpartition(".")[2].isdigit():
        raise ValueError(f"{name!r} is neither a full name such as mx.example.org nor a literal such as [192.0.2.1]")
    return name


class Login(Section):
    """How this house logs in at one next hop."""

    user: Annotated[str, BeforeValidator(_parse_user)]
    password_file: FilePath
    tls: TlsMode | None = None

    def mode(self, hop: Endpoint) -> TlsMode:
        """The protection of the connection; a password never leaves this machine in clear."""
        if self.tls is not None:
            return self.tls
        return TlsMode.IMPLICIT if hop.port == IMPLICIT_TLS_PORT else TlsMode.REQUIRED

    def credentials(self) -> Credentials:
        """Read the password: the file's content without the line end after it. Raises UnusablePassword."""
        try:
            with open(self.password_file, "rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    mend = f"run: chmod 600 {self.password_file}"
                    raise UnusablePassword(f"{self.password_file} can be read by others than its owner; {mend}")
                octets = file.read(PASSWORD_OCTETS + 1)
        except FileNotFoundError as exc:
            raise UnusablePassword(f"{self.password_file} does not exist; write the password into it") from exc
        except OSError as exc:
            raise UnusablePassword(f"{self.password_file} cannot be read: {exc.strerror or exc}") from exc
        try:
            password = octets.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as exc:
            raise UnusablePassword(f"{self.password_file} is not UTF-8") from exc
        if not password or "\0" in password or "\n" in password or len(octets) > PASSWORD_OCTETS:
            raise UnusablePassword(f"{self.password_file} does not hold a password on one line")
        return Credentials(self.user, password)


class Forwarding(Section):
    """How mail leaves."""

    routes: dict[str, str] = Field(default_factory=dict)
    retry: tuple[Duration, ...] = (300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0, 14400.0)
    rewrite_senders: Flag = True
    expire_after: Duration = 5 * 86400.0
    delay_notice_after: Duration = 4 * 3600.0
    reports_per_minute: Count = Field(default=30, ge=1)
    allow_private_next_hops: Flag = False
    concurrency: Count = Field(default=20, ge=1)
    concurrency_per_destination: Count = Field(default=5, ge=1)
    port: Count = Field(default=25, ge=1, le=65535)
    hello_name: Annotated[str, BeforeValidator(_parse_hello)] | None = None
    source_addresses: tuple[Annotated[str, BeforeValidator(_parse_source)], ...] = ()
    tls: TlsMode = TlsMode.OPPORTUNISTIC
    tls_policies: dict[str, TlsMode] = Field(default_factory=dict)
    tls_authorities: FilePath | None = None
    login: dict[str, Login] = Field(default_factory=dict)
    connect_timeout: Duration = 60.0
    greeting_timeout: Duration = 300.0
    command_timeout: Duration = 300.0
    content_timeout: Duration = 180.0
    final_timeout: Duration = 600.0
    transaction_timeout: Duration = 2 * 3600.0

    @field_validator("routes")
    @classmethod
    def _routes(cls, routes: dict[str, str]) -> dict[str, str]:
        """Domains in the spelling in which they are looked up."""
        found: dict[str, str] = {}
        for pattern, next_hop in routes.items():
            domain = pattern if pattern == "*" else parse_host(pattern)
            if domain in found:
                raise ValueError(f"{domain!r} has two routes")
            if next_hop:
                parse_next_hop(next_hop)
            found[domain] = next_hop
        return found

    @field_validator("retry")
    @classmethod
    def _retry(cls, intervals: tuple[float, ...]) -> tuple[float, ...]:
        if not intervals:
            raise ValueError("at least one interval is needed")
        return intervals

    @field_validator("source_addresses")
    @classmethod
    def _one_for_each_family(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if len({":" in address for address in addresses}) < len(addresses):
            raise ValueError("at most one IPv4 and one IPv6 address")
        return addresses

    @field_validator("tls")
    @classmethod
    def _not_for_all(cls, mode: TlsMode) -> TlsMode:
        if mode is TlsMode.IMPLICIT:
            raise ValueError("implicit is for single next hops: see forwarding.tls_policies")
        return mode

    @field_validator("tls_policies")
    @classmethod
    def _policies(cls, policies: dict[str, TlsMode]) -> dict[str, TlsMode]:
        found: dict[str, TlsMode] = {}
        for pattern, mode in policies.items():
            # A domain, or a next hop with its port.
            name = pattern if ":" not in pattern.rpartition("]")[2] else ""
            key = parse_host(name) if name else str(_named_hop(pattern))
            if key in found:
                raise ValueError(f"{key!r} has two policies")
            if name and mode is TlsMode.IMPLICIT:
                raise ValueError(f"{key!r}: implicit is for a next hop with its port, such as {key}:465")
            found[key] = mode
        return found

    @field_validator("login")
    @classmethod
    def _logins(cls, logins: dict[str, Login]) -> dict[str, Login]:
        found: dict[str, Login] = {}
        for pattern, login in logins.items():
            hop = _named_hop(pattern)
            if str(hop) in found:
                raise ValueError(f"{str(hop)!r} has two logins")
            if login.mode(hop) in (TlsMode.NEVER, TlsMode.OPPORTUNISTIC) and not hop.is_loopback:
                raise ValueError(f'{str(hop)!r} would get the password in clear; write tls = "required"')
            found[str(hop)] = login
        return found

    @model_validator(mode="after")
    def _port_speaks_smtp(self) -> Forwarding:
        if self.port == IMPLICIT_TLS_PORT:
            raise ValueError("port 465 is for submission, not for hosts found by MX")
        return self

    def next_hop(self, domain: str) -> Endpoint | None:
        """The explicit next hop for a domain, or None where MX records decide."""
        named = self.routes.get(domain, self.routes.get("*", ""))
        return parse_next_hop(named) if named else None

    def source_address(self, address: str) -> str | None:
        """The address that a connection to this one comes from; None: as the system likes."""
        return next((source for source in self.source_addresses if (":" in source) == (":" in address)), None)

    def tls_mode(self, domain: str, hop: Endpoint) -> TlsMode:
        """How a connection to `hop` with mail for `domain` is protected: the strictest of what is said of either."""
        login = self.login.get(str(hop))
        said = [
            login.mode(hop) if login is not None else None,
            self.tls_policies.get(str(hop)),
            self.tls_policies.get(hop.host),
            self.tls_policies.get(domain),
        ]
        modes = [mode for mode in said if mode is not None]
        if not modes and hop.port == IMPLICIT_TLS_PORT:
            return TlsMode.IMPLICIT
        return max(modes, key=list(TlsMode).index) if modes else self.tls

    def relative_to(self, folder: Path) -> Forwarding:
        """The same with its paths relative to `folder`."""
        logins = {
            name: login.model_copy(update={"password_file": folder / login.password_file})
            for name, login in self.login.items()
        }
        authorities = folder / self.tls_authorities if self.tls_authorities is not None else None
        return self.model_copy(update={"login": logins, "tls_authorities": authorities})

    def read_credentials(self) -> dict[str, Credentials]:
        """The logins by next hop (`host:port`), passwords read from their files. Raises UnusablePassword."""
        return {name: login.credentials() for name, login in self.login.items()}


def _named_hop(text: str) -> Endpoint:
    """A next hop that says its port. Raises ValueError."""
    hop = parse_next_hop(text)
    if not text.endswith(f":{hop.port}"):
        raise ValueError(f"{text!r} lacks a port: write for example {text}:587")
    return Endpoint(hop.host.lower(), hop.port)
