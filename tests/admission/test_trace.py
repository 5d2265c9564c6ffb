"""The fields that we put above a message, however its envelope was spelled."""

from __future__ import annotations

import os
import re
import time
from email.utils import parsedate_to_datetime

import pytest

from posthouse.admission import trace
from posthouse.admission.admission import Admission, MailTransaction, Seams
from posthouse.admission.peer import Peer, Role
from posthouse.admission.rules import Rules
from posthouse.admission.submission import Missing
from posthouse.mail.account import Account
from posthouse.mail.address import Address, parse_address
from posthouse.mail.content import ContentFacts, SealedContent
from posthouse.mail.ids import AccountId, QueueId
from tests.admission.test_routing import PEOPLE, Names
from tests.fake_world import START, FakeClock, FakeRandom

ADA = Account(account=AccountId(1), login="ada@here.test", quota_octets=None, suspended=False, credentials=())
# RFC 5321 §4.4 without the comments it allows, as one line.
_DOMAIN = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:.]+\]|\[IPv6:[0-9A-Fa-f:.]+\])"
STAMP = re.compile(
    rf"Received: from (?P<hello>{_DOMAIN}) \(\[(?:IPv6:)?(?P<ip>[0-9a-f:.]+)\]\) by (?P<by>{_DOMAIN}) with"
    rf" (?P<protocol>[A-Z0-9]+) id (?P<id>[0-9A-Z]+)(?: for <(?P<for>[^>]+)>)?; (?P<date>[A-Z][a-z]{{2}},"
    r" \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} [+-]\d{4})\r\n\Z"
)


def peer(**changes: object) -> Peer:
    facts = {
        "address": "192.0.2.7",
        "hello": "client.test",
        "role": Role.EXCHANGE,
        "extended": True,
        "tls": False,
        "trusted": False,
        "account": None,
        "session": "s",
    }
    return Peer(**{**facts, **changes})  # type: ignore[arg-type]


def stamp(sender: Peer, **changes: object) -> re.Match[str]:
    facts = {"hostname": "mx.here.test", "queue_id": QueueId("0Q"), "now": START, "only_recipient": None}
    octets = trace.received(sender, **{**facts, **changes})  # type: ignore[arg-type]
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    match = STAMP.match(octets.decode().replace("\r\n\t", " "))
    assert match is not None, octets
    return match


@pytest.mark.conformance("C70")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("account", [None, ADA])
def test_with_says_how_it_came(tls: bool, account: Account | None) -> None:
    suffix = ("S" if tls else "") + ("A" if account else "")
    assert stamp(peer(tls=tls, account=account))["protocol"] == "ESMTP" + suffix
    assert stamp(peer(tls=tls, account=account), smtputf8=True)["protocol"] == "UTF8SMTP" + suffix
    assert stamp(peer(tls=tls, account=None, extended=False))["protocol"] == "SMTP"


@pytest.mark.conformance("C69", "C279", "C283", "S2", "S18")
@pytest.mark.parametrize(
    ("hello", "address", "shown"),
    [
        ("client.test", "192.0.2.7", "client.test"),
        ("localhost", "192.0.2.7", "localhost"),
        ("[192.0.2.9]", "192.0.2.7", "[192.0.2.9]"),
        ("[IPv6:2001:db8::1]", "2001:db8::7", "[IPv6:2001:db8::1]"),
        (".".join(["a" * 60] * 4), "192.0.2.7", ".".join(["a" * 60] * 4)),
        # Names that are none, and would be structure of the field.
        ("under_score", "192.0.2.7", "[192.0.2.7]"),
        ("x;date", "192.0.2.7", "[192.0.2.7]"),
        ("x(comment", "192.0.2.7", "[192.0.2.7]"),
        ('"quoted"', "2001:db8::7", "[IPv6:2001:db8::7]"),
        ("a..b", "192.0.2.7", "[192.0.2.7]"),
        ("by", "192.0.2.7", "by"),
    ],
)
def test_what_a_peer_calls_itself_is_never_structure(hello: str, address: str, shown: str) -> None:
    match = stamp(peer(hello=hello, address=address))
    assert (match["hello"], match["ip"]) == (shown, address)


@pytest.mark.conformance("C73")
@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Europe/Berlin", "America/St_Johns"])
def test_the_date_does_not_follow_the_machine(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TZ", zone)
    time.tzset()
    try:
        # Before, in and after the hour that a change to winter time has twice.
        for now in (1_761_436_800.0, 1_761_440_399.0, 1_761_440_400.0, 1_761_444_000.0, START):
            date = stamp(peer(), now=now)["date"]
            assert parsedate_to_datetime(date).timestamp() == now
    finally:
        monkeypatch.undo()
        time.tzset()


def admission(names: Names, hostname: str = "mx.here.test") -> Admission:
    rules = Rules(hostname=hostname, postmaster=parse_address("ada@here.test"), max_recipients=100, expire_after_s=60.0)
    seams = Seams(directory=names, maildrops=names, administration=names)
    return Admission(seams, rules, FakeClock(), FakeRandom())


async def prefix(
    *recipients: str,
    sender: str | None = "x@far.test",
    smtputf8: bool = False,
    eight_bit_header: bool = False,
    missing: Missing | None = None,
) -> str:
    house = admission(Names(PEOPLE, {"gr\u00fcn@here.test": ("ada@here.test",)}), "mx.xn--bcher-kva.test")
    reverse_path = parse_address(sender) if sender else None
    transaction = MailTransaction(
        peer=peer(trusted=True), reverse_path=reverse_path, smtputf8=smtputf8, missing=missing
    )
    for recipient in recipients:
        answer = await house.add_recipient(transaction, parse_address(recipient))
        assert answer.is_positive, answer
    facts = ContentFacts(eight_bit_header=eight_bit_header)
    plan = house.plan(transaction, SealedContent(handle="h", size_octets=9, sha256=b"", facts=facts))
    return plan.prefix.decode()


@pytest.mark.conformance("C287", "S15")
async def test_a_large_alias_is_not_followed_for_ever() -> None:
    house = admission(Names(PEOPLE, {"team@here.test": tuple(f"x{number}@far.test" for number in range(1000))}))
    transaction = MailTransaction(peer=peer(), reverse_path=None)
    team = parse_address("team@here.test")
    assert [str(await house.add_recipient(transaction, team))[:9] for _ in range(12)] == [
        *["250 2.1.5"] * 10,
        *["452 4.5.3"] * 2,
    ]
    # Those that lead straight to somebody cost nothing of it.
    assert transaction.followed == 10 * 1000


@pytest.mark.conformance("C71")
async def test_for_names_the_only_recipient_or_nobody() -> None:
    assert "\tfor <bob@here.test>;" in await prefix("bob@here.test")
    shown = await prefix("bob@here.test", "ada@here.test")
    assert "for" not in shown.replace("from", "")
    assert "bob" not in shown


@pytest.mark.conformance("C198")
async def test_u_labels_only_where_the_message_needs_smtputf8() -> None:
    ascii_only = await prefix("x@b\u00fccher.test", smtputf8=False)
    assert ascii_only.isascii()
    assert "by mx.xn--bcher-kva.test with ESMTP id" in ascii_only
    assert "for <x@xn--bcher-kva.test>" in ascii_only
    # SMTPUTF8 was asked for and not needed: such a message may yet go to a host that knows only ASCII.
    asked = await prefix("x@b\u00fccher.test", smtputf8=True)
    assert asked.isascii()
    assert " with UTF8SMTP id" in asked
    for needed in (
        await prefix("x@b\u00fccher.test", smtputf8=True, eight_bit_header=True),
        await prefix("x@b\u00fccher.test", smtputf8=True, sender="\u00fc@far.test"),
    ):
        assert "by mx.b\u00fccher.test with UTF8SMTP id" in needed
        assert "for <x@b\u00fccher.test>" in needed
    assert "for <\u00fc@far.test>" in await prefix("\u00fc@far.test", smtputf8=True)
    assert "for <gr\u00fcn@here.test>" in await prefix("gr\u00fcn@here.test", smtputf8=True)


@pytest.mark.conformance("C104", "C117")
async def test_missing_fields_stand_behind_received() -> None:
    long = Address("s" * 64, ".".join(["d" * 60] * 3))
    shown = await prefix("bob@here.test", missing=Missing(date=True, message_id=True, sender=long))
    names = [line.partition(":")[0] for line in shown.split("\r\n") if line and line[0] != "\t"]
    assert names == ["Received", "Date", "Message-ID", "Sender"]
    assert max(map(len, shown.split("\r\n"))) <= 998
    (queue_id,) = re.findall(r" id ([0-9A-Z]{26})", shown)
    assert f"Message-ID: <{queue_id}@mx.xn--bcher-kva.test>\r\n" in shown
    none = await prefix("bob@here.test", missing=Missing(date=False, message_id=False, sender=None))
    assert none.count(":") == (await prefix("bob@here.test")).count(":")


@pytest.mark.conformance("C74")
def test_one_return_path_at_delivery() -> None:
    to = parse_address("bob@here.test")
    assert trace.delivery(None, to) == b"Return-Path: <>\r\nDelivered-To: bob@here.test\r\n"
    assert trace.delivery(parse_address("x@far.test"), to).startswith(b"Return-Path: <x@far.test>\r\n")
