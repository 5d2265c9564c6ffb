"""Uses a store with whatever version of the program is on the path; so it knows only what the first one had.

`python then.py furnish|look|go_on FOLDER [MESSAGES]`: makes a house, tells all that is in it as JSON, goes on using it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any, get_args

import posthouse
from posthouse.mail.acceptance import Acceptance, Destination, Forward, Notify, Placement, Ret
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import Uidl, new_queue_id
from posthouse.mail.journey import Accepted, Attempted, Deleted, JourneyEvent, Operated, Placed, Queued
from posthouse.mail.maildrop import MaildropLock
from posthouse.mail.spool import Settled, Settlement
from posthouse.storage.sqlite.storage import SqliteStorage

START = 1_790_000_000.0
FAR = Destination("", "far.test")
ALSO_FAR = Destination("", "farther.test")
LOGINS = ("ada@here.test", "bob@here.test", "carol@there.test")
SENDER = parse_address("sender@far.test")
TOGETHER = 200


class Chance:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def octets(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class Ticking:
    """A millisecond passes with each look."""

    def __init__(self, time: float) -> None:
        self.time = time

    def now(self) -> float:
        self.time += 0.001
        return self.time

    def monotonic(self) -> float:
        return self.time


async def opened(folder: Path, *, create: bool = False, seed: int = 1) -> tuple[SqliteStorage, Ticking, Chance]:
    clock, chance = Ticking(START + seed * 86_400), Chance(seed)
    return await SqliteStorage.open(folder, clock=clock, random=chance, create=create), clock, chance


async def furnish(folder: Path, messages: int) -> None:
    storage, clock, chance = await opened(folder, create=True)
    administration = storage.administration
    for domain in ("here.test", "there.test"):
        await administration.add_domain(domain)
    for login in LOGINS:
        await administration.add_account(
            parse_address(login), verifier=f"$argon2id${login}", quota_octets=5_000_000_000, now=clock.now()
        )
    await administration.add_alias(parse_address("all@here.test"), [parse_address(login) for login in LOGINS])
    await administration.set_suspended(LOGINS[2], True)
    await take(storage, clock, chance, messages)
    await use(storage, clock, settle=3)
    await storage.close()


async def take(storage: Any, clock: Ticking, chance: Chance, messages: int) -> None:
    for start in range(0, messages, TOGETHER):
        async with asyncio.TaskGroup() as group:
            for number in range(start, min(start + TOGETHER, messages)):
                group.create_task(take_one(storage, clock, chance, number))


async def take_one(storage: Any, clock: Ticking, chance: Chance, number: int) -> None:
    """Small, of several chunks, or in a file of its own; to one or several here, and to others elsewhere."""
    now = clock.now()
    queue_id = new_queue_id(now, chance)
    draft = await storage.content.draft()
    large = number % 10 == 7 and number < 1000
    body = f"Subject: Grüße {number}\r\n\r\n.dot {number}\r\n".encode() + (b"x" * 78 + b"\r\n") * (2000 if large else 1)
    await draft.write(body)
    facts = ContentFacts(longest_line_octets=78, eight_bit_header=True, received_fields=1, message_id=f"<{number}@x>")
    content = await draft.seal(facts)
    accounts = (1, 2) if number % 5 == 0 else (number % 3 + 1,)
    placements = tuple(
        Placement(
            account=account,
            forward_path=parse_address(LOGINS[account - 1]),
            prefix=f"Delivered-To: {LOGINS[account - 1]}\r\n".encode(),
            uidl=Uidl(f"imported-{number}") if number % 50 == 3 else None,
        )
        for account in accounts
    )
    forwards = tuple(
        Forward(
            forward_path=parse_address(f"r{each}-{number}@{to.domain}"),
            reverse_path=None if number % 20 == 0 else SENDER,
            destination=to,
            not_before=now,
            expires_at=now + 432_000,
            original_recipient=f"rfc822;r{number}@far.test",
            notify=frozenset({Notify.FAILURE, Notify.DELAY}),
            identity=LOGINS[0] if to is ALSO_FAR else None,
        )
        for each, to in enumerate((FAR, ALSO_FAR) if number % 10 == 0 else ())
    )
    accepted = Accepted(
        queue_id=queue_id,
        at=now,
        reverse_path=str(SENDER),
        forward_paths=(LOGINS[0],),
        size_octets=len(body),
        peer="192.0.2.1",
        hello="far.test",
        protocol="ESMTPS",
    )
    placed = [
        Placed(
            queue_id=queue_id, at=now, forward_path=LOGINS[a - 1], login=LOGINS[a - 1], folder="Inbox", uidl=queue_id
        )
        for a in accounts
    ]
    queued = [Queued(queue_id=queue_id, at=now, forward_path=str(f.forward_path), domain="far.test") for f in forwards]
    await storage.accept(
        Acceptance(
            queue_id=queue_id,
            accepted_at=now,
            reverse_path=SENDER,
            prefix=b"Received: by here.test\r\n",
            content=content,
            placements=placements,
            forwards=forwards,
            events=(accepted, *placed, *queued),
            ret=Ret.HDRS,
            envelope_id="E1",
            smtputf8=number % 2 == 0,
            body="8BITMIME",
        )
    )


async def use(storage: Any, clock: Ticking, *, settle: int) -> None:
    """Ada deletes her first message; some recipients are deferred, one is served, one is held."""
    lock = await storage.maildrops.lock(1)
    assert isinstance(lock, MaildropLock)
    listing = await storage.maildrops.list(1)
    uid, uidl, queue_id = listing.uids[0], listing.uidls[0], listing.queue_ids[0]
    deleted = Deleted(queue_id=queue_id, at=clock.now(), login=LOGINS[0], uidl=uidl, peer="192.0.2.9")
    assert await storage.maildrops.expunge(lock, [uid], [deleted])
    await storage.maildrops.unlock(lock)
    claim = await storage.spool.claim(FAR, settle, clock.now() + 1)
    if claim is None:
        return
    rows = tuple(
        Settled(
            queue_id=row.message.queue_id,
            recipient_number=row.recipient_number,
            not_before=None if number == 0 else clock.now() + 600,
            last_reply="250 2.0.0 OK" if number == 0 else "451 4.7.1 Later",
        )
        for number, row in enumerate(claim.rows)
    )
    assert await storage.settle(Settlement(token=claim.token, rows=rows))
    last = claim.rows[-1]
    await storage.journey.append([attempted(last, clock.now())])
    queue_id = last.message.queue_id
    held = Operated(queue_id=queue_id, at=clock.now(), action="hold", forward_paths=(), by="ada")
    await storage.spool.hold(queue_id, held)


def attempted(row: Any, at: float) -> Attempted:
    return Attempted(
        queue_id=row.message.queue_id,
        at=at,
        forward_path=str(row.forward_path),
        outcome="deferred",
        reply="451 4.7.1 Later",
        from_peer=True,
        next_hop="mx.far.test",
        address="192.0.2.2",
        attempt=1,
        duration_s=0.5,
        next_at=at + 600,
        transcript=("C: EHLO here.test", "S: 250 far.test"),
    )


async def look(folder: Path) -> dict[str, Any]:
    """All that people would miss."""
    storage, _, _ = await opened(folder, seed=90)
    kinds = sorted(kind.__name__ for kind in get_args(JourneyEvent))
    seen: dict[str, Any] = {
        "program": posthouse.__file__,
        "kinds": kinds,
        "accounts": {},
        "maildrops": {},
        "journeys": {},
    }
    for each in await storage.administration.accounts():
        account = await storage.directory.account(each.login)
        passwords = [] if account is None else [c.verifier for c in account.credentials if c.kind == "password"]
        seen["accounts"][each.login] = [each.account, each.quota_octets, each.suspended, each.used_octets, passwords]
        seen["maildrops"][each.login] = await maildrop(storage, each.account)
    seen["domains"] = list(await storage.administration.domains())
    seen["aliases"] = [[str(alias), list(map(str, to))] for alias, to in await storage.administration.aliases()]
    rows = await storage.spool.list(limit=1_000_000)
    seen["queue"] = sorted(waiting(row) for row in rows)
    queue_ids = {*(row.message.queue_id for row in rows)}
    queue_ids |= {entry[4] for entries in seen["maildrops"].values() for entry in entries[-50:]}
    for queue_id in sorted(queue_ids)[:300]:
        seen["journeys"][queue_id] = [repr_of(event) for event in await storage.journey.read(queue_id)]
    if hasattr(storage, "check"):
        seen["flaws"] = [flaw.what async for flaw in storage.check() if not flaw.note and flaw.check != "permissions"]
    await storage.close()
    return seen


def repr_of(event: Any) -> str:
    """Without fields that a later version added."""
    return f"{type(event).__name__} {event.at:.3f}"


def waiting(row: Any) -> list[Any]:
    paths = [str(row.forward_path), str(row.reverse_path)]
    times = [row.not_before, row.expires_at, row.attempts, row.held]
    where = [row.destination.via, row.destination.domain, row.identity, row.last_reply]
    return [row.message.queue_id, row.recipient_number, *paths, *times, *where]


async def maildrop(storage: Any, account: Any) -> list[list[Any]]:
    listing = await storage.maildrops.list(account)
    found = []
    columns = zip(listing.uids, listing.uidls, listing.sizes_octets, listing.queue_ids, strict=True)
    for place, (uid, uidl, size_octets, queue_id) in enumerate(columns):
        digest = hashlib.sha256()
        # Every octet of a small house; of a large one, some messages of each kind.
        if len(listing) < 500 or place % 997 == 0:
            async for chunk in storage.maildrops.read(account, uid):
                digest.update(chunk)
        found.append([uid, uidl, size_octets, digest.hexdigest(), queue_id])
    return found


async def go_on_again(folder: Path, messages: int) -> None:
    """More mail, a deletion; what was held is sent on."""
    storage, clock, chance = await opened(folder, seed=70)
    await take(storage, clock, chance, messages)
    await use(storage, clock, settle=2)
    for row in await storage.spool.list():
        released = Operated(queue_id=row.message.queue_id, at=clock.now(), action="release", forward_paths=(), by="ada")
        await storage.spool.release(row.message.queue_id, released)
    assert not any(row.held for row in await storage.spool.list())
    await storage.close()


async def go_on(folder: Path, messages: int) -> None:
    """More mail, a deletion, another password, another account."""
    storage, clock, chance = await opened(folder, seed=40)
    await take(storage, clock, chance, messages)
    await use(storage, clock, settle=2)
    await storage.administration.set_password(LOGINS[1], "$argon2id$changed", clock.now())
    later = parse_address("dora@here.test")
    await storage.administration.add_account(later, verifier="$argon2id$dora", quota_octets=None, now=clock.now())
    await storage.close()


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    messages = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    match what:
        case "furnish":
            asyncio.run(furnish(folder, messages))
        case "go_on":
            asyncio.run(go_on(folder, messages))
        case "go_on_again":
            asyncio.run(go_on_again(folder, messages))
        case "look":
            print(json.dumps(asyncio.run(look(folder))))


if __name__ == "__main__":
    main()
