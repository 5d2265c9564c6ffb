"""SASL without I/O, the server's side: strict base64 (RFC 4648 §4), PLAIN (RFC 4616), LOGIN and SCRAM-SHA-256
(RFC 5802, RFC 7677), for SMTP and POP3 alike.

An exchange is a new object for each attempt, so nothing of an aborted one is ever used again.

SCRAM has no channel binding here: the -PLUS mechanism is not offered, so a client that says `y` ("I could, you cannot")
is right, and one that demands it (`p=`) is refused (RFC 5802 §6). Attributes that we do not know are ignored, `m=` is
an error (§5.1). An account may have several passwords under one salt: the proof is compared with each of them.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from posthouse.mail.account import ScramKeys
from posthouse.protocol.errors import LocalProtocolError

MAX_FIELD_OCTETS = 255
"""The longest login or authorization identity (RFC 4616 §2 asks for no less)."""
MAX_PASSWORD_OCTETS = 1024
"""The longest password. RFC 4616 §2 asks for 255 octets at least; longer ones may be chosen here."""
MAX_LINE_OCTETS = 12288
"""The longest base64 line of an exchange, CRLF included (RFC 4954 §4)."""

SCRAM_SHA_256: Final = "SCRAM-SHA-256"
MAX_SCRAM_OCTETS = 4096
MAX_NONCE_OCTETS = 512
HASH_OCTETS: Final = 32
_SASLNAME = re.compile(rb"(?:[^=,\0]|=2C|=3D)+\Z")


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


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What an exchange needs to know of a login. `others`: further passwords that may be proven, same salt."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    others: tuple[ScramKeys, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ScramLookup:
    """The exchange needs the verifier of this login. `authorization_id` is "" when the login acts as itself."""

    authorization_id: str
    login: str


@dataclass(frozen=True, slots=True)
class ScramProof:
    """The last word of an exchange. `stored_key` names the password that was proven; b"" when none was."""

    authorization_id: str
    login: str
    proven: bool
    stored_key: bytes = field(default=b"", repr=False)


class _Expected(Enum):
    CLIENT_FIRST = auto()
    VERIFIER = auto()
    CLIENT_FINAL = auto()
    ACKNOWLEDGEMENT = auto()
    NOTHING = auto()


class ScramExchange:
    """The server's side of one attempt. After a SaslError or a ScramProof it is of no more use."""

    def __init__(self) -> None:
        self._expected = _Expected.CLIENT_FIRST
        self._header = b""
        self._client_first_bare = b""
        self._nonce = b""
        self._server_first = b""
        self._lookup = ScramLookup("", "")
        self._keys: tuple[ScramKeys, ...] = ()
        self._proof = ScramProof("", "", False)

    def step(self, response: bytes | None) -> bytes | ScramLookup | ScramProof:
        """The next challenge, the question for a verifier, or the outcome. Raises SaslError.

        `response` None: there was no initial response. A ScramLookup is answered by provide().
        """
        if response is not None and len(response) > MAX_SCRAM_OCTETS:
            raise SaslError("a SCRAM message is too long")
        match self._expected:
            case _Expected.CLIENT_FIRST:
                return b"" if response is None else self._take_client_first(response)
            case _Expected.CLIENT_FINAL if response is not None:
                return self._take_client_final(response)
            case _Expected.ACKNOWLEDGEMENT if response is not None:
                self._expected = _Expected.NOTHING
                if response:
                    raise SaslError("the answer to the server's last message is empty")
                return self._proof
            case _:
                raise LocalProtocolError("the exchange expects no response now")

    def provide(self, verifier: ScramVerifier, nonce: str) -> bytes:
        """Answer a ScramLookup: the challenge. `nonce` is the server's part, printable ASCII without a comma."""
        if self._expected is not _Expected.VERIFIER:
            raise LocalProtocolError("the exchange asked for no verifier")
        if not is_printable(nonce.encode()):
            raise LocalProtocolError("a nonce is printable ASCII without a comma")
        self._keys = (ScramKeys(verifier.stored_key, verifier.server_key), *verifier.others)
        self._nonce += nonce.encode()
        salt = encode_base64(verifier.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, verifier.iterations)
        self._expected = _Expected.CLIENT_FINAL
        return self._server_first

    def _take_client_first(self, message: bytes) -> ScramLookup:
        """`gs2-cbind-flag,[a=authzid],n=user,r=nonce[,extensions]` (RFC 5802 §7)."""
        flag, authorization_id, bare = _three_parts(message)
        if flag.startswith(b"p="):
            raise SaslError("channel binding is not supported")
        if flag not in (b"n", b"y"):
            raise SaslError("a SCRAM message begins with n, y or p")
        name = ""
        if authorization_id:
            if not authorization_id.startswith(b"a="):
                raise SaslError("the second field of a SCRAM message is the authorization identity")
            name = _decode_name(authorization_id[2:])
        fields = attributes(bare, b"n", b"r")
        login, nonce = _decode_name(fields[0]), fields[1]
        if not is_printable(nonce) or len(nonce) > MAX_NONCE_OCTETS:
            raise SaslError("the nonce is not printable, or too long")
        self._header, self._client_first_bare, self._nonce = message[: len(message) - len(bare)], bare, nonce
        self._lookup = ScramLookup(name, login)
        self._expected = _Expected.VERIFIER
        return self._lookup

    def _take_client_final(self, message: bytes) -> bytes | ScramProof:
        """`c=binding,r=nonce[,extensions],p=proof`: each of the three must be right (RFC 5802 §5.1)."""
        without_proof, comma, last = message.rpartition(b",")
        if not comma or not last.startswith(b"p="):
            raise SaslError("the proof stands last")
        binding, nonce = attributes(without_proof, b"c", b"r")
        proof = decode_base64(last[2:])
        bound = hmac.compare_digest(decode_base64(binding), self._header)
        fresh = hmac.compare_digest(nonce, self._nonce)
        spoken = b",".join((self._client_first_bare, self._server_first, without_proof))
        keys = _proven(proof, self._keys, spoken)
        if keys is None or not (bound and fresh):
            self._expected = _Expected.NOTHING
            return ScramProof(self._lookup.authorization_id, self._lookup.login, False)
        self._proof = ScramProof(self._lookup.authorization_id, self._lookup.login, True, keys.stored_key)
        self._expected = _Expected.ACKNOWLEDGEMENT
        return b"v=" + encode_base64(hmac.digest(keys.server_key, spoken, "sha256"))


def exclusive_or(left: bytes, right: bytes) -> bytes:
    """Two hashes' XOR (RFC 5802 §2.2)."""
    return (int.from_bytes(left) ^ int.from_bytes(right)).to_bytes(HASH_OCTETS)


def attributes(message: bytes, *names: bytes) -> tuple[bytes, ...]:
    """The values of the attributes that a message begins with, in order; optional ones may follow. Raises SaslError."""
    parts = message.split(b",")
    values: list[bytes] = []
    for number, part in enumerate(parts):
        letter, equals, value = part[:1], part[1:2], part[2:]
        if letter == b"m":
            raise SaslError("mandatory extensions are not supported")
        if equals != b"=" or not letter.isalpha() or not value or b"\0" in value:
            raise SaslError("a SCRAM message is a list of attributes")
        if number < len(names):
            if letter != names[number]:
                raise SaslError("the attributes of a SCRAM message have an order")
            values.append(value)
    if len(values) != len(names):
        raise SaslError("a SCRAM message lacks an attribute")
    return tuple(values)


def is_printable(nonce: bytes) -> bool:
    """Whether it may be a nonce: printable ASCII without a comma, at least one octet (RFC 5802 §7)."""
    return bool(nonce) and all(0x21 <= octet <= 0x7E and octet != 0x2C for octet in nonce)


def _credentials(authorization_id: bytes, login: bytes, password: bytes) -> Credentials:
    if not login or not password:
        raise SaslError("the login or the password is empty")
    if max(len(authorization_id), len(login)) > MAX_FIELD_OCTETS or len(password) > MAX_PASSWORD_OCTETS:
        raise SaslError("a field is too long")
    if b"\0" in login or b"\0" in password:
        raise SaslError("a field holds NUL")
    try:
        return Credentials(authorization_id.decode(), login.decode(), password.decode())
    except UnicodeDecodeError as exc:
        raise SaslError("a field is not UTF-8") from exc


def _proven(proof: bytes, candidates: tuple[ScramKeys, ...], spoken: bytes) -> ScramKeys | None:
    """The keys whose password the proof shows. All are compared, so that time does not tell which."""
    found = None
    if len(proof) == HASH_OCTETS:
        for keys in candidates:
            client_key = exclusive_or(proof, hmac.digest(keys.stored_key, spoken, "sha256"))
            if hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key):
                found = keys
    return found


def _three_parts(message: bytes) -> tuple[bytes, bytes, bytes]:
    parts = message.split(b",", 2)
    if len(parts) != 3:
        raise SaslError("a SCRAM message begins with a header of two fields")
    return parts[0], parts[1], parts[2]


def _decode_name(text: bytes) -> str:
    """A saslname: `=2C` is a comma, `=3D` is an equals sign, and no other `=` may stand (RFC 5802 §5.1)."""
    if not _SASLNAME.match(text):
        raise SaslError("a name is empty, or holds NUL or an = that stands for nothing")
    plain = text.replace(b"=2C", b",").replace(b"=3D", b"=")
    if len(plain) > MAX_FIELD_OCTETS:
        raise SaslError("a field is too long")
    try:
        return plain.decode()
    except UnicodeDecodeError as exc:
        raise SaslError("a name is not UTF-8") from exc
