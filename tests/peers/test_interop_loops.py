"""Circles with a real Postfix in them: they end, and the sender hears of it once."""

from __future__ import annotations

import email
from pathlib import Path

import pytest
from tests.peers import maildrop
from tests.peers.maildrop import ADA
from tests.peers.postfix import PostfixServer
from tests.running_house import RunningHouse

from posthouse.mail.address import parse_address
from posthouse.mail.journey import Accepted
from posthouse.storage.interfaces import Storage

pytestmark = pytest.mark.peers

LETTER = b"From: ada@here.test\r\nSubject: round and round\r\n\r\nhello\r\n"
CIRCLES = {
    "two": ("a@here.test", ("b@postfix.test",), "a@here.test"),
    "details": ("a+1@here.test", ("b+2@postfix.test",), "a+3+1@here.test"),
    "twice by us": ("a@here.test", ("b@postfix.test",), "again@here.test"),
    "a list": ("a@here.test", ("b@postfix.test", "bob@here.test"), "a@here.test"),
}
"""Where the letter goes, where the alias leads, where Postfix leads it then. `again` leads to Postfix too."""


def accepted(house: RunningHouse) -> list[Accepted]:
    async def ask(storage: Storage) -> list[Accepted]:
        found = await storage.journey.find(limit=1000)
        events = [event for queue_id in found for event in await storage.journey.read(queue_id)]
        return [event for event in events if isinstance(event, Accepted)]

    return house.ask(ask)


@pytest.mark.conformance("C295")
@pytest.mark.parametrize("name", CIRCLES)
def test_a_circle_by_way_of_postfix_ends(postfix: PostfixServer, tmp_path: Path, name: str) -> None:
    first, targets, back = CIRCLES[name]
    forwarding = {"routes": {"*": f"127.0.0.1:{postfix.port}"}, "retry": ["200ms"]}
    aliases = {"a@here.test": targets, "again@here.test": targets}
    with RunningHouse(tmp_path, forwarding=forwarding) as house:
        for alias, found in aliases.items():
            address, leads_to = parse_address(alias), [parse_address(target) for target in found]
            house.ask(lambda storage, a=address, t=leads_to: storage.administration.add_alias(a, t))
        (postfix.folder / "virtual").write_text(f"b@postfix.test {back}\n")
        postfix.set("virtual_alias_domains", "postfix.test")
        postfix.set("virtual_alias_maps", f"texthash:{postfix.folder}/virtual")
        postfix.set("recipient_delimiter", "+")
        postfix.relay("here.test", house.ports["smtp"])
        postfix.start()
        postfix.send(ADA, [first], LETTER, house.ports["smtp"])
        (report,) = maildrop.wait_for_entries(house, 1)
        postfix.wait_for_empty_queue()
        assert maildrop.count(house) == 1
        assert maildrop.queue_length(house) == 0
        assert len(accepted(house)) <= 4
    message = email.message_from_bytes(report)
    assert message.get_content_type() == "multipart/report"
    assert b"5.4.6" in report
