"""The client's side of AUTH (RFC 4954): the strongest mechanism that both sides know, or the one for a token."""

from __future__ import annotations

from typing import Protocol

from posthouse.mail.source import Mechanism
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.sasl import SaslError, decode_base64, encode_base64, encode_plain
from posthouse.protocol.sasl_oauth import oauth_dismissal, oauth_message
from posthouse.protocol.sasl_scram import ScramClient

STRONGEST_FIRST = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
"""SCRAM does not tell the password to the peer, and shows that the peer knows it."""


class ClientExchange(Protocol):
    """One attempt. `mechanism` is what AUTH names."""

    mechanism: str

    def begin(self, room_octets: int, /) -> bytes | None:
        """The initial response in base64; None where there is none, or no room for it (RFC 4954 §4)."""
        ...

    def answer(self, challenge: str, /) -> bytes:
        """The response, in base64, to the text of a 334. Raises SaslError: the exchange is to be cancelled."""
        ...

    def finish(self) -> None:
        """The peer said 235. Raises SaslError where it had not earned that."""
        ...


class PlainClient:
    """RFC 4616: one message, at once or where it is asked for."""

    mechanism = "PLAIN"

    def __init__(self, login: str, password: str) -> None:
        self._message = encode_base64(encode_plain(login, password))
        self._asked = False

    def begin(self, room_octets: int) -> bytes | None:
        """See ClientExchange."""
        self._asked = len(self._message) <= room_octets
        return self._message if self._asked else None

    def answer(self, _challenge: str) -> bytes:
        """See ClientExchange."""
        if self._asked:
            raise SaslError("the server asks for more than PLAIN has")
        self._asked = True
        return self._message

    def finish(self) -> None:
        """See ClientExchange: whoever has the password may do what it likes."""


class LoginClient:
    """LOGIN, which no RFC describes: login and password, each where it is asked for."""

    mechanism = "LOGIN"

    def __init__(self, login: str, password: str) -> None:
        # The same limits as for PLAIN.
        encode_plain(login, password)
        self._left = [encode_base64(password.encode()), encode_base64(login.encode())]

    def begin(self, _room_octets: int) -> None:
        """See ClientExchange. An initial response is not understood everywhere."""

    def answer(self, _challenge: str) -> bytes:
        """See ClientExchange. Prompts are in any words, or none."""
        if not self._left:
            raise SaslError("the server asks for more than a login and a password")
        return self._left.pop()

    def finish(self) -> None:
        """See ClientExchange."""


class ScramExchangeClient:
    """SCRAM-SHA-256. The peer must show that it knows the password before its 235 counts (RFC 5802 §5)."""

    mechanism = "SCRAM-SHA-256"

    def __init__(self, login: str, password: str, nonce: str) -> None:
        self._scram = ScramClient(login, password, nonce)
        self._steps = 0
        self._trusted = False

    def begin(self, room_octets: int) -> bytes | None:
        """See ClientExchange."""
        first = encode_base64(self._scram.first())
        self._steps = int(len(first) <= room_octets)
        return first if self._steps else None

    def answer(self, challenge: str) -> bytes:
        """See ClientExchange. The second step takes up to half a second of computing."""
        step, self._steps = self._steps, self._steps + 1
        match step:
            case 0:
                return encode_base64(self._scram.first())
            case 1:
                return encode_base64(self._scram.final(_decoded(challenge)))
            case 2:
                self._scram.verify(_decoded(challenge))
                self._trusted = True
                return b""
            case _:
                raise SaslError("the server asks for more than SCRAM has")

    def finish(self) -> None:
        """See ClientExchange."""
        if not self._trusted:
            raise SaslError("the server did not show that it knows the password")


class OauthClient:
    """XOAUTH2 and OAUTHBEARER: one message, at once or, since tokens are long, where it is asked for."""

    def __init__(self, mechanism: Mechanism, login: str, token: str) -> None:
        self.mechanism = mechanism.upper()
        self._message = encode_base64(oauth_message(mechanism, login, token))
        self._dismissal = encode_base64(oauth_dismissal(mechanism))
        self._asked = self._refused = False

    def begin(self, room_octets: int) -> bytes | None:
        """See ClientExchange."""
        self._asked = len(self._message) <= room_octets
        return self._message if self._asked else None

    def answer(self, _challenge: str) -> bytes:
        """See ClientExchange. A challenge behind the message says what is wrong with it; the refusal follows."""
        if not self._asked:
            self._asked = True
            return self._message
        if self._refused:
            raise SaslError("the server asks for more than a token")
        self._refused = True
        return self._dismissal

    def finish(self) -> None:
        """See ClientExchange."""
        if self._refused:
            raise SaslError("the server took a token that it had refused")


def weaker_than(mechanism: str, offered: frozenset[str]) -> frozenset[str]:
    """What else may be tried where this one was refused. PLAIN and LOGIN say the same: one of them is enough."""
    return offered & {"PLAIN", "LOGIN"} if mechanism == "SCRAM-SHA-256" else frozenset()


def begin_exchange(
    mechanisms: frozenset[str], login: str, password: str, nonce: str, wanted: Mechanism = Mechanism.PASSWORD
) -> ClientExchange:
    """The exchange of the strongest of `mechanisms` for a password, or of the one that is `wanted` for a token.

    Raises LocalProtocolError; its text holds no secret.
    """
    if wanted is not Mechanism.PASSWORD:
        if wanted.upper() not in mechanisms:
            raise LocalProtocolError(f"the peer does not offer {wanted.upper()}")
        try:
            return OauthClient(wanted, login, password)
        except SaslError as exc:
            raise LocalProtocolError(str(exc)) from exc
    chosen = next((mechanism for mechanism in STRONGEST_FIRST if mechanism in mechanisms), None)
    try:
        match chosen:
            case "SCRAM-SHA-256":
                return ScramExchangeClient(login, password, nonce)
            case "PLAIN":
                return PlainClient(login, password)
            case "LOGIN":
                return LoginClient(login, password)
            case _:
                raise LocalProtocolError(f"the peer offers none of {', '.join(STRONGEST_FIRST)}")
    except SaslError as exc:
        raise LocalProtocolError(str(exc)) from exc


def _decoded(challenge: str) -> bytes:
    return decode_base64(challenge.encode("ascii", "replace"))
