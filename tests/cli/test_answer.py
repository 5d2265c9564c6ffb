"""`posthouse send --reply`: whom it goes to, as whom, with what."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from posthouse.cli import send
from tests.cli.conftest import Command
from tests.cli.maildrop import deliver, message


def listed(command: Command, *arguments: str) -> list[dict[str, object]]:
    found = json.loads(command.run("read", "--json", *arguments).out)
    assert isinstance(found, list)
    return found


def sent(command: Command) -> str:
    """The newest letter in Sent, its header."""
    return command.run("read", str(listed(command, "--folder", "sent")[0]["id"]), "--headers").out


PLAN = message(
    "Plan",
    "Shall we?\n",
    cc="carol@far.test, ada@provider.test",
    message_id="<1@far.test>",
    references="<0@far.test>",
)


def test_an_answer_is_complete_and_noted(furnished: Command) -> None:
    furnished.run("identity", "add", "ada@provider.test", "--account", "ada@here.test")
    (queue_id,) = deliver(furnished.folder, PLAN)
    ran = furnished.run("send", "--reply", queue_id, "-m", "Yes.")
    assert ran.status == 0, ran.err
    header = sent(furnished)
    for line in (
        "From: ada@here.test",
        "To: Bob Miller <bob@far.test>",
        "Subject: Re: Plan",
        "In-Reply-To: <1@far.test>",
        "References: <0@far.test> <1@far.test>",
    ):
        assert f"{line}\n" in header
    assert "Cc:" not in header
    (row,) = listed(furnished)
    assert (row["answered"], row["unread"]) == (True, False)
    assert "  r    Bob Miller" in furnished.run("read").out
    assert {each["conversation"] for each in listed(furnished, "--search", "plan")} == {row["conversation"]}


def test_everyone_is_answered_as_the_identity_that_was_addressed(furnished: Command) -> None:
    furnished.run("identity", "add", "ada@provider.test", "--account", "ada@here.test")
    furnished.run("identity", "add", "other@provider.test", "--account", "ada@here.test")
    (queue_id,) = deliver(furnished.folder, PLAN.replace(b"To: ada@here.test", b"To: dan@far.test"))
    ran = furnished.run("send", "eve@far.test", "--reply", queue_id, "--all", "-m", "Yes.", "-s", "Other")
    assert ran.status == 0, ran.err
    header = sent(furnished)
    assert "From: ada@provider.test\n" in header
    assert "To: Bob Miller <bob@far.test>, dan@far.test, eve@far.test\n" in header
    assert "Cc: carol@far.test\n" in header
    assert "Subject: Other\n" in header
    furnished.run("send", "--reply", queue_id, "-m", "Yes.", "--from", "other@provider.test")
    assert "From: other@provider.test\n" in sent(furnished)


def test_the_editor_shows_what_is_answered(furnished: Command, tmp_path: Path) -> None:
    (queue_id,) = deliver(furnished.folder, PLAN)
    script = tmp_path / "editor.py"
    script.write_text(
        "import sys, pathlib, shutil\n"
        f"shutil.copy(sys.argv[1], {str(tmp_path / 'offered')!r})\n"
        "with open(sys.argv[1], 'a') as file: file.write('Indeed.\\n')\n"
    )
    furnished._monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")
    furnished._monkeypatch.setattr(send, "_on_terminal", lambda: True)
    ran = furnished.run("send", "--reply", queue_id)
    assert ran.status == 0, ran.err
    offered = (tmp_path / "offered").read_text()
    assert offered.startswith("To: Bob Miller <bob@far.test>\nCc: \nBcc: \nSubject: Re: Plan\n\n")
    assert "wrote:\n> Shall we?\n" in offered
    assert "References: <0@far.test> <1@far.test>\n" in sent(furnished)


def test_an_answer_to_a_letter_that_moved_meanwhile_is_noted_there(furnished: Command) -> None:
    (queue_id,) = deliver(furnished.folder, PLAN)
    original = send.take_letter

    async def moving(*given: object) -> object:
        taken = await original(*given)  # type: ignore[arg-type]
        storage, account = given[1], given[2]
        await storage.folders.move(account.account, "Inbox", [1], "Archive")  # type: ignore[attr-defined]
        return taken

    furnished._monkeypatch.setattr(send, "take_letter", moving)
    assert furnished.run("send", "--reply", queue_id, "-m", "Yes.").status == 0
    assert [row["answered"] for row in listed(furnished, "--folder", "archive")] == [True]


def test_what_cannot_be_answered_is_told(furnished: Command) -> None:
    assert furnished.run("send", "--reply", "7777", "-m", "x").failed_with("no message has the id 7777")
    assert furnished.run("send", "x@far.test", "--all", "-m", "x").failed_with("--all is for an answer")
    furnished.run("account", "add", "bob@here.test")
    assert furnished.run("send", "--reply", "7777", "-m", "x").failed_with("--from ada@here.test")
