"""Whose sender is rewritten when an alias leads elsewhere, and who may send to such an address."""

from __future__ import annotations

import pytest

from posthouse.admission.admission import Admission, MailTransaction, Seams
from posthouse.admission.peer import Peer, Role
from posthouse.admission.rewriting import Rewriter
from posthouse.admission.rules import Rules
from posthouse.mail.acceptance import Acceptance
from posthouse.mail.account import Account
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentFacts, SealedContent
from posthouse.mail.ids import AccountId, QueueId
from posthouse.mail.journey import JourneyEvent, Queued
from posthouse.mail.srs import is_rewritten
from posthouse.mail.story import tell
from tests.admission.test_routing import HOSTNAME, PEOPLE, Names
from tests.fake_world import FakeClock, FakeRandom

DAY_S = 86400.0
CONTENT = SealedContent(handle="h", size_octets=9, sha256=b"", facts=ContentFacts())
AWAY = "away@here.test"
ALIASES = {
    AWAY: ("friend@far.test",),
    "both@here.test": ("friend@far.test", "ada@here.test", "pal@other.test"),
    "chain@here.test": (AWAY,),
    "inside@here.test": ("ada@here.test",),
}
LONG = "bounces+12345-0102-nobody=example.org@em1234.mailer.example.net"


class House:
    """Admission with a directory, a key and journeys in memory."""

    def __init__(self, *, rewrite_senders: bool = True) -> None:
        self.clock = FakeClock()
        self.journeys: dict[QueueId, tuple[JourneyEvent, ...]] = {}
        names = Names(PEOPLE, ALIASES)
        rewriter = Rewriter(self, self, names, hostname=HOSTNAME, enabled=rewrite_senders)
        seams = Seams(directory=names, maildrops=names, administration=names, rewriter=rewriter)
        rules = Rules(
            hostname=HOSTNAME,
            postmaster=parse_address("boss@far.test"),
            max_recipients=100,
            expire_after_s=60.0,
        )
        self.admission = Admission(seams, rules, self.clock, FakeRandom())

    async def secret(self, name: str) -> bytes:
        return name.encode() * 8

    async def read(self, queue_id: QueueId) -> tuple[JourneyEvent, ...]:
        return self.journeys.get(queue_id, ())

    def transaction(self, sender: str, *, login: str = "", trusted: bool = False) -> MailTransaction:
        account = Account(account=AccountId(1), login=login, quota_octets=None, suspended=False, credentials=())
        peer = Peer(
            address="192.0.2.9",
            hello="client.test",
            role=Role.SUBMISSION if login else Role.EXCHANGE,
            extended=True,
            tls=False,
            trusted=trusted,
            account=account if login else None,
            session="s",
        )
        return MailTransaction(peer=peer, reverse_path=parse_address(sender) if sender else None)

    async def accept(self, sender: str, *recipients: str, login: str = "", trusted: bool = False) -> Acceptance:
        transaction = self.transaction(sender, login=login, trusted=trusted)
        for recipient in recipients:
            answer = await self.admission.add_recipient(transaction, parse_address(recipient))
            assert answer.is_positive, answer
        acceptance = self.admission.plan(transaction, CONTENT)
        self.journeys[acceptance.queue_id] = acceptance.events
        return acceptance

    async def answer(self, sender: str, recipient: str) -> str:
        answer = await self.admission.add_recipient(self.transaction(sender), parse_address(recipient))
        return f"{answer.code} {answer.enhanced}"


def senders(acceptance: Acceptance) -> dict[str, str]:
    return {str(forward.forward_path): str(forward.reverse_path or "<>") for forward in acceptance.forwards}


@pytest.mark.conformance("C81", "C83")
@pytest.mark.parametrize("sender", ["carol@far.test", LONG, '"a b"@far.test', "SRS0=X=2W=a.test=b@far.test"])
@pytest.mark.parametrize("alias", [AWAY, "chain@here.test", "Postmaster@here.test", "abuse@mx.here.test"])
async def test_a_sender_from_elsewhere_is_rewritten_in_the_domain_of_the_alias(alias: str, sender: str) -> None:
    acceptance = await House().accept(sender, alias)
    (forward,) = acceptance.forwards
    assert acceptance.reverse_path == parse_address(sender)
    assert forward.reverse_path is not None
    assert is_rewritten(forward.reverse_path.local_part)
    assert forward.reverse_path.domain == alias.partition("@")[2]
    (queued,) = (event for event in acceptance.events if isinstance(event, Queued))
    assert queued.rewritten == str(forward.reverse_path)
    assert f"sender rewritten to {forward.reverse_path}, so that SPF holds there" in tell([queued])[0].details


@pytest.mark.conformance("C81", "C83")
@pytest.mark.parametrize(
    ("sender", "recipient", "login", "trusted"),
    [
        ("", AWAY, "", False),
        ("ada@here.test", AWAY, "", False),
        ("ada@here.test", AWAY, "ada@here.test", False),
        ("ada@mx.here.test", AWAY, "", False),
        ("carol@far.test", "friend@far.test", "", True),
        ("carol@far.test", "friend@far.test", "ada@here.test", False),
    ],
)
async def test_other_senders_stay(sender: str, recipient: str, login: str, trusted: bool) -> None:
    """The null path, our own domains, and whatever no alias led elsewhere."""
    acceptance = await House().accept(sender, recipient, login=login, trusted=trusted)
    assert senders(acceptance) == {"friend@far.test": sender or "<>"}
    assert [event.rewritten for event in acceptance.events if isinstance(event, Queued)] == [""]


@pytest.mark.conformance("C83")
async def test_each_recipient_has_the_sender_that_is_right_for_it() -> None:
    """Those here see the true sender; so does who was named beside the alias."""
    house = House()
    acceptance = await house.accept("carol@far.test", "both@here.test", "pat@far.test", trusted=True)
    found = senders(acceptance)
    assert found["pat@far.test"] == "carol@far.test"
    assert is_rewritten(found["friend@far.test"])
    assert found["friend@far.test"] == found["pal@other.test"]
    (placement,) = acceptance.placements
    assert placement.prefix.startswith(b"Return-Path: <carol@far.test>\r\n")


async def test_it_can_be_switched_off_and_reports_on_what_went_before_still_come_back() -> None:
    on, off = House(), House(rewrite_senders=False)
    assert senders(await off.accept("carol@far.test", AWAY)) == {"friend@far.test": "carol@far.test"}
    (back,) = senders(await on.accept("carol@far.test", AWAY)).values()
    assert senders(await off.accept("", back)) == {"carol@far.test": "<>"}


@pytest.mark.conformance("C81", "C181")
async def test_an_alias_is_the_original_recipient_of_those_that_it_leads_to() -> None:
    house = House()
    acceptance = await house.accept("carol@far.test", "Both@here.test", "pat@far.test", trusted=True)
    told = {str(forward.forward_path): forward.original_recipient for forward in acceptance.forwards}
    alias = "rfc822;Both@here.test"
    assert told == {"friend@far.test": alias, "pal@other.test": alias, "pat@far.test": None}
    transaction = house.transaction("carol@far.test")
    await house.admission.add_recipient(transaction, parse_address(AWAY), original_recipient="rfc822;Old@x.test")
    (forward,) = house.admission.plan(transaction, CONTENT).forwards
    assert forward.original_recipient == "rfc822;Old@x.test"


@pytest.mark.conformance("C282")
@pytest.mark.parametrize("sender", ["carol@far.test", LONG])
async def test_a_report_goes_back_without_a_login(sender: str) -> None:
    house = House()
    (back,) = senders(await house.accept(sender, AWAY)).values()
    for spelling in (back, back.lower(), back.upper()):
        acceptance = await house.accept("", spelling)
        ((reached, reverse_path),) = senders(acceptance).items()
        assert (reached.lower(), reverse_path) == (sender, "<>")
        assert not acceptance.placements


@pytest.mark.conformance("C282")
async def test_the_way_back_is_no_open_relay() -> None:
    house = House()
    (back,) = senders(await house.accept("carol@far.test", AWAY)).values()
    local_part, _, domain = back.partition("@")
    flipped = local_part.replace("carol", "caro1")
    table = {
        ("x@far.test", back): "550 5.7.1",
        ("ada@here.test", back): "550 5.7.1",
        ("", f"{flipped}@{domain}"): "550 5.1.1",
        ("x@far.test", f"{flipped}@{domain}"): "550 5.1.1",
        ("", f"SRS0=AAAAAAAA=2W=far.test=x@{domain}"): "550 5.1.1",
        ("", f"SRS1=AAAAAAAA=far.test==x@{domain}"): "550 5.1.1",
        ("", f"SRS0=@{domain}"): "550 5.1.1",
        ("", f"SRS0=x@{HOSTNAME}"): "550 5.1.1",
        ("", f"{local_part}+x@{domain}"): "550 5.1.1",
        ("", f"x{local_part}@{domain}"): "550 5.1.1",
        ("", f'"{local_part}"@{domain}'): "550 5.1.1",
        ("", f"{local_part}@far.test"): "550 5.7.1",
    }
    assert {case: await house.answer(*case) for case in table} == table
    house.clock.advance(21 * DAY_S)
    assert await house.answer("", back) == "250 2.1.5"
    house.clock.advance(DAY_S)
    assert await house.answer("", back) == "550 5.1.1"


async def test_a_sender_whom_nobody_remembers_is_no_mailbox() -> None:
    """The journey of the message is too old, or it had no sender."""
    house = House()
    (back,) = senders(await house.accept(LONG, AWAY)).values()
    house.journeys.clear()
    assert await house.answer("", back) == "550 5.1.1"


async def test_what_leads_back_to_ourselves_is_opened_here() -> None:
    """Mail that came by us twice: another house led it on to us between, and wrapped what we had wrapped."""
    house = House()
    (first,) = senders(await house.accept("carol@far.test", AWAY)).values()
    local_part, _, domain = first.partition("@")
    wrapped_elsewhere = f"SRS1=XXXX={domain}={local_part[4:]}@other.test"
    (second,) = senders(await house.accept(wrapped_elsewhere, AWAY)).values()
    assert second.startswith("SRS1=")
    assert senders(await house.accept("", second)) == {"carol@far.test": "<>"}
    assert await house.admission.open(parse_address(second), None) == parse_address("carol@far.test")
