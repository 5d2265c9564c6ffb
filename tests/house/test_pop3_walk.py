"""The random walk over the live house: each session's octets in random pieces, all its answers against the model."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from posthouse.mail.acceptance import Acceptance, Placement
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import QueueId, Uidl
from posthouse.storage.interfaces import Storage
from tests.house.wire import Wire
from tests.protocol.pop3_model import GO_ON, PLAIN, SILENCE, Model
from tests.protocol.test_pop3_walk import CONTENTS, LOGIN, command, pieces
from tests.running_house import PASSWORD, RunningHouse

ALICE = "alice@here.test"
LIMITS = {"errors": 10**6, "failed_logins": 10**6, "sessions_per_address": 1000}
LIVE = {
    b"alice": ALICE.encode(),
    b"secret": PASSWORD.encode(),
    PLAIN: base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()),
}


@pytest.mark.conformance("C247", "C249", "C259", "S37")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_the_live_house_does_as_the_model(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    # The limiter is not of this test: a login that fails costs the next one time.
    with RunningHouse(tmp_path, (ALICE,), retrieval=LIMITS) as house:
        for session in range(20 if seed == 1 else 400):
            contents = chance.choices(CONTENTS, k=chance.randint(0, 8))
            house.ask(lambda storage, session=session, contents=contents: refill(storage, session, contents))
            model = Model(contents, "tls", b"u%d-" % session + b"%d")
            said = [*LOGIN, *(harmless(command(chance)) for _ in range(chance.randint(0, 150)))]
            said += [b"QUIT"] * chance.randint(0, 1)
            with Wire(house.ports["pop3"]) as wire:
                for piece in pieces(b"".join(live(line) + b"\r\n" for line in said), chance):
                    wire.send_in_pieces(piece, 0)
                wire.end()
                heard = wire.rest()
            check(model, said, heard)
            gone = set(model.updates[0]) if model.updates else set()
            left = [f"u{session}-{n}" for n in range(1, len(contents) + 1) if n not in gone]
            assert house.ask(uidls) == left


def harmless(line: bytes) -> bytes:
    """Without failed logins, which the house makes wait."""
    login = line.upper().startswith((b"PASS", b"AUTH")) or line in (PLAIN, b"*")
    return b"STAT" if login else line


def live(line: bytes) -> bytes:
    for ours, theirs in LIVE.items():
        line = line.replace(ours, theirs)
    return line


def check(model: Model, said: Sequence[bytes], heard: bytes) -> None:
    """Each answer, and nothing between and behind them."""
    greeting, _, heard = heard.partition(b"\r\n")
    assert greeting.startswith(b"+OK ")
    for line in said:
        begins, lines = model.answer(line)
        if begins == SILENCE:
            break
        first, end, heard = heard.partition(b"\r\n")
        assert end, f"too little was said to {line!r}"
        assert (first + b"\r").startswith(begins), f"{first!r} to {line!r}"
        if begins != GO_ON and lines is not None:
            # CAPA is the house's own matter here: which mechanisms it has is configured.
            body, _, heard = (b"\r\n" + heard).partition(b"\r\n.\r\n")
            got = [each.removeprefix(b".") for each in body.split(b"\r\n")[1:]]
            assert got == lines or line.upper().startswith(b"CAPA"), f"{got} to {line!r}"
    assert heard == b"", f"too much was said: {heard[:200]!r}"


async def refill(storage: Storage, session: int, contents: Sequence[bytes]) -> None:
    """Alice's maildrop holds exactly these."""
    account = await storage.directory.account(ALICE)
    assert account is not None
    lock = await storage.maildrops.lock(account.account)
    assert await storage.maildrops.expunge(lock, (await storage.maildrops.list(account.account)).uids, [])  # type: ignore[arg-type]
    await storage.maildrops.unlock(lock)  # type: ignore[arg-type]
    for number, content in enumerate(contents, start=1):
        draft = await storage.content.draft()
        await draft.write(content)
        entry = Placement(
            account=account.account,
            forward_path=parse_address(ALICE),
            prefix=b"",
            uidl=Uidl(f"u{session}-{number}"),
        )
        await storage.accept(
            Acceptance(
                queue_id=QueueId(f"{session}X{number}".rjust(26, "0")),
                accepted_at=0.0,
                reverse_path=None,
                prefix=b"",
                content=await draft.seal(ContentFacts()),
                placements=(entry,),
            )
        )


async def uidls(storage: Storage) -> list[str]:
    account = await storage.directory.account(ALICE)
    assert account is not None
    return list((await storage.maildrops.list(account.account)).uidls)
