"""The peers by themselves: what later tests take for granted when Posthouse stands in the place of one of them."""

from __future__ import annotations

import datetime
import smtplib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.peers.load import SmtpSink, SmtpSource
from tests.peers.postfix import PostfixServer
from tests.peers.programs import Program

pytestmark = pytest.mark.peers

CONTENT = b"From: anna@client.test\r\nSubject: By the post road\r\n\r\nFresh horses.\r\n..two dots\r\n"


def self_signed_chain(folder: Path, name: str) -> Path:
    """A PEM file with a key and its own certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / "chain.pem"
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem))
    return path


class TestPostfix:
    def test_relays_to_another_which_delivers(self, new_postfix: Callable[[str], PostfixServer]) -> None:
        near, far = new_postfix("near.test"), new_postfix("far.test")
        near.relay("far.test", far.port)
        far.deliver("ben@far.test")
        far.start()
        near.start()
        near.send("anna@client.test", ["ben@far.test"], CONTENT)
        (message,) = far.wait_for_messages("ben@far.test")
        assert message.endswith(b"\n\nFresh horses.\n..two dots\n")
        assert b"Return-Path: <anna@client.test>\n" in message
        near.wait_for_empty_queue()
        assert "status=sent" in near.log()

    def test_refuses_an_address_it_does_not_know(self, postfix: PostfixServer) -> None:
        postfix.deliver("ben@far.test")
        postfix.start()
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            postfix.send("anna@client.test", ["nobody@far.test"], CONTENT)
        assert refused.value.recipients["nobody@far.test"][0] == 550

    def test_keeps_what_it_cannot_send_and_tries_again(self, new_postfix: Callable[[str], PostfixServer]) -> None:
        near, far = new_postfix("near.test"), new_postfix("far.test")
        near.relay("far.test", far.port)
        far.deliver("ben@far.test")
        near.start()
        near.send("anna@client.test", ["ben@far.test"], CONTENT)
        near.wait_for_log("status=deferred")
        assert len(near.queue()) == 1
        far.start()
        near.flush()
        assert len(far.wait_for_messages("ben@far.test")) == 1

    def test_starts_again_with_its_queue(self, postfix: PostfixServer) -> None:
        postfix.set("defer_transports", "smtp")
        postfix.relay("far.test", 9)
        postfix.start()
        postfix.send("anna@client.test", ["ben@far.test"], CONTENT)
        postfix.stop()
        postfix.start()
        assert len(postfix.queue()) == 1

    def test_encrypts_when_both_can(self, new_postfix: Callable[[str], PostfixServer], tmp_path: Path) -> None:
        near, far = new_postfix("near.test"), new_postfix("far.test")
        near.relay("far.test", far.port)
        near.set("smtp_tls_security_level", "may")
        near.set("smtp_tls_loglevel", "1")
        far.offer_tls(self_signed_chain(tmp_path, "far.test"))
        far.deliver("ben@far.test")
        far.start()
        near.start()
        near.send("anna@client.test", ["ben@far.test"], CONTENT)
        assert len(far.wait_for_messages("ben@far.test")) == 1
        assert "TLS connection established to 127.0.0.1" in near.log()


class TestSourceAndSink:
    def test_source_fills_sink(self, smtp_source: SmtpSource, smtp_sink: SmtpSink) -> None:
        run = smtp_source.send(smtp_sink.port, messages=20, sessions=4, forward_path="ben@house.test")
        assert run.succeeded, str(run)
        assert all(b"<ben@house.test>" in message for message in smtp_sink.wait_for_messages(20))

    def test_source_says_when_nobody_listens(self, smtp_source: SmtpSource, smtp_sink: SmtpSink) -> None:
        smtp_sink.stop()
        assert not smtp_source.send(smtp_sink.port).succeeded


class TestMailPrograms:
    def test_swaks_sends(self, swaks: Program, smtp_sink: SmtpSink) -> None:
        run = swaks("--server", f"127.0.0.1:{smtp_sink.port}", "--helo", "client.test", "--to", "ben@house.test")
        assert run.succeeded, str(run)
        assert len(smtp_sink.wait_for_messages(1)) == 1

    def test_swaks_has_tls_and_authentication(self, swaks: Program) -> None:
        support = swaks("--support").stdout.decode()
        assert "TLS supported" in support
        assert "AUTH CRAM-MD5 supported" in support

    def test_curl_sends(self, curl: Program, smtp_sink: SmtpSink) -> None:
        paths = ["--mail-from", "anna@client.test", "--mail-rcpt", "ben@house.test"]
        url = f"smtp://127.0.0.1:{smtp_sink.port}/client.test"
        run = curl("-sS", "--disable", *paths, "-T", "-", url, content=CONTENT)
        assert run.succeeded, str(run)
        (message,) = smtp_sink.wait_for_messages(1)
        assert b"Fresh horses." in message

    def test_msmtp_sends(self, msmtp: Program, smtp_sink: SmtpSink) -> None:
        server = ["--host=127.0.0.1", f"--port={smtp_sink.port}", "--domain=client.test"]
        run = msmtp("--file=/dev/null", *server, "--from=anna@client.test", "ben@house.test", content=CONTENT)
        assert run.succeeded, str(run)
        assert len(smtp_sink.wait_for_messages(1)) == 1

    def test_s_nail_sends(self, s_nail: Program, smtp_sink: SmtpSink) -> None:
        server = f"mta=smtp://127.0.0.1:{smtp_sink.port}"
        settings = [server, "v15-compat", "smtp-auth=none", "hostname=client.test", "sendwait"]
        options = [part for setting in settings for part in ("-S", setting)]
        paths = ["-r", "anna@client.test", "ben@house.test"]
        run = s_nail("-:/", *options, "-s", "Hello", *paths, content=b"Hi\n")
        assert run.succeeded, str(run)
        assert len(smtp_sink.wait_for_messages(1)) == 1

    def test_mpop_starts_with_authentication(self, mpop: Program) -> None:
        run = mpop("--version")
        assert run.succeeded, str(run)
        assert b"Authentication library: GNU SASL" in run.stdout
