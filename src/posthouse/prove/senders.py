"""Senders: all ways in which a letter may be handed over, and mail that must be refused."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from posthouse.prove import letters
from posthouse.prove.houses import HOUSE, LIMIT_OCTETS, NEIGHBOUR, NEIGHBOURS, READERS, SENDER
from posthouse.prove.ledger import NOBODY, Ledger
from posthouse.prove.wire import Gone, Unexpected, Wire, commands, connected, stuffed

STRANGER = f"nobody@{HOUSE}"
PAUSE_S = 0.03
"""After a connection that failed."""
_HERE = tuple(f"{name}@{HOUSE}" for name in READERS)
_THERE = tuple(f"{name}@{NEIGHBOUR}" for name in NEIGHBOURS)
_STORED = re.compile(rb"250 2\.0\.0 Stored as ([0-9A-Z]{26})")


@dataclass(frozen=True, slots=True)
class _Letter:
    """What is to be sent, perhaps again."""

    serial: int
    content: bytes
    recipients: tuple[str, ...]
    declared: bool = True
    """Whether its size is told in MAIL."""


@dataclass(slots=True)
class Sender:
    """One program that hands over letters until it is told to stop."""

    ledger: Ledger
    port: int
    chance: random.Random
    stopping: asyncio.Event
    again: list[_Letter] = field(default_factory=list)
    """Letters without an answer, some of which are sent again."""

    async def run(self) -> None:
        """Sessions, one after the other. Raises Unexpected for an answer that no server may give."""
        while not self.stopping.is_set():
            try:
                async with connected(self.port) as wire:
                    await wire.greet()
                    for _ in range(self.chance.randrange(1, 30)):
                        if self.stopping.is_set():
                            break
                        await self._send_one(wire)
                        # A program that also does something else.
                        await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.005, 0.02)))
                    if self.chance.random() < 0.7:
                        await wire.say("QUIT")
            except Gone:
                await asyncio.sleep(PAUSE_S)

    async def _send_one(self, wire: Wire) -> None:
        letter = self._choose()
        if self.chance.random() < 0.4:
            await self._send_chunks(wire, letter)
        else:
            await self._send_data(wire, letter)

    def _choose(self) -> _Letter:
        chance = self.chance
        if self.again and chance.random() < 0.5:
            return self.again.pop()
        serial = self.ledger.next_serial()
        dice = chance.random()
        recipients = self._recipients()
        content, declared = letters.write(serial, chance), chance.random() < 0.7
        is_welcome = dice >= 0.03
        if dice < 0.01:
            content, declared = letters.write_too_large(serial, LIMIT_OCTETS), chance.random() < 0.5
        elif dice < 0.03:
            content = letters.write_malformed(serial)
        elif dice < 0.08:
            recipients = (STRANGER,)
        elif dice < 0.12:
            recipients = (*recipients, STRANGER)
        self.ledger.write(serial, content, is_welcome=is_welcome)
        return _Letter(serial, content, recipients, declared=declared)

    def _recipients(self) -> tuple[str, ...]:
        """Mostly one; here, at the neighbour, or both; now and then somebody whom the neighbour does not know."""
        chance = self.chance
        dice = chance.random()
        if dice < 0.03:
            return (NOBODY,)
        pool = _HERE if dice < 0.6 else _THERE if dice < 0.85 else (*_HERE, *_THERE)
        return tuple(chance.sample(pool, min(len(pool), chance.choice((1, 1, 1, 2, 4)))))

    async def _send_data(self, wire: Wire, letter: _Letter) -> None:
        """MAIL, RCPT, DATA: one by one or in one go."""
        lines = [*self._envelope(letter), "DATA"]
        replies = await self._ask(wire, lines, pipelined=self.chance.random() < 0.5)
        accepted = self._sort(letter, replies[1:-1])
        if not replies[-1].startswith(b"354"):
            await self._give_up(wire, letter)
            return
        octets = stuffed(letter.content) + b".\r\n"
        last = self.chance.randrange(1, min(len(octets), 300))
        try:
            await wire.send(octets[:-last])
        except Gone:
            return
        await self._finish(wire, letter, accepted, octets[-last:])

    async def _send_chunks(self, wire: Wire, letter: _Letter) -> None:
        """MAIL, RCPT, BDAT (RFC 3030); the chunks pipelined behind the envelope, or each one waited for."""
        pieces = self._pieces(letter.content)
        lines = self._envelope(letter)
        if self.chance.random() < 0.3:
            # All of it in one go, the last chunk too: whoever of the recipients is taken has it.
            octets = commands(lines) + b"".join(_chunk(piece, piece is pieces[-1]) for piece in pieces)
            await self._finish_blind(wire, letter, octets, len(lines), len(pieces))
            return
        replies = await self._ask(wire, lines, pipelined=self.chance.random() < 0.5)
        accepted = self._sort(letter, replies[1:])
        if not accepted:
            await self._give_up(wire, letter)
            return
        for piece in pieces[:-1]:
            await wire.send(_chunk(piece, False))
            if not (await wire.reply()).startswith(b"250"):
                await self._give_up(wire, letter)
                return
        await self._finish(wire, letter, accepted, _chunk(pieces[-1], True))

    def _pieces(self, content: bytes) -> list[bytes]:
        if self.chance.random() < 0.4:
            return [content]
        size = self.chance.randrange(len(content) // 4 + 1, len(content) + 1)
        return [content[at : at + size] for at in range(0, len(content), size)]

    def _envelope(self, letter: _Letter) -> list[str]:
        size = f" SIZE={len(letter.content)}" if letter.declared else ""
        mail = f"MAIL FROM:<{SENDER}@{NEIGHBOUR}>{size}"
        return [mail, *(f"RCPT TO:<{recipient}>" for recipient in letter.recipients)]

    async def _ask(self, wire: Wire, lines: Sequence[str], *, pipelined: bool) -> list[bytes]:
        if not pipelined:
            return [await wire.say(line) for line in lines]
        await wire.send(commands(lines))
        return [await wire.reply() for _ in lines]

    def _sort(self, letter: _Letter, replies: Sequence[bytes]) -> list[str]:
        """Who was taken; the others are noted."""
        pairs = list(zip(letter.recipients, replies, strict=True))
        self.ledger.turn_away(letter.serial, [who for who, reply in pairs if not reply.startswith(b"25")])
        accepted = [who for who, reply in pairs if reply.startswith(b"25")]
        if STRANGER in accepted:
            raise Unexpected("a recipient who is not here was taken")
        return accepted

    async def _give_up(self, wire: Wire, letter: _Letter) -> None:
        self.ledger.refuse(letter.serial)
        await wire.say("RSET")

    async def _finish(self, wire: Wire, letter: _Letter, accepted: list[str], last: bytes) -> None:
        """Send the end of the content, and take the answer down."""
        try:
            await wire.send(last)
            answer = await wire.reply()
        except BaseException:
            self._doubt(letter, accepted)
            raise
        self._answered(letter, accepted, answer)

    async def _finish_blind(self, wire: Wire, letter: _Letter, octets: bytes, lines: int, chunks: int) -> None:
        try:
            await wire.send(octets)
            replies = [await wire.reply() for _ in range(lines + chunks)]
        except BaseException:
            self._doubt(letter, letter.recipients)
            raise
        self._answered(letter, self._sort(letter, replies[1:lines]), replies[-1])
        if not replies[-1].startswith(b"250"):
            await wire.say("RSET")

    def _doubt(self, letter: _Letter, recipients: Sequence[str]) -> None:
        self.ledger.leave_unanswered(letter.serial, recipients)
        self.again.append(letter)

    def _answered(self, letter: _Letter, accepted: Sequence[str], answer: bytes) -> None:
        stored = _STORED.match(answer)
        if stored is not None:
            self.ledger.acknowledge(letter.serial, stored[1].decode(), accepted, time.time())
        elif answer[:1] in (b"4", b"5"):
            self.ledger.refuse(letter.serial)
            if answer[:1] == b"4":
                self.again.append(letter)
        else:
            raise Unexpected(f"the end of content was answered with {answer!r}")


def _chunk(octets: bytes, last: bool) -> bytes:
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets
