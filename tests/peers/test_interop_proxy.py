"""curl speaks as a proxy would: a PROXY header, in clear and before TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.peers import maildrop
from tests.peers.maildrop import ADA
from tests.peers.programs import Program
from tests.running_house import PASSWORD, RunningHouse

pytestmark = pytest.mark.peers

LOOPBACK = ["127.0.0.0/8"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    maildrop.with_tls(tmp_path)
    with RunningHouse(
        tmp_path,
        listen={door: ["127.0.0.1:0"] for door in ("smtp", "pop3", "pop3s")},
        reception={"proxy_from": LOOPBACK},
        retrieval={"proxy_from": LOOPBACK},
    ) as house:
        yield house


def test_curl_sends_and_fetches_behind_a_header(house: RunningHouse, curl: Program, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_bytes(b"Subject: proxied\r\n\r\nhello\r\n")
    smtp, pop3s = f"smtp://127.0.0.1:{house.ports['smtp']}", f"pop3s://127.0.0.1:{house.ports['pop3s']}/1"
    as_proxy = ("-sS", "--disable", "--haproxy-protocol")
    sent = curl(*as_proxy, "--mail-from", "anna@client.test", "--mail-rcpt", ADA, "--upload-file", letter, smtp)
    assert sent.succeeded, str(sent)
    login = ("--insecure", "--user", f"{ADA}:{PASSWORD}")
    fetched = curl(*as_proxy, *login, pop3s)
    assert fetched.succeeded, str(fetched)
    assert b"Subject: proxied" in fetched.stdout
    assert not curl("-sS", "--disable", "--max-time", "20", *login, pop3s).succeeded
