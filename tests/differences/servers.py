"""The servers that are compared: a whole house of ours, a Postfix and a Dovecot that hold the same."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.differences.pop3_dialogues import CONTENTS
from tests.peers import dovecot, postfix
from tests.peers.dovecot import DovecotServer
from tests.peers.maildrop import entries, give, without_ours
from tests.peers.postfix import PostfixServer
from tests.running_house import PASSWORD, RunningHouse

PEOPLE = ("ada@here.test", "bob@here.test")
SIZE_OCTETS = 1_000_000
MANY = 10_000
_TOKEN = re.compile(rb"X-Token: (\S+)\r\n")
_THEIR_TRACE = re.compile(rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*){4}")


def why_not() -> str | None:
    return postfix.why_not() or dovecot.why_not()


@dataclass(frozen=True, slots=True)
class SmtpPair:
    house: RunningHouse
    postfix: PostfixServer

    def held(self) -> tuple[dict[tuple[str, str], bytes], dict[tuple[str, str], bytes]]:
        """What each holds: content by recipient and token, without trace fields, lines ending in CRLF."""
        self.postfix.wait_for_empty_queue()
        ours = {(person, token_of(e)): without_ours(e) for person in PEOPLE for e in entries(self.house, person)}
        theirs = {}
        for person in PEOPLE:
            for message in self.postfix.messages(person):
                trace = _THEIR_TRACE.match(message)
                assert trace is not None, message[:500]
                content = message[trace.end() :].replace(b"\n", b"\r\n")
                theirs[person, token_of(content)] = content
        return ours, theirs


def token_of(message: bytes) -> str:
    found = _TOKEN.search(message)
    assert found is not None, message[:500]
    return found[1].decode()


@contextmanager
def smtp_pair() -> Iterator[SmtpPair]:
    """Both take mail for Ada and Bob, relay for nobody, and bear with as many errors as it takes."""
    server = PostfixServer()
    for person in PEOPLE:
        server.deliver(person)
    for name, value in POSTFIX.items():
        server.set(name, value)
    reception = {"message_size_octets": SIZE_OCTETS, "errors": MANY, "unknown_recipients": MANY}
    with tempfile.TemporaryDirectory(prefix="posthouse-differences-") as folder:
        try:
            server.start()
            with RunningHouse(Path(folder), PEOPLE, reception=reception) as house:
                yield SmtpPair(house, server)
        finally:
            server.remove()


POSTFIX = {
    # As a host that strangers talk to, and as strict as it can be told to be.
    "mynetworks": "",
    "smtpd_relay_restrictions": "reject_unauth_destination",
    "smtpd_helo_required": "yes",
    "strict_rfc821_envelopes": "yes",
    "smtpd_forbid_bare_newline": "reject",
    "message_size_limit": str(SIZE_OCTETS),
    "virtual_mailbox_limit": "0",
    # <postmaster> is Ada, as in the house.
    "myorigin": "here.test",
    "virtual_alias_maps": "inline:{postmaster@here.test=ada@here.test}",
    "local_header_rewrite_clients": "",
    "smtpd_error_sleep_time": "0",
    "smtpd_soft_error_limit": str(MANY),
    "smtpd_hard_error_limit": str(MANY),
    "smtpd_junk_command_limit": str(MANY),
    "smtpd_client_connection_rate_limit": "0",
    "smtputf8_enable": "yes",
    "disable_vrfy_command": "no",
}


@dataclass(frozen=True, slots=True)
class Pop3Pair:
    house: RunningHouse
    dovecot: DovecotServer

    def held(self, login: str) -> tuple[list[bytes], list[bytes]]:
        return entries(self.house, login), self.dovecot.messages(login)


@contextmanager
def pop3_pair(logins: Sequence[str]) -> Iterator[Pop3Pair]:
    """Each login has the same entries at both, octet for octet: those that the house made of CONTENTS."""
    server = DovecotServer(password=PASSWORD)
    limits = {"errors": MANY, "failed_logins": 100}
    guessing = {
        "allow_cleartext": True,
        "failures_before_slowing": 50,
        "slowing_delay": "1ms",
        "slowing_longest": "1ms",
    }
    with tempfile.TemporaryDirectory(prefix="posthouse-differences-") as folder:
        try:
            with RunningHouse(Path(folder), tuple(logins), retrieval=limits, auth=guessing) as house:
                give(house.ports["smtp"], "ann@client.test", logins, CONTENTS)
                server.start()
                for login in logins:
                    server.fill(login, entries(house, login))
                yield Pop3Pair(house, server)
        finally:
            server.remove()
