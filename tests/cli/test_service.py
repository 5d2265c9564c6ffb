"""`posthouse service`, without a systemd: what it would do, what it does, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from posthouse.cli import service
from posthouse.service.unit import Unit, quoted
from posthouse.service.user import ServiceUser
from tests.cli.conftest import CONFIG, Command, Ran, spawn
from tests.cli.test_serve_as_service import furnish_for_nobody, needs_root

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wherever the tests run, nothing of the machine is enabled or started."""
    monkeypatch.setattr(service, "SYSTEMD_RUNS", tmp_path / "no systemd")


def test_the_unit_in_deploy_is_the_one_that_is_written() -> None:
    assert (ROOT / "deploy" / "posthouse.service").read_text() == Unit().text()


@pytest.mark.parametrize(
    ("word", "text"),
    [("/opt/x", "/opt/x"), ("a b", '"a b"'), ("50%$", "50%%$$"), ('a"\\', '"a\\"\\\\"'), ("", '""'), ("é", "é")],
)
def test_words_of_a_unit(word: str, text: str) -> None:
    assert quoted(word) == text


def test_the_unit_fits_the_place() -> None:
    assert "StateDirectory=posthouse\n" in Unit().text()
    elsewhere = Unit(data_dir=Path("/srv/my mail"), user="mail", group="mail").text()
    assert 'ReadWritePaths="/srv/my mail"\n' in elsewhere
    assert "StateDirectory" not in elsewhere
    assert "ProtectHome=yes\n" in elsewhere
    assert "ProtectHome=read-only\n" in Unit(data_dir=Path(f"/{'home'}/me/mail")).text()


def test_dry_run_does_nothing(furnished: Command) -> None:
    before = {path: path.stat().st_mode for path in furnished.folder.rglob("*")}
    ran = furnished.run("service", "install", "--user", "no-such-user", "--dry-run", "--unit-folder", "units")
    assert ran.status == 0
    assert "would run: useradd --system --user-group" in ran.out
    assert f"would run: chown --recursive --no-dereference no-such-user:no-such-user {furnished.folder}" in ran.out
    assert "would run: write units/posthouse.service" in ran.out
    assert "systemd does not run here" in ran.out
    assert {path: path.stat().st_mode for path in furnished.folder.rglob("*")} == before


def test_with_systemd_it_is_enabled_and_started(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SYSTEMD_RUNS", furnished.folder)
    out = furnished.run("service", "install", "--user", "nobody", "--dry-run").out
    assert (
        out.index("systemctl daemon-reload") < out.index("systemctl enable posthouse") < out.index("systemctl restart")
    )
    assert "useradd" not in out
    assert "does not run here" not in out


@needs_root
def test_it_gives_the_folder_away_and_writes_the_unit(public_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from a place that its user may read; then the house starts as the unit says."""
    furnish_for_nobody(public_folder, CONFIG)
    units = public_folder.parent / f"{public_folder.name}-units"
    units.mkdir(mode=0o755)
    try:
        for path in [public_folder, *public_folder.rglob("*")]:
            os.chown(path, 0, 0)
        ran = run_from_a_readable_place(
            public_folder, "service", "install", "--user", "nobody", "--unit-folder", str(units)
        )
        assert ran.returncode == 0, ran.stderr
        assert {path.stat().st_uid for path in (public_folder, *public_folder.rglob("*"))} == {65534}
        assert public_folder.stat().st_mode & 0o777 == 0o700
        assert (public_folder / "posthouse.toml").stat().st_mode & 0o777 == 0o640
        unit = (units / "posthouse.service").read_text()
        assert f"serve --config {public_folder}/posthouse.toml\n" in unit
        assert "User=nobody\nGroup=nogroup\n" in unit
        assert (units / "posthouse.service").stat().st_mode & 0o777 == 0o644
    finally:
        for path in units.iterdir():
            path.unlink()
        units.rmdir()


def run_from_a_readable_place(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as if its program and Python could be run by everybody."""
    program = (
        "import sys; from posthouse.cli import main, service; from pathlib import Path\n"
        "service.SYSTEMD_RUNS = Path('/nowhere')\n"
        "service.as_user = lambda user, look: [True] * 3\n"
        f"sys.argv = ['posthouse', *{list(arguments)!r}]; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)


@needs_root
def test_what_the_user_cannot_run_is_no_service(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is done: no user is made, and no folder given away."""

    def install(*may: bool) -> Ran:
        monkeypatch.setattr(service, "as_user", lambda user, look: list(may))
        ran = furnished.run("service", "install", "--user", "no-such-user", "--unit-folder", str(furnished.folder))
        assert ran.out == ""
        return ran

    assert install(True, False, True).failed_with("cannot be run by no-such-user", "/opt/posthouse")
    assert install(False, True, True).failed_with(
        str(Path(sys.executable).resolve()), "the Python that", "/usr/bin/python3 -m venv /opt/posthouse"
    )
    assert not (furnished.folder / "posthouse.service").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("install", "--user", "root"), ("must not be root",)),
        (("uninstall", "--unit-folder", "."), ("posthouse.service is not there",)),
        (("status", "--unit-folder", "."), ("does not run", "start it with: posthouse serve")),
    ],
)
def test_errors_are_one_line(furnished: Command, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert furnished.run("service", *arguments).failed_with(*words)


def test_who_is_not_root_is_told(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert furnished.run("service", "install", "--user", "nobody").failed_with("sudo posthouse service install")


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ("", "posthouse service install --user posthouse"),
        ('user = "3999"\n', "useradd --system --uid 3999 posthouse"),
    ],
)
def test_a_number_without_a_name_is_no_user_of_a_service(
    furnished: Command, monkeypatch: pytest.MonkeyPatch, line: str, mend: str
) -> None:
    """Such as the owner of a folder that came out of a container: useradd would make a user *named* 3999."""
    Path("posthouse.toml").write_text(line + CONFIG)
    monkeypatch.setattr(service, "owner_of", lambda folder: ServiceUser("3999", 3999, 3999))
    for more in ((), ("--dry-run",)):
        ran = furnished.run("service", "install", "--unit-folder", "units", *more)
        assert ran.failed_with("user 3999 has no name on this machine", mend) or not line
        assert ran.out == ""


def test_another_user_than_the_configured_one(furnished: Command) -> None:
    Path("posthouse.toml").write_text(f'user = "nobody"\n{CONFIG}')
    assert furnished.run("service", "install", "--user", "mail", "--dry-run").failed_with("user = 'nobody'")


def test_a_folder_that_is_not_there(command: Command) -> None:
    Path("posthouse.toml").write_text(CONFIG.replace('"."', '"missing"'))
    assert command.run("service", "install", "--dry-run").failed_with("posthouse init")


@needs_root
def test_a_command_that_fails_is_told(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "as_user", lambda user, look: [True] * 3)
    monkeypatch.setattr(service, "_folder_steps", lambda *_: [service._running("false")])
    assert furnished.run("service", "install", "--user", "nobody").failed_with("false failed: status 1")


def test_status_of_a_house_that_runs(furnished: Command) -> None:
    process = spawn("serve", folder=furnished.folder)
    try:
        assert process.stderr is not None
        assert "house open" in process.stderr.readline()
        ran = furnished.run("service", "status", "--json", "--unit-folder", ".")
        assert ran.status == 0
        rows = {row["what"]: row["state"] for row in json.loads(ran.out)}
        assert (rows["house"], rows["unit"]) == ("runs", "not installed")
    finally:
        process.kill()
        process.communicate()


@needs_root
def test_uninstall_leaves_the_mail(furnished: Command) -> None:
    unit = furnished.folder / "posthouse.service"
    unit.write_text("x")
    assert furnished.run("service", "uninstall", "--dry-run", "--unit-folder", str(furnished.folder)).status == 0
    assert unit.exists()
    ran = furnished.run("service", "uninstall", "--unit-folder", str(furnished.folder))
    assert ran.status == 0
    assert "still there" in ran.out
    assert not unit.exists()
    assert (furnished.folder / "posthouse.db").exists()
