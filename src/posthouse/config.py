"""The configuration: one TOML file becomes one frozen `Config`, checked whole before anything starts.

Only this module reads the file or the environment. Errors name the key and, where one is near, the key meant.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from posthouse.config_forwarding import Forwarding
from posthouse.config_values import (
    Count,
    Domain,
    Duration,
    FilePath,
    Flag,
    ListenEndpoint,
    Network,
    PrivateEndpoint,
    RoleName,
    UserName,
    Wait,
    is_full_name,
    parse_endpoint,
    parse_host_pattern,
    parse_postmaster,
)
from posthouse.config_values import Section as _Section
from posthouse.mail.address import Address

ENVIRONMENT_KEY = "POSTHOUSE_CONFIG"
RESTART_KEYS = ("listen", "data_dir", "storage", "workers", "user", "log")
"""What a running house cannot change."""
NAME = "posthouse.toml"
PERSONAL_HOST = "posthouse.internal"
"""What a house calls itself that is for its owner alone: `.internal` is nobody's name in DNS."""
MACHINES = Path("/etc/posthouse/posthouse.toml")
"""The configuration of a house that is a service of this machine."""

MESSAGE_CHARACTERS = 300
LONGEST_SLOWING_S = 30.0


class ConfigError(Exception):
    """The configuration cannot be used; the message is one line for the operator, `mend` says what to do about it."""

    def __init__(self, text: str, mend: str = "") -> None:
        super().__init__(text)
        self.mend = mend


class Listen(_Section):
    """Doors. An empty list closes one; port 0 lets the system pick."""

    smtp: tuple[ListenEndpoint, ...] = ()
    submission: tuple[ListenEndpoint, ...] = ()
    submissions: tuple[ListenEndpoint, ...] = ()
    pop3: tuple[ListenEndpoint, ...] = ()
    pop3s: tuple[ListenEndpoint, ...] = ()
    admin: tuple[PrivateEndpoint, ...] = ()


class TlsName(_Section):
    """The certificate for clients that ask for this name; `*.example.org` is for one more label."""

    host: Annotated[str, BeforeValidator(parse_host_pattern)]
    certificate: FilePath
    key: FilePath


class Tls(_Section):
    """The certificate and key, PEM. Absent: the self-signed pair that `init` makes in data_dir."""

    certificate: FilePath | None = None
    key: FilePath | None = None
    names: tuple[TlsName, ...] = ()

    @field_validator("names")
    @classmethod
    def _once(cls, names: tuple[TlsName, ...]) -> tuple[TlsName, ...]:
        hosts = [name.host for name in names]
        for host in hosts:
            if hosts.count(host) > 1:
                raise ValueError(f"{host!r} has two certificates")
        return names


class Storage(_Section):
    """Which engine keeps the state."""

    database: str = "sqlite"
    content: str = "local"

    @field_validator("database", "content")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        only = "sqlite" if info.field_name == "database" else "local"
        if value != only:
            raise ValueError(f'this version has only "{only}"')
        return value


class Auth(_Section):
    """Who may log in, and how."""

    allow_cleartext: Flag = False
    scram: Flag = True
    scram_for_passwords: Flag = False
    failures_before_slowing: Count = Field(default=5, ge=1, le=50)
    slowing_delay: Duration = 1.0
    slowing_longest: Duration = 8.0
    slowing_window: Duration = 900.0


class Reception(_Section):
    """Limits and trust at the SMTP doors."""

    trusted_networks: tuple[Network, ...] = ()
    proxy_from: tuple[Network, ...] = ()
    message_size_octets: Count = Field(default=52_428_800, ge=65_536)
    recipients: Count = Field(default=1000, ge=100)
    sessions: Count = Field(default=2000, ge=1)
    sessions_per_address: Count = Field(default=100, ge=1)
    messages: Count = Field(default=10_000, ge=1)
    commands: Count = Field(default=5000, ge=100)
    errors: Count = Field(default=20, ge=1)
    unknown_recipients: Count = Field(default=10, ge=0)
    recipients_per_hour: Count = Field(default=300, ge=0)
    roles: tuple[RoleName, ...] = ("abuse",)
    greeting_delay: Wait = 0.0
    strict_pipelining: Flag = False
    refuse_null_mx_senders: Flag = True
    greeting_timeout: Duration = 300.0
    command_timeout: Duration = 300.0
    content_timeout: Duration = 180.0
    content_rate_octets: Count = Field(default=100, ge=0)
    session_timeout: Duration = 4 * 3600.0

    @model_validator(mode="after")
    def _room_for_one_message(self) -> Reception:
        if self.commands < self.recipients + 100:
            raise ValueError(f"commands must be at least {self.recipients + 100}, for a message to all its recipients")
        return self


class Retrieval(_Section):
    """Limits at the POP3 doors."""

    proxy_from: tuple[Network, ...] = ()
    sessions: Count = Field(default=2000, ge=1)
    sessions_per_address: Count = Field(default=100, ge=1)
    idle_timeout: Duration = 600.0
    write_timeout: Duration = 300.0
    session_timeout: Annotated[Duration, Field(le=43_200.0)] = 43_200.0
    errors: Count = Field(default=50, ge=1)
    failed_logins: Count = Field(default=3, ge=1)
    login_delay: Duration | None = None
    implementation: Flag = True


class Collection(_Section):
    """Mail that is collected from other houses."""

    sessions: Count = Field(default=4, ge=1)
    message_size_octets: Count = Field(default=536_870_912, ge=1)
    tls_authorities: FilePath | None = None

    def relative_to(self, folder: Path) -> Collection:
        """The same with its path relative to `folder`."""
        authorities = self.tls_authorities
        return self.model_copy(update={"tls_authorities": folder / authorities}) if authorities is not None else self


class Journey(_Section):
    """How long it is remembered what became of a message."""

    keep: Duration = 30 * 86400.0
    refused_keep: Duration = 7 * 86400.0
    refused_limit: Count = Field(default=100_000, ge=0)


class Dns(_Section):
    """Which name servers to ask; absent: the system's."""

    servers: tuple[str, ...] = ()

    @field_validator("servers")
    @classmethod
    def _servers(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            endpoint = parse_endpoint(server, default_port=53)
            try:
                ipaddress.ip_address(endpoint.host)
            except ValueError as exc:
                raise ValueError(f"{server!r}: a name server is an IP address, or one with a port") from exc
        return servers


class LogSettings(_Section):
    """What is told on stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Config(_Section):
    """The whole file. Relative paths in it are relative to it."""

    hostname: Domain
    data_dir: FilePath
    workers: Count = Field(default=1, ge=1, le=64)
    user: UserName | None = None
    postmaster: Annotated[Address | None, BeforeValidator(parse_postmaster)] = None
    listen: Listen = Listen()
    tls: Tls = Tls()
    storage: Storage = Storage()
    auth: Auth = Auth()
    reception: Reception = Reception()
    retrieval: Retrieval = Retrieval()
    forwarding: Forwarding = Forwarding()
    collection: Collection = Collection()
    journey: Journey = Journey()
    dns: Dns = Dns()
    log: LogSettings = LogSettings()

    @property
    def is_personal(self) -> bool:
        """Whether it is a house that nobody else is to find."""
        return self.hostname == PERSONAL_HOST

    @model_validator(mode="after")
    def _safe(self) -> Config:
        _check_together(self)
        return self


def _check_together(config: Config) -> None:
    """What does not go together. Raises ValueError."""
    if not is_full_name(config.hostname):
        raise ValueError(f"hostname {config.hostname!r} is not a full name such as mx.example.org")
    if config.hostname.rpartition(".")[2].isdigit():
        raise ValueError(f"hostname {config.hostname!r} is an IP address; write [{config.hostname}]")
    if config.auth.scram_for_passwords and not config.auth.scram:
        raise ValueError("auth.scram_for_passwords needs auth.scram")
    if config.auth.slowing_longest < config.auth.slowing_delay:
        raise ValueError("auth.slowing_longest is shorter than auth.slowing_delay")
    if config.auth.slowing_longest > LONGEST_SLOWING_S:
        raise ValueError("auth.slowing_longest is above 30s, in which mail programs give up")
    if config.auth.allow_cleartext:
        for endpoint in (*config.listen.submission, *config.listen.pop3):
            if not endpoint.is_loopback:
                raise ValueError(
                    f"auth.allow_cleartext would send passwords in clear over {endpoint}; listen on 127.0.0.1"
                )


def personal_folder() -> Path:
    """Where the house of one's own is made, where no folder is named (XDG Base Directory Specification)."""
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else Path.home() / ".local" / "share") / "posthouse"


def searched() -> tuple[Path, ...]:
    """Where a configuration may be that was not named. Root means the machine's house before its own."""
    places = (personal_folder() / NAME, MACHINES)
    return (Path(NAME), *(places if os.geteuid() else reversed(places)))


def find(path: Path | None) -> Path:
    """The configuration file to use: as told, else `$POSTHOUSE_CONFIG`, else where it usually is."""
    if path is not None:
        return path
    if named := os.environ.get(ENVIRONMENT_KEY):
        return Path(named)
    for candidate in searched():
        if os.path.exists(candidate):
            return candidate
    raise ConfigError(
        "there is no posthouse.toml here or in /etc/posthouse; go to the folder of the house, or name its file "
        "with --config FILE; make a house with: posthouse init"
    )


def load(path: Path) -> Config:
    """Read and check a file. Raises ConfigError, whose message names the file and the key."""
    try:
        table = tomllib.loads(path.read_bytes().decode().removeprefix("\ufeff"))
    except FileNotFoundError as exc:
        raise ConfigError(f"{path} does not exist; make a house with: posthouse init") from exc
    except PermissionError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}; run it as root, or as whom it belongs to") from exc
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}", f"see: sudo ls -l {path}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8, as TOML must be (octet {exc.start})", _mending(path)) from exc
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise ConfigError(f"{path} is not valid TOML: {_one_line(str(exc))}", _mending(path)) from exc
    return parse(table, path)


def parse(table: dict[str, Any], path: Path) -> Config:
    """Check a parsed file; `path` is what relative paths are relative to. Raises ConfigError."""
    try:
        config = Config.model_validate(table)
    except ValidationError as exc:
        raise ConfigError(f"{path}: {_one_line(_first_problem(exc))}", _mending(path)) from exc
    folder = path.absolute().parent
    certificate, key = config.tls.certificate, config.tls.key
    if (certificate is None) != (key is None):
        text = f"{path}: tls.certificate and tls.key belong together: give both or neither"
        raise ConfigError(text, _mending(path))
    tls = Tls(
        certificate=folder / certificate if certificate else None,
        key=folder / key if key else None,
        names=tuple(
            TlsName(host=name.host, certificate=folder / name.certificate, key=folder / name.key)
            for name in config.tls.names
        ),
    )
    return config.model_copy(
        update={
            "data_dir": folder / config.data_dir,
            "tls": tls,
            "forwarding": config.forwarding.relative_to(folder),
            "collection": config.collection.relative_to(folder),
        }
    )


def reloaded(current: Config, fresh: Config) -> tuple[Config, tuple[str, ...]]:
    """What a running house makes of a file read again, and the changed keys that only a restart can follow.

    Raises ConfigError where what stays and what is new do not go together.
    """
    ignored = tuple(key for key in RESTART_KEYS if getattr(current, key) != getattr(fresh, key))
    kept = fresh.model_copy(update={key: getattr(current, key) for key in ignored})
    try:
        _check_together(kept)
    except ValueError as exc:
        raise ConfigError(f"{' and '.join(ignored)} cannot change before a restart, and so {exc}") from exc
    return kept, ignored


def _mending(path: Path) -> str:
    return f"edit it, then run: posthouse check --config {path}"


def _one_line(text: str) -> str:
    """Keys and values may hold anything, and the message is one line of bearable length."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= MESSAGE_CHARACTERS else shown[:MESSAGE_CHARACTERS] + "…"


def _first_problem(error: ValidationError) -> str:
    # An unknown key is told first: it may be the one that seems to be missing.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    key = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(problem["loc"][-1]), _keys_beside(problem["loc"]), 1)
            return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")
        case "missing":
            return f"{key} is missing"
        case "model_type" | "model_attributes_type":
            return f"{key} must be a table"
        case "dict_type":
            return f"{key} must be a table of strings"
        case "tuple_type":
            return f"{key} must be a list"
        case "string_type":
            return f"{key} must be a string"
        case "int_type":
            return f"{key} must be a whole number"
        case "bool_type":
            return f"{key} must be true or false"
        case "literal_error":
            return f"{key} must be one of {problem['ctx']['expected'].replace(' or ', ', ')}"
        case "path_type":
            return f"{key} must be a path in quotes"
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
