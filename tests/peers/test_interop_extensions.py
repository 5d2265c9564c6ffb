"""Extensions as real programs use them: STLS, SCRAM-SHA-256, chunks without a final CRLF, internationalised mail."""

from __future__ import annotations

import poplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.house.wire import Wire, stored
from tests.peers import maildrop, odd_messages
from tests.peers.maildrop import ADA
from tests.peers.programs import PATIENCE_S, Program
from tests.running_house import PASSWORD, RunningHouse

pytestmark = pytest.mark.peers

BOB = "bob@here.test"
GREEK = "δοκιμή@here.test"
CONTENTS = odd_messages.all_odd(100, nuls=False)
DOORS = ("smtp", "submission", "submissions", "pop3", "pop3s")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    """With a certificate, at `tmp_path / "self-signed.crt"`, and no passwords in clear."""
    maildrop.with_tls(tmp_path)
    listen = {door: ["127.0.0.1:0"] for door in DOORS}
    with RunningHouse(tmp_path, (ADA, BOB, GREEK), listen=listen, auth={"allow_cleartext": False}) as running:
        yield running


class TestStls:
    """Port 110 lets nobody in who has not encrypted, and everybody who has."""

    @pytest.fixture(autouse=True)
    def _filled(self, house: RunningHouse) -> None:
        maildrop.give(house.ports["smtp"], "anna@client.test", [ADA], CONTENTS)

    @pytest.mark.conformance("C146", "C265")
    def test_curl(self, house: RunningHouse, curl: Program, tmp_path: Path) -> None:
        options = ["-sS", "--disable", "--ssl-reqd", "--cacert", tmp_path / "self-signed.crt"]
        url = f"pop3://{maildrop.TLS_NAME}:{house.ports['pop3']}/[1-{len(CONTENTS)}]"
        run = curl(*options, "--user", f"{ADA}:{PASSWORD}", "-o", tmp_path / "got.#1", url)
        assert run.succeeded, str(run)
        got = [(tmp_path / f"got.{number + 1}").read_bytes() for number in range(len(CONTENTS))]
        assert got == maildrop.entries(house)

    @pytest.mark.conformance("C265")
    def test_curl_without(self, house: RunningHouse, curl: Program) -> None:
        url = f"pop3://{maildrop.TLS_NAME}:{house.ports['pop3']}/"
        assert not curl("-sS", "--disable", "--user", f"{ADA}:{PASSWORD}", url).succeeded

    @pytest.mark.conformance("C146", "C265")
    def test_poplib(self, house: RunningHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(poplib, "_MAXLINE", 2 * odd_messages.LONGEST_LINE_OCTETS)
        client = poplib.POP3(maildrop.TLS_NAME, house.ports["pop3"], timeout=PATIENCE_S)
        assert "STLS" in client.capa()
        client.stls(ssl.create_default_context(cafile=tmp_path / "self-signed.crt"))
        assert "STLS" not in client.capa()
        client.user(ADA)
        client.pass_(PASSWORD)
        got = [b"".join(line + b"\r\n" for line in client.retr(number + 1)[1]) for number in range(len(CONTENTS))]
        client.quit()
        assert got == maildrop.entries(house)


def mpop_fetches(mpop: Program, house: RunningHouse, folder: Path, login: str, tls: str) -> list[bytes]:
    """What mpop puts into a folder, in whatever order."""
    (folder / "pickup").mkdir()
    (folder / "mpoprc").write_text(
        f"account house\nhost {maildrop.TLS_NAME}\nport {house.ports['pop3']}\nuser {ADA}\npassword {PASSWORD}\n"
        f"auth {login}\n{tls}tls_trust_file {folder / 'self-signed.crt'}\nkeep on\nuidls_file {folder / 'uidls'}\n"
        f"received_header off\ndelivery exchange {folder / 'pickup'}\n"
    )
    (folder / "mpoprc").chmod(0o600)
    run = mpop("--file", folder / "mpoprc", "--quiet", "house")
    assert run.succeeded, str(run)
    return [path.read_bytes() for path in (folder / "pickup").iterdir()]


@pytest.mark.conformance("C130", "C264")
@pytest.mark.parametrize("login", ["plain", "scram-sha-256"])
def test_mpop_logs_in_by_sasl_after_stls(house: RunningHouse, mpop: Program, tmp_path: Path, login: str) -> None:
    maildrop.give(house.ports["smtp"], "anna@client.test", [ADA], CONTENTS[:20])
    got = mpop_fetches(mpop, house, tmp_path, login, "tls on\ntls_starttls on\n")
    assert sorted(got) == sorted(maildrop.entries(house))


@pytest.mark.conformance("C130")
@pytest.mark.parametrize("login", ["plain", "login", "scram-sha-256"])
@pytest.mark.parametrize("door", ["submission", "submissions"])
def test_msmtp_logs_in_by_sasl(house: RunningHouse, msmtp: Program, tmp_path: Path, login: str, door: str) -> None:
    run = msmtp(
        *(f"--host={maildrop.TLS_NAME}", f"--port={house.ports[door]}", "--domain=client.test", f"--from={ADA}"),
        *("--tls=on", f"--tls-starttls={'on' if door == 'submission' else 'off'}"),
        *(f"--tls-trust-file={tmp_path / 'self-signed.crt'}", f"--auth={login}", f"--user={ADA}"),
        *(f"--passwordeval=echo {PASSWORD}", BOB),
        content=b"From: ada@here.test\nSubject: x\n\nFresh horses.\n",
    )
    assert run.succeeded, str(run)
    (entry,) = maildrop.entries(house, BOB)
    assert b" with ESMTPSA id " in entry
    assert entry.endswith(b"\r\n\r\nFresh horses.\r\n")


UNENDED = {
    "no final CRLF": b"Subject: x\r\n\r\nno line end",
    "a dot at the end": b"Subject: x\r\n\r\nx\r\n.",
    "a header only": b"Subject: x",
    "one octet": b"x",
    "nothing": b"",
    "a border of what is read at once": b"Subject: x\r\n\r\n" + b"y" * (65_536 - 14),
}


@pytest.mark.conformance("C168", "C244", "C266")
def test_content_without_a_final_crlf(house: RunningHouse, curl: Program, mpop: Program, tmp_path: Path) -> None:
    """Chunks can carry it; a POP3 reader gets the missing CRLF, and a size that counts it."""
    with Wire(house.ports["smtp"]).greet() as wire:
        for content in UNENDED.values():
            wire.envelope(ADA)
            wire.send(b"BDAT %d LAST\r\n" % len(content) + content)
            stored(wire.reply())
    wanted = [
        content if content.endswith(b"\r\n") or not content else content + b"\r\n" for content in UNENDED.values()
    ]
    options = [
        "-sS",
        "--disable",
        "--ssl-reqd",
        "--cacert",
        tmp_path / "self-signed.crt",
        "--user",
        f"{ADA}:{PASSWORD}",
    ]
    door = f"pop3://{maildrop.TLS_NAME}:{house.ports['pop3']}"
    run = curl(*options, "-o", tmp_path / "got.#1", f"{door}/[1-{len(wanted)}]")
    assert run.succeeded, str(run)
    got = [(tmp_path / f"got.{number + 1}").read_bytes() for number in range(len(wanted))]
    assert [maildrop.without_ours(message) for message in got] == wanted
    listed = curl(*options, f"{door}/")
    assert [int(line.split()[1]) for line in listed.stdout.split(b"\r\n")[:-1]] == [len(message) for message in got]
    assert sorted(mpop_fetches(mpop, house, tmp_path, "user", "tls on\ntls_starttls on\n")) == sorted(got)


@pytest.mark.conformance("C70", "C194")
def test_curl_sends_internationalised_mail(house: RunningHouse, curl: Program) -> None:
    url = f"smtp://127.0.0.1:{house.ports['smtp']}/client.test"
    content = f"From: <α@client.test>\r\nTo: <{GREEK}>\r\nSubject: δοκιμή\r\n\r\nΓειά\r\n".encode()
    run = curl(
        "-sS", "--disable", "--mail-from", "α@client.test", "--mail-rcpt", GREEK, "-T", "-", url, content=content
    )
    assert run.succeeded, str(run)
    (entry,) = maildrop.entries(house, GREEK)
    assert entry.endswith(content)
    assert b" with UTF8SMTP id " in entry
