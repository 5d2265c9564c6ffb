"""Logging in at a peer: the strongest mechanism, nothing to a peer that does not know the password itself."""

from __future__ import annotations

import pytest

from posthouse.mail.source import Mechanism
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.sasl import ScramExchange, ScramProof, ScramVerifier, decode_base64, encode_base64
from posthouse.protocol.sasl_oauth import oauth_message
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


TOKEN = "ya29.a0Af-TOKEN_~+/=="
MESSAGES = {
    Mechanism.XOAUTH2: f"user=ada@far.test\x01auth=Bearer {TOKEN}\x01\x01",
    Mechanism.OAUTHBEARER: f"n,a=ada@far.test,\x01auth=Bearer {TOKEN}\x01\x01",
}
DISMISSED = {Mechanism.XOAUTH2: "", Mechanism.OAUTHBEARER: "AQ=="}


def spelled(mechanism: Mechanism) -> str:
    return encode_base64(MESSAGES[mechanism].encode()).decode()


@pytest.mark.parametrize("mechanism", MESSAGES)
def test_a_token_goes_with_the_command_where_it_fits(mechanism: Mechanism) -> None:
    client = ready("AUTH PLAIN XOAUTH2 OAUTHBEARER")
    client.login("ada@far.test", TOKEN, NONCE, mechanism=mechanism)
    assert client.outgoing().decode() == f"AUTH {mechanism.upper()} {spelled(mechanism)}\r\n"
    assert replied(client, "235 2.7.0 in").fault is None


@pytest.mark.parametrize("mechanism", MESSAGES)
def test_a_long_token_goes_when_it_is_asked_for(mechanism: Mechanism) -> None:
    client = ready("AUTH XOAUTH2 OAUTHBEARER")
    client.login("ada@far.test", "t" * 2000, NONCE, mechanism=mechanism)
    assert client.outgoing().decode() == f"AUTH {mechanism.upper()}\r\n"
    assert decode_base64(answered(client, "334 ").encode()).endswith(b"t" * 2000 + b"\x01\x01")
    assert replied(client, "235 2.7.0 in").fault is None


@pytest.mark.parametrize("mechanism", MESSAGES)
def test_what_is_wrong_with_a_token_is_dismissed_before_the_refusal(mechanism: Mechanism) -> None:
    client = ready("AUTH XOAUTH2 OAUTHBEARER")
    client.login("ada@far.test", TOKEN, NONCE, mechanism=mechanism)
    client.outgoing()
    assert answered(client, "334 eyJzdGF0dXMiOiI0MDEifQ==") == DISMISSED[mechanism]
    refused = replied(client, "535 5.7.8 expired")
    assert (refused.reply.code, refused.fault) == (535, None)
    # Another mechanism would not help, and a token is no password.
    assert not client.weaker_mechanisms


def test_a_peer_that_refuses_a_token_and_takes_it_is_not_trusted() -> None:
    client = ready("AUTH XOAUTH2")
    client.login("ada@far.test", TOKEN, NONCE, mechanism=Mechanism.XOAUTH2)
    client.outgoing()
    answered(client, "334 e30=")
    assert replied(client, "235 2.7.0 in").fault is not None


def test_a_peer_that_asks_for_more_than_a_token_is_cancelled() -> None:
    client = ready("AUTH XOAUTH2")
    client.login("ada@far.test", TOKEN, NONCE, mechanism=Mechanism.XOAUTH2)
    client.outgoing()
    answered(client, "334 e30=")
    assert answered(client, "334 e30=") == "*"


@pytest.mark.parametrize(
    ("login", "token", "offered", "words"),
    [
        ("ada", "x", "PLAIN LOGIN", "does not offer XOAUTH2"),
        ("ada", "two words", "XOAUTH2", "no token has"),
        ("ada", "x\x01auth=Bearer y", "XOAUTH2", "no token has"),
        ("ada\x01auth=Bearer y", "x", "XOAUTH2", "cannot be sent"),
        ("ada", "x" * 12000, "XOAUTH2", "too long"),
    ],
)
def test_a_token_that_cannot_be_sent_is_not(login: str, token: str, offered: str, words: str) -> None:
    client = ready(f"AUTH {offered}")
    with pytest.raises(LocalProtocolError, match=words) as caught:
        client.login(login, token, NONCE, mechanism=Mechanism.XOAUTH2)
    assert token not in str(caught.value) or token == "x"
    assert client.outgoing() == b""


def test_a_name_cannot_become_another_part_of_the_header() -> None:
    assert oauth_message(Mechanism.OAUTHBEARER, "a,b=c", "t").startswith(b"n,a=a=2Cb=3Dc,\x01")
