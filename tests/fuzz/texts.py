"""Targets: addresses, parameters, fields and the other short texts that strangers and operators write."""

from __future__ import annotations

import email
import email.policy
import io
import re
from dataclasses import replace

from tests.fuzz.draw import Draw, assert_whole_lines, error_of, run_without_io, same_however_cut, without

from posthouse.admission.loops import came_back
from posthouse.admission.peer import Peer, Role
from posthouse.admission.trace import received
from posthouse.cli.account_import import _account
from posthouse.cli.check_spf import LOOKUPS, SpfError, SpfUnclear, spf_result
from posthouse.cli.common import Problem
from posthouse.config_values import (
    parse_duration,
    parse_endpoint,
    parse_host_pattern,
    parse_next_hop,
    parse_postmaster,
    parse_private_endpoint,
    parse_user,
)
from posthouse.log import make_log
from posthouse.mail.address import (
    MAX_PATH_OCTETS,
    Address,
    AddressError,
    parse_address,
    parse_domain,
    quoted,
    unicode_domain,
    unquoted,
)
from posthouse.mail.explain import explain, reply_from_text
from posthouse.mail.header import MAX_LINE_OCTETS, clipped, field, fold
from posthouse.mail.ids import QueueId
from posthouse.mail.journey_words import MOST_CHARACTERS, MOST_WORDS, message_id_key, words_of
from posthouse.mail.mailboxes import parse_mailboxes
from posthouse.mail.queue_filter import FilterError, parse_filter
from posthouse.mail.reply import EnhancedCode, Reply
from posthouse.mail.srs import Srs, is_rewritten
from posthouse.mail.words import visible
from posthouse.net.dns import MxHost, NoSuchName
from posthouse.net.smtp_transcript import LAST_LINES, SECRET, SHOWN_CHARACTERS, TRANSCRIPT_LINES, Transcript
from posthouse.protocol.errors import RemoteProtocolError
from posthouse.protocol.smtp_parameters import (
    _decode_embedded,
    decode_xtext,
    encode_original_recipient,
    encode_xtext,
)
from posthouse.protocol.smtp_reply import ReplyReader, encode_reply

PEER = Peer(
    address="192.0.2.1",
    hello="",
    role=Role.EXCHANGE,
    extended=True,
    tls=False,
    trusted=False,
    account=None,
    session="s",
)
QUEUE_ID = QueueId("01K5XJ6TQ0M8V3N2R7B4C9D1EF")
VALUE_CHARACTERS = 800
"""No value that we write is longer, so a run of white space cannot fill a line."""
NOW = 1_700_000_000.0


def address(octets: bytes) -> None:
    """A valid address has one line, one key, and is read again as itself from all of its spellings."""
    text = octets.decode("utf-8", "replace")
    domain = without(AddressError, lambda: parse_domain(text))
    if domain is not None:
        assert domain.isascii()
        assert domain.isprintable()
        assert parse_domain(domain) == domain
        assert "\n" not in unicode_domain(domain)
    found = without(AddressError, lambda: parse_address(text, long=True))
    if found is None:
        return
    assert len(str(found).encode()) <= MAX_PATH_OCTETS - 2
    assert str(found).isprintable()
    assert parse_address(str(found), long=True) == found
    for key in (found.key, found.foreign_key):
        again = without(AddressError, lambda key=key: parse_address(key, long=True))  # type: ignore[misc]
        # Composed letters may need more octets than the path has.
        assert again is None or again.key == found.key
    assert unquoted(quoted(unquoted(found.local_part))) == unquoted(found.local_part)


def mailboxes(octets: bytes) -> None:
    """From and Sender: addresses that are valid in an envelope, or AddressError; white space around changes nothing."""
    text = octets.decode("utf-8", "surrogateescape")
    found = without(AddressError, lambda: parse_mailboxes(text))
    assert without(AddressError, lambda: parse_mailboxes(f" (so) {text} \r\n (so)")) == found
    for each in found or ():
        assert parse_address(str(each)) == each
        assert parse_mailboxes(f"<{each}>") == (each,)


def xtext(octets: bytes) -> None:
    """xtext and utf-8-addr-xtext: what is decoded can be encoded, and means the same again."""
    text = octets.decode("utf-8", "replace")
    decoded = without(ValueError, lambda: decode_xtext(text))
    if decoded is not None:
        assert decoded.isascii()
        assert decoded.isprintable()
        assert decode_xtext(encode_xtext(decoded)) == decoded
    embedded = without(ValueError, lambda: _decode_embedded(text))
    if embedded is not None:
        assert embedded.isprintable()
        value = encode_original_recipient(f"utf-8;{embedded}")
        assert value.isascii()
        assert value.isprintable()
        assert " " not in value
        assert _decode_embedded(value.removeprefix("utf-8;")) == embedded


def srs(octets: bytes) -> None:
    """What was rewritten leads back, whatever the case; what was not made by us opens nothing."""
    draw = Draw(octets)
    flipped, flip = draw.number(), draw.number()
    text = draw.text()
    ours = Srs(b"k" * 32)
    assert ours.open(text, NOW) is None, "a stranger's address was opened"
    sender = without(AddressError, lambda: parse_address(text, long=True))
    if sender is None:
        return
    rewritten = ours.rewrite(sender, "mx.test", QUEUE_ID, NOW)
    assert rewritten.domain == "mx.test"
    assert is_rewritten(rewritten.local_part)
    opened = ours.open(rewritten.local_part, NOW)
    assert opened is not None
    assert ours.open(rewritten.local_part.swapcase(), NOW) is not None
    if not isinstance(opened, str) and not sender.local_part.upper().startswith("SRS"):
        assert opened == sender
    at = flipped % len(rewritten.local_part)
    forged = rewritten.local_part[:at] + chr(0x21 + flip % 94) + rewritten.local_part[at + 1 :]
    if forged.lower() != rewritten.local_part.lower():
        assert ours.open(forged, NOW) is None, "a forged address was opened"


def queue_filter(octets: bytes) -> None:
    """Words of an operator: conditions, or one line that says what to write instead."""
    words = octets.decode("utf-8", "replace").split(" ")
    found = without(FilterError, lambda: parse_filter(words))
    assert found is None or len(found) == len(words)
    assert "\n" not in (error_of(FilterError, lambda: parse_filter(words)) or "")


def config_value(octets: bytes) -> None:
    """Values of the configuration: parsed, or ValueError; an endpoint is read again as it is shown."""
    text = octets.decode("utf-8", "replace")
    for parse in (parse_duration, parse_host_pattern, parse_postmaster, parse_private_endpoint, parse_user):
        without(ValueError, lambda parse=parse: parse(text))  # type: ignore[misc]
    for parse_one in (parse_endpoint, parse_next_hop):
        endpoint = without(ValueError, lambda parse=parse_one: parse(text))  # type: ignore[misc]
        if endpoint is not None:
            assert parse_endpoint(str(endpoint)) == endpoint


def account_line(octets: bytes) -> None:
    """A line of `account import`: an account, or a problem that does not repeat a hash."""
    account = without((Problem, ValueError), lambda: _account(1, octets))
    if account is None:
        assert len(error_of((Problem, ValueError), lambda: _account(1, octets)) or "") <= 1000 + len(octets)
    else:
        assert account.address.domain


def reply_lines(octets: bytes) -> None:
    """A peer's reply, as it is read, passed on, stored, explained and searched for."""
    draw = Draw(octets)
    code, subject, detail = 200 + draw.number(200) + draw.number(200), draw.number(), draw.number()
    text = draw.rest()
    _read_reply(text)
    enhanced = EnhancedCode(code // 100, subject, detail) if subject else None
    said = Reply(code, enhanced, text.decode("utf-8", "replace"))
    wire = encode_reply(said)
    assert_whole_lines(wire, 510)
    _check_round_trip(said, wire)
    stored = reply_from_text(str(said))
    assert stored is not None
    assert stored.code == code
    explained = explain(said)
    assert explained.sentence
    assert explained.advice
    words = words_of(str(said))
    assert len(words) <= MOST_WORDS
    assert all(0 < len(word) <= MOST_CHARACTERS for word in words)
    key = message_id_key(said.text)
    assert len(key) <= 1000 or not said.text.isascii()


def _read_reply(octets: bytes) -> None:
    reader = ReplyReader()
    try:
        for line in octets.split(b"\r\n"):
            found = reader.feed(line, enhanced=True)
            if found is not None:
                assert all(part.isprintable() for part in found.text.split("\n"))
                assert reply_from_text(str(found)) is not None
    except RemoteProtocolError:
        pass


def _check_round_trip(said: Reply, wire: bytes) -> None:
    reader, read = ReplyReader(), None
    for line in wire.split(b"\r\n")[:-1]:
        assert read is None, "a reply ends before its end"
        read = reader.feed(line, enhanced=True)
    assert read is not None
    assert read.code == said.code
    if said.code // 100 != 3:
        assert read.enhanced == (said.enhanced or EnhancedCode(said.code // 100, 0, 0))


def transcript(octets: bytes) -> None:
    """A peer's lines in a journey: printable, few, short, without a secret, and the same however they are cut."""
    draw = Draw(octets)
    seed, login = draw.number(), draw.chance()
    wire = draw.rest()

    def run(pieces: list[bytes]) -> list[str]:
        told = Transcript(None, lambda: 0.0)
        if login:
            told.begin_secrets("open sesame")
        for piece in [*pieces, b""]:
            told.server(piece)
        return [step.line for step in told.steps]

    lines = same_however_cut(wire, seed, run)
    assert len(lines) <= TRANSCRIPT_LINES + LAST_LINES
    for line in lines:
        assert line.isprintable()
        assert len(line) <= SHOWN_CHARACTERS + len("S: ") + len(SECRET)
        assert not login or "open sesame" not in line


def header_field(octets: bytes) -> None:
    """Any text in a field of ours: folded so that it unfolds to itself, never a second field, or ValueError."""
    text = octets.decode("utf-8", "replace")
    made = without(ValueError, lambda: field("X-Test", text))
    if made is not None:
        _assert_one_field(made)
    shown = visible(text)[:VALUE_CHARACTERS]
    assert all(c.isprintable() or c.isspace() for c in shown)
    assert "\n" not in shown
    assert "\r" not in shown
    value = fold("X-Test", clipped(shown))
    assert value.replace("\r\n", "") == clipped(shown).rstrip()
    made = field("X-Test", value)
    _assert_one_field(made)
    assert all(len(line) <= MAX_LINE_OCTETS for line in made.split(b"\r\n"))


def _assert_one_field(octets: bytes) -> None:
    assert octets.startswith(b"X-Test: ")
    assert octets.endswith(b"\r\n")
    for line in octets[:-2].split(b"\r\n")[1:]:
        assert line[:1] in (b" ", b"\t")
        assert line.strip(b" \t"), "a line of white space only"
    assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", octets) is None


def received_field(octets: bytes) -> None:
    """Whatever a peer says in EHLO, and whatever recipient it names, Received stays one field of one hop."""
    draw = Draw(octets)
    u_labels = draw.chance()
    # The grammar of EHLO takes nothing but ASCII.
    hello, recipient = draw.text().encode("ascii", "replace").decode(), draw.text()
    path = without(AddressError, lambda: parse_address(recipient))
    peer = replace(PEER, hello=hello)
    made = received(peer, hostname="mx.test", queue_id=QUEUE_ID, now=NOW, only_recipient=path, u_labels=u_labels)
    _assert_one_field(made.replace(b"Received:", b"X-Test:", 1))
    assert made.count(b" id " + QUEUE_ID.encode()) == 1
    assert made.isascii() or u_labels
    if path is not None and not path.domain.startswith("["):
        assert came_back(path, (str(path).lower(),)) or not str(path).isascii() or str(path) != path.key


def log_line(octets: bytes) -> None:
    """A peer's words in the log: one line, in either form, that cannot forge another."""
    text = octets.decode("utf-8", "surrogateescape")
    for as_json in (False, True):
        out = io.StringIO()
        make_log(out, json=as_json).info("session", hello=text)
        assert out.getvalue().count("\n") == 1
        assert out.getvalue().removesuffix("\n").isprintable()
        assert out.getvalue().isascii() or len(text) > 1000
        assert len(out.getvalue()) <= 200 + 12 * 1100


class _Zone:
    """Answers each question with the next line of the input."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self.asked = 0

    async def texts(self, name: str, kind: str) -> tuple[str, ...]:
        self.asked += 1
        line = self._lines.pop(0) if self._lines else ""
        if kind != "TXT":
            return ("192.0.2.7",) if kind == "A" else ("2001:db8::7",)
        return (line,) if line else ()

    async def names_of(self, address: str) -> tuple[str, ...]:
        raise AssertionError("not asked here")

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        self.asked += 1
        if not domain:
            raise NoSuchName(domain)
        return (MxHost(10, "mx.test"),) * 20


def spf_record(octets: bytes) -> None:
    """SPF records of strangers: a result, or a declared error, after a bounded number of questions."""
    draw = Draw(octets)
    asked_for = draw.choice(("192.0.2.1", "2001:db8::1"))
    zone = _Zone(draw.rest().decode("utf-8", "replace").split("\n"))
    result = without((SpfError, SpfUnclear), lambda: run_without_io(spf_result(zone, "here.test", asked_for)))
    assert result in (None, "pass", "fail", "softfail", "neutral", "none")
    assert zone.asked <= 1 + LOOKUPS * (LOOKUPS + 1)


def parsed_message(content: bytes) -> email.message.EmailMessage:
    """By Python's own parser, which is lenient; for targets that make messages."""
    return email.message_from_bytes(content, policy=email.policy.SMTP)


def sender_of(text: str, otherwise: Address) -> Address:
    return without(AddressError, lambda: parse_address(text)) or otherwise
