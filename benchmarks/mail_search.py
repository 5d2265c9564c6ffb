"""What it costs to index mail and to search it: the goal is 100,000 messages in less than 100 ms (median).

    PYTHONPATH=src python benchmarks/mail_search.py [--count 100000]

The messages look like a person's: words as rare as those of a language, half of them in conversations, one of three
with HTML, one of eight with a file. One JSON line: seconds to accept and to index, sizes, and the median and slowest of
each kind of question in ms, on a connection with the cache of a house's readers, each asked with other words.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.storage.contract.world import SeededRandom, SetClock

from posthouse.indexing import bring_up_to_date
from posthouse.mail.acceptance import Acceptance, Placement
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentFacts
from posthouse.mail.folders import ARCHIVE, INBOX
from posthouse.mail.header import date_time
from posthouse.mail.ids import AccountId, new_queue_id
from posthouse.mail.mail_query import parse_query
from posthouse.storage.sqlite.storage import SqliteStorage

SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeio"]
VOCABULARY = 40_000
PEOPLE = 2_000
ROUNDS = 40
AT_ONCE = 400
ADA = parse_address("ada@here.test")


class Writer:
    """Writes mail. The rank of a word says how often it is used."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.words = ["".join(self.chance.choices(SYLLABLES, k=self.chance.randint(2, 5))) for _ in range(VOCABULARY)]
        self.people = [f"{self.word().title()} {self.word().title()}" for _ in range(PEOPLE)]
        self.last: list[tuple[str, str]] = []

    def word(self) -> str:
        return self.words[min(int(self.chance.paretovariate(0.7)) - 1, VOCABULARY - 1)]

    def text(self, count: int) -> str:
        words = [self.word() for _ in range(count)]
        return "\r\n".join(" ".join(words[at : at + 12]) for at in range(0, count, 12))

    def person(self) -> str:
        name = self.people[min(int(self.chance.paretovariate(0.6)) - 1, PEOPLE - 1)]
        return f"{name} <{name.lower().replace(' ', '.')}@{name.split()[1].lower()}.test>"

    def message(self, number: int, at: float) -> bytes:
        subject = " ".join(self.word() for _ in range(self.chance.randint(2, 8)))
        references = ""
        if self.last and self.chance.random() < 0.5:
            subject, answered = self.chance.choice(self.last)
            subject, references = f"Re: {subject}", f"References: {answered}\r\nIn-Reply-To: {answered}\r\n"
        own = f"<{number}.{self.chance.getrandbits(60):x}@mail.test>"
        self.last = [*self.last[-50:], (subject.removeprefix("Re: "), own)]
        header = (
            f"Received: from x.test by y.test; {date_time(at)}\r\nFrom: {self.person()}\r\nTo: Ada <ada@here.test>\r\n"
            f"Subject: {subject}\r\nDate: {date_time(at)}\r\nMessage-ID: {own}\r\n{references}MIME-Version: 1.0\r\n"
        )
        text = self.text(int(min(self.chance.lognormvariate(4.6, 0.9), 3000)))
        plain = f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
        if number % 3 == 0:
            html = f"Content-Type: text/html; charset=utf-8\r\n\r\n<p>{text.replace(chr(13), '<br>')}</p>\r\n"
            both = f"--a\r\n{plain}\r\n--a\r\n{html}\r\n--a--\r\n"
            plain = f"Content-Type: multipart/alternative; boundary=a\r\n\r\n{both}"
        if number % 8 == 0:
            file = f"Content-Type: application/pdf; name={self.word()}.pdf\r\n\r\n{'A' * 2000}\r\n"
            plain = f"Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n{plain}\r\n--m\r\n{file}\r\n--m--\r\n"
        return (header + plain).encode()


async def fill(storage: SqliteStorage, count: int, clock: SetClock, chance: SeededRandom, writer: Writer) -> AccountId:
    await storage.administration.add_domain("here.test")
    account = await storage.administration.add_account(ADA, verifier="x", quota_octets=None, now=clock.now())

    async def one(number: int) -> None:
        at = clock.now() - (count - number) * 600.0
        draft = await storage.content.draft()
        await draft.write(writer.message(number, at))
        folder = INBOX if number % 4 else ARCHIVE
        await storage.accept(
            Acceptance(
                queue_id=new_queue_id(at, chance),
                accepted_at=at,
                reverse_path=ADA,
                prefix=b"",
                content=await draft.seal(ContentFacts()),
                placements=(Placement(account=account, forward_path=ADA, prefix=b"", folder=folder),),
            )
        )

    for first in range(0, count, AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for number in range(first, min(first + AT_ONCE, count)):
                group.create_task(one(number))
    return account


def questions(writer: Writer) -> dict[str, Callable[[], str]]:
    chance = writer.chance

    def common() -> str:
        return writer.words[chance.randrange(20)]

    def middling() -> str:
        return writer.words[chance.randrange(200, 2000)]

    def rare() -> str:
        return writer.words[chance.randrange(5000, VOCABULARY)]

    return {
        "one common word": common,
        "one rare word": rare,
        "two common words": lambda: f"{common()} {common()}",
        "three words": lambda: f"{common()} {middling()} {middling()}",
        "phrase": lambda: f'"{common()} {common()}"',
        "phrase of three": lambda: f'"{common()} {common()} {common()}"',
        "prefix of three": lambda: f"{middling()[:3]}*",
        "prefix of one": lambda: f"{middling()[:1]}*",
        "from and a word": lambda: f"from:{writer.people[chance.randrange(50)].split()[0]} {middling()}",
        "subject": lambda: f"subject:{middling()}",
        "without a word": lambda: f"{common()} -{middling()}",
        "word with attachment": lambda: f"{middling()} has:attachment",
        "word before a day": lambda: f"{common()} before:2025-06-01",
        "word in the archive": lambda: f"{common()} in:archive",
        "common and read (none is)": lambda: f"{common()} is:read",
        "nothing that is there": lambda: f"{common()} zzzz{chance.randrange(1000)}",
        "list of the Inbox": lambda: "in:inbox",
        "list of what is unread": lambda: "in:inbox is:unread",
        "list of what is read (none is)": lambda: "in:inbox is:read",
    }


async def run(count: int, folder: Path) -> dict[str, object]:
    clock, chance, writer = SetClock(), SeededRandom(1), Writer(1)
    storage = await SqliteStorage.open(folder / "data", clock=clock, random=chance, create=True)
    began = time.perf_counter()
    account = await fill(storage, count, clock, chance, writer)
    accepted_s = time.perf_counter() - began
    octets = sum(file.stat().st_size for file in (folder / "data").glob("*.db*"))
    began = time.perf_counter()
    await bring_up_to_date(storage, account)
    indexed_s = time.perf_counter() - began
    grown = sum(file.stat().st_size for file in (folder / "data").glob("*.db*")) - octets
    figures, every = {}, []
    for name, make in questions(writer).items():
        took = []
        for _ in range(ROUNDS):
            query = parse_query(make())
            began = time.perf_counter()
            found = await storage.reading.find(account, query, 20)
            took.append((time.perf_counter() - began) * 1000)
        every += took
        figures[name] = [round(statistics.median(took), 1), round(max(took), 1), len(found)]
    began = time.perf_counter()
    await bring_up_to_date(storage, account)
    nothing_new_ms = round((time.perf_counter() - began) * 1000, 1)
    await storage.close()
    return {
        "count": count,
        "accepted_s": round(accepted_s, 1),
        "indexed_s": round(indexed_s, 1),
        "store_mb": round(octets / 1e6),
        "index_mb": round(grown / 1e6),
        "nothing_new_ms": nothing_new_ms,
        "median_ms": round(statistics.median(every), 1),
        "p95_ms": round(statistics.quantiles(every, n=20)[-1], 1),
        "questions: median, slowest, found the last time": figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(asyncio.run(run(count, Path(name)))))


if __name__ == "__main__":
    main()
