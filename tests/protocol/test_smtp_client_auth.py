"""Logging in at a peer: the strongest mechanism, nothing to a peer that does not know the password itself."""

from __future__ import annotations

import pytest

from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.sasl import ScramExchange, ScramProof, ScramVerifier, decode_base64, encode_base64
from posthouse.protocol.sasl_scram import derive_keys
from posthouse.protocol.smtp_client import AuthReplied, Challenged, SmtpClient
from tests.protocol.test_smtp_client import ready

NONCE = "0123456789abcdefghijklmn"
SALT = b"0123456789abcdef"


def answered(client: SmtpClient, line: str) -> str:
    """Play a 334; what the client says to it."""
    client.receive(line.encode() + b"\r\n")
    assert isinstance(client.next_event(), Challenged)
    client.answer_challenge()
    return client.outgoing().decode().removesuffix("\r\n")


def replied(client: SmtpClient, line: str) -> AuthReplied:
    client.receive(line.encode() + b"\r\n")
    event = client.next_event()
    assert isinstance(event, AuthReplied)
    return event


class Server:
    """The server's side of SCRAM, which knows `password`."""

    def __init__(self, password: str) -> None:
        keys = derive_keys(password, SALT, 4096)
        self.exchange = ScramExchange()
        self.verifier = ScramVerifier(SALT, 4096, keys.stored_key, keys.server_key)

    def first(self, line: str) -> str:
        verb, mechanism, response = line.split(" ")
        assert (verb, mechanism) == ("AUTH", "SCRAM-SHA-256")
        self.exchange.step(decode_base64(response.encode()))
        return "334 " + encode_base64(self.exchange.provide(self.verifier, NONCE[::-1])).decode()

    def final(self, response: str) -> bytes:
        answer = self.exchange.step(decode_base64(response.encode()))
        assert isinstance(answer, bytes)
        return answer


def at_the_proof(password: str = "secret") -> tuple[SmtpClient, Server, str]:
    client, server = ready("AUTH PLAIN SCRAM-SHA-256"), Server("secret")
    client.login("ada", password, NONCE)
    line = client.outgoing().decode().removesuffix("\r\n")
    return client, server, answered(client, server.first(line))


def test_scram_with_our_own_server() -> None:
    client, server, proof = at_the_proof()
    signature = encode_base64(server.final(proof)).decode()
    assert answered(client, f"334 {signature}") == ""
    proven = server.exchange.step(b"")
    assert isinstance(proven, ScramProof)
    assert proven.proven
    assert replied(client, "235 2.7.0 welcome").fault is None


@pytest.mark.conformance("S5")
@pytest.mark.parametrize("skipped", [False, True])
def test_a_server_that_does_not_know_the_password(skipped: bool) -> None:
    """A wrong signature is answered by a cancel; 235 without any is a failure all the same."""
    client, _server, _proof = at_the_proof()
    if not skipped:
        assert answered(client, "334 " + encode_base64(b"v=" + encode_base64(bytes(32))).decode()) == "*"
    fault = replied(client, "235 2.7.0 welcome").fault
    assert fault is not None
    assert "password" in fault


def test_a_refused_login_is_the_peers_word() -> None:
    client, _server, _proof = at_the_proof("wrong")
    event = replied(client, "535 5.7.8 no")
    assert (event.reply.code, event.fault) == (535, None)


@pytest.mark.parametrize(
    "challenge",
    ["", "*", "cj0x", "====", "\xff", "cj1vdGhlcixzPVlRPT0saT00MDk2", encode_base64(b"r=" + b"x" * 3000).decode()],
)
def test_a_challenge_that_is_none(challenge: str) -> None:
    client = ready("AUTH SCRAM-SHA-256")
    client.login("ada", "secret", NONCE)
    client.outgoing()
    assert answered(client, f"334 {challenge}") == "*"
    event = replied(client, "501 cancelled")
    assert event.fault is not None
    assert event.reply.code == 501


def test_a_server_that_asks_without_end() -> None:
    client = ready("AUTH PLAIN")
    client.login("ada", "secret", NONCE)
    client.outgoing()
    assert answered(client, "334 more") == "*"
    client.receive(b"334 more\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("PLAIN LOGIN", "AUTH PLAIN AGFkYQBzZWNyZXQ="),
        ("login cram-md5", "AUTH LOGIN"),
        ("LOGIN plain SCRAM-SHA-256", "AUTH SCRAM-SHA-256 biwsbj1hZGEscj0wMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW4="),
    ],
)
def test_the_strongest_mechanism_is_taken(offered: str, chosen: str) -> None:
    client = ready(f"AUTH {offered}")
    client.login("ada", "secret", NONCE)
    assert client.outgoing().decode() == f"{chosen}\r\n"


@pytest.mark.parametrize("offered", [(), ("AUTH",), ("AUTH GSSAPI SCRAM-SHA-256-PLUS",), ("X AUTH=PLAIN",)])
def test_nothing_is_tried_where_no_mechanism_is_known(offered: tuple[str, ...]) -> None:
    client = ready(*offered)
    with pytest.raises(LocalProtocolError):
        client.login("ada", "secret", NONCE)
    assert client.outgoing() == b""


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize(("login", "password"), [("", "x"), ("a\0b", "x"), ("a", "x\0y"), ("l" * 300, "x")])
@pytest.mark.conformance("S18")
def test_what_a_login_cannot_carry(mechanism: str, login: str, password: str) -> None:
    client = ready(f"AUTH {mechanism}")
    with pytest.raises(LocalProtocolError):
        client.login(login, password, NONCE)
    assert client.outgoing() == b""


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_long_first_message_waits_for_an_empty_challenge(mechanism: str) -> None:
    """RFC 4954 §4: AUTH and its initial response fit into 512 octets, or the response comes later."""
    client = ready(f"AUTH {mechanism}")
    client.login("l" * 255, "secret" * 30, NONCE * 5)
    assert client.outgoing().decode() == f"AUTH {mechanism}\r\n"
    assert len(answered(client, "334 ")) >= 500


def test_there_is_nothing_to_answer_unasked() -> None:
    with pytest.raises(LocalProtocolError):
        ready("AUTH PLAIN").answer_challenge()
