"""One exchange of AUTH (RFC 5034 §4): lines in base64 one way, challenges the other, a command at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.pop3_arguments import Refusal
from posthouse.protocol.pop3_events import Login, ScramVerifierWanted
from posthouse.protocol.sasl import (
    SCRAM_SHA_256,
    Credentials,
    PlainExchange,
    SaslError,
    ScramExchange,
    ScramLookup,
    ScramProof,
    ScramVerifier,
    decode_base64,
    encode_base64,
)

Step: TypeAlias = bytes | Login | ScramVerifierWanted
"""A line to the peer, with its CRLF; or what the driver has to answer."""

EMPTY_RESPONSE: Final = b"="
"""An initial response that is there and empty."""

_EXCHANGES: Final[dict[str, Callable[[], PlainExchange | ScramExchange]]] = {
    "PLAIN": PlainExchange,
    SCRAM_SHA_256: ScramExchange,
}


class SaslLogin:
    """A new object for each attempt. Its methods raise Refusal, and it is over then."""

    def __init__(self, mechanism: str) -> None:
        self._mechanism = mechanism
        self._exchange = _EXCHANGES[mechanism]()

    def begin(self, initial_response: bytes) -> Step:
        """The first step; b"" where the command brought no initial response."""
        if not initial_response:
            return self._step(None)
        return self._step(b"") if initial_response == EMPTY_RESPONSE else self.take(initial_response)

    def take(self, line: bytes) -> Step:
        """The peer's next line."""
        if line == b"*":
            raise Refusal("The login was cancelled")
        try:
            return self._step(decode_base64(line))
        except SaslError as exc:
            raise _refusal(exc) from exc

    def provide(self, verifier: ScramVerifier, nonce: str) -> bytes:
        """The challenge that a ScramVerifierWanted waits for."""
        if not isinstance(self._exchange, ScramExchange):
            raise LocalProtocolError("the exchange asked for no verifier")
        return _challenge(self._exchange.provide(verifier, nonce))

    def _step(self, response: bytes | None) -> Step:
        try:
            step = self._exchange.step(response)
        except SaslError as exc:
            raise _refusal(exc) from exc
        match step:
            case Credentials(authorization_id, login, password):
                return Login(login, password, self._mechanism, authorization_id)
            case ScramLookup(_, login):
                return ScramVerifierWanted(login)
            case ScramProof(authorization_id, login, proven, stored_key):
                return Login(login, "", self._mechanism, authorization_id, proven=proven, stored_key=stored_key)
            case bytes():
                return _challenge(step)


def _challenge(octets: bytes) -> bytes:
    return b"+ " + encode_base64(octets) + b"\r\n"


def _refusal(error: SaslError) -> Refusal:
    return Refusal(f"The login failed: {error}")
