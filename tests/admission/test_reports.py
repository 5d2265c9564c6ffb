"""Where reports go: to a sender that leads somewhere; a directory that cannot say postpones them."""

from __future__ import annotations

import pytest

from posthouse.admission.admission import Admission, Seams
from posthouse.admission.rules import Rules
from posthouse.mail.acceptance import Acceptance
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentFacts, SealedContent
from posthouse.mail.ids import QueueId
from posthouse.storage.errors import StorageBusy
from posthouse.world import SystemClock, SystemRandom
from tests.admission.test_routing import HOSTNAME, PEOPLE, Names

CONTENT = SealedContent(handle="h", size_octets=9, sha256=b"", facts=ContentFacts())


async def plan(names: Names, sender: str) -> Acceptance | None:
    rules = Rules(hostname=HOSTNAME, postmaster=None, max_recipients=100, expire_after_s=60.0)
    admission = Admission(
        Seams(directory=names, maildrops=names, administration=names), rules, SystemClock(), SystemRandom()
    )
    ids = {"queue_id": QueueId("R"), "about": QueueId("Q")}
    return await admission.plan_report(parse_address(sender), CONTENT, **ids, eight_bit=False, smtputf8=False)


async def test_a_report_goes_to_a_sender_here_or_elsewhere_from_the_null_path() -> None:
    here, elsewhere = await plan(Names(PEOPLE), "ada@here.test"), await plan(Names(PEOPLE), "x@far.test")
    assert here is not None
    assert elsewhere is not None
    assert (len(here.placements), len(here.forwards), here.reverse_path) == (1, 0, None)
    assert (len(elsewhere.placements), len(elsewhere.forwards), elsewhere.reverse_path) == (0, 1, None)


async def test_there_is_no_report_to_nobody() -> None:
    assert await plan(Names(PEOPLE), "nobody@here.test") is None


async def test_a_directory_that_cannot_say_postpones_the_report() -> None:
    names = Names(PEOPLE)
    names.unavailable.add("ada@here.test")
    with pytest.raises(StorageBusy):
        await plan(names, "ada@here.test")
