"""The grammar of command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthouse.config import parse as parse_config
from posthouse.mail.acceptance import Notify, Ret
from posthouse.mail.address import Address
from posthouse.mail.reply import Reply
from posthouse.protocol.events import Command
from posthouse.protocol.smtp import VERBS, Context, Hello, Mail, Recipient, parse_argument, split_line
from posthouse.protocol.smtp_client import SmtpClient
from posthouse.protocol.smtp_options import ServerOptions
from posthouse.protocol.smtp_server import SmtpServer

PLAIN = Context(frozenset({"SIZE", "8BITMIME"}))
FULL = Context(frozenset({"SIZE", "8BITMIME", "DSN", "SMTPUTF8", "AUTH"}), smtputf8=True)


def parse(line: bytes | str, context: Context = PLAIN) -> Command | Reply:
    octets = line.encode() if isinstance(line, str) else line
    name, argument = split_line(octets)
    return parse_argument(VERBS[name], len(octets) + 2, argument, context)


def refusal(line: bytes | str, context: Context = PLAIN) -> str:
    parsed = parse(line, context)
    return f"{parsed.code} {parsed.enhanced}" if isinstance(parsed, Reply) else f"accepted {parsed}"


@pytest.mark.conformance("C14", "C22", "C23", "C27", "C29")
@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("MAIL FROM:<a@b.test>", "a@b.test"),
        ("mail from:<UsEr@B.TEST>", "UsEr@b.test"),
        ("MAIL FROM:<a@b.test> \t ", "a@b.test"),
        ("MAIL FROM:<>", None),
        ('MAIL FROM:<"a b"@b.test>', '"a b"@b.test'),
        ('MAIL FROM:<"a\\"b"@b.test>', '"a\\"b"@b.test'),
        ('MAIL FROM:<"a>@b"@b.test>', '"a>@b"@b.test'),
        ('MAIL FROM:<""@b.test>', '""@b.test'),
        ("MAIL FROM:<@x.test,@y.test:a@b.test>", "a@b.test"),
        ("MAIL FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("MAIL FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
    ],
)
def test_paths(line: str, path: str | None) -> None:
    parsed = parse(line)
    assert isinstance(parsed, Mail)
    assert (None if parsed.reverse_path is None else str(parsed.reverse_path)) == path


@pytest.mark.conformance("C22", "C35", "C36")
@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"<a@b.test>",
        b"FROM <a@b.test>",
        b"FROM: <a@b.test>",
        b"FROM:a@b.test",
        b"FROM:<a@b.test",
        b"FROM:<a@b.test>SIZE=1",
        b"FROM:<a@b.test>>",
        b"FROM:<a>",
        b"FROM:<postmaster>",
        b"FROM:<a@>",
        b"FROM:<a..b@c.test>",
        b"FROM:<a.@c.test>",
        b"FROM:<a@b_c.test>",
        b"FROM:<a@.b>",
        b"FROM:<a@b..c>",
        b"FROM:<a@-b.test>",
        b"FROM:<a@b.test\0>",
        b"FROM:<a\tb@b.test>",
        b"FROM:<a\x7f@b.test>",
        b"FROM:<us\xffer@b.test>",
        b"FROM:<@x.test:>",
        b"FROM:<@x.test,y.test:a@b.test>",
        b"FROM:<@x_.test:a@b.test>",
        b'FROM:<"a@b.test>',
        b"FROM:< a@b.test>",
    ],
)
def test_sender_paths_outside_the_grammar(argument: bytes) -> None:
    assert refusal(b"MAIL " + argument) == "501 5.1.7"
    assert refusal(b"RCPT " + argument.replace(b"FROM", b"TO").replace(b"<postmaster>", b"<>")) == "501 5.1.3"


@pytest.mark.conformance("C37")
@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("a" * 64 + "@b.test", True),
        ("a" * 65 + "@b.test", False),
        ("a@" + ".".join(["b" * 63] * 3) + "." + "c" * 60, True),
        ("a@" + ".".join(["b" * 63] * 3) + "." + "c" * 61, False),
        ("a@" + ".".join(["b"] * 500), False),
    ],
)
def test_lengths_of_paths(path: str, fits: bool) -> None:
    parsed = parse(f"RCPT TO:<{path}>")
    if fits:
        assert isinstance(parsed, Recipient)
        assert str(parsed.forward_path) == path
    else:
        assert isinstance(parsed, Reply)
        assert (str(parsed.enhanced), parsed.text) == ("5.1.3", "Path too long")


@pytest.mark.conformance("C37")
@pytest.mark.parametrize(("octets", "fits"), [(65, True), (247, True), (248, False), (2000, False)])
def test_the_local_part_of_a_sender_may_fill_the_path(octets: int, fits: bool) -> None:
    """Whoever rewrites senders makes them long; a refusal would lose all mail from there."""
    parsed = parse(f"MAIL FROM:<{'s' * octets}@b.test>")
    if fits:
        assert isinstance(parsed, Mail)
        assert parsed.reverse_path == Address("s" * octets, "b.test")
    else:
        assert str(parsed) == "501 5.1.7 Path too long"


@pytest.mark.conformance("C26")
def test_postmaster_without_a_domain() -> None:
    parsed = parse("RCPT TO:<PoStMaStEr>")
    assert isinstance(parsed, Recipient)
    assert (parsed.forward_path.local_part, parsed.forward_path.domain) == ("PoStMaStEr", "")


@pytest.mark.conformance("C30", "C31", "C32", "C149", "C151", "C161", "C307")
@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ("FOO=1", "555 5.5.4"),
        ("SIZE=1 SIZE=2", "501 5.5.4"),
        ("BODY=7BIT BODY=8BITMIME", "501 5.5.4"),
        ("SIZE=abc", "501 5.5.4"),
        ("SIZE", "501 5.5.4"),
        ("SIZE=", "501 5.5.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=+1", "501 5.5.4"),
        ("SIZE=1_0", "501 5.5.4"),
        ("SIZE=1e3", "501 5.5.4"),
        ("SIZE=１２", "501 5.5.4"),
        ("SIZE=" + "1" * 21, "501 5.5.4"),
        ("BODY=FOO", "501 5.5.4"),
        ("BODY=", "501 5.5.4"),
        ("BODY", "501 5.5.4"),
        ("=1", "501 5.5.4"),
        ("F_O=1", "501 5.5.4"),
        ("SIZE=1=2", "501 5.5.4"),
        ("SMTPUTF8", "555 5.5.4"),
        ("RET=FULL", "555 5.5.4"),
        ("AUTH=<>", "555 5.5.4"),
    ],
)
def test_parameters_that_are_refused(parameters: str, answer: str) -> None:
    assert refusal(f"MAIL FROM:<> {parameters}") == answer


def test_parameters_that_are_accepted() -> None:
    parsed = parse("MAIL FROM:<> SIZE=00000000000000000017 body=8bitmime smtputf8 ret=hdrs ENVID=a+2Bb+20c", FULL)
    assert parsed == Mail(
        reverse_path=None, size_octets=17, body="8BITMIME", smtputf8=True, ret=Ret.HDRS, envelope_id="a+b c"
    )


@pytest.mark.conformance("C31")
def test_a_helo_session_knows_no_parameters() -> None:
    assert refusal("MAIL FROM:<> SIZE=1", Context(frozenset())) == "555 5.5.4"


@pytest.mark.conformance("C177", "C178")
def test_delivery_notification_of_a_recipient() -> None:
    parsed = parse("RCPT TO:<a@b.test> NOTIFY=success,DELAY ORCPT=rfc822;A+2Bb@C.test", FULL)
    assert isinstance(parsed, Recipient)
    assert parsed.notify == {Notify.SUCCESS, Notify.DELAY}
    assert parsed.original_recipient == "rfc822;A+b@C.test"


@pytest.mark.conformance("C32", "C124", "C177", "C178", "C179", "C193", "C283", "S8")
@pytest.mark.parametrize(
    "line",
    [
        "MAIL FROM:<> RET=ALL",
        "MAIL FROM:<> RET",
        "MAIL FROM:<> ENVID=a+0Ab",
        "MAIL FROM:<> ENVID=+00",
        "MAIL FROM:<> ENVID=a+2b",
        "MAIL FROM:<> ENVID=a+",
        "MAIL FROM:<> ENVID=+FF",
        "MAIL FROM:<> ENVID=" + "a" * 101,
        "MAIL FROM:<> AUTH=+ZZ",
        "MAIL FROM:<> AUTH=a+0Ab",
        "MAIL FROM:<> AUTH",
        "MAIL FROM:<> SMTPUTF8=yes",
        "MAIL FROM:<> SMTPUTF8=",
        "MAIL FROM:<> BODY=8BITMIME+0D+0AX",
        "MAIL FROM:<> SIZE=1+0A",
        "MAIL FROM:<> RET=FULL+00",
        "MAIL FROM:<> ENVID=",
        "MAIL FROM:<> ENVID=a ENVID=a",
        "MAIL FROM:<> RET=HDRS RET=HDRS",
        "MAIL FROM:<> AUTH=a+00b",
        "MAIL FROM:<> AUTH=a+0Db",
        "RCPT TO:<a@b.test> NOTIFY=NEVER,SUCCESS",
        "RCPT TO:<a@b.test> NOTIFY=NEVER NOTIFY=NEVER",
        "RCPT TO:<a@b.test> NOTIFY=SUCCESS,SUCCESS",
        "RCPT TO:<a@b.test> NOTIFY=",
        "RCPT TO:<a@b.test> NOTIFY",
        "RCPT TO:<a@b.test> NOTIFY=SUCCESS+0AX",
        "RCPT TO:<a@b.test> NOTIFY=SUCCESS,,DELAY",
        "RCPT TO:<a@b.test> ORCPT=rfc822;a ORCPT=rfc822;a",
        "RCPT TO:<a@b.test> ORCPT=rfc822;+00",
        "RCPT TO:<a@b.test> ORCPT=utf-8;\\x{0}",
        "RCPT TO:<a@b.test> ORCPT=utf-8;\\x{D800}",
        "RCPT TO:<a@b.test> ORCPT=rfc822",
        "RCPT TO:<a@b.test> ORCPT=;a",
        "RCPT TO:<a@b.test> ORCPT=rfc822;x+0D+0AY",
        "RCPT TO:<a@b.test> ORCPT=rfc822;é",
        "RCPT TO:<a@b.test> ORCPT=utf-8;\\x{0A}",
        "RCPT TO:<a@b.test> ORCPT=utf-8;\\x{FFFFFF}",
        "RCPT TO:<a@b.test> ORCPT=utf-8;\\q",
        "RCPT TO:<a@b.test> ORCPT=rfc822;" + "a" * 500,
    ],
)
def test_bad_values_of_notification_parameters(line: str) -> None:
    assert refusal(line, FULL) == "501 5.5.4"


@pytest.mark.conformance("C179")
@pytest.mark.parametrize("value", ["a" * 100, "+2B" * 33, "!", "~"])
def test_envelope_ids_that_are_kept(value: str) -> None:
    parsed = parse(f"MAIL FROM:<> ENVID={value} RET=full", FULL)
    assert isinstance(parsed, Mail)
    assert parsed.envelope_id == value.replace("+2B", "+")
    assert parsed.ret is Ret.FULL


@pytest.mark.conformance("C167")
def test_binary_content_is_not_offered() -> None:
    everything = Context(frozenset({*FULL.offered, "CHUNKING"}))
    assert refusal("MAIL FROM:<> BODY=BINARYMIME", everything) == "501 5.5.4"


@pytest.mark.conformance("C194", "C35")
@pytest.mark.parametrize(
    "octets",
    [
        *(b"\xff", b"\xc3", b"\xc3\xa9\xa9", b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"),
        *(b"\0", b"\xc2\x80", b"\xe2\x80\x8b", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xee\x80\x80"),
    ],
    ids=repr,
)
def test_what_is_no_clean_utf8_is_refused(octets: bytes) -> None:
    """Not UTF-8, overlong, surrogates, beyond Unicode; NUL, C1 controls, zero width, bidi, separators, private use."""
    for context, parameter in ((FULL, b" SMTPUTF8"), (PLAIN, b"")):
        answer = refusal(b"MAIL FROM:<a" + octets + b"@b.test>" + parameter, context)
        assert answer in ("501 5.1.7", "553 5.6.7")
        assert answer == "501 5.1.7" or context is PLAIN
        in_domain = parse(b"MAIL FROM:<a@b" + octets + b".test>" + parameter, context)
        # UTS 46 takes what has no width out of a domain: it is another spelling, and not kept.
        assert in_domain.code in (501, 553) if isinstance(in_domain, Reply) else "b.test" in repr(in_domain)


@pytest.mark.conformance("C35", "C194")
def test_internationalised_addresses() -> None:
    assert refusal("MAIL FROM:<jürgen@b.test>") == "553 5.6.7"
    assert refusal("MAIL FROM:<jürgen@b.test>", FULL) == "553 5.6.7"
    assert refusal("RCPT TO:<jürgen@b.test>") == "553 5.6.7"
    assert isinstance(parse("MAIL FROM:<jürgen@b.test> SMTPUTF8", FULL), Mail)
    parsed = parse("RCPT TO:<jürgen@b.test> ORCPT=utf-8;j\\x{FC}rgen@b.test", FULL)
    assert isinstance(parsed, Recipient)
    assert parsed.original_recipient == "utf-8;jürgen@b.test"


@pytest.mark.conformance("C12")
@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("c.test", True),
        ("my_laptop", True),
        ("[192.0.2.1]", True),
        ("[IPv6:2001:db8::1]", True),
        ("[Tag:text]", True),
        ("x" * 255, True),
        ("x" * 256, False),
        ("[999.1.1.1]", False),
        ("[IPv6:::zz]", False),
        ("a b", False),
        ("a\tb", False),
        ("ä.test", False),
        ("a\0", False),
        ("", False),
    ],
)
def test_names_in_hello(name: str, accepted: bool) -> None:
    assert refusal(f"EHLO {name}") == (f"accepted {Hello(name, True)}" if accepted else "501 5.5.4")


@pytest.mark.conformance("C197")
def test_a_host_name_is_shown_in_ascii() -> None:
    folder = Path(__file__).parent
    config = parse_config({"hostname": "mx.bücher.test", "data_dir": "."}, folder / "posthouse.toml")
    assert config.hostname == "mx.xn--bcher-kva.test"
    options = ServerOptions(hostname=config.hostname, message_size_octets=65536)
    server = SmtpServer(options)
    server.greet()
    server.receive(b"EHLO c.test\r\n")
    assert server.next_event() == Hello("c.test", True)
    server.reply(Reply(250))
    assert server.outgoing().count(b"mx.xn--bcher-kva.test") == 2
    client = SmtpClient(config.hostname)
    client.receive(b"220 there\r\n")
    client.next_event()
    assert client.outgoing() == b"EHLO mx.xn--bcher-kva.test\r\n"


@pytest.mark.conformance("C38", "C180")
def test_line_limits() -> None:
    assert isinstance(parse(b"NOOP " + b"a" * 505), Command)
    assert refusal(b"NOOP " + b"a" * 506) == "500 5.5.2"
    assert refusal("RCPT TO:<a@b.test> ORCPT=rfc822;" + "a" * 490, FULL).startswith("accepted")
    assert refusal(b"MAIL FROM:<" + b"a" * 5000 + b"@b.test>") == "500 5.5.2"
