"""One exchange of AUTH (RFC 4954 §4): lines in base64 one way, challenges the other, a command at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from posthouse.mail.reply import Reply, reply
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.sasl import (
    MECHANISMS,
    SCRAM_SHA_256,
    Credentials,
    LoginExchange,
    PlainExchange,
    SaslError,
    ScramExchange,
    ScramLookup,
    ScramProof,
    ScramVerifier,
    decode_base64,
    encode_base64,
)
from posthouse.protocol.smtp import Authenticate, ScramVerifierWanted

CANCELLED: Final = reply(501, "5.7.0", "Authentication cancelled")

Step: TypeAlias = bytes | Reply | Authenticate | ScramVerifierWanted
"""A challenge with its CRLF, the refusal that ends the exchange, or what the driver has to answer."""

EXCHANGES: Final[dict[str, Callable[[], PlainExchange | LoginExchange | ScramExchange]]] = {
    **MECHANISMS,
    SCRAM_SHA_256: ScramExchange,
}


class SaslLogin:
    """A new object for each attempt, so that nothing of an aborted one is used again."""

    def __init__(self, mechanism: str) -> None:
        self._mechanism = mechanism
        self._exchange = EXCHANGES[mechanism]()

    def begin(self, initial_response: bytes | None) -> Step:
        """The first step. `initial_response` is base64 yet; None: AUTH brought none, b"": it brought "="."""
        return self._step(None) if initial_response is None else self.take(initial_response)

    def take(self, line: bytes) -> Step:
        """The peer's next line."""
        if line == b"*":
            return CANCELLED
        try:
            response = decode_base64(line)
        except SaslError as exc:
            return _refusal(exc)
        return self._step(response)

    def provide(self, verifier: ScramVerifier, nonce: str) -> bytes:
        """The challenge that a ScramVerifierWanted waits for."""
        if not isinstance(self._exchange, ScramExchange):
            raise LocalProtocolError("the exchange asked for no verifier")
        return _challenge(self._exchange.provide(verifier, nonce))

    def _step(self, response: bytes | None) -> Step:
        try:
            step = self._exchange.step(response)
        except SaslError as exc:
            return _refusal(exc)
        match step:
            case Credentials(authorization_id, login, password):
                return Authenticate(self._mechanism, authorization_id, login, password)
            case ScramLookup(_, login):
                return ScramVerifierWanted(login)
            case ScramProof(authorization_id, login, proven, stored_key):
                return Authenticate(self._mechanism, authorization_id, login, "", proven=proven, stored_key=stored_key)
            case bytes():
                return _challenge(step)


def _challenge(octets: bytes) -> bytes:
    return b"334 " + encode_base64(octets) + b"\r\n"


def _refusal(error: SaslError) -> Reply:
    return reply(501, "5.5.2", str(error))
