"""What a test asks of a house and of the messages it finds there: entries, their trace fields, mail put in exactly."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterable
from pathlib import Path

from tests.peers.programs import PATIENCE_S, wait_until
from tests.running_house import RunningHouse

from posthouse.mail.journey import JourneyEvent
from posthouse.net.tls import make_self_signed
from posthouse.storage.interfaces import Storage

ADA = "ada@here.test"
TLS_NAME = "localhost"
_OURS = re.compile(
    rb"Return-Path: <[^\r\n]*>\r\nDelivered-To: [^\r\n]+\r\n"
    rb"Received: from [^\r\n]+\r\n\tby mx\.here\.test with [A-Z0-9]+ id [0-9A-Z]{26}"
    rb"(?:\r\n\tfor <[^\r\n]+>)?;\r\n\t[^\r\n]+\r\n"
)
_ANY_TRACE = re.compile(
    rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received): ?[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*)+"
)


def with_tls(folder: Path) -> Path:
    """Give the house-to-be in `folder` a self-signed certificate; returns what clients must trust."""
    certificate = folder / "self-signed.crt"
    make_self_signed(TLS_NAME, certificate, folder / "self-signed.key", 1_700_000_000)
    return certificate


def entries(house: RunningHouse, login: str = ADA) -> list[bytes]:
    """The entries of a maildrop, octet for octet, oldest first."""

    async def read(storage: Storage) -> list[bytes]:
        account = await storage.directory.account(login)
        assert account is not None
        listing = await storage.maildrops.list(account.account)
        return [b"".join([part async for part in storage.maildrops.read(account.account, uid)]) for uid in listing.uids]

    return house.ask(read)


def count(house: RunningHouse, login: str = ADA) -> int:
    """How many entries a maildrop has."""

    async def ask(storage: Storage) -> int:
        account = await storage.directory.account(login)
        assert account is not None
        return len(await storage.maildrops.list(account.account))

    return house.ask(ask)


def wait_for_entries(house: RunningHouse, number: int, login: str = ADA, timeout_s: float = PATIENCE_S) -> list[bytes]:
    try:
        wait_until(lambda: count(house, login) >= number, f"fewer than {number} messages for {login}", timeout_s)
    except TimeoutError as timeout:
        timeout.add_note(house.log.getvalue()[-4000:])
        raise
    return entries(house, login)


def queue_length(house: RunningHouse) -> int:
    return house.ask(lambda storage: storage.spool.count())


def journeys(house: RunningHouse, reverse_path: str = ADA) -> list[JourneyEvent]:
    """All events of the messages of one sender."""

    async def ask(storage: Storage) -> list[JourneyEvent]:
        ids = await storage.journey.find(reverse_path=reverse_path)
        return [event for queue_id in ids for event in await storage.journey.read(queue_id)]

    return house.ask(ask)


def without_ours(entry: bytes) -> bytes:
    """An entry as it came: without Return-Path, Delivered-To and Received, which must be there, once."""
    ours = _OURS.match(entry)
    assert ours is not None, entry[:500]
    return entry[ours.end() :]


def assert_ends_with(message: bytes, content: bytes) -> None:
    """The message is trace fields, then the content, octet for octet."""
    assert message.endswith(content), (message[:2000], content[:2000])
    assert _ANY_TRACE.fullmatch(message[: len(message) - len(content)]), message[:2000]


def submit(house: RunningHouse, forward_paths: Iterable[str], contents: Iterable[bytes]) -> None:
    """A host that the house trusts sends Ada's mail on: what it holds is no matter of the house."""
    give(house.ports["smtp"], ADA, forward_paths, contents)


def give(port: int, reverse_path: str, forward_paths: Iterable[str], contents: Iterable[bytes]) -> None:
    """Send to any SMTP server."""
    with smtplib.SMTP("127.0.0.1", port, "client.test", PATIENCE_S) as client:
        for content in contents:
            put(client, reverse_path, forward_paths, content)


def put(client: smtplib.SMTP, reverse_path: str, forward_paths: Iterable[str], content: bytes) -> None:
    """One transaction. smtplib's own `data` would add a CRLF to no content at all."""
    client.ehlo_or_helo_if_needed()
    body = [] if content.isascii() else ["BODY=8BITMIME"]
    _expect(250, client.mail(reverse_path, body))
    for forward_path in forward_paths:
        _expect(250, client.rcpt(forward_path))
    _expect(354, client.docmd("DATA"))
    client.send(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
    _expect(250, client.getreply())


def _expect(code: int, answer: tuple[int, bytes]) -> None:
    assert answer[0] == code, answer
