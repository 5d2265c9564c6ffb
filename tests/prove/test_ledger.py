"""The ledger that accuses: each kind of wrong is found, and what may happen is not accused."""

from __future__ import annotations

import random

import pytest

from posthouse.prove import letters
from posthouse.prove.ledger import KEPT_ROUNDS, NOBODY, Ledger, Wrong

HOUSE = "house.test"
ADA, BOB, CY = f"ada@{HOUSE}", f"bob@{HOUSE}", "cy@peer.test"
IDS = tuple(f"01M841V81QWYPDZRPT8NAM5Q{number:02}" for number in range(20))


def stored(content: bytes, *queue_ids: str) -> bytes:
    """A content as a house shows it."""
    received = "".join(
        f"Received: from x\r\n\tby {HOUSE} with ESMTP id {queue_id};\r\n\tnow\r\n" for queue_id in queue_ids
    )
    return f"Return-Path: <a@b.test>\r\nDelivered-To: {ADA}\r\n{received}".encode() + content


class Story:
    """A ledger, and short words for what happens."""

    def __init__(self) -> None:
        self.ledger = Ledger(HOUSE)
        self.contents: dict[int, bytes] = {}

    def write(self) -> int:
        serial = self.ledger.next_serial()
        self.contents[serial] = letters.write(serial, random.Random(serial))
        self.ledger.write(serial, self.contents[serial])
        return serial

    def promised(self, queue_id: str, *recipients: str) -> int:
        serial = self.write()
        self.ledger.acknowledge(serial, queue_id, recipients or (ADA,), 1.0)
        return serial

    def seen(self, maildrop: str, serial: int, queue_id: str, *older: str, uidl: str | None = None) -> None:
        octets = stored(self.contents[serial], queue_id, *older)
        self.ledger.retrieved(maildrop, uidl or queue_id, octets, len(octets))

    def deleted(self, maildrop: str, *uidls: str) -> None:
        self.ledger.leave(maildrop, uidls)
        self.ledger.left(maildrop, uidls)

    def wrong(self) -> dict[Wrong, int]:
        self.ledger.judge()
        return {wrong: number for wrong in Wrong if (number := self.ledger.count(wrong))}


@pytest.fixture
def story() -> Story:
    return Story()


def test_what_is_as_it_was_promised_is_no_finding(story: Story) -> None:
    serial = story.promised(IDS[0], ADA, BOB)
    for maildrop in (ADA, BOB):
        assert story.ledger.unread(maildrop, [IDS[0]]) == [IDS[0]]
        story.seen(maildrop, serial, IDS[0])
        assert story.ledger.unread(maildrop, [IDS[0]]) == []
        story.ledger.compare(maildrop, [IDS[0]])
    story.deleted(ADA, IDS[0])
    story.ledger.compare(ADA, [])
    assert story.wrong() == {}


def test_what_is_gone_is_lost_once(story: Story) -> None:
    story.promised(IDS[0])
    for _ in range(2):
        story.ledger.compare(ADA, [])
    assert story.wrong() == {Wrong.LOST: 1}
    assert IDS[0] in story.ledger.findings[0].text


def test_an_entry_that_was_seen_is_not_lost_either(story: Story) -> None:
    serial = story.write()
    story.ledger.leave_unanswered(serial, (ADA,))
    story.seen(ADA, serial, IDS[0])
    story.ledger.compare(ADA, [])
    assert story.wrong() == {Wrong.LOST: 1}


def test_what_is_listed_and_not_shown_is_lost(story: Story) -> None:
    story.promised(IDS[0])
    story.ledger.not_shown(ADA, IDS[0])
    assert story.wrong() == {Wrong.LOST: 1}


def test_one_acknowledgement_is_one_entry(story: Story) -> None:
    serial = story.promised(IDS[0])
    story.seen(ADA, serial, IDS[0])
    story.seen(ADA, serial, IDS[0], uidl="another")
    assert story.wrong() == {Wrong.DOUBLED: 1}


def test_a_uidl_stands_once_in_a_listing(story: Story) -> None:
    serial = story.promised(IDS[0])
    story.seen(ADA, serial, IDS[0])
    story.ledger.compare(ADA, [IDS[0], IDS[0]])
    assert story.wrong() == {Wrong.DOUBLED: 1}


def test_copies_are_no_more_than_submissions(story: Story) -> None:
    serial = story.promised(IDS[0])
    story.ledger.leave_unanswered(serial, (ADA,))
    story.seen(ADA, serial, IDS[0])
    story.seen(ADA, serial, IDS[1])
    assert story.wrong() == {}
    assert story.ledger.counts["repeated here"] == 1
    story.seen(ADA, serial, IDS[2])
    assert story.wrong() == {Wrong.DOUBLED: 1}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda octets: octets[:-5] + b"X" + octets[-4:],
        lambda octets: octets[:-2],
        lambda octets: octets.replace(b"X-Prove", b"X-Other"),
        lambda octets: octets.replace(b"Return-Path", b"X-Return-Path", 1),
        lambda octets: b"X: y\r\n" + octets,
    ],
)
def test_other_octets_are_corrupted(story: Story, spoil: object) -> None:
    serial = story.promised(IDS[0])
    octets = spoil(stored(story.contents[serial], IDS[0]))  # type: ignore[operator]
    story.ledger.retrieved(ADA, IDS[0], octets, len(octets))
    assert story.wrong() == {Wrong.CORRUPTED: 1}


def test_an_entry_stays_what_it_was(story: Story) -> None:
    serial = story.promised(IDS[0])
    story.seen(ADA, serial, IDS[0])
    octets = stored(story.contents[serial], IDS[0]).replace(b"now", b"new")
    story.ledger.retrieved(ADA, IDS[0], octets, len(octets))
    assert story.wrong() == {Wrong.CORRUPTED: 1}


def test_sizes_are_exact(story: Story) -> None:
    serial = story.promised(IDS[0])
    octets = stored(story.contents[serial], IDS[0])
    story.ledger.retrieved(ADA, IDS[0], octets, len(octets) + 1)
    assert story.wrong() == {Wrong.CORRUPTED: 1}


def test_a_maildrop_holds_no_other_letter_and_no_other_ones(story: Story) -> None:
    story.promised(IDS[0])
    others = story.promised(IDS[1], BOB)
    story.seen(ADA, others, IDS[0])
    assert story.wrong() == {Wrong.CORRUPTED: 1}
    story.seen(ADA, others, IDS[1])
    assert story.wrong() == {Wrong.CORRUPTED: 2}


def test_what_was_deleted_stays_away(story: Story) -> None:
    serial = story.promised(IDS[0])
    story.seen(ADA, serial, IDS[0])
    story.deleted(ADA, IDS[0])
    story.ledger.compare(ADA, [IDS[0]])
    assert story.wrong() == {Wrong.RESURRECTED: 1}


@pytest.mark.parametrize("there", [True, False])
def test_after_a_quit_without_an_answer_both_are_right_but_for_good(story: Story, there: bool) -> None:
    serial = story.promised(IDS[0])
    story.seen(ADA, serial, IDS[0])
    story.ledger.leave(ADA, [IDS[0]])
    story.ledger.compare(ADA, [IDS[0]] * there)
    assert story.wrong() == {}
    story.ledger.compare(ADA, [IDS[0]] * (not there))
    assert story.wrong() == {Wrong.LOST if there else Wrong.RESURRECTED: 1}


def test_what_was_refused_is_nowhere(story: Story) -> None:
    serial = story.write()
    story.ledger.refuse(serial)
    story.seen(ADA, serial, IDS[0])
    assert story.wrong() == {Wrong.REFUSED: 1}


def test_what_every_house_refuses_is_not_taken_and_not_stored(story: Story) -> None:
    serial = story.ledger.next_serial()
    story.contents[serial] = letters.write_malformed(serial)
    story.ledger.write(serial, story.contents[serial], is_welcome=False)
    story.ledger.leave_unanswered(serial, (ADA,))
    assert story.wrong() == {}
    story.seen(ADA, serial, IDS[0])
    assert story.wrong() == {Wrong.REFUSED: 1}
    story.ledger.acknowledge(serial, IDS[1], (BOB,), 1.0)
    assert story.wrong() == {Wrong.REFUSED: 2}


def test_what_never_ended_is_nowhere(story: Story) -> None:
    story.seen(ADA, story.write(), IDS[0])
    assert story.wrong() == {Wrong.REFUSED: 1}


def test_a_recipient_that_was_refused_has_nothing(story: Story) -> None:
    serial = story.promised(IDS[0], ADA)
    story.ledger.turn_away(serial, [BOB])
    story.seen(BOB, serial, IDS[0])
    assert story.wrong() == {Wrong.REFUSED: 1}


def test_what_is_owed_elsewhere_waits_or_arrives(story: Story) -> None:
    serial = story.promised(IDS[0], CY)
    assert list(story.ledger.owing({(CY, IDS[0])})) == []
    assert list(story.ledger.owing(set())) == [(CY, IDS[0])]
    story.seen(CY, serial, IDS[1], IDS[2])
    assert list(story.ledger.owing(set())) == [(CY, IDS[0])], "another acknowledgement of the same letter"
    story.seen(CY, serial, IDS[3], IDS[0])
    assert list(story.ledger.owing(set())) == []
    assert story.ledger.counts["repeated elsewhere"] == 1
    assert story.wrong() == {}


def test_what_neither_waits_nor_arrived_is_lost(story: Story) -> None:
    story.promised(IDS[0], CY)
    for recipient, queue_id in story.ledger.owing(set()):
        story.ledger.lose(recipient, queue_id)
    assert story.wrong() == {Wrong.LOST: 1}
    assert list(story.ledger.owing(set())) == []


def report_about(story: Story, serial: int) -> bytes:
    head = f"Received: by {HOUSE} id {IDS[9]};\r\n\tnow\r\nContent-Type: multipart/report\r\n\r\nIt failed.\r\n"
    return stored(head.encode() + story.contents[serial], IDS[8])


def test_a_report_settles_what_is_owed_to_nobody(story: Story) -> None:
    serial = story.promised(IDS[0], NOBODY)
    octets = report_about(story, serial)
    story.ledger.retrieved("sender@peer.test", IDS[8], octets, len(octets))
    assert list(story.ledger.owing(set())) == []
    assert story.wrong() == {}
    assert story.ledger.troubles == []


def test_a_report_about_somebody_who_is_there_is_a_trouble(story: Story) -> None:
    octets = report_about(story, story.promised(IDS[0], CY))
    story.ledger.retrieved("sender@peer.test", IDS[8], octets, len(octets))
    assert list(story.ledger.owing(set())) == [(CY, IDS[0])]
    assert len(story.ledger.troubles) == 1


def test_what_was_deleted_long_ago_is_forgotten(story: Story) -> None:
    serial, kept = story.promised(IDS[0]), story.promised(IDS[1])
    story.seen(ADA, serial, IDS[0])
    story.deleted(ADA, IDS[0])
    story.ledger.round = KEPT_ROUNDS + 1
    story.ledger.forget()
    assert list(story.ledger.letters) == [kept]
    assert list(story.ledger.entries[ADA]) == [IDS[1]]
