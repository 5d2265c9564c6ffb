"""`posthouse serve` as a process of its own: what can be killed and measured."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from posthouse.config import load
from posthouse.world import World
from tests.house.zygote import Forked, Zygote
from tests.running_house import DOORS, furnish

SRC = Path(__file__).parents[2] / "src"


class ServedHouse:
    """A folder with a house in it; `start` and `kill` as often as wanted. `ports` are of the last start."""

    def __init__(
        self,
        folder: Path,
        people: tuple[str, ...],
        more: str = "",
        doors: tuple[str, ...] = DOORS,
        *,
        workers: int = 1,
        hostname: str = "mx.here.test",
        fixed_ports: Mapping[str, int] | None = None,
        zygote: Zygote | None = None,
    ) -> None:
        """`fixed_ports`: of doors that others must find again after a restart; the rest get any port each time.

        `zygote`: whose fork each start is, instead of a Python of its own.
        """
        self.folder = folder
        self.zygote = zygote
        self.under: tuple[str, ...] = ()
        """The program and its arguments that the house is started by."""
        self.said = ""
        """What the house that ended last had written after it was open."""
        self._doors = doors
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[str] | Forked | None = None
        # No test asks the machine's name servers, and some send a lot.
        reception = "[reception]\nrefuse_null_mx_senders = false\nrecipients_per_hour = 0"
        more = more.replace("[reception]", reception) if "[reception]" in more else f"{reception}\n{more}"
        fixed = fixed_ports or {}
        listen = "\n".join(f'{door} = ["127.0.0.1:{fixed.get(door, 0)}"]' for door in doors)
        (folder / "posthouse.toml").write_text(
            f'hostname = "{hostname}"\ndata_dir = "."\nworkers = {workers}\n'
            f"[listen]\n{listen}\n[auth]\nallow_cleartext = true\n{more}\n"
        )
        asyncio.run(furnish(load(folder / "posthouse.toml"), World(), people))

    def __enter__(self) -> ServedHouse:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind, whatever failed."""
        if self._process is not None:
            self.kill()

    def start(self) -> None:
        """Returns when every door is open."""
        serve = ("serve", "--config", str(self.folder / "posthouse.toml"))
        if self.zygote is not None:
            assert not self.under
            self._process = self.zygote.start(serve)
        else:
            command = [*self.under, sys.executable, "-m", "posthouse.cli", *serve]
            self._process = subprocess.Popen(
                command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SRC)}, text=True
            )
        assert self._process.stderr is not None
        said: list[str] = []
        for line in self._process.stderr:
            said.append(line)
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "house open":
                self.ports = {door: int(event[door].rpartition(":")[2]) for door in self._doors}
                break
        else:
            self._process.stderr.close()
            self._process.wait(30)
            self._process = None
            raise AssertionError("the house did not open: " + "".join(said))
        self._log = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._log.start()

    def _listen(self, log: IO[str]) -> None:
        self.said = log.read()

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        assert self._process is not None
        return self._process.pid

    def workers(self) -> list[int]:
        """Process ids of the worker processes; none where the house is one process."""
        assert self._process is not None
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self) -> None:
        """SIGKILL for all of it: nothing can be finished."""
        # Its parent neither replaces a worker meanwhile nor dies before them, at which they would say farewell.
        self._signal(signal.SIGSTOP)
        workers = [os.pidfd_open(worker) for worker in self.workers()]
        for worker in workers:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(worker, signal.SIGKILL)
            os.close(worker)
        self._signal(signal.SIGKILL)
        self._wait()

    def has_ended(self) -> bool:
        """Whether something else ended it; `kill` is called nevertheless."""
        end = os.pidfd_open(self.pid)
        try:
            return bool(select.select([end], [], [], 0)[0])
        finally:
            os.close(end)

    def kill_parent(self) -> None:
        """SIGKILL for the process that was started; returns when its workers have ended by themselves."""
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """SIGTERM: a graceful end, with status 0."""
        self._signal(signal.SIGTERM)
        assert self._wait() == 0

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _wait(self) -> int:
        """Wait until all of its processes have ended: they share the log."""
        process, self._process = self._process, None
        assert process is not None
        assert process.stderr is not None
        status = process.wait(30)
        self._log.join(30)
        assert not self._log.is_alive(), "a process of the house did not end"
        process.stderr.close()
        return status

    def memory_kib(self, key: str) -> int:
        """VmRSS or VmHWM."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{key}:")))

    def sockets(self) -> int:
        """Sockets that the process holds open. (Files come and go: the database has readers that open when needed.)"""
        assert self._process is not None
        count = 0
        for descriptor in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                count += os.readlink(descriptor).startswith("socket:")
        return count

    def processor_s(self) -> float:
        """Seconds of the processor used so far, by all threads."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """VmHWM begins again at VmRSS."""
        assert self._process is not None
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")
