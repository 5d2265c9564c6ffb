"""Running commands: in this process, which is fast, or in one of their own, where signals and users matter."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from posthouse.cli import first_look, main, surroundings
from posthouse.world import World
from tests.running_house import furnish, house_config

CONFIG = """\
hostname = "mx.here.test"
data_dir = "."
postmaster = "ada@here.test"

[listen]
smtp = ["127.0.0.1:0"]
submission = ["127.0.0.1:0"]
pop3 = ["127.0.0.1:0"]

[auth]
allow_cleartext = true

[forwarding]
routes = { "*" = "127.0.0.1:1" }
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    def failed_with(self, *words: str) -> bool:
        """It failed with one line on stderr that holds these words."""
        assert self.status != 0
        assert self.err.startswith("posthouse: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert all(word in self.err for word in words), self.err
        return True


class Command:
    """`run` is the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.folder = folder

    def run(self, *arguments: str, stdin: str = "") -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["posthouse", *arguments])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8"))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, printed.out, printed.err)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Commands run in an empty folder with no configuration named, on a machine behind a router."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSTHOUSE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    for module in (surroundings, first_look):
        monkeypatch.setattr(module, "outgoing_addresses", lambda: ("192.168.1.7",))
        monkeypatch.setattr(module, "name_of_machine", lambda: None)
    return Command(monkeypatch, capsys, tmp_path)


@pytest.fixture
def furnished(command: Command) -> Command:
    """The same in the folder of a house with the account ada@here.test."""
    (command.folder / "posthouse.toml").write_text(CONFIG)
    asyncio.run(furnish(house_config(command.folder), World(), ("ada@here.test",)))
    return command


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users may enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="posthouse-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def spawn(*arguments: str, folder: Path, **options: object) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    environment.pop("POSTHOUSE_CONFIG", None)
    return subprocess.Popen(
        [sys.executable, "-m", "posthouse.cli", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def spawned(*arguments: str, folder: Path, **options: object) -> Ran:
    process = spawn(*arguments, folder=folder, **options)
    out, err = process.communicate(timeout=60)
    return Ran(process.returncode, out, err)
