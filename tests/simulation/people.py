"""Who sends and who reads: clients that keep an account of what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import cast

from posthouse.net.stream import Stream
from tests.simulation.network import Host, Network
from tests.simulation.places import PASSWORD

WAIT_S = 600.0


class Gone(Exception):
    """The other side has closed, or answers no more."""


class Dialogue:
    """Lines to and from a server."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = b""

    @classmethod
    async def open(cls, network: Network, host: Host, address: str, port: int) -> Dialogue:
        """Raises Gone."""
        try:
            transport = await network.connect(host, address, port)
        except OSError as exc:
            raise Gone from exc
        stream = Stream()
        transport.begin(cast(asyncio.Protocol, stream))
        return cls(stream)

    def say(self, octets: bytes) -> None:
        self._stream.write(octets)

    async def line(self) -> bytes:
        """Raises Gone."""
        while b"\r\n" not in self._buffer:
            await self._read()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    async def reply(self) -> bytes:
        """The last line of a reply of SMTP. Raises Gone."""
        line = await self.line()
        while line[3:4] == b"-":
            line = await self.line()
        return line

    async def lines(self) -> bytes:
        """What stands before the line with a dot, as it was before it was stuffed. Raises Gone."""
        while not (self._buffer.startswith(b".\r\n") or b"\r\n.\r\n" in self._buffer):
            await self._read()
        if self._buffer.startswith(b".\r\n"):
            self._buffer = self._buffer[3:]
            return b""
        found, _, self._buffer = self._buffer.partition(b"\r\n.\r\n")
        found = found.replace(b"\r\n..", b"\r\n.")
        return (found[1:] if found.startswith(b"..") else found) + b"\r\n"

    async def ask(self, command: str) -> bytes:
        """Raises Gone."""
        self.say(command.encode() + b"\r\n")
        return await self.reply()

    def leave(self) -> None:
        self._stream.abort()

    async def _read(self) -> None:
        try:
            octets = await self._stream.read(timeout_s=WAIT_S)
        except TimeoutError as exc:
            raise Gone from exc
        if not octets:
            raise Gone
        self._buffer += octets


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What somebody tries to send, once: another try has another Message-ID."""

    message_id: str
    reverse_path: str
    forward_paths: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """`code`: of the reply to the content, or of what stood in its way; 0 when none came.

    `dot`: whether the final dot had been sent. `taken`: those that RCPT was granted for.
    """

    code: int
    dot: bool
    taken: tuple[str, ...] = ()
    queue_id: str = ""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client sends."""

    pipelined: bool = False
    leaves_early: bool = False
    """It goes after the final dot, without waiting for the reply."""


async def send(dialogue: Dialogue, letter: Letter, manner: Manner) -> Answer:
    """One message over a fresh connection."""
    taken: list[str] = []
    dot = False
    try:
        for answer in (await dialogue.reply(), await dialogue.ask("EHLO client.test")):
            if not answer.startswith(b"2"):
                return Answer(int(answer[:3]), False)
        commands = [f"MAIL FROM:<{letter.reverse_path}>", *(f"RCPT TO:<{path}>" for path in letter.forward_paths)]
        if manner.pipelined:
            dialogue.say("".join(f"{command}\r\n" for command in commands).encode())
        last = b""
        for index, command in enumerate(commands):
            answer = await dialogue.reply() if manner.pipelined else await dialogue.ask(command)
            if index and answer.startswith(b"2"):
                taken.append(letter.forward_paths[index - 1])
            elif not answer.startswith(b"2"):
                last = answer
        if not taken:
            return Answer(int(last[:3]), False)
        answer = await dialogue.ask("DATA")
        if not answer.startswith(b"354"):
            return Answer(int(answer[:3]), False)
        dot = True
        dialogue.say(stuffed(letter.content) + b".\r\n")
        if manner.leaves_early:
            return Answer(0, True, tuple(taken))
        answer = await dialogue.reply()
        code = int(answer[:3])
        if code == 250:
            dialogue.say(b"QUIT\r\n")
        return Answer(code, True, tuple(taken), answer.split()[-1].decode() if code == 250 else "")
    except Gone:
        return Answer(0, dot, tuple(taken))
    finally:
        dialogue.leave()


def stuffed(content: bytes) -> bytes:
    """With a dot before each line that begins with one (RFC 5321 §4.5.2)."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


@dataclass(frozen=True, slots=True)
class Read:
    """One POP3 session: what it was shown, and what became of what it marked.

    `ended`: "deleted" with +OK to QUIT, "kept" where QUIT was not sent, "unknown" where it was not answered, "failed"
    where the answer was -ERR.
    """

    shown: tuple[tuple[str, bytes], ...] = ()
    listed: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()
    ended: str = "kept"


async def read(dialogue: Dialogue, login: str, chance: Random, *, everything: bool = False) -> Read:
    """Log in, read some messages, mark some, and leave in some way. Nothing when the login was not possible."""
    shown: list[tuple[str, bytes]] = []
    marked: list[str] = []
    uidls: Sequence[str] = ()
    ended = "kept"
    try:
        dialogue_ok = await _granted(dialogue)
        for command in (f"USER {login}", f"PASS {PASSWORD}", "UIDL"):
            dialogue.say(command.encode() + b"\r\n")
            dialogue_ok = dialogue_ok and await _granted(dialogue)
        if not dialogue_ok:
            return Read(ended="nothing")
        uidls = [line.split()[1] for line in (await dialogue.lines()).decode().splitlines()]
        for number, uidl in enumerate(uidls, 1):
            if everything or chance.random() < 0.7:
                dialogue.say(b"RETR %d\r\n" % number)
                if await _granted(dialogue):
                    shown.append((uidl, await dialogue.lines()))
            if not everything and chance.random() < 0.5:
                dialogue.say(b"DELE %d\r\n" % number)
                if await _granted(dialogue):
                    marked.append(uidl)
        if everything or chance.random() < 0.6:
            ended = "unknown"
            dialogue.say(b"QUIT\r\n")
            ended = "deleted" if await _granted(dialogue) else "failed"
    except Gone:
        pass
    finally:
        dialogue.leave()
    return Read(tuple(shown), tuple(uidls), tuple(marked), ended)


async def _granted(dialogue: Dialogue) -> bool:
    return (await dialogue.line()).startswith(b"+OK")
