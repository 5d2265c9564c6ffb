"""Postfix as the smarthost of a house: STARTTLS with a verified certificate, and a login that must be right.

Postfix asks an authentication server in Dovecot's protocol; a small one here knows one password.
"""

from __future__ import annotations

import base64
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.peers import maildrop, odd_messages
from tests.peers.postfix import PostfixServer
from tests.peers.programs import wait_until
from tests.running_house import RunningHouse

from posthouse.net.tls import make_self_signed

pytestmark = pytest.mark.peers

BEN = "ben@far.test"
USER, SECRET = "house", "correct horse"
CONTENTS = odd_messages.well_formed(20)


class AuthServer(socketserver.ThreadingTCPServer):
    """Says OK to USER with SECRET by PLAIN."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _AuthSession)
        self.asked: list[bool] = []


class _AuthSession(socketserver.StreamRequestHandler):
    server: AuthServer

    def handle(self) -> None:
        self.wfile.write(b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t" + b"0" * 32 + b"\nDONE\n")
        for line in self.rfile:
            fields = line.rstrip(b"\n").split(b"\t")
            if fields[0] != b"AUTH":
                continue
            response = next(field[5:] for field in fields if field.startswith(b"resp="))
            right = base64.b64decode(response).split(b"\0")[1:] == [USER.encode(), SECRET.encode()]
            self.server.asked.append(right)
            answer = b"OK\t" + fields[1] + b"\tuser=" + USER.encode() if right else b"FAIL\t" + fields[1]
            self.wfile.write(answer + b"\n")


@pytest.fixture
def auth_server() -> Iterator[AuthServer]:
    with AuthServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def smarthost(postfix: PostfixServer, auth_server: AuthServer, tmp_path: Path) -> PostfixServer:
    make_self_signed("[127.0.0.1]", tmp_path / "p.pem", tmp_path / "p.key", time.time())
    chain = postfix.folder / "chain.pem"
    chain.write_bytes((tmp_path / "p.key").read_bytes() + (tmp_path / "p.pem").read_bytes())
    postfix.offer_tls(chain)
    postfix.set("smtpd_tls_auth_only", "yes")
    postfix.set("smtpd_sasl_auth_enable", "yes")
    postfix.set("smtpd_sasl_type", "dovecot")
    postfix.set("smtpd_sasl_path", f"inet:127.0.0.1:{auth_server.server_address[1]}")
    postfix.set("mynetworks", "192.0.2.0/24")
    postfix.set("smtpd_relay_restrictions", "permit_sasl_authenticated, reject")
    postfix.deliver(BEN)
    postfix.start()
    return postfix


def house(folder: Path, smarthost: PostfixServer, password: str, authorities: Path | None) -> RunningHouse:
    """A house that sends everything to the smarthost, with this password."""
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o600)
    hop = f"127.0.0.1:{smarthost.port}"
    forwarding: dict[str, object] = {
        "routes": {"*": hop},
        "login": {hop: {"user": USER, "password_file": "password", "tls": "required"}},
        "retry": ["200ms"],
    }
    if authorities is not None:
        forwarding["tls_authorities"] = str(authorities)
    return RunningHouse(folder, forwarding=forwarding, reception={"trusted_networks": ["127.0.0.0/8"]})


def test_mail_leaves_through_postfix_with_a_login_over_tls(
    smarthost: PostfixServer, auth_server: AuthServer, tmp_path: Path
) -> None:
    with house(tmp_path, smarthost, SECRET, tmp_path / "p.pem") as here:
        maildrop.submit(here, [BEN], CONTENTS)
        messages = smarthost.wait_for_messages(BEN, len(CONTENTS))
        wait_until(lambda: maildrop.queue_length(here) == 0, "the queue is not empty")
    assert sorted(map(odd_messages.number_of, messages)) == sorted(map(odd_messages.number_of, CONTENTS))
    assert all(auth_server.asked)
    assert b"ESMTPSA" in messages[0]


@pytest.mark.conformance("S5")
@pytest.mark.parametrize("trusted", [True, False])
def test_nothing_is_sent_where_login_or_certificate_is_wrong(
    smarthost: PostfixServer, auth_server: AuthServer, tmp_path: Path, trusted: bool
) -> None:
    with house(tmp_path, smarthost, "wrong", tmp_path / "p.pem" if trusted else None) as here:
        maildrop.submit(here, [BEN], CONTENTS[:1])
        smarthost.wait_for_log("authentication failed" if trusted else "SSL_accept error")
    assert smarthost.messages(BEN) == []
    # Without a certificate that is right, the password was never sent.
    assert set(auth_server.asked) == ({False} if trusted else set())
