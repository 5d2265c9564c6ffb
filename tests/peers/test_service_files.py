"""The files in deploy/, tried by the programs that read them: systemd-analyze and fail2ban-regex."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from tests.peers import programs
from tests.peers.programs import Program, Run

from posthouse.log import Log, make_log
from posthouse.service.unit import Unit

pytestmark = pytest.mark.peers
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
EXPOSURE = 20
"""In tenths: systemd says OK below 2.5, and most of what it still counts a mail system needs."""


def systemd_analyze(*arguments: str | Path) -> Run:
    found = programs.find("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is missing; get it with scripts/peers")
    return Program(found)(*arguments, SYSTEMD_PAGER="cat")


@pytest.mark.parametrize("data_dir", ["/var/lib/posthouse", "/srv/mail of us", f"/{'home'}/me/mail"])
def test_systemd_understands_the_unit_and_finds_it_narrow(tmp_path: Path, data_dir: str) -> None:
    path = tmp_path / "posthouse.service"
    path.write_text(Unit(program=("/bin/true", "-m", "a b"), data_dir=Path(data_dir)).text())
    verified = systemd_analyze("verify", path)
    assert verified.succeeded, verified
    assert not [line for line in verified.stderr.splitlines() if b"posthouse.service" in line], verified
    judged = systemd_analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", path)
    assert judged.succeeded, judged


def test_systemd_understands_the_socket(tmp_path: Path) -> None:
    for name in ("posthouse.service", "posthouse.socket"):
        text = (DEPLOY / name).read_text().replace("/opt/posthouse/bin/posthouse", "/bin/true")
        (tmp_path / name).write_text(text)
    verified = systemd_analyze("verify", tmp_path / "posthouse.socket")
    assert verified.succeeded, verified
    assert b"posthouse.socket" not in verified.stderr, verified


def fail2ban_regex(log: Path) -> Run:
    root = programs.unpacked()
    script = root / "usr/bin/fail2ban-regex" if root is not None else Path("/usr/bin/fail2ban-regex")
    if not script.exists():
        pytest.skip("fail2ban-regex is missing; get it with scripts/peers")
    packages = script.parents[1] / "lib/python3/dist-packages"
    command = [script, "--print-all-matched", "--print-all-missed", log, DEPLOY / "fail2ban/filter.d/posthouse.conf"]
    return Program(Path(sys.executable))(*command, PYTHONPATH=str(packages))


def fail_to_log_in(log: Log, peer: str, login: str) -> None:
    """The very line of the authenticator."""
    from posthouse.identity.authenticator import Authenticator

    authenticator = object.__new__(Authenticator)
    authenticator._log = log
    authenticator._tell_failure(login, peer, "pop3", "0a1b2c3d", 7)


ATTACKERS = ("192.0.2.66", "2001:db8::66")
VICTIM = "198.51.100.9"
LOGINS = (
    "ada@here.test",
    f'x", "peer": "{VICTIM}", "login": "y',
    f"x peer={VICTIM} login=y",
    f'\n{{"session": "00", "peer": "{VICTIM}", "login": "", "event": "login failed"}}',
    "x" * 5000,
    "ä\u2028\\",
)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("worker", [None, 3])
def test_fail2ban_finds_each_failed_login_and_nobody_else(tmp_path: Path, as_json: bool, worker: int | None) -> None:
    out = io.StringIO()
    log = make_log(out, json=as_json)
    log = log if worker is None else log.bind(worker=worker)
    for peer in ATTACKERS:
        for login in LOGINS:
            fail_to_log_in(log, peer, login)
    failures = len(out.getvalue().splitlines())
    assert failures == len(ATTACKERS) * len(LOGINS)
    log.info("refused", session="00", peer=VICTIM, command="AUTH", reply="535 5.7.8 no")
    log.info("session ended", session="00", peer=VICTIM, how="closed", errors=1)
    log.warning("login ended", session="00", peer=VICTIM, login="login failed")
    path = tmp_path / "log"
    path.write_text(out.getvalue())
    ran = fail2ban_regex(path)
    assert ran.succeeded, ran
    said = ran.stdout.decode()
    match = re.search(r"Lines: (\d+) lines, (\d+) ignored, (\d+) matched, (\d+) missed", said)
    assert match is not None, ran
    assert (int(match[3]), int(match[4])) == (failures, 3), ran
    dates = re.search(r"\[(\d+)\] .*timestamp|\[(\d+)\] .*%Y-%m-%d|\[(\d+)\] .*Year-Month-Day", said)
    assert dates is not None, ran


def test_a_ban_is_for_the_peer_alone(tmp_path: Path) -> None:
    out = io.StringIO()
    for login in LOGINS:
        fail_to_log_in(make_log(out, json=True), ATTACKERS[0], login)
    path = tmp_path / "log"
    path.write_text(out.getvalue())
    script = Program(Path(sys.executable))
    root = programs.unpacked()
    if root is None:
        pytest.skip("fail2ban-regex is missing; get it with scripts/peers")
    ran = script(
        *(root / "usr/bin/fail2ban-regex", "--out", "ip", path, DEPLOY / "fail2ban/filter.d/posthouse.conf"),
        PYTHONPATH=str(root / "usr/lib/python3/dist-packages"),
    )
    assert ran.stdout.decode().split() == [ATTACKERS[0]] * len(LOGINS), ran
