"""Postfix's own test programs: `smtp-source` sends, `smtp-sink` swallows."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.peers.programs import Program, Run, accepts, end, find, free_port, spawn, wait_until


@dataclass(frozen=True, slots=True)
class SmtpSource:
    """Sends messages by SMTP as fast as it can."""

    program: Program

    def send(
        self,
        port: int,
        *,
        messages: int = 1,
        sessions: int = 1,
        size_octets: int = 1024,
        reverse_path: str = "source@client.test",
        forward_path: str = "sink@house.test",
    ) -> Run:
        """Send all messages, over so many sessions at a time; the exit status is 0 only if all were accepted."""
        sizes = ["-m", str(messages), "-s", str(sessions), "-l", str(size_octets)]
        paths = ["-f", reverse_path, "-t", forward_path]
        # -d: several messages in one session; -M: the name it says in EHLO, else it asks the resolver for one.
        return self.program("-d", "-M", "client.test", *sizes, *paths, f"inet:127.0.0.1:{port}")


@dataclass(kw_only=True)
class SmtpSink:
    """An SMTP server that accepts everything, into one file for each message, but as its own `options` say."""

    folder: Path
    port: int = field(default_factory=free_port)
    address: str = "127.0.0.1"
    options: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = find("smtp-sink")
        assert program is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        become = []
        if os.geteuid() == 0:
            # It refuses to serve as root; it then writes its files as that user.
            os.chown(self.folder, pwd.getpwnam("nobody").pw_uid, -1)
            become = ["-u", "nobody"]
        arguments = [*become, *self.options, "-c", "-d", "message.", "-h", "sink.test"]
        arguments += [f"inet:{self.address}:{self.port}", "100"]
        self._process = spawn([program, *arguments], self.folder, self.folder.parent / "sink.log")
        wait_until(self._is_up, "smtp-sink did not start")

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def messages(self) -> list[bytes]:
        """What was accepted, with the `X-...` fields in which smtp-sink notes the envelope."""
        return [path.read_bytes() for path in sorted(self.folder.glob("message.*"))]

    def wait_for_messages(self, count: int) -> list[bytes]:
        """Wait for so many messages, and until none of them is still being written."""
        wait_until(lambda: self._complete(count), f"smtp-sink got fewer than {count} messages")
        return self.messages()

    def _complete(self, count: int) -> bool:
        assert self._process is not None
        enough = len(self.messages()) >= count
        # The sink opens a file when it hears the envelope, and closes it before it answers the content.
        descriptors = Path(f"/proc/{self._process.pid}/fd").iterdir()
        return enough and not any(os.path.realpath(each).startswith(f"{self.folder}/") for each in descriptors)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self.folder.parent / "sink.log").read_text())
        return accepts(self.port, self.address)
