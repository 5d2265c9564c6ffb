"""Submitted content: whose it says it is, what is left out of it, what is added; all else as it came."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.admission.submission import ContentUnacceptable, Submission
from posthouse.mail.address import Address, parse_address
from posthouse.mail.content import MAX_HEADER_OCTETS, HeaderTooLarge

ADA = parse_address("ada@here.test")
OWN = {"ada@here.test", "info@here.test"}


async def may_send_as(address: Address) -> bool:
    return address.key in OWN


async def passed(content: bytes, piece: int = 0) -> tuple[bytes, Submission]:
    submission = Submission(ADA, may_send_as)
    out = b""
    for at in range(0, len(content), piece or max(1, len(content))):
        out += await submission.feed(content[at : at + (piece or len(content))])
    return out + await submission.finish(), submission


async def refusal(content: bytes) -> str:
    with pytest.raises(ContentUnacceptable) as refused:
        await passed(content)
    return str(refused.value.reply)[:9]


PASSES = {
    "usual": b"From: Ada <ada@here.test>\r\nTo: x@far.test\r\nSubject: hi\r\n\r\nBcc: in the body\r\n",
    "no fields": b"\r\nBcc: in the body\r\n",
    "empty": b"",
    "no body": b"From: ada@here.test\r\n",
    "no body and no line end": b"From: ada@here.test",
    "folded": b"From:\r\n Ada\r\n\t<ada@here.test>\r\nX: \r\n y\r\n\r\n",
    "odd names": b"frOM : ada@here.test\r\nX-a'b#c!: 1\r\n_: 2\r\n\r\n",
    "received of others": b"Received: nonsense\r\nReceived: more\r\n x\r\nFrom: ada@here.test\r\n\r\nx\r\n",
    "eight bits": "Subject: grüße\r\nX: \xff\r\nFrom: ada@here.test\r\n\r\nü\r\n".encode("latin-1"),
    "trace repeated": b"Comments: a\r\nComments: b\r\nKeywords: c\r\nKeywords: d\r\n\r\n",
}


@pytest.mark.conformance("C117")
@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize("name", PASSES)
async def test_all_else_passes_as_it_came(name: str, piece: int) -> None:
    assert (await passed(PASSES[name], piece))[0] == PASSES[name]


@pytest.mark.conformance("C106")
@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(
    "bcc",
    [
        b"Bcc: x@a.test\r\n",
        b"bCC : x@a.test,\r\n\ty@b.test\r\n z@c.test\r\n",
        b"Bcc:\r\n",
        b"BCC: x@a.test\r\nBcc: y@b.test\r\n",
        b"Resent-Bcc: x@a.test\r\n",
        b"Bcc: (\r\n \xff broken\r\n",
    ],
)
async def test_bcc_goes_wherever_it_stands(bcc: bytes, piece: int) -> None:
    for content in (
        bcc + b"From: ada@here.test\r\nX-Bcc: kept\r\n\r\nbody\r\n",
        b"From: ada@here.test\r\n" + bcc + b"X-Bcc: kept\r\n\r\nbody\r\n",
        b"From: ada@here.test\r\nX-Bcc: kept\r\n" + bcc + b"\r\nbody\r\n",
    ):
        assert (await passed(content, piece))[0] == b"From: ada@here.test\r\nX-Bcc: kept\r\n\r\nbody\r\n"
    assert (await passed(bcc, piece))[0] == b""


@pytest.mark.conformance("C105")
@pytest.mark.parametrize(
    "name", ["Date", "From", "Sender", "Reply-To", "To", "Cc", "Message-ID", "In-Reply-To", "References", "Subject"]
)
async def test_what_may_stand_once_is_refused_twice(name: str) -> None:
    value = b" ada@here.test\r\n"
    twice = name.encode() + b":" + value + name.upper().encode() + b" :" + value
    assert await refusal(b"X: y\r\n" + twice + b"\r\n") == "550 5.6.0"


@pytest.mark.conformance("C107", "C288")
@pytest.mark.parametrize(
    "line",
    [
        b"Sub ject: x",
        b": x",
        b"X\x80: y",
        b"no colon",
        b"From ada@here.test Mon Jan  1",
        b"X\0: y",
        b"X\x7f: y",
        b"X: y\r\n \t",
        b"X: y\r\n ",
        b"X: y\r\n \r\n From: evil@far.test",
    ],
)
async def test_a_line_that_is_no_field_is_refused(line: bytes) -> None:
    for content in (
        line + b"\r\nFrom: ada@here.test\r\n\r\nx\r\n",
        b"From: ada@here.test\r\n" + line + b"\r\n\r\nx\r\n",
    ):
        assert await refusal(content) == "550 5.6.0"
    assert await refusal(b" leading\r\n\r\n") == "550 5.6.0"


FOREIGN = [
    "bob@here.test",
    "Ada <bob@here.test>",
    "ada@here.test, bob@here.test",
    "bob@here.test, ada@here.test",
    "us: ada@here.test, bob@here.test;",
    '"ada@here.test" <bob@here.test>',
    "(ada@here.test) bob@here.test",
    "=?utf-8?q?ada=40here.test?= <bob@here.test>",
    '"ada@here.test"@far.test',
    "ada@far.test",
    "<@here.test:ada@far.test>",
    "ada@here.test.far.test",
    "\u0430da@here.test",
    "ada@h\u0435re.test",
    "ada@[127.0.0.1]",
]
UNCLEAR = ["", "nobody:;", "ada", "ada@here.test bob@here.test", "<ada@here.test> <bob@here.test>", "ada@here.test\0"]


@pytest.mark.conformance("C115")
@pytest.mark.parametrize("name", ["From", "Sender"])
@pytest.mark.parametrize("value", FOREIGN)
async def test_another_in_from_or_sender(name: str, value: str) -> None:
    """A Sender with more than one mailbox is refused for either reason."""
    assert await refusal(f"{name}: {value}\r\n\r\nx\r\n".encode()) == "550 5.7.1"
    assert await refusal(f"{name} :\r\n\t{value}\r\n\r\nx\r\n".encode()) == "550 5.7.1"


@pytest.mark.conformance("C105", "C115")
@pytest.mark.parametrize("name", ["From", "Sender"])
@pytest.mark.parametrize("value", UNCLEAR)
async def test_a_from_or_sender_that_names_nobody(name: str, value: str) -> None:
    assert await refusal(f"{name}: {value}\r\n\r\nx\r\n".encode()) == "550 5.6.0"


async def test_a_sender_is_one_mailbox() -> None:
    assert await refusal(b"Sender: ada@here.test, info@here.test\r\n\r\n") == "550 5.6.0"


@pytest.mark.conformance("C105", "C115", "C117")
@pytest.mark.parametrize(
    ("header", "sender"),
    [
        ("From: ada@here.test", None),
        ("From: Info <INFO@here.test>", None),
        ("From: ada@here.test, info@here.test", ADA),
        ("From: ada@here.test, info@here.test\r\nSender: info@here.test", None),
        ("From: ada@here.test\r\nSender: info@here.test", None),
        ("Subject: nobody", ADA),
    ],
)
async def test_the_sender_is_added_where_from_does_not_say_who(header: str, sender: Address | None) -> None:
    _, submission = await passed(f"{header}\r\n\r\nx\r\n".encode())
    assert submission.missing is not None
    assert submission.missing.sender == sender


@pytest.mark.conformance("C105", "C117")
async def test_date_and_message_id_are_missed_only_where_they_are_missing() -> None:
    for date, message_id in ((True, True), (True, False), (False, True), (False, False)):
        header = b"From: ada@here.test\r\n"
        header += b"" if date else b"dATE:\r\n Thu, 1 Jan 70 00:00:00 GMT\r\n"
        header += b"" if message_id else b"MESSAGE-ID : <x@y>\r\n"
        _, submission = await passed(header + b"\r\nDate: in the body\r\nMessage-ID: too\r\n", 1)
        assert submission.missing is not None
        assert (submission.missing.date, submission.missing.message_id) == (date, message_id)


@pytest.mark.conformance("C288", "S14", "S40")
async def test_bombs() -> None:
    many = b"X-Many: y\r\n" * (MAX_HEADER_OCTETS // 11)
    assert (await passed(many + b"\r\nx\r\n"))[0] == many + b"\r\nx\r\n"
    for bomb in (many + b"X: y\r\n" * 10, b"X: " + b"y" * MAX_HEADER_OCTETS, b"X: y\r\n" + b" y\r\n" * 70_000):
        for end in (b"\r\n\r\n", b""):
            with pytest.raises(HeaderTooLarge):
                await passed(bomb + end, 65_536)
    authors = b"From: " + b", ".join(b"ada@here.test" for _ in range(10_000)) + b"\r\n\r\n"
    assert await refusal(authors) == "550 5.6.0"


_LINE = st.sampled_from(
    [b"From: ada@here.test", b"Bcc: x", b"X: y", b" folded", b"", b"no field", b"Bcc : x", b"\tz", b"Date: d"]
)


@given(st.lists(_LINE, max_size=8), st.integers(1, 9))
def test_pieces_make_no_difference(lines: list[bytes], piece: int) -> None:
    content = b"".join(line + b"\r\n" for line in lines)

    async def outcome(size: int) -> object:
        try:
            out, submission = await passed(content, size)
        except ContentUnacceptable as exc:
            return exc.reply
        return out, submission.missing

    assert asyncio.run(outcome(piece)) == asyncio.run(outcome(0))
