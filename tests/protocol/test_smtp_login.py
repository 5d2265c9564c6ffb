"""AUTH in the server half: exchanges, their order, and what an aborted one leaves behind: nothing (RFC 4954)."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from posthouse.mail.reply import Reply, reply
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.events import NEED_DATA, Command
from posthouse.protocol.sasl import ScramVerifier
from posthouse.protocol.sasl_scram import ScramClient, derive_keys
from posthouse.protocol.smtp import Authenticate, Hello, Mail, ScramVerifierWanted
from posthouse.protocol.smtp_server import Rejected, SmtpServer
from tests.protocol.smtp_reception import OPTIONS, Reception

ALL = replace(OPTIONS, auth_mechanisms=("SCRAM-SHA-256", "PLAIN", "LOGIN"))
SALT, NONCE = b"0123456789abcdef", "3rfcNHYJY1ZVvWVs7j3rfcNHYJY1ZVvWVs7j"
KEYS = derive_keys("pencil", SALT, 4096)
VERIFIER = ScramVerifier(SALT, 4096, KEYS.stored_key, KEYS.server_key)


def b64(text: bytes | str) -> bytes:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode())


class Login(Reception):
    """Answers a question for a verifier; keeps what was authenticated."""

    def __post_init__(self) -> None:
        self.asked: list[Authenticate] = []
        super().__post_init__()
        self.say(b"EHLO c.test\r\n")

    def pump(self) -> None:
        # The one command that is not answered by a reply.
        while True:
            try:
                super().pump()
                return
            except _ProvideInstead:
                self.server.provide_scram(VERIFIER, NONCE)

    def decide(self, command: Command) -> Reply:
        if isinstance(command, ScramVerifierWanted):
            if command.login == "later":
                return reply(454, "4.7.0", "Later")
            raise _ProvideInstead
        if isinstance(command, Authenticate):
            self.asked.append(command)
            right = command.proven if command.proven is not None else command.password in ("right", "pencil")
            return reply(235, "2.7.0", "Welcome") if right else reply(535, "5.7.8", "No")
        return super().decide(command)


class _ProvideInstead(Exception):
    """A verifier is to be provided."""


def code(octets: bytes) -> int:
    lines = octets.split(b"\r\n")[:-1]
    assert len(lines) == 1, octets
    return int(lines[0][:3])


def challenge(octets: bytes) -> bytes:
    assert octets.startswith(b"334 "), octets
    return base64.b64decode(octets[4:-2], validate=True)


# SCRAM-SHA-256.


def test_scram() -> None:
    session, client = Login(ALL), ScramClient("user", "pencil", "rOprNGfwEbeRWgbNEkqO")
    server_first = challenge(session.say(b"AUTH SCRAM-SHA-256 " + b64(client.first()) + b"\r\n"))
    client.verify(challenge(session.say(b64(client.final(server_first)) + b"\r\n")))
    assert session.asked == [], "the server's signature was not acknowledged yet"
    assert code(session.say(b"\r\n")) == 235
    asked = Authenticate("SCRAM-SHA-256", "", "user", "", proven=True, stored_key=KEYS.stored_key)
    assert session.asked == [asked]
    assert session.server.authenticated
    assert code(session.say(b"AUTH PLAIN\r\n")) == 503


def test_scram_without_initial_response_and_with_a_wrong_password() -> None:
    session, client = Login(ALL), ScramClient("user", "pen", "rOprNGfwEbeRWgbNEkqO", "other")
    assert session.say(b"AUTH SCRAM-SHA-256\r\n") == b"334 \r\n"
    server_first = challenge(session.say(b64(client.first()) + b"\r\n"))
    assert code(session.say(b64(client.final(server_first)) + b"\r\n")) == 535
    assert session.asked == [Authenticate("SCRAM-SHA-256", "other", "user", "", proven=False)]
    assert not session.server.authenticated


@pytest.mark.conformance("C123")
def test_a_verifier_that_cannot_be_had_ends_the_exchange() -> None:
    session = Login(ALL)
    assert code(session.say(b"AUTH SCRAM-SHA-256 " + b64("n,,n=later,r=x") + b"\r\n")) == 454
    assert code(session.say(b"AUTH PLAIN " + b64("\0a\0right") + b"\r\n")) == 235


def test_a_verifier_is_provided_once_and_only_when_asked() -> None:
    server = SmtpServer(ALL)
    server.greet()
    server.receive(b"EHLO c.test\r\nAUTH SCRAM-SHA-256 " + b64("n,,n=user,r=x") + b"\r\n")
    with pytest.raises(LocalProtocolError):
        server.provide_scram(VERIFIER, NONCE)
    assert server.next_event() == Hello("c.test", True)
    server.reply(reply(250, None, ""))
    assert server.next_event() == ScramVerifierWanted("user")
    with pytest.raises(LocalProtocolError):
        server.next_event()
    server.provide_scram(VERIFIER, NONCE)
    with pytest.raises(LocalProtocolError):
        server.provide_scram(VERIFIER, NONCE)
    assert server.next_event() is NEED_DATA


@pytest.mark.parametrize("end", [b"*", b"!!", b64("x"), b64("c=biws,r=x,p=eA=="), b"A" * 13_000, b"a\nb"])
def test_a_broken_scram_exchange_is_over(end: bytes) -> None:
    session = Login(ALL)
    challenge(session.say(b"AUTH SCRAM-SHA-256 " + b64("n,,n=user,r=x") + b"\r\n"))
    assert code(session.say(end + b"\r\n")) in (500, 501, 535)
    assert not any(event.proven for event in session.asked)
    assert code(session.say(b"AUTH PLAIN " + b64("\0a\0right") + b"\r\n")) == 235


# PLAIN and LOGIN.


@pytest.mark.conformance("C127")
@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("\0user\0right", 235),
        ("user\0user\0right", 235),
        ("other\0user\0right", "other"),
        ("\0us\u00e9r\0right", 235),
        ("\0" + "u" * 255 + "\0right", 235),
        ("\0" + "u" * 256 + "\0right", 501),
        ("a" * 256 + "\0u\0right", 501),
        ("\0\0right", 501),
        ("\0user\0", 501),
        ("user\0right", 501),
        ("\0user\0right\0", 501),
        ("", 501),
        (b"\0\xff\xfe\0right", 501),
        ("\0user\0wrong", 535),
    ],
)
def test_plain(message: str | bytes, wanted: int | str) -> None:
    session = Login(ALL)
    answered = code(session.say(b"AUTH PLAIN " + (b64(message) or b"=") + b"\r\n"))
    if isinstance(wanted, str):
        assert session.asked[0].authorization_id == wanted, "the driver decides who may act for whom"
    else:
        assert answered == wanted
    assert (session.asked == []) == (wanted == 501)


@pytest.mark.conformance("C129")
@pytest.mark.parametrize(
    "dialogue", [[b"AUTH LOGIN", b64("user")], [b"AUTH LOGIN " + b64("user")], [b"auth login", b64("user")]]
)
def test_login_as_mail_programs_speak_it(dialogue: list[bytes]) -> None:
    """Outlook waits for the prompt; getmail and others bring the name along."""
    session = Login(ALL)
    if len(dialogue) == 2:
        assert session.say(dialogue[0] + b"\r\n") == b"334 VXNlcm5hbWU6\r\n"
    assert session.say(dialogue[-1] + b"\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert code(session.say(b64("right") + b"\r\n")) == 235
    assert session.asked == [Authenticate("LOGIN", "", "user", "right")]


# Order and errors.


@pytest.mark.conformance("C120")
def test_auth_comes_once_and_outside_a_transaction() -> None:
    session = Login(ALL)
    assert code(session.say(b"MAIL FROM:<a@b.test>\r\n")) == 250
    assert code(session.say(b"AUTH PLAIN " + b64("\0u\0right") + b"\r\n")) == 503
    assert code(session.say(b"RCPT TO:<c@d.test>\r\n")) == 250, "the transaction is kept"
    assert code(session.say(b"RSET\r\n")) == 250
    assert code(session.say(b"AUTH PLAIN " + b64("\0u\0right") + b"\r\n")) == 235
    for mechanism in (b"PLAIN", b"LOGIN", b"SCRAM-SHA-256"):
        assert code(session.say(b"AUTH " + mechanism + b"\r\n")) == 503


@pytest.mark.conformance("C121")
def test_an_empty_initial_response_and_an_empty_challenge() -> None:
    session = Login(ALL)
    assert session.say(b"AUTH PLAIN\r\n") == b"334 \r\n"
    assert code(session.say(b"*\r\n")) == 501
    assert code(session.say(b"AUTH PLAIN =\r\n")) == 501, "it is a message, and an empty one"
    assert session.say(b"AUTH LOGIN =\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert code(session.say(b"*\r\n")) == 501
    assert code(session.say(b"AUTH EXTERNAL =\r\n")) == 504


@pytest.mark.conformance("C122", "C308", "S35")
@pytest.mark.parametrize(
    "response",
    [
        *(b"*", b"!!!!", b"AGEAcg", b"AGEAcg=", b"AGEAcg===", b"AGEAcg====", b"A GEAcg==", b" AGEAcg==", b"AGEAcg== "),
        *(b"AGEAcg==AGEAcg==", b"AG\tEAcg==", b"=", b"====", b"AGEA\0cg==", b"AGEA_g==", b"\xff", "ＡGEA".encode()),
    ],
    ids=repr,
)
@pytest.mark.parametrize("begin", [b"AUTH PLAIN", b"AUTH LOGIN", b"AUTH SCRAM-SHA-256"])
def test_base64_is_strict_and_nothing_is_left_of_an_aborted_exchange(begin: bytes, response: bytes) -> None:
    session = Login(ALL)
    assert session.say(begin + b"\r\n").startswith(b"334 ")
    assert session.say(response + b"\r\n")[:9] in (b"501 5.5.2", b"501 5.7.0")
    # Another mechanism, aborted too; then a login, in which nothing of them counts.
    assert session.say(b"AUTH LOGIN " + b64("evil") + b"\r\n").startswith(b"334 ")
    assert code(session.say(b"*\r\n")) == 501
    assert session.say(b"AUTH LOGIN\r\n") == b"334 VXNlcm5hbWU6\r\n"
    session.say(b64("user") + b"\r\n")
    assert code(session.say(b64("right") + b"\r\n")) == 235
    assert session.asked == [Authenticate("LOGIN", "", "user", "right")]


@pytest.mark.conformance("C122")
def test_lines_of_an_exchange_have_a_limit() -> None:
    for size, wanted in ((12_288 - 2, b"501"), (12_288 - 1, b"500 5.5.6"), (60_000, b"500 5.5.6")):
        session = Login(ALL)
        session.say(b"AUTH PLAIN\r\n")
        assert session.say(b"A" * size + b"\r\n").startswith(wanted)
        assert session.say(b"AUTH PLAIN " + b"A" * (size - 11) + b"\r\n").startswith(wanted)
        assert code(session.say(b"AUTH PLAIN " + b64("\0u\0right") + b"\r\n")) == 235


@pytest.mark.conformance("C122")
@pytest.mark.parametrize("mechanism", [b"EXTERNAL", b"CRAM-MD5", b"ANONYMOUS", b"SCRAM-SHA-256-PLUS", b"X", b"PLAIN,"])
def test_other_mechanisms_are_not_offered(mechanism: bytes) -> None:
    session = Login(ALL)
    assert session.say(b"AUTH " + mechanism + b"\r\n").startswith(b"504 5.5.4 ")
    assert b"EXTERNAL" not in session.say(b"EHLO c.test\r\n")
    assert Login(replace(ALL, auth_mechanisms=("PLAIN",))).say(b"AUTH LOGIN\r\n").startswith(b"504 5.5.4 ")


@pytest.mark.conformance("C119", "C123", "C128")
def test_before_tls_auth_is_not_offered_and_the_reason_is_told() -> None:
    session = Login(replace(OPTIONS, starttls=True, auth_required=True, auth_after_tls=True))
    assert b"AUTH" not in session.say(b"EHLO c.test\r\n")
    for line in (b"AUTH PLAIN " + b64("\0user\0right"), b"AUTH LOGIN", b"AUTH"):
        assert session.say(line + b"\r\n").startswith(b"538 5.7.11 ")
    assert session.asked == []
    assert "right" not in repr(session.events)
    assert session.say(b"MAIL FROM:<>\r\n").startswith(b"530 5.7.0 ")
    assert session.say(b"STARTTLS\r\n").startswith(b"220 ")
    session.server.tls_started(replace(ALL, auth_required=True))
    assert b"250 AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n" in session.say(b"EHLO c.test\r\n")
    assert code(session.say(b"AUTH PLAIN " + b64("\0user\0right") + b"\r\n")) == 235


@pytest.mark.conformance("C126", "C139", "S35")
def test_starttls_clears_a_login() -> None:
    session = Login(replace(ALL, auth_required=True, starttls=True))
    assert code(session.say(b"AUTH PLAIN " + b64("\0user\0right") + b"\r\n")) == 235
    assert code(session.say(b"STARTTLS\r\n")) == 220
    session.server.tls_started(replace(ALL, auth_required=True))
    session.say(b"EHLO c.test\r\n")
    assert session.say(b"MAIL FROM:<>\r\n").startswith(b"530 5.7.0 ")


@pytest.mark.conformance("C114")
@pytest.mark.parametrize("line", [b"MAIL FROM:<>", b"RCPT TO:<c@d.test>", b"VRFY x", b"EXPN x", b"DATA", b"ETRN x"])
def test_without_a_login_there_is_little(line: bytes) -> None:
    session = Login(replace(ALL, auth_required=True))
    assert session.say(line + b"\r\n") == b"530 5.7.0 Authentication required\r\n"
    assert session.say(b"BDAT 6 LAST\r\nQUIT\r\n") == b"530 5.7.0 Authentication required\r\n"
    for allowed in (b"NOOP", b"RSET", b"HELP", b"HELO x", b"QUIT"):
        assert session.say(allowed + b"\r\n")[:1] == b"2"


@pytest.mark.conformance("C124", "S8")
@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        *((b"<>", 250), (b"e+3Dmc2@example.com", 250), (b"a@b.test", 250), (b"a+2Bb@c.test", 250)),
        *((b"+ZZ", 501), (b"a+0Ab", 501), (b"a+0Db", 501), (b"a+00b", 501), (b"a+0", 501), (b"", 501), (b"a=b", 501)),
        *((b"+3d", 501), (b"\xc3\xa9", 501), (b"a+C3+A9", 501), (b"a\0", 501)),
    ],
)
def test_whom_a_peer_speaks_for_is_checked_and_ignored(value: bytes, wanted: int) -> None:
    session = Login(ALL)
    assert code(session.say(b"MAIL FROM:<a@b.test> AUTH=" + value + b"\r\n")) == wanted
    mails = [event for event in session.events if isinstance(event, Mail)]
    assert len(mails) == (wanted == 250)
    assert "example" not in repr(mails)
    assert not session.server.authenticated


@pytest.mark.conformance("C299")
def test_what_was_said_in_an_exchange_is_in_no_notice() -> None:
    session = Login(ALL)
    for line in (
        b"AUTH PLAIN " + b64("\0user\0secret") + b"!",
        b"AUTH LOGIN " + b64("secret"),
        b"secret",
        b"AUTH secret x",
    ):
        session.say(line + b"\r\n")
    assert all(event.line_verb == "AUTH" for event in session.events if isinstance(event, Rejected))
    assert "secret" not in repr(session.events)
    assert b64("secret").decode() not in repr(session.events)
