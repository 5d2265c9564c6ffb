"""A thousand odd messages, fetched octet for octet by every client, which leaves them there or deletes them."""

from __future__ import annotations

import poplib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.peers import maildrop, odd_messages
from tests.peers.conftest import program
from tests.peers.fetching import Client, Curl, Fetchmail, Mpop, Mutt, NetPop3, Poplib
from tests.peers.maildrop import ADA
from tests.running_house import RunningHouse

pytestmark = [pytest.mark.peers, pytest.mark.long, pytest.mark.conformance("C266")]

COUNT = 1000
BIG = [odd_messages.huge(20 * 2**20), odd_messages.huge_header(250_000)]
ALL = [*odd_messages.all_odd(COUNT - len(BIG), nuls=False), *BIG]
# mutt and fetchmail break long lines or repair header sections, whoever the server is.
LAWFUL = [*odd_messages.lawful(COUNT - 1), odd_messages.huge_header(250_000)]
LONGEST_LINE_OCTETS = 300_000
CLIENTS = [
    pytest.param(Poplib, None, ALL, id="poplib"),
    pytest.param(Curl, "curl", ALL, id="curl"),
    pytest.param(Mpop, "mpop", ALL, id="mpop"),
    pytest.param(NetPop3, "perl", ALL, id="net-pop3"),
    pytest.param(Mutt, "mutt", LAWFUL, id="mutt"),
    pytest.param(Fetchmail, "fetchmail", LAWFUL, id="fetchmail"),
]
REMEMBERING = [each for each in CLIENTS if each.values[0].remembers]  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poplib, "_MAXLINE", LONGEST_LINE_OCTETS)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path, listen={door: ["127.0.0.1:0"] for door in ("smtp", "pop3")}) as running:
        yield running


def filled(house: RunningHouse, contents: list[bytes]) -> list[bytes]:
    """Put them into Ada's maildrop; returns its entries, which are what was sent under our own fields."""
    maildrop.give(house.ports["smtp"], "anna@client.test", [ADA], contents)
    entries = maildrop.entries(house)
    assert [maildrop.without_ours(entry) for entry in entries] == contents
    return entries


def client_of(kind: type[Client], name: str | None, house: RunningHouse, folder: Path) -> Client:
    return kind(house, folder / "client", program(name) if name else None)


@pytest.mark.parametrize(("kind", "name", "contents"), CLIENTS)
def test_leaves_them(
    house: RunningHouse, tmp_path: Path, kind: type[Client], name: str | None, contents: list[bytes]
) -> None:
    client = client_of(kind, name, house, tmp_path)
    entries = filled(house, contents)
    client.fetch(keep=True)
    client.assert_has(entries)
    assert maildrop.entries(house) == entries


@pytest.mark.parametrize(("kind", "name", "contents"), CLIENTS)
def test_deletes_them(
    house: RunningHouse, tmp_path: Path, kind: type[Client], name: str | None, contents: list[bytes]
) -> None:
    client = client_of(kind, name, house, tmp_path)
    entries = filled(house, contents)
    client.fetch(keep=False)
    client.assert_has(entries)
    assert maildrop.count(house) == 0


@pytest.mark.parametrize(("kind", "name", "contents"), REMEMBERING)
def test_fetches_nothing_twice(
    house: RunningHouse, tmp_path: Path, kind: type[Client], name: str | None, contents: list[bytes]
) -> None:
    """Its memory is of UIDLs: what is left stays, what is new comes, and numbers may shift in between."""
    client = client_of(kind, name, house, tmp_path)
    contents = contents[:30]
    entries = filled(house, contents)
    client.fetch(keep=True)
    client.assert_has(entries)
    maildrop.give(house.ports["smtp"], "anna@client.test", [ADA], [odd_messages.headed(1, b"new\r\n")])
    client.fetch(keep=True)
    client.assert_has(maildrop.entries(house))
    assert maildrop.count(house) == len(contents) + 1
