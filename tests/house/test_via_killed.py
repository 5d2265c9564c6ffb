"""An identity's mail while its house is killed between the final dot and the provider's answer: its owner decides."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.served import ServedHouse
from tests.house.wire import Wire
from tests.house.zygote import Zygote
from tests.running_house import PASSWORD

pytestmark = pytest.mark.long

ADA, OWN, CY, NOBODY = "ada@here.test", "ada@provider.test", "cy@far.test", "nobody@far.test"
PATIENCE_S = 60.0


class Provider(socketserver.ThreadingTCPServer):
    """Takes mail with a login; without `answers`, it says nothing to the end of content."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.answers = False
        self.contents = 0
        """Whole contents that came, answered or not."""
        self.taken: list[list[str]] = []
        self.came = threading.Semaphore(0)


class Session(socketserver.StreamRequestHandler):
    server: Provider

    def handle(self) -> None:
        self._say("220 provider.test")
        recipients: list[str] = []
        for octets in self.rfile:
            line = octets.decode().strip()
            match line.split(" ")[0].upper():
                case "EHLO":
                    self._say("250-provider.test\r\n250-PIPELINING\r\n250 AUTH PLAIN")
                case "AUTH":
                    self._say("235 2.7.0 in")
                case "RCPT" if NOBODY in line:
                    self._say("550 5.1.1 no such user")
                case "RCPT":
                    recipients.append(line[line.index("<") + 1 : line.index(">")])
                    self._say("250 2.1.5 fine")
                case "DATA" if not recipients:
                    self._say("554 5.5.1 nobody")
                case "DATA":
                    self._say("354 go on")
                    self._content(recipients)
                    recipients = []
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 2.0.0 fine")

    def _content(self, recipients: list[str]) -> None:
        while self.rfile.readline() not in (b".\r\n", b""):
            pass
        self.server.contents += 1
        if self.server.answers:
            self.server.taken.append(recipients)
            self._say("250 2.0.0 taken")
        self.server.came.release()
        if not self.server.answers:
            self.rfile.read()

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@contextmanager
def provider() -> Iterator[Provider]:
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True)
class Owner:
    """Who runs commands beside the house."""

    house: ServedHouse
    zygote: Zygote

    def command(self, *arguments: str) -> str:
        """What the command line says; it must succeed."""
        status, stdout, stderr = self.zygote.run(*arguments, "--config", str(self.house.folder / "posthouse.toml"))
        assert status == 0, stderr
        return stdout

    def waiting(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads(self.command("queue", "list", "--json"))
        return rows

    def ask_until(self, right: Callable[[list[dict[str, object]]], bool]) -> list[dict[str, object]]:
        """Each question starts a program, so nothing else is waited for."""
        rows: list[dict[str, object]] = []
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            rows = self.waiting()
            if right(rows):
                return rows
        raise AssertionError(rows)


def submit(house: ServedHouse, *recipients: str) -> str:
    with Wire(house.ports["submission"]).greet() as wire:
        secret = base64.b64encode(f"\0{ADA}\0{PASSWORD}".encode()).decode()
        assert wire.say(f"AUTH PLAIN {secret}").startswith(b"235 ")
        return wire.deliver(b"From: ada@provider.test\r\n\r\nhi\r\n", *recipients, sender=OWN)


def test_what_may_have_left_is_sent_again_only_by_its_owner(tmp_path: Path, zygote: Zygote) -> None:
    with provider() as server:
        via = f"127.0.0.1:{server.server_address[1]}"
        (tmp_path / "password").write_text("geheim")
        (tmp_path / "password").chmod(0o600)
        login = f'[forwarding.login."{via}"]\nuser = "{OWN}"\npassword_file = "password"\ntls = "never"\n'
        with ServedHouse(tmp_path, (ADA,), f'[forwarding]\nretry = ["200ms"]\n{login}', zygote=zygote) as house:
            owner = Owner(house, zygote)
            owner.command("identity", "add", OWN, "--account", ADA, "--via", via)
            house.start()
            queue_id = submit(house, CY, NOBODY)
            assert server.came.acquire(timeout=PATIENCE_S), "the content did not come"
            house.kill()

            house.start()
            # Whom the provider refused is asked again, and fails; whom it may have taken is held.
            (row,) = owner.ask_until(lambda rows: len(rows) == 1)
            assert (row["forward_path"], row["held"], row["may_have_arrived"]) == (CY, True, True)
            shown = owner.command("queue", "show", queue_id)
            assert "may have arrived" in shown
            assert f"posthouse queue remove {queue_id}" in shown
            assert server.contents == 1, "nothing was sent without being asked for"

            server.answers = True
            owner.command("queue", "release", queue_id)
            assert server.came.acquire(timeout=PATIENCE_S), "the content did not come"
            owner.ask_until(lambda rows: not rows)
            assert server.taken == [[CY]]

            server.answers = False
            queue_id = submit(house, CY)
            assert server.came.acquire(timeout=PATIENCE_S), "the content did not come"
            house.kill()
            house.start()
            owner.ask_until(lambda rows: [row["may_have_arrived"] for row in rows] == [True])
            owner.command("queue", "remove", queue_id)
            assert owner.waiting() == []
            assert (server.contents, server.taken) == (3, [[CY]])
            house.stop()
