"""The tour: one letter travels the whole way, another comes back, and a house is killed in between."""

from __future__ import annotations

import asyncio
import email
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from posthouse.config import load
from posthouse.demo.houses import build, make_pair
from posthouse.demo.ledger import count_afterwards, send_and_kill
from posthouse.demo.people import NotTaken, hand_over, open_maildrop, read_message, write_letter
from posthouse.demo.stage import Stage
from posthouse.engines import open_storage
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Attempted
from posthouse.net.pop3_connection import Pop3Failed
from posthouse.net.smtp_connection import ConnectionBroke, ConnectionFailed
from posthouse.storage.errors import StorageError
from posthouse.trial.house import HouseDidNotStart, TrialHouse
from posthouse.world import World

WAIT_S = 20.0
STEP_FAILURES = (
    TimeoutError,
    OSError,
    NotTaken,
    Pop3Failed,
    ConnectionBroke,
    ConnectionFailed,
    StorageError,
    HouseDidNotStart,
)


class Tour:
    """Runs the steps in order; each tells whether it went as it should."""

    def __init__(self, stage: Stage, north: TrialHouse, south: TrialHouse) -> None:
        self.stage = stage
        self.north = north
        self.south = south
        self._letter_id = ""

    async def run(self) -> None:
        """All steps. A step that fails ends the tour."""
        for step in (
            self._ada_hands_in,
            self._north_forwards,
            self._bob_downloads,
            self._cy_leaves_a_copy,
            self._report_comes_back,
            self._kill_and_count,
        ):
            self.stage.begin()
            try:
                await step()
            except STEP_FAILURES as exc:
                name = step.__name__.strip("_").replace("_", " ").capitalize()
                self.stage.step(f"{name}: {str(exc) or type(exc).__name__}", ok=False)
            if self.stage.failed:
                return

    async def _ada_hands_in(self) -> None:
        letter = write_letter(
            "ada@north.test", "bob@south.test", "Tea on Sunday", "Come at four.", now=time.time(), unique="tea"
        )
        said = Dialogue(client="Ada", server="North")
        said.expect("AUTH", "", "235", "she is who she says she is")
        said.expect("RCPT", "", "250", "North will see that Bob gets it; go on")
        said.expect(
            "(content)",
            f"(the letter, {len(letter.content)} octets)",
            "250",
            "on disk; this id is its name from now on",
        )
        reply = await hand_over(
            letter, self.north.submission, login=("ada@north.test", self.north.passwords["ada"]), trace=said.note
        )
        self._letter_id = reply.text.split()[-1]
        said.show(self.stage)
        self.stage.step("Ada hands a letter for Bob to her house, North.")

    async def _north_forwards(self) -> None:
        attempt = await self._delivery(self._letter_id)
        said = Dialogue(client="North", server="South")
        said.expect("RCPT", "", "250", "Bob lives there; go on")
        said.expect("(content)", "(the letter, North's stamp on top)", "250", "on South's disk: North may forget it")
        for line in attempt.transcript:
            said.note(line[0], line[3:])
        said.show(self.stage)
        self.stage.step("North forwards it to South, Bob's house.", ok=attempt.outcome == "delivered")

    async def _bob_downloads(self) -> None:
        said = Dialogue(client="Bob", server="South")
        said.expect("PASS", "", "+OK", "the maildrop is his alone until he leaves")
        said.expect("DELE", "", "+OK", "only marked, in case the line breaks now")
        said.expect("QUIT", "", "+OK", "deleted, and that is on disk too")
        await self._wait_for_mail("bob", 1)
        bob = await open_maildrop("bob@south.test", self.south.passwords["bob"], self.south.pop3, said.note)
        message = await read_message(bob, 1)
        await bob.delete(1)
        await bob.quit()
        left = await self._count("bob")
        said.show(self.stage)
        whole = b"Come at four." in message and message.count(b"\r\nReceived: ") == 2
        self.stage.step(f"Bob downloads it over POP3 ({len(message)} octets) and deletes it.", ok=whole and left == 0)

    async def _cy_leaves_a_copy(self) -> None:
        letter = write_letter("ada@north.test", "cy@south.test", "The same", "Come too.", now=time.time(), unique="cy")
        await hand_over(letter, self.north.submission, login=("ada@north.test", self.north.passwords["ada"]))
        await self._wait_for_mail("cy", 1)
        first = await self._read_and_leave()
        second = await self._read_and_leave()
        self.stage.said("Cy", "UIDL", "first visit: what is there?")
        self.stage.said("South", f"1 {first}", "message 1, and its name for ever")
        self.stage.said("Cy", "UIDL", "second visit")
        self.stage.said("South", f"1 {second}", "the same: no second download")
        self.stage.step("Cy reads hers, leaves a copy, and sees the same UIDL again.", ok=first == second)

    async def _report_comes_back(self) -> None:
        letter = write_letter(
            "ada@north.test", "nobdy@south.test", "Hello?", "Who is there?", now=time.time(), unique="nobdy"
        )
        reply = await hand_over(letter, self.north.submission, login=("ada@north.test", self.north.passwords["ada"]))
        attempt = await self._delivery(reply.text.split()[-1])
        said = Dialogue(client="North", server="South")
        said.expect("RCPT", "", "550", "nobody of that name; do not try again")
        for line in attempt.transcript:
            said.note(line[0], line[3:])
        await self._wait_for_mail("ada", 1, house=self.north)
        ada = await open_maildrop("ada@north.test", self.north.passwords["ada"], self.north.pop3)
        report = email.message_from_bytes(await read_message(ada, 1))
        await ada.quit()
        said.show(self.stage)
        self.stage.said("Ada", f"{report['Subject']}", "North's report in her maildrop says why")
        is_report = report.get_content_type() == "multipart/report" and report["Return-Path"] == "<>"
        self.stage.step("A letter to nobdy@south.test comes back to Ada with a report.", ok=is_report)

    async def _kill_and_count(self) -> None:
        ledger = await send_and_kill(self.south, "bob@south.test")
        self.stage.said(
            "demo", "kill -9 South, while 4 senders hand in letters", "no farewell, no time to save anything"
        )
        await self.south.start()
        self.stage.said(
            "demo", "South is started again, its letters counted", "by the ids in the 250s that senders saw"
        )
        await count_afterwards(self.south, "bob@south.test", self.south.passwords["bob"], ledger)
        there = f"{len(ledger.acknowledged)} acknowledged, {ledger.present} there"
        self.stage.said("demo", there, f"{ledger.lost} lost, {ledger.twice} twice")
        ok = bool(ledger.acknowledged) and not ledger.lost and not ledger.twice
        self.stage.step("South is killed while letters arrive, and keeps every promise.", ok=ok)

    async def _read_and_leave(self) -> str:
        cy = await open_maildrop("cy@south.test", self.south.passwords["cy"], self.south.pop3)
        uidls = await cy.uidls()
        await read_message(cy, 1)
        await cy.quit()
        return uidls[1]

    async def _count(self, person: str, house: TrialHouse | None = None) -> int:
        home = house or self.south
        connection = await open_maildrop(f"{person}@{home.name}", home.passwords[person], home.pop3)
        sizes = await connection.sizes()
        await connection.quit()
        return len(sizes)

    async def _wait_for_mail(self, person: str, count: int, house: TrialHouse | None = None) -> None:
        async with asyncio.timeout(WAIT_S):
            while await self._count(person, house) < count:
                await asyncio.sleep(0.05)

    async def _delivery(self, queue_id: str) -> Attempted:
        """North's journey tells when a message's attempt has ended, and what was said."""
        world = World()
        storage = await open_storage(load(self.north.config), world)
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    for event in await storage.journey.read(QueueId(queue_id)):
                        if isinstance(event, Attempted):
                            return event
                    await asyncio.sleep(0.02)
        finally:
            await storage.close()


class Dialogue:
    """Picks the telling lines out of a dialogue: a client's line and the reply to it."""

    def __init__(self, *, client: str, server: str) -> None:
        self._client = client
        self._server = server
        self._expected: list[tuple[str, str, str, str]] = []
        self._lines: list[tuple[str, str]] = []

    def expect(self, command: str, shown: str, code: str, meaning: str) -> None:
        """Show the first line that starts with `command` (as `shown`), and the next reply with `code`."""
        self._expected.append((command, shown, code, meaning))

    def note(self, who: str, line: str) -> None:
        """Take the next line; who is C or S."""
        self._lines.append((who, line))

    def show(self, stage: Stage) -> None:
        """Put the pairs on the stage. Raises NotTaken for one that was not seen: the tour shows what happened."""
        for command, shown, code, meaning in self._expected:
            asked = next(
                (i for i, (who, line) in enumerate(self._lines) if who == "C" and line.startswith(command)), None
            )
            if asked is None:
                raise NotTaken(f"{command} was not said")
            answers = [line for who, line in self._replies(asked, code) if who == "S" and line.startswith(code)]
            if not answers:
                raise NotTaken(f"{command} was not answered with {code}")
            stage.said(self._client, shown or self._lines[asked][1])
            stage.said(self._server, answers[0], meaning)

    def _replies(self, asked: int, code: str) -> list[tuple[str, str]]:
        """Lines from the peer that can answer the line at `asked`: in a pipelined group, one reply for each."""
        before = [line for who, line in self._lines[:asked] if who == "C"]
        replies = [(who, line) for who, line in self._lines if who == "S" and line[3:4] != "-"]
        # The greeting answers the line that tells of the connection, where there is one; then one for each line.
        unasked = int(self._lines[0][0] == "S")
        return replies[len(before) + unasked :] if code[:1].isdigit() else self._lines[asked:]


async def run_demo(*, once: bool) -> int:
    """Build the houses, run the tour, and stay up unless `once`. Returns the exit status."""
    stage = Stage()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="posthouse-demo-") as folder:
        north, south = make_pair(Path(folder))
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(_perform(stage, north, south, once=once, stop=stop))
                interrupt = group.create_task(stop.wait())
                await asyncio.wait((work, interrupt), return_when=asyncio.FIRST_COMPLETED)
                work.cancel()
                interrupt.cancel()
        except* HouseDidNotStart as problems:
            stage.plain(f"posthouse: {problems.exceptions[0]}")
            stage.failed = True
        finally:
            await north.stop()
            await south.stop()
    return 1 if stage.failed else 0


async def _perform(stage: Stage, north: TrialHouse, south: TrialHouse, *, once: bool, stop: asyncio.Event) -> None:
    stage.title("Two mail houses on this computer: North, where Ada lives, and South, where Bob and Cy live.")
    await build(north, south, ("ada",))
    await build(south, north, ("bob", "cy"))
    async with asyncio.TaskGroup() as group:
        group.create_task(north.start())
        group.create_task(south.start())
    await Tour(stage, north, south).run()
    stage.end()
    if stage.failed:
        for house in (north, south):
            stage.plain(f"The last lines of {house.name}'s log:")
            for line in house.last_lines(3):
                stage.plain(f"  {line}")
        return
    if once:
        stage.plain("Without --once the houses stay up, for your own mail programs.")
        return
    _invite(stage, south)
    await stop.wait()


def _invite(stage: Stage, south: TrialHouse) -> None:
    stage.plain()
    stage.plain("Both houses stay up. Send and read with your own programs, for example from another terminal:")
    for line in invitation(south):
        stage.plain(line)
    stage.plain("Ctrl-C ends both and leaves nothing behind.")


def invitation(south: TrialHouse) -> tuple[str, ...]:
    """Commands that work as they stand. Cy's maildrop holds one message, so the next is her second."""
    program = "posthouse" if shutil.which("posthouse") else f"{sys.executable} -m posthouse.cli"
    return (
        "  send  printf 'Subject: Hello\\n\\nFrom outside.\\n' | curl --crlf -T -"
        f" smtp://127.0.0.1:{south.smtp} --mail-from me@example.org --mail-rcpt cy@south.test",
        f"  read  curl pop3://127.0.0.1:{south.pop3}/2 -u cy@south.test:{south.passwords['cy']}",
        f"  look  {program} journey --to cy@south.test --config {south.config}",
    )
