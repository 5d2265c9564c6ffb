"""Our SCRAM against another's (scramp): both ways, with passwords of all kinds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient as TheirClient
from scramp import ScramException, ScramMechanism

from posthouse.protocol.sasl import SaslError, ScramExchange, ScramLookup, ScramProof, ScramVerifier
from posthouse.protocol.sasl_prepare import saslprep
from posthouse.protocol.sasl_scram import ScramClient, derive_keys

SALT = bytes(range(16))
PASSWORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
NONCE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=20, max_size=40)


def prepared(password: str) -> str | None:
    try:
        return saslprep(password)
    except SaslError:
        return None


@pytest.mark.conformance("C130")
@given(PASSWORD, PASSWORD | st.none(), NONCE)
@settings(max_examples=60, deadline=None)
def test_their_client_and_our_server(password: str, tried: str | None, nonce: str) -> None:
    attempt = password if tried is None else tried
    if not prepared(password) or not prepared(attempt):
        return
    keys = derive_keys(password, SALT, 4096)
    client = TheirClient(["SCRAM-SHA-256"], "user=,name", attempt)
    exchange = ScramExchange()
    assert exchange.step(client.get_client_first().encode()) == ScramLookup("", "user=,name")
    first = exchange.provide(ScramVerifier(SALT, 4096, keys.stored_key, keys.server_key), nonce)
    client.set_server_first(first.decode())
    answer = exchange.step(client.get_client_final().encode())
    if prepared(attempt) != prepared(password):
        assert answer == ScramProof("", "user=,name", False)
        return
    assert isinstance(answer, bytes)
    client.set_server_final(answer.decode())


@pytest.mark.conformance("C130")
@given(PASSWORD, PASSWORD | st.none(), NONCE)
@settings(max_examples=60, deadline=None)
def test_our_client_and_their_server(password: str, tried: str | None, nonce: str) -> None:
    attempt = password if tried is None else tried
    if not prepared(password) or not prepared(attempt):
        return
    mechanism = ScramMechanism("SCRAM-SHA-256")
    known = mechanism.make_auth_info(password, iteration_count=4096, salt=SALT)
    server = mechanism.make_server(lambda _login: known)
    client = ScramClient("user=,name", attempt, nonce)
    server.set_client_first(client.first().decode())
    last = client.final(server.get_server_first().encode())
    if prepared(attempt) != prepared(password):
        with pytest.raises(ScramException):
            server.set_client_final(last.decode())
        return
    server.set_client_final(last.decode())
    client.verify(server.get_server_final().encode())


@given(PASSWORD)
@settings(deadline=None)
def test_we_prepare_as_they_do(password: str) -> None:
    ours = prepared(password)
    try:
        theirs = ScramMechanism("SCRAM-SHA-256").make_auth_info(password, iteration_count=4096, salt=SALT)
    except ScramException:
        assert not ours
        return
    assert ours
    keys = derive_keys(password, SALT, 4096)
    assert (keys.stored_key, keys.server_key) == theirs[1:3]
