"""Every parser that sees foreign octets, as a function that takes any octets and asserts what must hold.

A target raises nothing for any input: an error that a parser declares is caught by its target, anything else is a
finding. `tests/fuzz/run.py` fuzzes them; `tests/fuzz/test_targets.py` replays what fuzzing once found of use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import contents, framing, logins, network, pop3_sessions, reading, smtp_sessions, stored, texts

CORPUS = Path(__file__).parent / "corpus"
MAX_OCTETS = 600

_SMTP = (
    *(b"EHLO c.test\r\n", b"HELO c\r\n", b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@d.test>\r\n", b"DATA\r\n", b".\r\n"),
    *(b"BDAT 4\r\n", b"BDAT 4 LAST\r\n", b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"VRFY x\r\n", b"HELP\r\n", b"\r\n"),
    *(b" SIZE=4", b" BODY=8BITMIME", b" SMTPUTF8", b" RET=HDRS", b" ENVID=x+2B", b" NOTIFY=NEVER", b" AUTH=<>"),
    *(b"AUTH PLAIN ", b"AUTH LOGIN\r\n", b"AUTH PLAIN AGFsaWNlAHJpZ2h0\r\n", b"EXPN x\r\n", b"<postmaster>"),
)
_REPLIES = (
    *(b"250 ok\r\n", b"250-mx\r\n", b"250 PIPELINING\r\n", b"250-CHUNKING\r\n", b"250 SIZE 9\r\n", b"354 go\r\n"),
    *(b"250-AUTH PLAIN LOGIN SCRAM-SHA-256\r\n", b"250-STARTTLS\r\n", b"250-LIMITS MAILMAX=1 RCPTMAX=1\r\n"),
    *(b"250-DSN\r\n", b"250-8BITMIME\r\n", b"250-SMTPUTF8\r\n", b"220 go\r\n", b"334 \r\n", b"235 2.7.0 in\r\n"),
    *(b"421 bye\r\n", b"451 4.3.0 later\r\n", b"550 5.1.1 no\r\n", b"500 what\r\n", b"221 bye\r\n", b"250"),
)
_POP3 = (
    *(b"USER alice\r\n", b"PASS secret\r\n", b"STAT\r\n", b"LIST\r\n", b"LIST 1\r\n", b"UIDL\r\n", b"UIDL 2\r\n"),
    *(b"RETR 1\r\n", b"TOP 1 0\r\n", b"DELE 1\r\n", b"DELE 2\r\n", b"RSET\r\n", b"NOOP\r\n", b"CAPA\r\n", b"QUIT\r\n"),
    *(b"AUTH PLAIN ", b"AUTH SCRAM-SHA-256\r\n", b"AGFsaWNlAHNlY3JldA==\r\n", b"UTF8\r\n", b"LANG en\r\n", b"*\r\n"),
)
_ANSWERS = (
    *(
        b"+OK\r\n",
        b"-ERR no\r\n",
        b"-ERR [AUTH] no\r\n",
        b"+OK 2 30\r\n",
        b"1 15\r\n",
        b"2 15\r\n",
        b"1 a\r\n",
        b".\r\n",
    ),
    *(b"PIPELINING\r\n", b"UIDL\r\n", b"..\r\n", b"text\r\n", b"\r\n", b"+OK [IN-USE] \r\n"),
)
_CONTENT = (b"\r\n.\r\n", b".\r\n", b"\r\n..", b"\r\n", b"\r", b"\n", b"\n.\n", b"\r\n.", b"..")
_HEADER = (
    *(b"From: ", b"Sender: ", b"To: ", b"Bcc: ", b"Resent-Bcc: ", b"Subject: ", b"Message-ID: ", b"Received: "),
    *(b"Delivered-To: ", b"Content-Type: ", b"Date: ", b"\r\n", b"\r\n ", b"\r\n\r\n", b"ada@here.test", b"<", b">"),
    *(b"=?utf-8?q?=C3=A9?=", b"=?utf-8?b?w6k=?=", b'name="\xc3\xa9"', b"\xc3\xa9", b"\xff", b", ", b"(", b")", b'"'),
)
_ADDRESS = (
    *(b"ada@here.test", b'"a b"@x.test', b"@", b".", b'"', b"\\", b"[192.0.2.1]", b"[IPv6:::1]", b"xn--", b"\xc3\xa9"),
    *(b"e\xcc\x81", b"<", b">", b"(", b")", b",", b":", b";", b"+tag", b"\r\n ", b"SRS0=", b"SRS1=", b"="),
)
_SCRAM = (
    *(b"n,,", b"y,,", b"p=tls-unique,,", b"n=ada", b",r=abc", b",a=ada", b"=2C", b"=3D", b"c=biws", b",p=", b",m=1"),
    *(b"r=cnonce0123456789abcdef", b",s=c2FsdA==", b",i=4096", b"v=", b"e=other-error", b"\n", b"*\n"),
    *(b"AGFkYQBzZWNyZXQ=", b"YWRh\n", b"biwsbj1hZGEscj1hYmM=\n", b"\0ada\0secret"),
)
_DNS = (
    *(b"\x81\x80\0\1\0\1\0\0\0\0", b"\5there\4test\0\0\x0f\0\1", b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\4\0\x0a\xc0\x0c"),
    *(b"\2mx\5there\4test\0\0\1\0\1", b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1", b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\2"),
    *(b"\0\x10\0\1", b"\0\x06\0\1", b"\0\x1c\0\1", b"\xc0\x0c", b"\xff\xfe\xff", b"\x81\x83", b"\x83\x80"),
)
_HELLO = (b"\x16\x03\1\0", b"\x01\0\0", b"\x03\x03", b"\0\x10\0", b"\x02h2", b"\0\0\0", b"\x04smtp")
_MIME = (
    *(b"Content-Type: multipart/mixed; boundary=x\r\n", b"Content-Type: text/html; charset=utf-7\r\n", b"\r\n--x\r\n"),
    *(
        b"--x--",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Disposition: attachment; filename*0*=utf-8''%",
        b";",
    ),
    *(b"References: <1@x> <2@x>\r\n", b"boundary=", b"quoted-printable", b"=\r\n", b"message/rfc822", b"\r\n\r\n"),
)
_HTML = (
    *(b"<a href=", b"http://a.test", b"</a>", b"<script>", b"</script>", b"<!--", b"-->", b"<blockquote>", b"<pre>"),
    *(b"&#", b"&amp;", b'"', b"'", b"<", b">", b"<head>", b"<img alt=", b"\xe2\x80\xae", b"\n", b" ", b"="),
)
_STORED = (
    *(b'{"reply":"', b'"forward_paths":["', b'"transcript":["C: ', b"S: 250 ok", b"\xfe", b"\xfe\xfe\xfe", b"null"),
    *(b"451 4.7.1 later", b"delivered", b"failed", b"deferred", b"a@b.test", b"[", b"{", b'"', b"\\u0000"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """`words` are what its inputs are made of; `max_octets` bounds what the fuzzer makes of them."""

    run: Callable[[bytes], None]
    words: tuple[bytes, ...] = ()
    max_octets: int = MAX_OCTETS


TARGETS: dict[str, Target] = {
    target.run.__name__: target
    for target in (
        Target(framing.lines, _CONTENT),
        Target(framing.content_reader, _CONTENT),
        Target(framing.content_writer, _CONTENT),
        Target(framing.chunk_reader, _CONTENT),
        Target(framing.content_leaving, _CONTENT),
        Target(smtp_sessions.smtp_server, _SMTP),
        Target(smtp_sessions.smtp_server_tls, (*_SMTP, b"STARTTLS\r\n")),
        Target(smtp_sessions.smtp_client, _REPLIES),
        Target(smtp_sessions.smtp_client_tls, _REPLIES),
        Target(
            smtp_sessions.smtp_envelope,
            (*_ADDRESS, b"FROM:<", b"TO:<", b" SIZE=", b" ENVID=+2B", b" ORCPT=rfc822;", b" ORCPT=utf-8;\\x{E9}"),
        ),
        Target(pop3_sessions.pop3_server, _POP3),
        Target(pop3_sessions.pop3_answers, _POP3),
        Target(pop3_sessions.pop3_server_tls, (*_POP3, b"STLS\r\n")),
        Target(pop3_sessions.pop3_client, _ANSWERS),
        Target(pop3_sessions.pop3_pair, _CONTENT),
        Target(logins.sasl_server, _SCRAM),
        Target(logins.sasl_client, _SCRAM),
        Target(logins.scram_messages, _SCRAM),
        Target(logins.plain_message, _SCRAM),
        Target(logins.prepared_text, (b"\xc2\xa0", b"\xe2\x80\x8b", b"\xef\xbc\xa1", b"\xd7\x90", b"e\xcc\x81", b"a")),
        Target(logins.foreign_hash, (b"{ARGON2ID}$argon2id$v=19$m=1,t=1,p=1$", b"{BLF-CRYPT}$2y$05$", b"{SSHA512}")),
        Target(texts.address, _ADDRESS),
        Target(texts.mailboxes, _ADDRESS),
        Target(texts.xtext, (b"+2B", b"+3D", b"\\x{E9}", b"\\x{1F600}", b"+", b"\\", b"\xc3\xa9")),
        Target(texts.srs, _ADDRESS),
        Target(
            texts.queue_filter, (*_ADDRESS, b"to:", b"from:<>", b"older:2h", b" ", b"size:>1M", b"held:", b"reply:")
        ),
        Target(texts.config_value, (*_ADDRESS, b"5m", b"127.0.0.1:25", b"[::1]:25", b"mx.test:587", b"*.test")),
        Target(texts.account_line, (*_ADDRESS, b'{"address": "', b'", "password": "{SSHA512}', b', "quota": "2G"}')),
        Target(texts.reply_lines, (*_REPLIES, b"5.1.1 ", b"\n", b"[4.7.28]")),
        Target(texts.transcript, (*_REPLIES, b"open sesame", b"\xff", b"\0")),
        Target(texts.header_field, (b" ", b"\t", b"\r\n ", b"\r\n", b"\xe2\x80\xa8", b"\xc2\x85", b"a" * 90)),
        Target(texts.received_field, (*_ADDRESS, b"\xfe", b"(", b")", b";", b"\r\n")),
        Target(texts.log_line, (b"\n", b"\x1b[31m", b"\xe2\x80\xa8", b"\xc2\x85", b'"', b"level=error")),
        Target(
            texts.spf_record, (b"v=spf1 ", b"mx ", b"a:x.test ", b"include:x.test ", b"ip4:192.0.2.0/24 ", b"-all\n")
        ),
        Target(contents.content_facts, _HEADER),
        Target(contents.submission, _HEADER),
        Target(contents.downgrade, _HEADER),
        Target(contents.title, _HEADER),
        Target(reading.received_message, (*_HEADER, *_MIME), 1500),
        Target(reading.html_text, _HTML),
        Target(reading.file_name, (b"..", b"/", b"\\", b"CON", b".", b"-", b"\0", b"\xe2\x80\xae", b".pdf", b" ")),
        Target(
            reading.mail_query, (b"from:", b"in:", b"before:2026-01-01", b'"', b"*", b"-", b" ", b"is:unread", b"has:")
        ),
        Target(contents.top, _CONTENT),
        Target(contents.report, (*_HEADER, b"\xfe", b"\xfe\xfe\xfe"), 1500),
        Target(
            network.proxy, (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c")
        ),
        Target(network.client_hello, _HELLO, 1500),
        Target(network.dns_answers, _DNS, 1500),
        Target(network.dns_message, _DNS),
        Target(stored.journey, _STORED),
        Target(stored.stored_json, _STORED),
    )
}


def corpus(name: str) -> list[bytes]:
    """The inputs that stand in the repository: one a line, with Python's escapes."""
    path = CORPUS / f"{name}.txt"
    return [decoded(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def encoded(octets: bytes) -> str:
    return octets.decode("latin-1").encode("unicode_escape").decode("ascii")


def decoded(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")
