"""smtplib, swaks, curl, msmtp and s-nail give mail to Posthouse: at port 25, and at submission with a login."""

from __future__ import annotations

import smtplib
import ssl
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.peers import maildrop, odd_messages
from tests.peers.maildrop import ADA
from tests.peers.programs import PATIENCE_S, Program
from tests.running_house import PASSWORD, RunningHouse

pytestmark = pytest.mark.peers

BOB = "bob@here.test"
DOORS = ("smtp", "submission", "submissions")
WAYS = ("exchange", "exchange STARTTLS", "login", "login STARTTLS", "login TLS")
PROTOCOL = {  # `with` of the Received field (RFC 3848)
    "exchange": "ESMTP",
    "exchange STARTTLS": "ESMTPS",
    "login": "ESMTPA",
    "login STARTTLS": "ESMTPSA",
    "login TLS": "ESMTPSA",
}
# From the login itself: it sends as nobody else.
CONTENT = odd_messages.headed(7, "Fresh horses.\r\n.\r\n..two dots\r\nGrüße\r\n".encode()).replace(
    b"anna@client.test", ADA.encode()
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    """A house with a certificate, which clients find at `tmp_path / "self-signed.crt"`."""
    maildrop.with_tls(tmp_path)
    with RunningHouse(tmp_path, listen={door: ["127.0.0.1:0"] for door in DOORS}) as running:
        yield running


def port_of(house: RunningHouse, way: str) -> int:
    if way.startswith("exchange"):
        return house.ports["smtp"]
    return house.ports["submissions" if way == "login TLS" else "submission"]


def arrived(house: RunningHouse, protocol: str) -> bytes:
    """The one message that came, as it was sent; it must have come by this protocol."""
    (entry,) = maildrop.entries(house, BOB)
    assert b" with " + protocol.encode() + b" id " in entry.split(b";")[0]
    return maildrop.without_ours(entry)


@pytest.mark.conformance("C70")
@pytest.mark.parametrize("way", WAYS)
class TestDelivers:
    def test_smtplib(self, house: RunningHouse, tmp_path: Path, way: str) -> None:
        trust = ssl.create_default_context(cafile=tmp_path / "self-signed.crt")
        place = (maildrop.TLS_NAME, port_of(house, way), "client.test")
        client: smtplib.SMTP
        if way == "login TLS":
            client = smtplib.SMTP_SSL(*place, timeout=PATIENCE_S, context=trust)
        else:
            client = smtplib.SMTP(*place, timeout=PATIENCE_S)
        with client:
            if way.endswith("STARTTLS"):
                client.starttls(context=trust)
            if way.startswith("login"):
                client.login(ADA, PASSWORD)
            client.sendmail(ADA, [BOB], CONTENT, ["BODY=8BITMIME"])
        assert arrived(house, PROTOCOL[way]) == CONTENT

    def test_swaks(self, house: RunningHouse, swaks: Program, tmp_path: Path, way: str) -> None:
        trust = ["--tls-verify", "--tls-ca-path", tmp_path / "self-signed.crt"]
        tls = {"STARTTLS": ["--tls", *trust], "TLS": ["--tls-on-connect", *trust]}.get(way.rpartition(" ")[2], [])
        login = ["--auth", "PLAIN", "--auth-user", ADA, "--auth-password", PASSWORD] if way.startswith("login") else []
        (tmp_path / "message").write_bytes(CONTENT)
        run = swaks(
            *("--server", maildrop.TLS_NAME, "--port", str(port_of(house, way)), "--helo", "client.test"),
            *("--from", ADA, "--to", BOB, "--data", f"@{tmp_path / 'message'}", *tls, *login),
        )
        assert run.succeeded, str(run)
        # Swaks ends what it reads from a file with an empty line of its own.
        assert arrived(house, PROTOCOL[way]).removesuffix(b"\r\n\r\n") == CONTENT.removesuffix(b"\r\n")

    def test_curl(self, house: RunningHouse, curl: Program, tmp_path: Path, way: str) -> None:
        scheme = "smtps" if way == "login TLS" else "smtp"
        tls = ["--ssl-reqd"] if way.endswith("STARTTLS") else []
        login = ["--user", f"{ADA}:{PASSWORD}", "--login-options", "AUTH=PLAIN"] if way.startswith("login") else []
        run = curl(
            *("-sS", "--disable", "--cacert", tmp_path / "self-signed.crt", *tls, *login),
            *("--mail-from", ADA, "--mail-rcpt", BOB, "-T", "-"),
            f"{scheme}://{maildrop.TLS_NAME}:{port_of(house, way)}/client.test",
            content=CONTENT,
        )
        assert run.succeeded, str(run)
        assert arrived(house, PROTOCOL[way]) == CONTENT

    def test_msmtp(self, house: RunningHouse, msmtp: Program, tmp_path: Path, way: str) -> None:
        tls = [f"--tls-trust-file={tmp_path / 'self-signed.crt'}", "--tls=on"] if way.endswith("TLS") else ["--tls=off"]
        tls.append(f"--tls-starttls={'on' if way.endswith('STARTTLS') else 'off'}")
        login = ["--auth=plain", f"--user={ADA}", f"--passwordeval=echo {PASSWORD}"] if way.startswith("login") else []
        run = msmtp(
            *(f"--host={maildrop.TLS_NAME}", f"--port={port_of(house, way)}", "--domain=client.test"),
            *(f"--from={ADA}", *tls, *login, BOB),
            content=CONTENT.replace(b"\r\n", b"\n"),
        )
        assert run.succeeded, str(run)
        assert arrived(house, PROTOCOL[way]) == CONTENT

    def test_s_nail(self, house: RunningHouse, s_nail: Program, tmp_path: Path, way: str) -> None:
        login = f"{urllib.parse.quote(ADA, safe='')}:{urllib.parse.quote(PASSWORD)}@" if way.startswith("login") else ""
        scheme = "smtps" if way == "login TLS" else "smtp"
        settings = [
            f"mta={scheme}://{login}{maildrop.TLS_NAME}:{port_of(house, way)}",
            *("v15-compat", "hostname=client.test", "sendwait", f"smtp-auth={'plain' if login else 'none'}"),
            *(
                "tls-verify=strict",
                f"tls-ca-file={tmp_path / 'self-signed.crt'}",
                "tls-ca-no-defaults",
                "mime-encoding=8b",
            ),
            *(["smtp-use-starttls"] if way.endswith("STARTTLS") else []),
        ]
        options = [part for setting in settings for part in ("-S", setting)]
        run = s_nail("-:/", *options, "-s", "Hello", "-r", ADA, BOB, content="Fresh horses.\n.\nGrüße\n".encode())
        assert run.succeeded, str(run)
        # Without a login it says HELO, in STARTTLS too; RFC 3848 has no word for that.
        content = arrived(house, PROTOCOL[way] if login else "SMTP")
        assert b"\r\nSubject: Hello\r\n" in content
        assert content.endswith("\r\n\r\nFresh horses.\r\n.\r\nGrüße\r\n".encode())


class TestRefuses:
    """What a client says of a refusal, so that its user hears of it."""

    def test_an_unknown_user(self, house: RunningHouse, curl: Program) -> None:
        url = f"smtp://127.0.0.1:{house.ports['smtp']}/client.test"
        paths = ["--mail-from", "anna@client.test", "--mail-rcpt", "nobody@here.test"]
        run = curl("-sS", "--disable", *paths, "-T", "-", url, content=CONTENT)
        assert not run.succeeded
        assert b"550" in run.stderr

    def test_relaying(self, house: RunningHouse, swaks: Program) -> None:
        run = swaks("--server", f"127.0.0.1:{house.ports['smtp']}", "--helo", "client.test", "--to", "x@far.test")
        assert not run.succeeded
        assert b"<** 5" in run.stdout

    def test_a_wrong_password(self, house: RunningHouse, msmtp: Program) -> None:
        login = ["--auth=plain", f"--user={ADA}", "--passwordeval=echo wrong", "--tls=off"]
        server = ["--host=127.0.0.1", f"--port={house.ports['submission']}", "--domain=client.test"]
        run = msmtp(*server, *login, f"--from={ADA}", BOB, content=CONTENT)
        assert not run.succeeded
        assert b"535" in run.stderr

    def test_a_certificate_that_nobody_trusts(self, house: RunningHouse, curl: Program) -> None:
        url = f"smtps://{maildrop.TLS_NAME}:{house.ports['submissions']}/client.test"
        paths = ["--mail-from", ADA, "--mail-rcpt", BOB]
        assert not curl("-sS", "--disable", *paths, "-T", "-", url, content=CONTENT).succeeded
        assert maildrop.count(house, BOB) == 0


class TestAnotherProtocol:
    @pytest.mark.conformance("C68", "C296")
    @pytest.mark.parametrize("door", ["smtp", "submission"])
    def test_a_web_client_is_sent_away(self, house: RunningHouse, curl: Program, door: str) -> None:
        """What it posts are no commands: nothing arrives, and it is told at once (`--max-time`)."""
        commands = f"HELO x\r\nMAIL FROM:<{ADA}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n\r\nx\r\n.\r\n".encode()
        url = f"http://127.0.0.1:{house.ports[door]}/"
        run = curl("-sS", "--disable", "--http0.9", "--max-time", "10", "--data-binary", "@-", url, content=commands)
        assert run.status != 28, "curl had to wait"
        assert b"250 " not in run.stdout
        assert b"354 " not in run.stdout
        assert maildrop.count(house, BOB) == 0

    @pytest.mark.conformance("C296")
    def test_a_web_client_in_tls_is_sent_away(self, house: RunningHouse, curl: Program, tmp_path: Path) -> None:
        url = f"https://{maildrop.TLS_NAME}:{house.ports['submissions']}/"
        trust = ["--cacert", tmp_path / "self-signed.crt"]
        run = curl("-sS", "--disable", "--http0.9", "--max-time", "10", *trust, "--data", "EHLO x", url)
        assert run.status != 28, "curl had to wait"
        assert b"250 " not in run.stdout


class TestOddContents:
    CONTENTS = odd_messages.all_odd(130)

    def test_smtplib_sends_every_octet(self, house: RunningHouse) -> None:
        with smtplib.SMTP("127.0.0.1", house.ports["smtp"], "client.test", PATIENCE_S) as client:
            for content in self.CONTENTS:
                client.sendmail(ADA, [BOB], content, ["BODY=8BITMIME"])
        # smtplib ends no content at all with CRLF.
        sent = [content or b"\r\n" for content in self.CONTENTS]
        assert [maildrop.without_ours(entry) for entry in maildrop.entries(house, BOB)] == sent

    def test_curl_sends_every_octet(self, house: RunningHouse, curl: Program, tmp_path: Path) -> None:
        # One process sends them all, which is quicker.
        transfers = []
        for number, content in enumerate(self.CONTENTS):
            file = tmp_path / f"content.{number}"
            file.write_bytes(content)
            url = f"smtp://127.0.0.1:{house.ports['smtp']}/client.test"
            transfers.append(f'url = "{url}"\nupload-file = "{file}"\nmail-from = "{ADA}"\nmail-rcpt = "{BOB}"\n')
        (tmp_path / "curlrc").write_text("next\n".join(transfers))
        run = curl("-sS", "--fail-early", "--config", tmp_path / "curlrc")
        assert run.succeeded, str(run)
        got = [maildrop.without_ours(entry) for entry in maildrop.entries(house, BOB)]
        assert got == self.CONTENTS
