"""The settings in docs/mail-programs.md, pasted into real programs with nothing but names and places changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.peers import maildrop
from tests.peers.conftest import program
from tests.peers.maildrop import ADA
from tests.peers.programs import Program
from tests.running_house import PASSWORD, RunningHouse

pytestmark = pytest.mark.peers

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "mail-programs.md"
DOORS = ("smtp", "submissions", "pop3s")
LETTER = b"From: ada@here.test\r\nSubject: x\r\n\r\nFresh horses.\r\n"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    maildrop.with_tls(tmp_path)
    listen = {door: ["127.0.0.1:0"] for door in DOORS}
    with RunningHouse(tmp_path, (ADA,), listen=listen, auth={"allow_cleartext": False}) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    for part in ("cur", "new", "tmp"):
        (folder / "Mail" / part).mkdir(parents=True)
    (folder / ".house.password").write_text(PASSWORD)
    return folder


def settings(house: RunningHouse, home: Path, name: str, *changes: tuple[str, str]) -> Path:
    """The block that begins with this file name, for our house."""
    (text,) = re.findall(rf"```\n# ~/{re.escape(name)}[^\n]*\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    known = (
        ("mx.example.org", maildrop.TLS_NAME),
        ("ada@example.org", ADA),
        ("port 995\n", f"port {house.ports['pop3s']}\n"),
        ("port 995 ", f"port {house.ports['pop3s']} "),
        ("port 465\n", f"port {house.ports['submissions']}\n"),
        ("~/", f"{home}/"),
    )
    for was, becomes in (*changes, *known):
        assert was in text or (was, becomes) in known, was
        text = text.replace(was, becomes)
    path = home / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_mpop_and_msmtp(house: RunningHouse, home: Path, mpop: Program, msmtp: Program, tmp_path: Path) -> None:
    trust = ("tls_starttls off", f"tls_starttls off\ntls_trust_file {tmp_path / 'self-signed.crt'}")
    settings(house, home, ".msmtprc", trust)
    settings(house, home, ".mpoprc", trust)
    sent = msmtp(ADA, content=LETTER.replace(b"\r\n", b"\n"), home=home)
    assert sent.succeeded, str(sent)
    assert len(maildrop.entries(house)) == 1
    fetched = mpop("--quiet", home=home)
    assert fetched.succeeded, str(fetched)
    (letter,) = (home / "Mail" / "new").iterdir()
    assert letter.read_bytes().endswith(b"\n\nFresh horses.\n")
    assert maildrop.entries(house) == []


def test_fetchmail(house: RunningHouse, home: Path, tmp_path: Path) -> None:
    fetchmail = program("fetchmail")
    maildrop.give(house.ports["smtp"], "anna@client.test", [ADA], [LETTER])
    settings(
        house,
        home,
        ".fetchmailrc",
        ("her-password-here", PASSWORD),
        ("sslcertck", f"sslcertck sslcertfile {tmp_path / 'self-signed.crt'}"),
        ("/usr/bin/procmail -d %T", f"/usr/bin/tee {home / 'Mail' / 'new' / '1'}"),
    )
    run = fetchmail("--silent", "--pidfile", home / "pid", home=home)
    assert run.succeeded, str(run)
    assert (home / "Mail" / "new" / "1").read_bytes().endswith(b"Fresh horses.\n")
    assert maildrop.entries(house) == []
