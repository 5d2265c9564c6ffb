"""An account at a real Postfix: added with its login proven over STARTTLS, and written as through it."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest
from tests.peers import maildrop, test_interop_smarthost
from tests.peers.postfix import PostfixServer
from tests.peers.programs import wait_until
from tests.peers.test_interop_smarthost import SECRET, AuthServer
from tests.running_house import RunningHouse

from posthouse.cli import main
from posthouse.config import personal_folder

pytestmark = pytest.mark.peers

BEN, ADA = "ben@far.test", "ada@provider.test"
auth_server = test_interop_smarthost.auth_server
smarthost = test_interop_smarthost.smarthost


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: str = "") -> tuple[int, str]:
    """A command in this process: its status, and all that it said."""
    monkeypatch.setattr(sys, "argv", ["posthouse", *arguments])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.getvalue()


def test_what_is_written_leaves_through_the_accounts_own_server(
    smarthost: PostfixServer, auth_server: AuthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_interop_smarthost, "USER", ADA)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "provider").mkdir()
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes((tmp_path / "p.pem").read_bytes() + maildrop.with_tls(tmp_path / "provider").read_bytes())
    assert run(monkeypatch, "init", "--personal")[0] == 0
    config = personal_folder() / "posthouse.toml"
    authorities = f'tls_authorities = "{trusted}"\n'
    config.write_text(f"{config.read_text()}[collection]\n{authorities}[forwarding]\n{authorities}")
    with RunningHouse(tmp_path / "provider", (ADA,)) as provider:
        servers = ("--pop3", f"localhost:{provider.ports['pop3']}", "--smtp", f"127.0.0.1:{smarthost.port}")
        add = ("add-account", ADA, *servers, "--password-stdin")
        status, said = run(monkeypatch, *add, stdin="wrong\n")
        assert status == 1
        assert "refused the login" in said
        assert auth_server.asked == []
        status, said = run(monkeypatch, *add, stdin=f"{SECRET}\n")
        assert status == 0, said
    assert auth_server.asked == [True]
    status, said = run(monkeypatch, "send", BEN, "--from", ADA, "-s", "Hello", "-m", "there")
    assert status == 0, said
    forwarding = {"tls_authorities": str(trusted), "retry": ["200ms"]}
    with RunningHouse(personal_folder(), (), hostname="posthouse.internal", listen={}, forwarding=forwarding) as home:
        (message,) = smarthost.wait_for_messages(BEN, 1)
        wait_until(lambda: maildrop.queue_length(home) == 0, "the queue is not empty")
    assert b"Subject: Hello" in message
    assert b"ESMTPSA" in message
    assert auth_server.asked == [True, True]
    assert json.loads(run(monkeypatch, "queue", "list", "--json")[1]) == []
