"""strace, which lets system calls fail or end their process."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.peers.programs import environment

KILL = "signal=KILL"
GRACE_S = 10.0


def injecting(call: str, what: str, when: int) -> list[str]:
    """Arguments that strike the `when`-th call of this name, counted for each thread apart."""
    return ["-e", f"inject={call}:{what}:when={when}"]


def error(name: str) -> str:
    return f"error={name}"


class Attached:
    """strace on all threads of a process that runs, from `with` on to the end of the process or of the block."""

    def __init__(self, strace: Path, pid: int, log: Path, arguments: Sequence[str]) -> None:
        self.log = log
        self._command = [str(strace), "-f", "-o", str(log), *arguments, "-p", str(pid)]

    def __enter__(self) -> Attached:
        # The machine's own loader and libraries: the unpacked ones are only for what was unpacked.
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, env=environment(), text=True)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        assert " attached" in said, said
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            # Seen where all threads had ended at once: strace waits for one that is a zombie already, for ever.
            self._process.kill()
            self._process.communicate()
