"""SCRAM-SHA-256 (RFC 5802, RFC 7677): the keys of a password, and the client's side of an exchange."""

from __future__ import annotations

import hashlib
import hmac

from posthouse.mail.account import ScramKeys
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.sasl import (
    MAX_FIELD_OCTETS,
    MAX_SCRAM_OCTETS,
    SaslError,
    attributes,
    decode_base64,
    encode_base64,
    exclusive_or,
    is_printable,
)
from posthouse.protocol.sasl_prepare import saslprep

MINIMUM_ITERATIONS = 4096
MAXIMUM_ITERATIONS = 1_000_000
"""What a client computes before it takes the server for hostile: about half a second."""
MAX_SALT_OCTETS = 1024
NONCE_OCTETS_SEEN = 16
"""A server that adds fewer characters than these to the nonce is not trusted to have a random one."""

_CLIENT_KEY, _SERVER_KEY = b"Client Key", b"Server Key"


def derive_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """The keys of a password (RFC 5802 §3): slow by intention. Raises SaslError where SASLprep forbids it."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, _CLIENT_KEY, "sha256")).digest()
    return ScramKeys(stored_key, hmac.digest(salted, _SERVER_KEY, "sha256"))


class ScramClient:
    """The client's side of one attempt: first(), final(), and verify(), without which the server is not trusted."""

    def __init__(self, login: str, password: str, nonce: str, authorization_id: str = "") -> None:
        """`nonce` is random printable ASCII without a comma. Raises SaslError for what SASLprep forbids."""
        if not is_printable(nonce.encode()):
            raise LocalProtocolError("a nonce is printable ASCII without a comma")
        self._password = saslprep(password)
        self._nonce = nonce.encode()
        self._header = b"n,%b," % (b"a=" + _encode_name(authorization_id) if authorization_id else b"")
        self._bare = b"n=%b,r=%b" % (_encode_name(saslprep(login)), self._nonce)
        self._signature: bytes | None = None

    def first(self) -> bytes:
        """The initial response."""
        return self._header + self._bare

    def final(self, server_first: bytes) -> bytes:
        """The answer to the server's first message. Raises SaslError where the server is not to be trusted."""
        if len(server_first) > MAX_SCRAM_OCTETS:
            raise SaslError("a SCRAM message is too long")
        nonce, salt, iterations = attributes(server_first, b"r", b"s", b"i")
        added = len(nonce) - len(self._nonce)
        if not nonce.startswith(self._nonce) or not is_printable(nonce) or added < NONCE_OCTETS_SEEN:
            raise SaslError("the server's nonce does not continue ours")
        count = int(iterations) if iterations.isdigit() and len(iterations) <= 10 else 0
        if not MINIMUM_ITERATIONS <= count <= MAXIMUM_ITERATIONS:
            raise SaslError(f"the server asks for {iterations.decode('ascii', 'replace')} iterations")
        octets = decode_base64(salt)
        if not 1 <= len(octets) <= MAX_SALT_OCTETS:
            raise SaslError("the salt is empty or too long")
        return self._prove(nonce, octets, count, server_first)

    def verify(self, server_final: bytes) -> None:
        """Check that the server knows the password too (RFC 5802 §5). Raises SaslError."""
        kind, _, rest = server_final.split(b",", 1)[0].partition(b"=")
        if kind == b"e":
            raise SaslError("the server refuses: " + ascii(rest.decode("utf-8", "replace"))[1:-1])
        if kind != b"v" or self._signature is None or not hmac.compare_digest(decode_base64(rest), self._signature):
            raise SaslError("the server does not know the password")

    def _prove(self, nonce: bytes, salt: bytes, iterations: int, server_first: bytes) -> bytes:
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), salt, iterations)
        client_key = hmac.digest(salted, _CLIENT_KEY, "sha256")
        without_proof = b"c=%b,r=%b" % (encode_base64(self._header), nonce)
        spoken = b",".join((self._bare, server_first, without_proof))
        proof = exclusive_or(client_key, hmac.digest(hashlib.sha256(client_key).digest(), spoken, "sha256"))
        self._signature = hmac.digest(hmac.digest(salted, _SERVER_KEY, "sha256"), spoken, "sha256")
        return without_proof + b",p=" + encode_base64(proof)


def _encode_name(text: str) -> bytes:
    octets = text.encode()
    if not octets or len(octets) > MAX_FIELD_OCTETS or b"\0" in octets:
        raise SaslError("a name is empty, too long, or holds NUL")
    return octets.replace(b"=", b"=3D").replace(b",", b"=2C")
