"""`posthouse send`: from arguments, standard input and an editor; what is refused, and what is said of it."""

from __future__ import annotations

import email
import email.policy
import json
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest

from posthouse.cli import editor, send
from posthouse.cli.common import Problem
from posthouse.cli.editor import Written, edit, parse
from posthouse.mail.address import parse_address
from posthouse.mail.mailboxes import Mailbox
from tests.cli.conftest import Command

ADA = parse_address("ada@here.test")


def waiting(command: Command) -> list[dict[str, object]]:
    found = json.loads(command.run("queue", "list", "--json").out)
    assert isinstance(found, list)
    return found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[EmailMessage]:
    """The letters that were taken, as messages."""
    found: list[EmailMessage] = []

    async def watched(*given: object) -> object:
        letter = given[-1]
        octets = b"".join(send_octets(letter))
        message = email.message_from_bytes(octets, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        found.append(message)
        return await original(*given)  # type: ignore[arg-type]

    from posthouse.mail.letter import octets_of as send_octets

    original = send.take_letter
    monkeypatch.setattr(send, "take_letter", watched)
    return found


def test_a_letter_from_arguments_waits_for_its_recipients(furnished: Command, sent: list[EmailMessage]) -> None:
    (furnished.folder / "report.pdf").write_bytes(b"%PDF")
    ran = furnished.run(
        *("send", "bob@far.test", "Carol <carol@far.test>", "--cc", "dan@far.test", "--bcc", "eve@far.test"),
        *("-s", "Grüße", "-m", "Hello", "--attach", "report.pdf"),
    )
    assert ran.status == 0, ran.err
    assert ran.out.startswith("Written; for bob@far.test, carol@far.test, dan@far.test and 1 more it leaves when ")
    assert "posthouse serve" in ran.out
    (message,) = sent
    assert (message["From"], message["Subject"]) == ("ada@here.test", "Grüße")
    assert (message["To"], message["Cc"], message["Bcc"]) == (
        "bob@far.test, Carol <carol@far.test>",
        "dan@far.test",
        None,
    )
    assert message["Message-ID"].endswith("@here.test>")
    (file,) = message.iter_attachments()
    assert (file.get_filename(), file.get_content_type()) == ("report.pdf", "application/pdf")
    assert {row["forward_path"] for row in waiting(furnished)} == {
        f"{name}@far.test" for name in ("bob", "carol", "dan", "eve")
    }
    queue_id = ran.out.split()[-1]
    assert "Written here by ada@here.test for " in furnished.run("journey", queue_id).out


def test_standard_input_is_the_text(furnished: Command, sent: list[EmailMessage]) -> None:
    ran = furnished.run("send", "ada@here.test", "-s", "x", "--json", stdin="one\ntwo\n")
    (row,) = json.loads(ran.out)
    assert (row["delivered"], row["waiting"], row["through"]) == (["ada@here.test"], [], None)
    assert sent[0].get_content().split() == ["one", "two"]
    assert furnished.run("send", "ada@here.test", "-m", "x").out.startswith("Delivered to ada@here.test.\n")


def test_an_identity_leaves_through_its_server(furnished: Command, sent: list[EmailMessage]) -> None:
    furnished.run(
        "identity", "add", "ada@provider.test", "--account", "ada@here.test", "--via", "mail.provider.test:587"
    )
    ran = furnished.run("send", "x@far.test", "-m", "x", "--json")
    assert json.loads(ran.out)[0]["through"] == "mail.provider.test:587"
    assert sent[0]["From"] == "ada@provider.test"
    furnished.run("send", "x@far.test", "-m", "x", "--from", "Ada Lovelace <ada@here.test>")
    assert sent[1]["From"] == "Ada Lovelace <ada@here.test>"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("send", ("say whom it is to", "posthouse send ADDRESS")),
        ("send nobody", ("'nobody' is not an address",)),
        ("send x@far.test --from x@far.test", ("x@far.test is nobody's address here", "identity list")),
        ("send x@far.test --from a@x.test,b@x.test", ("should be one address",)),
        ("send x@far.test --attach missing.pdf", ("missing.pdf cannot be read: No such file",)),
        ("send x@far.test --attach .", (". is a folder", "tar czf")),
        ("send x@far.test none@here.test", ("none@here.test: ", "mailbox")),
    ],
)
def test_what_cannot_be_sent_is_told_in_one_line(furnished: Command, line: str, words: tuple[str, ...]) -> None:
    assert furnished.run(*line.split(), stdin="text").failed_with(*words)
    assert waiting(furnished) == []


def test_who_has_several_addresses_says_which(furnished: Command) -> None:
    for name in ("a", "b"):
        furnished.run("identity", "add", f"{name}@provider.test", "--account", "ada@here.test")
    assert furnished.run("send", "x@far.test", "-m", "x").failed_with("several addresses", "--from a@provider.test")
    furnished.run("account", "add", "bob@here.test")
    assert furnished.run("send", "x@far.test", "-m", "x").failed_with("have accounts here", "--from ADDRESS")
    furnished.run("account", "suspend", "ada@here.test")
    assert furnished.run("send", "x@far.test", "-m", "x", "--from", "ada@here.test").failed_with(
        "suspended", "posthouse account resume ada@here.test"
    )


def test_text_that_is_no_text_is_a_file(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "MOST_TEXT_OCTETS", 10)
    assert furnished.run("send", "x@far.test", stdin="x" * 11).failed_with("longer than 10 octets", "--attach FILE")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An editor that puts the content of this file into what it edits."""
    script = tmp_path / "editor.py"
    content = tmp_path / "edited"
    script.write_text(
        "import sys, pathlib\npathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes())\n"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} {script} {content}")
    return content


def test_an_edited_letter_is_understood(scripted: Path) -> None:
    scripted.write_text("To: Bob <bob@x.test>, c@x.test\nCc:\nBcc: d@x.test\nSubject: Hello: you\n\nText\n\nmore\n")
    assert edit(Written(), ADA) == Written(
        to=(Mailbox(parse_address("bob@x.test"), "Bob"), Mailbox(parse_address("c@x.test"))),
        bcc=(Mailbox(parse_address("d@x.test")),),
        subject="Hello: you",
        text="Text\n\nmore\n",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("To: nobody\n\nText", "'nobody' is not a list of addresses"),
        ("Dear Bob\n\nText", "'Dear Bob' is none of To, Cc, Bcc, Subject"),
        ("X-Evil: 1\n\nText", "is none of"),
    ],
)
def test_a_letter_that_is_not_understood_is_kept(scripted: Path, content: str, words: str) -> None:
    scripted.write_text(content)
    with pytest.raises(Problem, match=words) as problem:
        edit(Written(), ADA)
    kept = Path(str(problem.value).rpartition(" ")[2])
    assert kept.read_text() == content
    assert kept.stat().st_mode & 0o077 == 0
    kept.unlink()


def test_a_letter_that_was_not_touched_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "true")
    with pytest.raises(Problem, match="nothing was written"):
        edit(Written(), ADA)
    monkeypatch.setenv("VISUAL", "false")
    with pytest.raises(Problem, match="ended with 1, so nothing was sent; the letter is in") as problem:
        edit(Written(), ADA)
    Path(str(problem.value).rpartition(" ")[2]).unlink()
    monkeypatch.setenv("VISUAL", "/no/such/editor")
    with pytest.raises(Problem, match="cannot be started"):
        edit(Written(), ADA)


def test_what_is_offered_for_editing_is_understood_again() -> None:
    written = Written(to=(Mailbox(parse_address("bob@x.test"), 'Bob "B" Ö, Jr.'),), subject="one\ntwo", text="Text\n")
    again = parse(editor._spelled(written))
    assert again == Written(to=written.to, subject="one two", text="Text\n")


def test_a_terminal_gets_an_editor(furnished: Command, scripted: Path, sent: list[EmailMessage]) -> None:
    scripted.write_text("To: bob@far.test\nSubject: by hand\n\nText\n")
    furnished._monkeypatch.setattr(send, "_on_terminal", lambda: True)
    ran = furnished.run("send")
    assert ran.status == 0, ran.err
    assert sent[0]["Subject"] == "by hand"
