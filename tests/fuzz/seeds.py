"""Inputs to begin with: written dialogues, and one valid input of each kind that chance finds only slowly."""

from __future__ import annotations

import base64

from tests.transcripts.player import Kind, load_all

from posthouse.protocol.sasl import encode_base64

_NO_CUTS = b"\0\0"
_HELLO = bytes.fromhex(
    "160301006d010000690303" + "00" * 32 + "00000213010100003e"
    "0000000c000a0000076d782e74657374" + "0010000e000c02683208687474702f312e31"
    "002b00020304" + "000a000400020017" + "ff0100010000"
)
_MESSAGE = (
    b"Received: from a.test by b.test; Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: Ada <ada@here.test>\r\n"
    b"To: \xc3\x89va <eva@there.test>, Team: a@b.test, c@d.test;\r\nSubject: =?utf-8?q?caf=C3=A9?= \xc3\xa9\r\n"
    b'Bcc: x@y.test\r\n z@y.test\r\nContent-Type: text/plain; name="\xc3\xa9.txt"\r\n'
    b"Message-ID: <1@here.test>\r\nDelivered-To: bob@there.test\r\n\r\nbody\r\n.dot\r\nend"
)
_SSHA = base64.b64encode(bytes(72))
_ACCOUNT = b'{"address": "ada@here.test", "password": "{SSHA512}%b", "quota": "2G", "aliases": ["a@here.test"]}'
_MX = bytes.fromhex("8180000100010000000005746865726504746573740000 0f0001c00c000f00010000003c0009000a026d78c00c")
_MX_CNAME = bytes.fromhex("81800001000200000000057468657265047465737400000f0001") + bytes.fromhex(
    "c00c000500010000003c00040161c00cc028000f00010000003c0004000ac00c"
)
_NXDOMAIN = bytes.fromhex("81830001000000010000057468657265047465737400000f0001") + bytes.fromhex(
    "c00c000600010000003c0018016ec00c0168c00c000000010000000100000001000000010000003c"
)
_ADDRESSES = (b"ada@here.test", b'"a\\"b c"@[192.0.2.1]', b"\xc3\xa9va@b\xc3\xbccher.test", b"x@[IPv6:2001:db8::1]")
_SRS = (b"SRS0=ABCDEFGH=AA=there.test=ada@mx.test", b"SRS1=ABCDEFGH=a.test==B=AA=c.test=d@mx.test")

_WRITTEN: dict[str, tuple[bytes, ...]] = {
    "smtp_envelope": (
        b"FROM:<ada@here.test> SIZE=4 BODY=8BITMIME RET=HDRS ENVID=a+2Bb AUTH=<>\0\0",
        b"TO:<\xc3\xa9va@there.test> NOTIFY=FAILURE,DELAY ORCPT=utf-8;\\x{E9}va@there.test\1\1",
        b'TO:<@a.test:"a b"@there.test> ORCPT=rfc822;a+2Bb@c.test\1\0',
    ),
    "sasl_server": (b"AGFkYQBzZWNyZXQ=\1\0", b"\nYWRh\nc2VjcmV0\0\1", b"biwsbj1hZGEscj1hYmM=\n=\1\2"),
    "sasl_client": (
        b"\nVXNlcm5hbWU6\nUGFzc3dvcmQ6\0\1",
        b"%b\ndj1hYmM=\1\2" % encode_base64(b"r=cnonce0123456789abcdef,s=c2FsdA==,i=4096"),
    ),
    "scram_messages": (b"r=cnonce0123456789abcdef,s=c2FsdA==,i=4096\xfev=AAAA\1",),
    "plain_message": (b"\0ada\0secret", b"eva\0ada\0secret"),
    "prepared_text": ("Ａ\u00a0é\u200b".encode(), "אב".encode()),
    "foreign_hash": (
        b"{SSHA512}" + _SSHA,
        b"{BLF-CRYPT}$2y$05$" + b"a" * 53,
        b"{SHA512-CRYPT}$6$rounds=5000$salt$" + b"a" * 86,
        b"{ARGON2ID}$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
    ),
    "address": _ADDRESSES,
    "mailboxes": (*_ADDRESSES, b'Ada (so) <ada@here.test>, "B. B" <@a.test:b."c d"@e.test>, Team: <x@y.test>;'),
    "xtext": (b"a+2Bb+3Dc", b"\\x{E9}\\x{1F600}a"),
    "srs": tuple(each + _NO_CUTS for each in (*_ADDRESSES, *_SRS)),
    "queue_filter": (b"to:@here.test from:<> older:2h reply:4.7.28 held:no attempts:>3 size:<20K via:a:5 id:x",),
    "config_value": (b"127.0.0.1:25", b"[::1]:25", b"mx.test:587", b"5m", b"*.here.test", b"ada@here.test"),
    "account_line": (_ACCOUNT % _SSHA,),
    "received_field": (b"mx.there.test\xfeada@here.test\0", b"[192.0.2.9]\xfe\xc3\xa9va@here.test\1"),
    "spf_record": (
        b"v=spf1 ip4:192.0.2.0/24 -all\0",
        b"v=spf1 mx/24 a:x.test include:y.test redirect=z.test\nv=spf1 ~all\0",
        b"v=spf1 ip6:2001:db8::/32 exists:%{i} -all\1",
    ),
    "content_facts": (_MESSAGE + _NO_CUTS,),
    "submission": (_MESSAGE + _NO_CUTS,),
    "downgrade": (_MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n",),
    "title": (_MESSAGE, b"Subject: =?utf-8?b?w6k=?=\r\n =?iso-8859-1?q?=E9?=\r\n"),
    "top": (_MESSAGE + _NO_CUTS,),
    "report": (b"5.1.1 no\xfemx.there.test\xfeenv\xfe\xc3\xa9@c.test\xfe\xfe\xfe" + _MESSAGE + b"\1\1\xff\2\0",),
    "proxy": (
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\nEHLO\0",
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n\0",
        b"PROXY UNKNOWN\r\n\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\2\1\xc0\0\2\2\0\1\0\x19\4\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0\0",
    ),
    "client_hello": (_HELLO + b"\0", _HELLO[:60] + b"\0"),
    "dns_answers": (_MX + b"\0\0", _MX_CNAME + b"\xff\xfe\xff" + _MX + b"\0\0", _NXDOMAIN + b"\0\1"),
    "dns_message": (b"\0\0" + _MX, b"\0\0" + _MX_CNAME, b"\0\0" + _NXDOMAIN),
    "journey": tuple(
        b"a@b.test\xfe250 2.0.0 ok\xfemx.test\xfe" * 3 + b"\1\2\1\1\2" + bytes([kind]) for kind in range(9)
    ),
    "stored_json": tuple(b'{"reply": "250", "forward_paths": ["a@b.test"]}' + bytes([kind]) for kind in range(10)),
}
_FOUND: dict[str, tuple[bytes, ...]] = {
    "title": ("Subject: =?ütf-8?q?x?=\r\n".encode(),),
    "report": (b"no" + b"\xfe" * 6 + "Subject: =?ütf-8?q?x?=\r\n\r\n".encode() + b"\0" * 5,),
    "srs": (b"SRS1=HASH=no%host==B=AA=c.test=d@mx.test" + _NO_CUTS,),
    "queue_filter": (b"sh\noe:7", b"a\nb@c.test"),
    "stored_json": (b"[" * 100_000 + b"\0",),
    "smtp_envelope": ("TO:<ö@c.test> ORCPT=utf-8;".encode() + "ö".encode() * 90 + b"\1\1",),
    "header_field": (("a" + "\u2001" * 700 + "b").encode(),),
}
"""What once broke something, and must not again."""
_DIALOGUES = {
    "smtp_server": ("smtp_*.txt", Kind.CLIENT),
    "smtp_server_tls": ("smtp_*.txt", Kind.CLIENT),
    "smtp_client": ("smtp_client_*.txt", Kind.SERVER),
    "smtp_client_tls": ("smtp_client_*.txt", Kind.SERVER),
    "pop3_server": ("pop3_*.txt", Kind.CLIENT),
    "pop3_answers": ("pop3_*.txt", Kind.CLIENT),
    "pop3_server_tls": ("pop3_*.txt", Kind.CLIENT),
    "pop3_client": ("pop3_*.txt", Kind.SERVER),
    "transcript": ("smtp_*.txt", Kind.SERVER),
    "reply_lines": ("smtp_*.txt", Kind.SERVER),
}


def seeds(name: str) -> list[bytes]:
    """What a target's fuzzing begins with, beside its corpus."""
    if name not in _DIALOGUES:
        return [*_WRITTEN.get(name, ()), *_FOUND.get(name, ())]
    pattern, kind = _DIALOGUES[name]
    said = [b"".join(step.octets for step in each.steps if step.kind is kind) for each in load_all(pattern)]
    return [octets + _NO_CUTS for octets in said if octets]
