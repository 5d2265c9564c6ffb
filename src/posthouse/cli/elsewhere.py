"""Accounts at other houses as the command line names them: servers, policies, intervals, passwords."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import typer

from posthouse.cli.common import Problem, printable
from posthouse.config_values import parse_duration, parse_endpoint
from posthouse.mail.address import Address, AddressError, parse_domain
from posthouse.mail.source import DAY_S, Keeping, Policy, Protection, Server
from posthouse.mail.words import duration

if TYPE_CHECKING:
    from posthouse.mail.account import Identity
    from posthouse.mail.source import SourceSettings

POP3_PORT, SMTP_PORT = 995, 465
SHORTEST_S = 60.0
_IMPLICIT = (POP3_PORT, SMTP_PORT)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PROTECTIONS = {
    Protection.IMPLICIT: "TLS",
    Protection.STARTTLS: "TLS by STARTTLS",
    Protection.NONE: "in clear, on this machine",
}


def server_argument(text: str, protection: Protection | None, usual_port: int) -> Server:
    """A server as `--pop3` and `--smtp` name it. Raises Problem."""
    try:
        endpoint = parse_endpoint(text, usual_port)
        host = endpoint.host if endpoint.is_loopback else parse_domain(endpoint.host)
    except (ValueError, AddressError) as exc:
        raise Problem(f"{text!r} is no server: {exc}; write for example pop.example.org:{usual_port}") from exc
    if not endpoint.port:
        raise Problem(f"{text!r} has no port; write for example pop.example.org:{usual_port}")
    usual = Protection.IMPLICIT if endpoint.port in _IMPLICIT else Protection.STARTTLS
    server = Server(host, endpoint.port, protection or usual)
    if server.protection is Protection.NONE and not (endpoint.is_loopback or host == "localhost"):
        raise Problem(
            f"{server} is not on this machine, and no password is sent to it in clear; leave --protection out"
        )
    return server


def policy_argument(text: str) -> Policy:
    """`leave`, `7d`, `mirror` or `delete`. Raises Problem."""
    if match := re.match(r"([0-9]{1,4})d\Z", text):
        return Policy(Keeping.DAYS, int(match[1])) if int(match[1]) else Policy(Keeping.DELETE)
    if text in (Keeping.LEAVE, Keeping.MIRROR, Keeping.DELETE):
        return Policy(Keeping(text))
    raise Problem(f"{text!r} is not leave, mirror, delete, or days such as 7d")


def interval_argument(text: str) -> float:
    """Seconds, at least SHORTEST_S. Raises Problem."""
    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise Problem(str(exc)) from exc
    if seconds < SHORTEST_S or seconds > 30 * DAY_S:
        raise Problem(f"{text!r} is not between 1m and 30d")
    return seconds


def text_argument(text: str, what: str, longest: int = 200) -> str:
    """A name of something, on one line. Raises Problem."""
    if not text.strip() or len(text) > longest or _CONTROLS.search(text):
        raise Problem(f"{text[:longest]!r} cannot be {what}")
    return text.strip()


def ask_password(address: Address, *, from_stdin: bool) -> str:
    """Typed without being shown, or the first line of standard input. Raises Problem."""
    if not from_stdin:
        if not is_typed():
            raise Problem("a password is typed on a terminal; elsewhere give it with --password-stdin")
        return str(typer.prompt(f"The password of {printable(address)}", hide_input=True, err=True))
    try:
        password = sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError as exc:
        raise Problem("the password is not UTF-8") from exc
    if not password or "\0" in password:
        raise Problem("there is no password on standard input")
    return password


def is_typed() -> bool:
    """Whether somebody is there who can type a password."""
    return sys.stdin.isatty()


def policy_told(policy: Policy) -> str:
    """As half a sentence about messages at the server."""
    match policy.keeping:
        case Keeping.LEAVE:
            return "left there"
        case Keeping.DAYS:
            return f"deleted there after {policy.days} {'day' if policy.days == 1 else 'days'}"
        case Keeping.MIRROR:
            return "deleted there when it is deleted here"
        case Keeping.DELETE:
            return "deleted there once it is here"


def server_told(server: Server, login: str) -> str:
    """`pop.example.org:995, TLS, as ada`."""
    return printable(f"{server}, {_PROTECTIONS[server.protection]}, as {login}")


def account_row(settings: SourceSettings, identity: Identity | None) -> dict[str, Any]:
    """An account elsewhere for `--json`; what the secret is, or where, is not in it."""
    own = identity.submission if identity is not None else None
    return {
        "address": str(settings.address),
        "name": identity.name if identity is not None and identity.name else None,
        "pop3": str(settings.server),
        "pop3_protection": str(settings.server.protection),
        "login": settings.login,
        "mechanism": str(settings.mechanism),
        "smtp": identity.via.partition(" as ")[0] if identity is not None and identity.via else None,
        "smtp_protection": str(own.protection) if own is not None else None,
        "keeps": str(settings.policy.keeping),
        "keeps_days": settings.policy.days or None,
        "every": duration(settings.interval_s),
        "folder": settings.folder,
    }
