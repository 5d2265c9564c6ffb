"""The last step of the tour: a house is killed while letters arrive, and its promises are counted afterwards."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field

from posthouse.demo.people import NotTaken, deliver, open_maildrop, write_letter
from posthouse.net.connect import TcpConnector
from posthouse.net.smtp_connection import ConnectionBroke, ConnectionFailed, SmtpConnection
from posthouse.trial.house import TrialHouse

SENDERS = 4
ACKNOWLEDGED_BEFORE_KILL = 200

_QUEUE_ID = re.compile(r"\b[0-7][0-9A-Z]{25}\b")


@dataclass(slots=True)
class Ledger:
    """Queue ids of the `250`s that senders saw, and what was found after the kill."""

    acknowledged: set[str] = field(default_factory=set)
    found: Counter[str] = field(default_factory=Counter)

    @property
    def present(self) -> int:
        return sum(1 for queue_id in self.acknowledged if self.found[queue_id])

    @property
    def lost(self) -> int:
        return len(self.acknowledged) - self.present

    @property
    def twice(self) -> int:
        return sum(1 for count in self.found.values() if count > 1)


async def send_and_kill(house: TrialHouse, recipient: str) -> Ledger:
    """Let senders hand in letters until enough are acknowledged, then kill the house under them."""
    ledger = Ledger()
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(SENDERS):
            group.create_task(_send_until_it_dies(house, recipient, number, ledger, enough))
        await enough.wait()
        await house.kill()
    return ledger


async def count_afterwards(house: TrialHouse, login: str, password: str, ledger: Ledger) -> None:
    """What is in the maildrop: by the queue id, which is the UIDL."""
    connection = await open_maildrop(login, password, house.pop3)
    ledger.found.update((await connection.uidls()).values())
    await connection.quit()


async def _send_until_it_dies(
    house: TrialHouse, recipient: str, number: int, ledger: Ledger, enough: asyncio.Event
) -> None:
    try:
        stream = await TcpConnector().connect("127.0.0.1", house.smtp)
        connection = SmtpConnection(stream, f"sender{number}.test")
        await connection.start()
        for count in range(100_000):
            letter = write_letter(
                f"sender{number}@elsewhere.test",
                recipient,
                f"Letter {count}",
                "x" * 60,
                now=time.time(),
                unique=f"{number}.{count}.{os.getpid()}",
            )
            reply = await deliver(connection, letter)
            ledger.acknowledged.update(_QUEUE_ID.findall(reply.text))
            if len(ledger.acknowledged) >= ACKNOWLEDGED_BEFORE_KILL:
                enough.set()
    except (ConnectionBroke, ConnectionFailed, OSError, NotTaken):
        # The house is gone: what it had not acknowledged is not in the ledger.
        enough.set()
