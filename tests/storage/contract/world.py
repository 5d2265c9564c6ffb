"""A storage with a clock and chance of its own, and short ways to make what it is given."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from posthouse.mail.acceptance import Acceptance, Destination, Forward, Placement
from posthouse.mail.address import Address, ReversePath, parse_address
from posthouse.mail.content import ContentFacts, SealedContent
from posthouse.mail.ids import AccountId, QueueId, new_queue_id
from posthouse.mail.journey import Accepted, JourneyEvent, Operated
from posthouse.mail.spool import Claim, Settled, Settlement
from posthouse.storage.interfaces import Storage

DOMAIN = "house.test"
PREFIX = b"Received: by house.test\r\n"
ENTRY_PREFIX = b"Return-Path: <a@far.test>\r\nDelivered-To: alice@house.test\r\n"
FAR = Destination("", "far.test")
DAY_S = 86_400.0

alice = parse_address(f"alice@{DOMAIN}")
bob = parse_address(f"bob@{DOMAIN}")
sender = parse_address("sender@far.test")


@dataclass(slots=True)
class SetClock:
    """A clock that stands until it is moved."""

    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class SeededRandom:
    """Chance that repeats itself."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def octets(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class House:
    """One engine under test. `open_another` opens the same durable state again, as a second process would."""

    def __init__(
        self, storage: Storage, clock: SetClock, chance: SeededRandom, open_another: Callable[[], Awaitable[Storage]]
    ) -> None:
        self.storage = storage
        self.clock = clock
        self.chance = chance
        self.open_another = open_another
        self.others: list[Storage] = []
        """Other stores that were opened with it; whoever closes the house closes them too."""

    async def account(self, address: Address = alice, quota_octets: int | None = None) -> AccountId:
        """A new account, in a domain that is made local first."""
        if address.domain not in await self.storage.administration.domains():
            await self.storage.administration.add_domain(address.domain)
        return await self.storage.administration.add_account(
            address, verifier="$argon2id$first", quota_octets=quota_octets, now=self.clock.now()
        )

    def queue_id(self) -> QueueId:
        self.clock.time += 0.001
        return new_queue_id(self.clock.now(), self.chance)

    async def content(self, octets: bytes, facts: ContentFacts | None = None) -> SealedContent:
        draft = await self.storage.content.draft()
        await draft.write(octets)
        return await draft.seal(facts or ContentFacts())

    async def acceptance(
        self,
        octets: bytes = b"Subject: x\r\n\r\nhello\r\n",
        *,
        to: Sequence[AccountId] = (),
        forwards: Sequence[Forward] = (),
        generated: tuple[Acceptance, ...] = (),
        events: tuple[JourneyEvent, ...] = (),
        reverse_path: ReversePath = sender,
    ) -> Acceptance:
        return Acceptance(
            queue_id=self.queue_id(),
            accepted_at=self.clock.now(),
            reverse_path=reverse_path,
            prefix=PREFIX,
            content=await self.content(octets),
            placements=tuple(Placement(account=account, forward_path=alice, prefix=ENTRY_PREFIX) for account in to),
            forwards=tuple(forwards),
            generated=generated,
            events=events,
        )

    async def accept(
        self, octets: bytes = b"Subject: x\r\n\r\nhello\r\n", *, to: Sequence[AccountId] = (), forwards: int = 0
    ) -> QueueId:
        rows = [self.forward(number) for number in range(forwards)]
        acceptance = await self.acceptance(octets, to=to, forwards=rows)
        await self.storage.accept(acceptance)
        return acceptance.queue_id

    def forward(self, number: int = 0, destination: Destination = FAR, not_before: float | None = None) -> Forward:
        return Forward(
            forward_path=Address(f"r{number}", destination.domain),
            reverse_path=sender,
            destination=destination,
            not_before=self.clock.now() if not_before is None else not_before,
            expires_at=self.clock.now() + 5 * DAY_S,
        )

    async def claim(self, limit: int = 100, destination: Destination = FAR) -> Claim:
        claim = await self.storage.spool.claim(destination, limit, self.clock.now())
        assert claim is not None
        return claim


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    """All chunks, each of which obeys the limit."""
    gathered = []
    async for chunk in chunks:
        assert 0 < len(chunk) <= 64 * 1024
        gathered.append(chunk)
    return b"".join(gathered)


def accepted(queue_id: QueueId, reverse_path: str = "a@far.test", *forward_paths: str) -> Accepted:
    """The first event of a journey."""
    return Accepted(
        queue_id=queue_id,
        at=1.0,
        reverse_path=reverse_path,
        forward_paths=forward_paths,
        size_octets=1,
        peer="192.0.2.1",
        hello="far.test",
        protocol="ESMTP",
    )


def operated(queue_id: QueueId, action: str, at: float = 1.0) -> Operated:
    return Operated(queue_id=queue_id, at=at, action=action, forward_paths=(), by="operator")


def settlement(claim: Claim, not_before: float | None, generated: tuple[Acceptance, ...] = ()) -> Settlement:
    """All rows of a claim settled alike."""
    rows = tuple(
        Settled(
            queue_id=row.message.queue_id,
            recipient_number=row.recipient_number,
            not_before=not_before,
            last_reply="250 2.0.0 OK",
        )
        for row in claim.rows
    )
    return Settlement(token=claim.token, rows=rows, generated=generated)
