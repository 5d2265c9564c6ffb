"""Mail for tests of the commands that read it: put into the maildrop of ada@here.test as it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from posthouse.engines import open_storage
from posthouse.mail.acceptance import Acceptance, Placement
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentFacts
from posthouse.mail.folders import INBOX
from posthouse.mail.ids import QueueId, new_queue_id
from posthouse.world import World
from tests.running_house import house_config

ADA = parse_address("ada@here.test")


def deliver(folder: Path, *messages: bytes, into: str = INBOX, login: str = "ada@here.test") -> Sequence[QueueId]:
    """Their queue ids, which are seconds apart, as those of mail mostly are."""

    async def work() -> list[QueueId]:
        world = World()
        storage = await open_storage(house_config(folder), world)
        try:
            account = await storage.directory.account(login)
            assert account is not None
            ids = []
            for number, octets in enumerate(messages):
                draft = await storage.content.draft()
                await draft.write(octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
                at = world.clock.now() - 10 * (len(messages) - number)
                acceptance = Acceptance(
                    queue_id=new_queue_id(at, world.random),
                    accepted_at=at,
                    reverse_path=parse_address("x@far.test"),
                    prefix=b"",
                    content=await draft.seal(ContentFacts()),
                    placements=(Placement(account=account.account, forward_path=ADA, prefix=b"", folder=into),),
                )
                await storage.accept(acceptance)
                ids.append(acceptance.queue_id)
            return ids
        finally:
            await storage.close()

    return asyncio.run(work())


def message(subject: str, text: str = "Text.\n", date: str = "Mon, 2 Mar 2026 10:12:00 +0000", **fields: str) -> bytes:
    header = {"from": "Bob Miller <bob@far.test>", "to": "ada@here.test", "subject": subject, "date": date, **fields}
    return (
        "".join(f"{name.replace('_', '-').title()}: {value}\n" for name, value in header.items()) + f"\n{text}"
    ).encode()
