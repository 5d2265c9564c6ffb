"""Letters as octets, read back by the standard library's parser."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage
from email.utils import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from posthouse.mail.address import parse_address
from posthouse.mail.letter import (
    Attachment,
    Letter,
    bcc_field,
    encoded,
    octets_of,
    references_of,
    reply_subject,
)
from posthouse.mail.mailboxes import Mailbox

ADA = Mailbox(parse_address("ada@here.test"), "Ada Lovelace")
BOB = Mailbox(parse_address("bob@there.test"))
CAROL = Mailbox(parse_address("carol@secret.test"), "Carol")
HOSTILE = "x\r\nBcc: victim@elsewhere.test\r\n\r\nbody\0\u2028\u0085"

typed = st.text(st.characters(exclude_categories=())) | st.text('aä \r\n"\\(),;=?.<>@\0\u2028')


def letter(**changes: object) -> Letter:
    plain: dict[str, object] = {
        "author": ADA,
        "to": (BOB,),
        "subject": "Hello",
        "text": "Hello Bob\n",
        "message_id": "<one@here.test>",
        "date": 1_800_000_000.0,
    }
    return Letter(**{**plain, **changes})  # type: ignore[arg-type]


def octets(wanted: Letter) -> bytes:
    return b"".join(octets_of(wanted))


def parsed(wanted: Letter) -> EmailMessage:
    message = email.message_from_bytes(octets(wanted), policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def plain(text: str) -> str:
    """What of typed text can stand in a field."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", text).strip()


def unfolded(message: EmailMessage, name: str) -> str:
    value = message[name]
    assert isinstance(value, str)
    return value


def test_a_plain_letter_is_plain() -> None:
    assert octets(letter()) == (
        b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n"
        b"From: Ada Lovelace <ada@here.test>\r\n"
        b"To: bob@there.test\r\n"
        b"Subject: Hello\r\n"
        b"Message-ID: <one@here.test>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n"
        b"\r\n"
        b"Hello Bob\r\n"
    )


@given(typed)
@example("=?utf-8?q?x?=")
@example("a" * 200)
@example("ä" * 200)
@example("one  two")
@example("ends with \\")
def test_a_subject_is_read_as_it_was_typed(subject: str) -> None:
    assert " ".join(unfolded(parsed(letter(subject=subject)), "Subject").split()) == " ".join(plain(subject).split())


@given(typed)
@example('Lovelace, "Ada" <x@y.test>')
@example("Ada (of London)")
@example("Ada\\")
@example("A" * 300)
@pytest.mark.conformance("C111", "C112")
def test_a_name_stays_a_name(name: str) -> None:
    field = parsed(letter(author=Mailbox(ADA.address, name)))["From"]
    (found,) = field.addresses
    assert found.addr_spec == "ada@here.test"
    # (This reader leaves the space between two encoded words.)
    assert "".join(found.display_name.split()) == "".join(plain(name).split())


@given(typed)
@example("From me\nFrom you\n")
@example("From " + "x" * 200)
@example(".\n..\n")
@example("trailing \nspace\t\n")
@example("x" * 2000)
@example("ä" * 2000)
@example("")
def test_a_text_is_read_as_it_was_typed(text: str) -> None:
    message = parsed(letter(text=text))
    wanted = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "\ufffd", re.sub(r"\r\n?", "\n", text))
    got = message.get_content()
    assert got.replace("\r\n", "\n").removesuffix("\n") == wanted.removesuffix("\n")


@given(typed, st.binary(max_size=300))
@example("../../etc/passwd", b"x")
@example("Übergrößenträgerbekleidung " * 8 + ".pdf", b"x")
@example('a"b.txt', b"")
@example("", b"\r\n")
@example("<>", b"")
def test_a_file_arrives_under_its_name(name: str, data: bytes) -> None:
    message = parsed(letter(attachments=(Attachment(name, data),)))
    (file,) = message.iter_attachments()
    wanted = re.sub(r"[/\\]", "_", re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", name)).strip()
    # (This reader takes quotes and brackets off, wherever they come from.)
    assert file.get_filename() == unquote(wanted or "attachment")
    assert file.get_content() == data
    assert message.get_body().get_content() == "Hello Bob\r\n"  # type: ignore[union-attr]


@given(typed, typed, typed, typed)
@example(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
@pytest.mark.conformance("C274", "C111")
def test_nothing_typed_becomes_a_field_or_a_long_line(subject: str, name: str, text: str, file: str) -> None:
    wanted = letter(
        author=Mailbox(ADA.address, name), subject=subject, text=text, attachments=(Attachment(file, b"x" * 100),)
    )
    whole = octets(wanted)
    assert re.search(rb"(?<!\r)\n|\r(?!\n)|\0", whole) is None
    assert max(map(len, whole.split(b"\r\n"))) <= 998
    assert whole.isascii()
    header = whole.partition(b"\r\n\r\n")[0]
    names = re.findall(rb"(?m)^([^ \t\r\n:]+):", header)
    assert names == [b"Date", b"From", b"To", b"Subject", b"Message-ID", b"MIME-Version", b"Content-Type"]


@given(typed)
@pytest.mark.conformance("C112")
def test_encoded_text_keeps_to_the_lines_of_a_field(text: str) -> None:
    for line in encoded(text, "Subject").split("\r\n "):
        assert len(line) <= 76
    for word in re.findall(r"=\?\S+\?=", encoded(text, phrase=True)):
        assert len(word) <= 75


def test_bcc_is_in_the_envelope_and_nowhere_in_the_message() -> None:
    wanted = letter(bcc=(CAROL,))
    assert [str(path) for path in wanted.recipients] == ["bob@there.test", "carol@secret.test"]
    assert b"secret.test" not in octets(wanted)
    assert b"arol" not in octets(wanted)
    assert bcc_field(wanted) == b"Bcc: Carol <carol@secret.test>\r\n"


def test_who_writes_only_to_bcc_says_so() -> None:
    assert parsed(letter(to=(), bcc=(CAROL,)))["To"] == "undisclosed-recipients:;"


def test_many_recipients_are_folded() -> None:
    many = tuple(Mailbox(parse_address(f"r{number}@there.test"), f"Recipient, {number}") for number in range(300))
    message = parsed(letter(to=many))
    assert [(found.addr_spec, found.display_name) for found in message["To"].addresses] == [
        (str(mailbox.address), mailbox.name) for mailbox in many
    ]


@pytest.mark.conformance("C110")
def test_an_answer_names_its_conversation() -> None:
    wanted = letter(in_reply_to="<b@x.test>", references=references_of(["<a@x.test>", "<b@x.test>"]))
    assert parsed(wanted)["In-Reply-To"] == "<b@x.test>"
    assert unfolded(parsed(wanted), "References").split() == ["<a@x.test>", "<b@x.test>"]


def test_a_long_conversation_names_its_first_and_last_messages() -> None:
    ids = [f"<{number}@x.test>" for number in range(80)]
    assert references_of(["no id", *ids, ids[0], "<a b@x>"]) == (ids[0], *ids[-49:])


@pytest.mark.parametrize("message_id", ["", "x@y", "<x@y>\r\nBcc: z", "<x y@z>"])
def test_a_message_id_that_is_none_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="Message-ID"):
        octets(letter(message_id=message_id))


@pytest.mark.parametrize("media_type", ["", "text", "text/plain; x=y", "text/plain\r\nBcc: z"])
def test_a_media_type_that_is_none_is_refused(media_type: str) -> None:
    with pytest.raises(ValueError, match="media type"):
        octets(letter(attachments=(Attachment("x", b"", media_type),)))


def test_a_message_that_is_attached_is_a_file() -> None:
    message = parsed(letter(attachments=(Attachment("x.eml", b"Subject: x\n\n", "message/rfc822"),)))
    (file,) = message.iter_attachments()
    assert file.get_content_type() == "application/octet-stream"


def test_an_international_address_needs_smtputf8() -> None:
    wanted = letter(to=(Mailbox(parse_address("jörg@there.test")),))
    assert wanted.needs_smtputf8
    assert "To: jörg@there.test\r\n".encode() in octets(wanted)
    assert not letter(bcc=(Mailbox(parse_address("jörg@there.test")),)).needs_smtputf8


@pytest.mark.parametrize(("subject", "answer"), [("x", "Re: x"), ("RE: x", "RE: x"), ("", "Re:"), ("Rear", "Re: Rear")])
def test_the_subject_of_an_answer(subject: str, answer: str) -> None:
    assert reply_subject(subject) == answer
