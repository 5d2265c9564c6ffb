"""SCRAM-SHA-256: the vector of RFC 7677, both halves with each other, and what neither may take."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.mail.account import ScramKeys
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.sasl import SaslError, ScramExchange, ScramLookup, ScramProof, ScramVerifier
from posthouse.protocol.sasl_scram import ScramClient, derive_keys

CLIENT_NONCE, SERVER_NONCE = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"n,,n=user,r=" + CLIENT_NONCE.encode()
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
PENCIL = derive_keys("pencil", SALT, 4096)
NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


def verifier(keys: ScramKeys = PENCIL, *others: ScramKeys) -> ScramVerifier:
    return ScramVerifier(SALT, 4096, keys.stored_key, keys.server_key, others)


def challenged(first: bytes = CLIENT_FIRST, known: ScramVerifier | None = None) -> ScramExchange:
    exchange = ScramExchange()
    assert isinstance(exchange.step(first), ScramLookup)
    exchange.provide(known or verifier(), SERVER_NONCE)
    return exchange


def final(first: bytes, server_first: bytes, without_proof: bytes, password: str = "pencil") -> bytes:
    """A client's last message to these, whatever they say: computed here, by the text of RFC 5802 §3."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, 4096)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    bare = first.split(b",", 2)[2]
    signature = hmac.digest(
        hashlib.sha256(client_key).digest(), b",".join((bare, server_first, without_proof)), "sha256"
    )
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return without_proof + b",p=" + base64.b64encode(proof)


@pytest.mark.conformance("C130")
def test_the_example_of_rfc_7677() -> None:
    exchange = ScramExchange()
    assert exchange.step(None) == b""
    assert exchange.step(CLIENT_FIRST) == ScramLookup("", "user")
    assert exchange.provide(verifier(), SERVER_NONCE) == SERVER_FIRST
    assert exchange.step(CLIENT_FINAL) == SERVER_FINAL
    assert exchange.step(b"") == ScramProof("", "user", True, PENCIL.stored_key)
    client = ScramClient("user", "pencil", CLIENT_NONCE)
    assert client.first() == CLIENT_FIRST
    assert client.final(SERVER_FIRST) == CLIENT_FINAL
    client.verify(SERVER_FINAL)


@given(NAME, NAME | st.just(""))
@settings(max_examples=50)
def test_names_of_all_kinds(login: str, authorization_id: str) -> None:
    """Commas and equals signs are escaped (RFC 5802 §5.1)."""
    try:
        client = ScramClient(login, "pencil", CLIENT_NONCE, authorization_id)
    except SaslError:
        return
    lookup = ScramExchange().step(client.first())
    assert isinstance(lookup, ScramLookup)
    assert lookup.authorization_id == authorization_id
    exchange = ScramExchange()
    exchange.step(client.first())
    answer = exchange.step(client.final(exchange.provide(verifier(), SERVER_NONCE)))
    assert isinstance(answer, bytes)
    client.verify(answer)
    assert exchange.step(b"") == ScramProof(authorization_id, lookup.login, True, PENCIL.stored_key)


@pytest.mark.conformance("C130")
def test_escaped_names() -> None:
    assert ScramExchange().step(b"n,a=a=2Cb=3Dc,n=d=3De=2Cf,r=x") == ScramLookup("a,b=c", "d=e,f")
    assert ScramClient("d=e,f", "p", "x", "a,b=c").first() == b"n,a=a=2Cb=3Dc,n=d=3De=2Cf,r=x"


@pytest.mark.conformance("C130")
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n",
        b"n,,",
        b"x,,n=user,r=abc",
        b",,n=user,r=abc",
        b"n,user,n=user,r=abc",
        b"n,a=,n=user,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=user",
        b"n,,n=user,r=",
        b"n,,r=abc,n=user",
        b"n,,m=ext,n=user,r=abc",
        b"n,,n=user,r=abc,m=ext",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2cer,r=abc",
        b"n,,n===2C3D,r=abc",
        b"n,,n=us\0er,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=user,r=a b",
        b"n,,n=user,r=a\xc3\xa4",
        b"n,,n=user,r=" + b"a" * 513,
        b"n,,n=" + b"u" * 256 + b",r=abc",
        b"n,,n=user,r=abc,x=" + b"y" * 4096,
        b"n,,n=user,r=abc,1=y",
        b"n,,n=user,r=abc,xy",
        b"p=tls-exporter,,n=user,r=abc",
        b"p=tls-unique,,n=user,r=abc",
    ],
)
def test_first_messages_that_are_none(message: bytes) -> None:
    with pytest.raises(SaslError):
        ScramExchange().step(message)


@pytest.mark.conformance("C130", "C132")
@pytest.mark.parametrize(
    ("first", "without_proof", "proven"),
    [
        (CLIENT_FIRST, b"c=biws,r=%b", True),
        (CLIENT_FIRST + b",x=future,y=more", b"c=biws,r=%b,z=later", True),
        # "y" is true of us: no mechanism with channel binding is offered.
        (b"y" + CLIENT_FIRST[1:], b"c=eSws,r=%b", True),
        (b"n,a=user," + CLIENT_FIRST[3:], b"c=bixhPXVzZXIs,r=%b", True),
        # A header that was changed on the way, as by who took "y" or the identity out of it.
        (CLIENT_FIRST, b"c=eSws,r=%b", False),
        (b"y" + CLIENT_FIRST[1:], b"c=biws,r=%b", False),
        (CLIENT_FIRST, b"c=bixhPXVzZXIs,r=%b", False),
        (CLIENT_FIRST, b"c=biws,r=%bx", False),
        (CLIENT_FIRST, b"c=biws,r=x%b", False),
    ],
)
def test_binding_and_nonce_are_what_was_said(first: bytes, without_proof: bytes, proven: bool) -> None:
    """The proof is right for what the client says; it is the rest that decides."""
    exchange = challenged(first)
    answer = exchange.step(final(first, SERVER_FIRST, without_proof % SERVER_FIRST[2:52]))
    if not proven:
        assert isinstance(answer, ScramProof)
        assert not answer.proven
        return
    assert isinstance(answer, bytes)
    proof = exchange.step(b"")
    assert isinstance(proof, ScramProof)
    assert proof.proven


def test_the_servers_own_nonce_alone_is_not_an_echo() -> None:
    answer = challenged().step(final(CLIENT_FIRST, SERVER_FIRST, b"c=biws,r=" + SERVER_NONCE.encode()))
    assert answer == ScramProof("", "user", False)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"c=biws,r=abc",
        b"c=biws,p=AAAA",
        b"c=biws,r=abc,p=A",
        b"c=biws,r=abc,p=!!!!",
        b"c=b,r=abc,p=AAAA",
        b"r=abc,c=biws,p=AAAA",
        b"c=biws,r=abc,m=x,p=AAAA",
        b"c=biws,r=abc,p=AAAA,x=y",
    ],
)
def test_last_messages_that_are_none(message: bytes) -> None:
    with pytest.raises(SaslError):
        challenged().step(message)


@pytest.mark.parametrize("octets", [b"", b"\0" * 31, b"\0" * 32, b"\0" * 33, b"\xff" * 32])
def test_wrong_proofs(octets: bytes) -> None:
    encoded = base64.b64encode(octets)
    message = CLIENT_FINAL.rpartition(b"p=")[0] + b"p=" + encoded
    if not encoded:
        with pytest.raises(SaslError):
            challenged().step(message + b"=")
        return
    assert challenged().step(message) == ScramProof("", "user", False)


def test_any_of_several_passwords() -> None:
    keys = [derive_keys(password, SALT, 4096) for password in ("one", "two")]
    for password, proven in (("one", keys[0]), ("two", keys[1]), ("pencil", PENCIL)):
        exchange = challenged(known=verifier(PENCIL, *keys))
        client = ScramClient("user", password, CLIENT_NONCE)
        answer = exchange.step(client.final(SERVER_FIRST))
        assert isinstance(answer, bytes)
        client.verify(answer)
        assert exchange.step(b"") == ScramProof("", "user", True, proven.stored_key)
    exchange = challenged(known=verifier(PENCIL, *keys))
    client = ScramClient("user", "three", CLIENT_NONCE)
    assert exchange.step(client.final(SERVER_FIRST)) == ScramProof("", "user", False)


@given(st.binary(max_size=60), st.binary(max_size=60), st.booleans())
def test_random_octets_raise_one_error(first: bytes, second: bytes, well_begun: bool) -> None:
    exchange = ScramExchange()
    try:
        if isinstance(exchange.step(CLIENT_FIRST if well_begun else first), ScramLookup):
            exchange.provide(verifier(), SERVER_NONCE)
            assert isinstance(exchange.step(second), ScramProof)
    except SaslError:
        pass


def test_the_servers_last_message_is_answered_by_nothing() -> None:
    exchange = challenged()
    exchange.step(CLIENT_FINAL)
    with pytest.raises(SaslError):
        exchange.step(b"more")
    with pytest.raises(LocalProtocolError):
        exchange.step(b"")


def test_out_of_turn() -> None:
    with pytest.raises(LocalProtocolError):
        ScramExchange().provide(verifier(), SERVER_NONCE)
    exchange = ScramExchange()
    exchange.step(CLIENT_FIRST)
    with pytest.raises(LocalProtocolError):
        exchange.step(CLIENT_FINAL)
    for nonce in ("", "a,b", "a b", "ä"):
        with pytest.raises(LocalProtocolError):
            exchange.provide(verifier(), nonce)


@pytest.mark.conformance("C130")
@pytest.mark.parametrize(
    "server_first",
    [
        SERVER_FIRST.replace(b"i=4096", b"i=1"),
        SERVER_FIRST.replace(b"i=4096", b"i=4095"),
        SERVER_FIRST.replace(b"i=4096", b"i=1000000000"),
        SERVER_FIRST.replace(b"i=4096", b"i=9" + b"9" * 1000),
        SERVER_FIRST.replace(b"i=4096", b"i=-4096"),
        SERVER_FIRST.replace(b"i=4096", b"i="),
        SERVER_FIRST.replace(b"r=rOpr", b"r=rOpx"),
        b"r=" + CLIENT_NONCE.encode() + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"r=" + CLIENT_NONCE.encode() + b"short,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s=!"),
        b"m=x," + SERVER_FIRST,
        b"e=unknown-user",
        b"",
        SERVER_FIRST + b",x=" + b"y" * 4096,
    ],
)
def test_servers_that_the_client_does_not_trust(server_first: bytes) -> None:
    with pytest.raises(SaslError):
        ScramClient("user", "pencil", CLIENT_NONCE).final(server_first)


@pytest.mark.conformance("C130")
@pytest.mark.parametrize(
    "server_final",
    [b"", b"v=", b"v=" + base64.b64encode(b"\0" * 32), b"e=invalid-proof", b"e=other\r\n\x1b[m", SERVER_FINAL[:-4]],
)
def test_a_server_that_does_not_know_the_password(server_final: bytes) -> None:
    client = ScramClient("user", "pencil", CLIENT_NONCE)
    client.final(SERVER_FIRST)
    with pytest.raises(SaslError) as raised:
        client.verify(server_final)
    assert str(raised.value).isprintable()


def test_the_client_believes_no_verdict_before_its_proof() -> None:
    with pytest.raises(SaslError):
        ScramClient("user", "pencil", CLIENT_NONCE).verify(SERVER_FINAL)


@pytest.mark.conformance("C299")
def test_keys_do_not_show() -> None:
    for value in (verifier(PENCIL, PENCIL), PENCIL, ScramProof("", "user", True, PENCIL.stored_key)):
        assert repr(PENCIL.stored_key)[2:12] not in repr(value)
        assert repr(PENCIL.server_key)[2:12] not in repr(value)
