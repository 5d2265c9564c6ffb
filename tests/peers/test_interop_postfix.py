"""Postfix and Posthouse hand mail to each other: every octet, reports, and what waits while one of them is gone."""

from __future__ import annotations

import email
import email.message
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.peers import maildrop, odd_messages
from tests.peers.maildrop import ADA
from tests.peers.postfix import PostfixServer
from tests.peers.programs import free_port, wait_until
from tests.running_house import DOORS, RunningHouse

from posthouse.mail.journey import Attempted

pytestmark = pytest.mark.peers

ANNA = "anna@client.test"
BEN = "ben@far.test"
WITH_NULS = odd_messages.headed(200, b"a\0b\r\n\0\r\n\0.\r\n.\0\r\n" + bytes(1000) + b"\r\n")
CONTENTS = [*odd_messages.well_formed(200), WITH_NULS]
EIGHT_BIT = odd_messages.headed(1, "Grüße\r\n".encode())


def house_routing_to(folder: Path, port: int, **tables: Any) -> RunningHouse:
    """A house that sends everything to this port of the loopback interface, and tries again at once."""
    forwarding = {"routes": {"*": f"127.0.0.1:{port}"}, "retry": ["200ms"]}
    reception = {"trusted_networks": ["127.0.0.0/8"]}
    return RunningHouse(folder, forwarding=forwarding, reception=reception, **tables)


def leave_content_alone(postfix: PostfixServer) -> None:
    """Switch off what Postfix repairs in mail from the machine it runs on, and its folding of long lines."""
    postfix.set("local_header_rewrite_clients", "")
    postfix.set("smtp_line_length_limit", "0")
    postfix.set("header_size_limit", "1000000")


def attempts(house: RunningHouse) -> list[Attempted]:
    return [event for event in maildrop.journeys(house) if isinstance(event, Attempted)]


def status_of(report: bytes) -> dict[str, str]:
    """The fields of the delivery status of a report (RFC 3464), those of the message and of its one recipient."""
    message = email.message_from_bytes(report)
    assert message.get_content_type() == "multipart/report"
    (status,) = (part for part in message.walk() if part.get_content_type() == "message/delivery-status")
    blocks: Any = status.get_payload()
    return {name.lower(): value for block in blocks for name, value in block.items()}


def assert_all_arrived(messages: list[bytes], contents: list[bytes]) -> None:
    """Each content once, octet for octet below trace fields, in whatever order."""
    by_number = {odd_messages.number_of(content): content for content in contents}
    assert sorted(map(odd_messages.number_of, messages)) == sorted(by_number)
    for message in messages:
        maildrop.assert_ends_with(message, by_number[odd_messages.number_of(message)])


class TestContents:
    def test_postfix_relays_into_posthouse(self, postfix: PostfixServer, tmp_path: Path) -> None:
        with RunningHouse(tmp_path) as house:
            postfix.relay("here.test", house.ports["smtp"])
            leave_content_alone(postfix)
            postfix.start()
            maildrop.give(postfix.port, ANNA, [ADA], CONTENTS)
            entries = maildrop.wait_for_entries(house, len(CONTENTS))
            postfix.wait_for_empty_queue()
            assert maildrop.count(house) == len(CONTENTS)
        assert_all_arrived([maildrop.without_ours(entry) for entry in entries], CONTENTS)

    def test_posthouse_relays_to_postfix(self, postfix: PostfixServer, tmp_path: Path) -> None:
        postfix.deliver(BEN)
        postfix.start()
        with house_routing_to(tmp_path, postfix.port) as house:
            maildrop.submit(house, [BEN], CONTENTS)
            try:
                messages = postfix.wait_for_messages(BEN, len(CONTENTS))
            except TimeoutError as timeout:
                timeout.add_note(house.log.getvalue()[-4000:])
                raise
            wait_until(lambda: maildrop.queue_length(house) == 0, "the queue did not become empty")
            assert maildrop.count(house) == 0
        # A Maildir's lines end in LF.
        assert_all_arrived(messages, [content.replace(b"\r\n", b"\n") for content in CONTENTS])

    def test_there_and_back(self, postfix: PostfixServer, tmp_path: Path) -> None:
        """From Ada through Postfix to Bob, who lives in a second house."""
        (tmp_path / "near").mkdir()
        (tmp_path / "far").mkdir()
        contents = CONTENTS[:40]
        with RunningHouse(tmp_path / "far", ("bob@there.test",), hostname="mx.there.test") as far:
            postfix.relay("there.test", far.ports["smtp"])
            leave_content_alone(postfix)
            postfix.start()
            with house_routing_to(tmp_path / "near", postfix.port) as near:
                maildrop.submit(near, ["bob@there.test"], contents)
                entries = maildrop.wait_for_entries(far, len(contents), "bob@there.test")
        assert_all_arrived(entries, contents)


class TestEightBit:
    def test_posthouse_says_8bitmime(self, postfix: PostfixServer, tmp_path: Path) -> None:
        postfix.deliver(BEN)
        postfix.start()
        with house_routing_to(tmp_path, postfix.port) as house:
            maildrop.submit(house, [BEN], [EIGHT_BIT])
            postfix.wait_for_messages(BEN)
            wait_until(lambda: len(attempts(house)) == 1, "no attempt is told")
            (attempt,) = attempts(house)
        assert any("MAIL FROM:" in line and "BODY=8BITMIME" in line for line in attempt.transcript)

    def test_posthouse_reports_what_only_7_bits_could_carry(self, postfix: PostfixServer, tmp_path: Path) -> None:
        postfix.set("smtpd_discard_ehlo_keywords", "8bitmime")
        postfix.deliver(BEN)
        postfix.start()
        with house_routing_to(tmp_path, postfix.port) as house:
            maildrop.submit(house, [BEN], [EIGHT_BIT])
            (report,) = maildrop.wait_for_entries(house, 1)
        assert status_of(report)["status"] == "5.6.3"
        assert postfix.messages(BEN) == []


class TestUnknownRecipients:
    def test_postfix_refuses_and_ada_gets_a_report(self, postfix: PostfixServer, tmp_path: Path) -> None:
        postfix.deliver(BEN)
        postfix.start()
        with house_routing_to(tmp_path, postfix.port) as house:
            maildrop.submit(house, ["nobody@far.test", BEN], [EIGHT_BIT])
            (report,) = maildrop.wait_for_entries(house, 1)
            assert len(postfix.wait_for_messages(BEN)) == 1
            wait_until(lambda: maildrop.queue_length(house) == 0, "the queue did not become empty")
        status = status_of(report)
        assert report.startswith(b"Return-Path: <>\r\n")
        assert status["reporting-mta"] == "dns; mx.here.test"
        assert status["final-recipient"].replace(" ", "") == "rfc822;nobody@far.test"
        assert status["action"] == "failed"
        assert status["status"] == "5.1.1"
        assert status["diagnostic-code"].startswith("smtp; 550")
        assert b"Message-ID: <odd.1@client.test>" in report

    def test_posthouse_refuses_and_anna_gets_a_report(self, postfix: PostfixServer, tmp_path: Path) -> None:
        with RunningHouse(tmp_path) as house:
            postfix.relay("here.test", house.ports["smtp"])
            postfix.deliver(ANNA)
            postfix.start()
            maildrop.give(postfix.port, ANNA, ["nobody@here.test", ADA], [EIGHT_BIT])
            (report,) = postfix.wait_for_messages(ANNA)
            maildrop.wait_for_entries(house, 1)
        status = status_of(report)
        assert status["final-recipient"].replace(" ", "") == "rfc822;nobody@here.test"
        assert status["action"] == "failed"
        assert status["status"] == "5.1.1"
        assert status["diagnostic-code"].startswith("smtp; 550 5.1.1")
        assert "127.0.0.1" in status["remote-mta"]

    def test_postfix_reports_to_ada(self, new_postfix: Callable[[str], PostfixServer], tmp_path: Path) -> None:
        """Ada's mail fails behind Postfix, whose own report comes back into Posthouse from the null path."""
        near, far = new_postfix("near.test"), new_postfix("far.test")
        far.deliver(BEN)
        far.start()
        with house_routing_to(tmp_path, near.port) as house:
            near.relay("far.test", far.port)
            near.relay("here.test", house.ports["smtp"])
            near.start()
            maildrop.submit(house, ["nobody@far.test"], [EIGHT_BIT])
            (report,) = maildrop.wait_for_entries(house, 1)
        assert report.startswith(b"Return-Path: <>\r\nDelivered-To: ada@here.test\r\n")
        assert status_of(report)["reporting-mta"] == "dns; near.test"
        assert status_of(report)["status"] == "5.1.1"


class TestWhileOneIsGone:
    CONTENTS = odd_messages.well_formed(20)

    def test_posthouse_keeps_mail_until_postfix_is_back(self, postfix: PostfixServer, tmp_path: Path) -> None:
        postfix.deliver(BEN)
        with house_routing_to(tmp_path, postfix.port) as house:
            maildrop.submit(house, [BEN], self.CONTENTS)
            wait_until(lambda: len(attempts(house)) >= len(self.CONTENTS), "no attempts were made")
            assert {attempt.outcome for attempt in attempts(house)} == {"deferred"}
            assert maildrop.queue_length(house) == len(self.CONTENTS)
            postfix.start()
            messages = postfix.wait_for_messages(BEN, len(self.CONTENTS))
            wait_until(lambda: maildrop.queue_length(house) == 0, "the queue did not become empty")
            assert len(postfix.messages(BEN)) == len(self.CONTENTS)
            assert maildrop.count(house) == 0
        assert_all_arrived(messages, [content.replace(b"\r\n", b"\n") for content in self.CONTENTS])

    def test_posthouse_sends_after_its_own_restart(self, postfix: PostfixServer, tmp_path: Path) -> None:
        postfix.deliver(BEN)
        with house_routing_to(tmp_path, postfix.port) as house:
            maildrop.submit(house, [BEN], self.CONTENTS)
        postfix.start()
        with house_routing_to(tmp_path, postfix.port) as house:
            postfix.wait_for_messages(BEN, len(self.CONTENTS))
            wait_until(lambda: maildrop.queue_length(house) == 0, "the queue did not become empty")
        assert len(postfix.messages(BEN)) == len(self.CONTENTS)

    def test_postfix_keeps_mail_until_posthouse_is_back(self, postfix: PostfixServer, tmp_path: Path) -> None:
        port = free_port()
        listen = {door: ["127.0.0.1:0"] for door in DOORS} | {"smtp": [f"127.0.0.1:{port}"]}
        postfix.relay("here.test", port)
        leave_content_alone(postfix)
        postfix.start()
        with RunningHouse(tmp_path, listen=listen) as house:
            maildrop.give(postfix.port, ANNA, [ADA], self.CONTENTS[:1])
            maildrop.wait_for_entries(house, 1)
        maildrop.give(postfix.port, ANNA, [ADA], self.CONTENTS[1:])
        postfix.wait_for_log("status=deferred")
        with RunningHouse(tmp_path, listen=listen) as house:
            postfix.flush()
            entries = maildrop.wait_for_entries(house, len(self.CONTENTS))
            postfix.wait_for_empty_queue()
            assert maildrop.count(house) == len(self.CONTENTS)
        assert_all_arrived([maildrop.without_ours(entry) for entry in entries], self.CONTENTS)


class TestTls:
    def test_postfix_encrypts(self, postfix: PostfixServer, tmp_path: Path) -> None:
        maildrop.with_tls(tmp_path)
        with RunningHouse(tmp_path) as house:
            postfix.relay("here.test", house.ports["smtp"])
            postfix.set("smtp_tls_security_level", "encrypt")
            postfix.start()
            maildrop.give(postfix.port, ANNA, [ADA], [EIGHT_BIT])
            (entry,) = maildrop.wait_for_entries(house, 1)
        assert b"\tby mx.here.test with ESMTPS id " in entry
