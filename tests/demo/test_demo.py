"""The demo as a whole, and how it is shown."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posthouse.demo import tour
from posthouse.demo.people import NotTaken
from posthouse.demo.stage import Stage


def demo(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "posthouse.cli", "demo", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.long
def test_the_tour_goes_well_in_40_lines_and_leaves_nothing(tmp_path: Path) -> None:
    process = demo(tmp_path, "--once")
    out, _ = process.communicate(timeout=120)
    lines = out.splitlines()
    assert process.returncode == 0, out
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_demo_that_stays(tmp_path: Path, number: int) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Ctrl-C"):
        assert process.poll() is None
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_killed_demo_takes_its_houses_with_it(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Ctrl-C"):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)
    (folder,) = tmp_path.iterdir()
    logs = [folder / "north" / "house.log", folder / "south" / "house.log"]
    for _ in range(200):
        if all("house closed" in log.read_text() for log in logs):
            return
        signal.sigtimedwait([], 0.1)
    pytest.fail("a house outlived its demo")


@pytest.mark.long
async def test_a_step_that_fails_says_so_and_shows_the_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hand_over = tour.hand_over

    async def with_another_password(letter: object, port: int, **options: object) -> object:
        return await hand_over(letter, port, login=("eve@north.test", "x"))  # type: ignore[arg-type]

    monkeypatch.setattr(tour, "hand_over", with_another_password)
    async with asyncio.timeout(60):
        assert await tour.run_demo(once=True) == 1
    out = capsys.readouterr().out
    assert "Ada hands in: 535" in out
    assert "FAILED" in out
    assert "The last lines of north.test's log" in out
    assert "login failed" in out


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("100", 100), ("200", 100)])
def test_a_step_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str, widest: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = io.StringIO()
    stage = Stage(out)
    stage.begin()
    stage.said("South", "250 2.0.0 Stored as 01M841V81QWYPDZRPT8NAM5Q0F", "x" * 41)
    stage.step("A letter to nobdy@south.test comes back to Ada with a report.")
    assert max(map(len, out.getvalue().splitlines())) <= widest


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    Stage(out).title("Hello")
    assert ("\x1b" in out.getvalue()) is coloured


def test_what_ends_a_step_is_known() -> None:
    assert issubclass(NotTaken, tour.STEP_FAILURES)
