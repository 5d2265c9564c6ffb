"""SASL without I/O: strict base64 (RFC 4648 §4), PLAIN (RFC 4616) and LOGIN, for SMTP and POP3 alike.

An exchange is a new object for each attempt, so nothing of an aborted one is ever used again.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field
from typing import Protocol

MAX_FIELD_OCTETS = 255
MAX_LINE_OCTETS = 12288
"""The longest base64 line of an exchange, CRLF included (RFC 4954 §4)."""


class SaslError(ValueError):
    """The peer's response is malformed; its text is safe to show."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an exchange has brought. `authorization_id` is "" when the login acts as itself."""

    authorization_id: str
    login: str
    password: str = field(repr=False)


def decode_base64(text: bytes) -> bytes:
    """Decode exactly: no white space, no junk, no octet after the padding. Raises SaslError."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as exc:
        raise SaslError("the response is not base64") from exc


def encode_base64(octets: bytes) -> bytes:
    """Base64 on one line."""
    return binascii.b2a_base64(octets, newline=False)


def decode_plain(message: bytes) -> Credentials:
    """Take `[authzid] NUL authcid NUL passwd` apart (RFC 4616 §2). Raises SaslError."""
    fields = message.split(b"\0")
    if len(fields) != 3:
        raise SaslError("a PLAIN message has three fields")
    authorization_id, login, password = fields
    return _credentials(authorization_id, login, password)


def encode_plain(login: str, password: str, authorization_id: str = "") -> bytes:
    """The PLAIN message before base64. Raises SaslError for what the grammar cannot carry."""
    fields = [text.encode() for text in (authorization_id, login, password)]
    if any(b"\0" in octets for octets in fields):
        raise SaslError("a PLAIN message cannot carry NUL")
    _credentials(*fields)
    return b"\0".join(fields)


class Exchange(Protocol):
    """One attempt of one mechanism, the server's side."""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """The next challenge, or the credentials. `response` None: there is no initial response. Raises SaslError."""
        ...


class PlainExchange:
    """PLAIN: an empty challenge if no initial response came."""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """See Exchange."""
        return b"" if response is None else decode_plain(response)


class LoginExchange:
    """LOGIN, which mail programs still use: two prompts, login and password."""

    def __init__(self) -> None:
        self._login: bytes | None = None

    def step(self, response: bytes | None) -> bytes | Credentials:
        """See Exchange."""
        if response is None:
            return b"Username:"
        if self._login is None:
            self._login = response
            return b"Password:"
        return _credentials(b"", self._login, response)


MECHANISMS: dict[str, type[PlainExchange] | type[LoginExchange]] = {"PLAIN": PlainExchange, "LOGIN": LoginExchange}


def _credentials(authorization_id: bytes, login: bytes, password: bytes) -> Credentials:
    if not login or not password:
        raise SaslError("the login or the password is empty")
    if max(len(authorization_id), len(login), len(password)) > MAX_FIELD_OCTETS:
        raise SaslError("a field is longer than 255 octets")
    if b"\0" in login or b"\0" in password:
        raise SaslError("a field holds NUL")
    try:
        return Credentials(authorization_id.decode(), login.decode(), password.decode())
    except UnicodeDecodeError as exc:
        raise SaslError("a field is not UTF-8") from exc
