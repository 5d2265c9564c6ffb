"""Targets: SASL, both sides, and how names and passwords are prepared."""

from __future__ import annotations

import hashlib
import hmac
from functools import cache
from unittest import mock

from tests.fuzz.draw import Draw, assert_one_line, error_of, without

from posthouse.identity.hashes import parse_hash
from posthouse.mail.account import ScramKeys
from posthouse.mail.reply import Reply
from posthouse.protocol import sasl_scram, smtp_sasl
from posthouse.protocol.pop3_arguments import Refusal
from posthouse.protocol.pop3_events import Login
from posthouse.protocol.pop3_sasl import SaslLogin as Pop3Login
from posthouse.protocol.sasl import (
    MAX_FIELD_OCTETS,
    MAX_PASSWORD_OCTETS,
    SaslError,
    ScramVerifier,
    decode_base64,
    decode_plain,
    encode_base64,
    encode_plain,
)
from posthouse.protocol.sasl_prepare import opaque_string, saslprep
from posthouse.protocol.sasl_scram import ScramClient, derive_keys
from posthouse.protocol.smtp import Authenticate, ScramVerifierWanted
from posthouse.protocol.smtp_client_auth import ClientExchange, begin_exchange

MECHANISMS = ("PLAIN", "LOGIN", "SCRAM-SHA-256")
SERVER_NONCE = "a-nonce-of-the-server"
CHEAP_ITERATIONS = 4096
MOST_STEPS = 6


@cache
def keys() -> ScramKeys:
    return derive_keys("secret", b"salt", CHEAP_ITERATIONS)


def sasl_server(octets: bytes) -> None:
    """Any lines of an exchange, at both doors: challenges in base64, an end, and nothing proven that is not right."""
    draw = Draw(octets)
    mechanism, initial = draw.choice(MECHANISMS), draw.chance()
    lines = draw.rest().replace(b"\r", b"").split(b"\n")
    _smtp_exchange(mechanism, initial, lines)
    if mechanism != "LOGIN":
        _pop3_exchange(mechanism, initial, lines)


def _smtp_exchange(mechanism: str, initial: bool, lines: list[bytes]) -> None:
    login = smtp_sasl.SaslLogin(mechanism)
    spoken: list[bytes] = []
    step = login.begin(lines.pop(0) if initial else None)
    for line in [*lines, b"*"]:
        if isinstance(step, ScramVerifierWanted):
            step = login.provide(ScramVerifier(b"salt", CHEAP_ITERATIONS, *_pair()), SERVER_NONCE)
        if not isinstance(step, bytes):
            break
        assert step.startswith(b"334 ")
        assert_one_line(step)
        spoken.append(decode_base64(step[4:-2]))
        assert len(spoken) <= MOST_STEPS, "an exchange without end"
        step = login.take(line)
    assert not isinstance(step, bytes)
    if isinstance(step, Reply):
        assert step.is_permanent
    elif isinstance(step, Authenticate):
        _check_credentials(step.login, step.password, step.authorization_id)
        if step.proven:
            # The key of the server is told only to who has shown the client's.
            assert any(challenge.startswith(b"v=") for challenge in spoken)


def _pop3_exchange(mechanism: str, initial: bool, lines: list[bytes]) -> None:
    login = Pop3Login(mechanism)
    try:
        step = login.begin(lines.pop(0) if initial and lines else b"")
        for line in [*lines, b"*"]:
            if isinstance(step, Login):
                _check_credentials(step.name, step.password, step.authorization_id)
                return
            if not isinstance(step, bytes):
                step = login.provide(ScramVerifier(b"salt", CHEAP_ITERATIONS, *_pair()), SERVER_NONCE)
            assert step.startswith(b"+ ")
            assert_one_line(step)
            step = login.take(line)
    except Refusal:
        return
    assert isinstance(step, Login), "a * ends every exchange"


def _pair() -> tuple[bytes, bytes]:
    return keys().stored_key, keys().server_key


def _check_credentials(login: str, password: str, authorization_id: str) -> None:
    assert login
    assert "\0" not in login + password + authorization_id
    assert len(login.encode()) <= MAX_FIELD_OCTETS
    assert len(authorization_id.encode()) <= MAX_FIELD_OCTETS
    assert len(password.encode()) <= MAX_PASSWORD_OCTETS


def sasl_client(octets: bytes) -> None:
    """Any challenges: responses are lines of base64, a server that cannot prove itself is never trusted."""
    draw = Draw(octets)
    mechanism, seed = draw.choice(MECHANISMS), draw.chance()
    exchange = begin_exchange(frozenset({mechanism}), "ada", "secret", "cnonce")
    with mock.patch.object(sasl_scram, "MAXIMUM_ITERATIONS", CHEAP_ITERATIONS):
        said = [exchange.begin(2000 if seed else 0) or b""]
        for challenge in draw.rest().decode("ascii", "replace").split("\n"):
            response = without(SaslError, lambda challenge=challenge: exchange.answer(challenge))  # type: ignore[misc]
            if response is None:
                break
            said.append(response)
    assert len(said) <= MOST_STEPS
    for line in said:
        assert line == encode_base64(decode_base64(line))
    if mechanism == "SCRAM-SHA-256":
        assert not any(b"secret" in decode_base64(line) for line in said), "SCRAM tells nobody the password"
        assert _is_trusted(exchange) == (len(said) == 4)


def _is_trusted(exchange: ClientExchange) -> bool:
    try:
        exchange.finish()
    except SaslError:
        return False
    return True


def scram_messages(octets: bytes) -> None:
    """A server's messages with any nonce, salt and signature: ours follow, and only the right signature passes."""
    draw = Draw(octets)
    good = draw.chance()
    client = ScramClient("a,d=a", "secret", "cnonce")
    server_first = draw.piece()
    with mock.patch.object(sasl_scram, "MAXIMUM_ITERATIONS", CHEAP_ITERATIONS):
        final = without(SaslError, lambda: client.final(server_first))
    if final is None:
        return
    assert b"\0" not in final
    bare, proof = final.rsplit(b",p=", 1)
    salt = decode_base64(dict(part.split(b"=", 1) for part in server_first.split(b",")[:3])[b"s"])
    wanted = derive_keys("secret", salt, CHEAP_ITERATIONS)
    spoken = b",".join((client.first()[3:], server_first, bare))
    signature = hmac.digest(wanted.stored_key, spoken, "sha256")
    client_key = bytes(left ^ right for left, right in zip(decode_base64(proof), signature, strict=True))
    assert hashlib.sha256(client_key).digest() == wanted.stored_key
    right = b"v=" + encode_base64(hmac.digest(wanted.server_key, spoken, "sha256"))
    said = right if good else draw.rest()
    assert (without(SaslError, lambda: client.verify(said) or True) is True) == (said.split(b",")[0] == right)


def plain_message(octets: bytes) -> None:
    """What PLAIN brings can be sent as PLAIN again."""
    found = without(SaslError, lambda: decode_plain(octets))
    if found is not None:
        assert encode_plain(found.login, found.password, found.authorization_id) == octets
        _check_credentials(found.login, found.password, found.authorization_id)


def prepared_text(octets: bytes) -> None:
    """Preparing what is prepared changes nothing, and nothing forbidden is left."""
    text = octets.decode("utf-8", "replace")
    opaque = opaque_string(text)
    assert opaque_string(opaque) == opaque
    prepared = without(SaslError, lambda: saslprep(text))
    if prepared is not None:
        assert saslprep(prepared) == prepared
        assert not any(character in prepared for character in "\0\r\n\u00a0")


def foreign_hash(octets: bytes) -> None:
    """Hashes of other systems: taken or refused with a ValueError that does not repeat them."""
    text = octets.decode("utf-8", "replace")
    problem = error_of(ValueError, lambda: parse_hash(text))
    secret = text.partition("}")[2]
    assert problem is None or len(secret) < 16 or secret not in problem, "an error repeats the hash"
