"""msmtp and mpop log in by SCRAM-SHA-256: told to; msmtp by its own choice too, where it is offered beside PLAIN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.peers import maildrop
from tests.peers.maildrop import ADA
from tests.peers.programs import Program
from tests.running_house import PASSWORD, VERIFIER, RunningHouse

pytestmark = pytest.mark.peers

BOB = "bob@here.test"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    maildrop.with_tls(tmp_path)
    listen = {door: ["127.0.0.1:0"] for door in ("submissions", "pop3s")}
    with RunningHouse(tmp_path, listen=listen) as running:
        yield running


@pytest.mark.conformance("C130")
@pytest.mark.parametrize("auth", ["scram-sha-256", "on"])
def test_msmtp(house: RunningHouse, msmtp: Program, tmp_path: Path, auth: str) -> None:
    for password, right in (("wrong", False), (PASSWORD, True)):
        run = msmtp(
            *(f"--host={maildrop.TLS_NAME}", f"--port={house.ports['submissions']}", "--domain=client.test"),
            *("--tls=on", "--tls-starttls=off", f"--tls-trust-file={tmp_path / 'self-signed.crt'}", "--debug"),
            *(f"--auth={auth}", f"--user={ADA}", f"--passwordeval=echo {password}", f"--from={ADA}", BOB),
            content=b"Subject: hi\n\nhello\n",
        )
        assert run.succeeded is right, str(run)
        assert b"AUTH SCRAM-SHA-256" in run.stdout
    assert maildrop.count(house, BOB) == 1


def test_msmtp_logs_in_where_passwords_have_no_scram_keys(house: RunningHouse, msmtp: Program, tmp_path: Path) -> None:
    """It takes SCRAM by itself where that is offered, and falls back to nothing."""
    house.ask(lambda storage: storage.administration.set_password(ADA, VERIFIER, 1.0))
    run = msmtp(
        *(f"--host={maildrop.TLS_NAME}", f"--port={house.ports['submissions']}", "--domain=client.test"),
        *("--tls=on", "--tls-starttls=off", f"--tls-trust-file={tmp_path / 'self-signed.crt'}"),
        *("--auth=on", f"--user={ADA}", f"--passwordeval=echo {PASSWORD}", f"--from={ADA}", BOB),
        content=b"Subject: hi\n\nhello\n",
    )
    assert run.succeeded, str(run)


@pytest.mark.conformance("C130")
def test_mpop(house: RunningHouse, mpop: Program, tmp_path: Path) -> None:
    for password, right in (("wrong", False), (PASSWORD, True)):
        (tmp_path / "mpoprc").write_text(
            f"account house\nhost {maildrop.TLS_NAME}\nport {house.ports['pop3s']}\nuser {ADA}\npassword {password}\n"
            f"auth scram-sha-256\ntls on\ntls_starttls off\ntls_trust_file {tmp_path / 'self-signed.crt'}\n"
            f"uidls_file {tmp_path / 'uidls'}\ndelivery mbox {tmp_path / 'mbox'}\n"
        )
        (tmp_path / "mpoprc").chmod(0o600)
        run = mpop("--file", tmp_path / "mpoprc", "--debug", "house")
        assert run.succeeded is right, str(run)
        assert b"AUTH SCRAM-SHA-256" in run.stdout
