"""`posthouse read`: lists, messages, searches and what is done with one, as dialogues of 80 columns."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path

import pytest

from posthouse.cli import read, read_letter
from posthouse.engines import open_storage
from posthouse.world import World
from tests.cli.conftest import Command
from tests.cli.maildrop import deliver, message
from tests.running_house import house_config

GOLDEN = Path(__file__).parent / "golden_reading"

INVOICE = message(
    "Invoice for February",
    """\
--x
Content-Type: multipart/alternative; boundary=y

--y
Content-Type: text/plain; charset=utf-8

Dear Ada,

the invoice is attached. Please pay it within fourteen days, as we agreed last year in Zürich.
> as I said
--y
Content-Type: text/html

<p>Dear Ada
--y--
--x
Content-Type: application/pdf; name="../invoice.pdf"
Content-Transfer-Encoding: base64

JVBERi0xLjcK
--x--
""",
    content_type="multipart/mixed; boundary=x",
    message_id="<1@far.test>",
)
NEWS = message(
    "=?utf-8?q?Gr=C3=BC=C3=9Fe_und_viele_lange_Worte_=C3=BCber_alles_M=C3=B6gliche?=",
    "<p>See <a href='https://shop.test/a'>our shop</a><script>x</script><img src=http://t.test/1.gif>",
    "Tue, 3 Mar 2026 09:00:00 +0100",
    **{"from": '"The Shop, Inc." <news@shop.test>', "content_type": "text/html"},
)
ANSWER = message(
    "Re: Invoice for February",
    "Paid?\n",
    "Wed, 4 Mar 2026 23:59:00 +0000",
    references="<1@far.test>",
    message_id="<2@far.test>",
)
EVIL = message(
    "\x1b[2J\u202egnp.exe",
    "\x1b]0;owned\x07 text \u2066hidden\n",
    "Thu, 5 Mar 2026 00:00:00 +0000",
    **{"from": "\x1b[31mEve\x07 <eve@evil.test>"},
)


@pytest.fixture
def reading(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Four messages, on a terminal of 80 columns, in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(read, "terminal_width", lambda: 80)
    deliver(furnished.folder, INVOICE, NEWS, ANSWER, EVIL)
    return furnished


def ids(command: Command, *arguments: str) -> list[str]:
    return [row["id"] for row in json.loads(command.run("read", "--json", *arguments).out)]


def dialogue(command: Command, *lines: str) -> str:
    """What is typed and what comes, with the ids as they are counted from the oldest."""
    names = {name: f"ID{number}".ljust(len(name), "_") for number, name in enumerate(reversed(ids(command)), 1)}
    told = []
    for line in lines:
        typed = [
            next((name for name, shown in names.items() if shown.rstrip("_") == word), word) for word in line.split()
        ]
        ran = command.run(*typed)
        out = f"$ posthouse {line}\n{ran.out}{ran.err}"
        for name, shown in names.items():
            out = out.replace(name, shown)
        told.append(re.sub(r"[ \t]+$", "", out, flags=re.MULTILINE))
    return "\n".join(told)


DIALOGUES = {
    "lists": (
        "read",
        "read --limit 2",
        "read --conversations",
        "read --unread --search from:bob",
        "read --search invoice",
        "read --folder sent",
        "read --search nothinglikethis",
        "read --folder Nowhere",
    ),
    "messages": (
        "read ID1",
        "read ID2",
        "read ID4",
        "read ID3 --conversations",
        "read ID2 --html-source",
        "read ID1 --headers",
        "read",
        "read ID1 --unread",
        "read --unread",
    ),
    "folders": (
        "read ID1 --move archive",
        "read ID2 --delete",
        "read",
        "read --folder trash",
        "read ID2 --delete",
        "read ID2 --delete --yes",
        "read ID2",
        "read --search in:archive",
    ),
    "mistakes": (
        "read nonsense!",
        "read ZZZZ",
        "read ID1 --search x",
        "read --delete",
        "read --search before:tomorrow",
        "read --search size:9",
        "read ID3 --save .",
        "read ID1 --attachment 1",
        "read ID1 --save nowhere",
        "read ID1 --save . --attachment 7",
        "read ID4 --html-source",
        "read --limit 0",
        "read --account bob@here.test",
    ),
}


@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogues(reading: Command, name: str, request: pytest.FixtureRequest) -> None:
    told = dialogue(reading, *DIALOGUES[name])
    golden = GOLDEN / f"{name}.txt"
    if not golden.exists():
        golden.write_text(told)
        pytest.fail(f"{golden} was not there; look at it")
    assert told == golden.read_text()
    assert all(len(line) <= 80 for line in told.splitlines() if not line.startswith(("$", "posthouse:", "<p>")))


def test_what_was_shown_is_read(reading: Command) -> None:
    (first, *_) = ids(reading, "--unread")
    reading.run("read", first)
    assert first not in ids(reading, "--unread")
    (row,) = [row for row in json.loads(reading.run("read", "--json").out) if row["id"] == first]
    assert (row["unread"], row["account"], row["folder"]) == (False, "ada@here.test", "Inbox")
    reading.run("read", first, "--unread")
    assert first in ids(reading, "--unread")


def test_json_of_one_message(reading: Command) -> None:
    (row,) = json.loads(reading.run("read", ids(reading)[3], "--json").out)
    assert row["text"].startswith("Dear Ada,\n\nthe invoice")
    assert row["message_id"] == "<1@far.test>"
    assert row["files"] == [{"number": 1, "name": "invoice.pdf", "media_type": "application/pdf", "size_octets": 9}]


def test_the_raw_message_is_every_octet(reading: Command) -> None:
    import io

    written = io.BytesIO()
    reading._monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, write_through=True))
    reading._monkeypatch.setattr(sys, "argv", ["posthouse", "read", deliver(reading.folder, EVIL)[0], "--raw"])
    from posthouse.cli import main

    with pytest.raises(SystemExit):
        main()
    assert written.getvalue() == EVIL.replace(b"\n", b"\r\n")


@pytest.mark.conformance("C275")
def test_attachments_are_saved_into_the_folder_only(reading: Command) -> None:
    invoice = ids(reading)[3]
    folder = reading.folder / "saved"
    folder.mkdir()
    outside = reading.folder / "outside"
    (folder / "invoice.pdf").symlink_to(outside)
    for name in ("invoice (2).pdf", "invoice (3).pdf"):
        assert reading.run("read", invoice, "--save", "saved").out == f"Saved saved/{name} (9 octets).\n"
        assert (folder / name).read_bytes() == b"%PDF-1.7\n"
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert not outside.exists()
    assert not (reading.folder / "invoice.pdf").exists()
    (row,) = json.loads(reading.run("read", invoice, "--save", "saved", "--attachment", "1", "--json").out)
    assert row == {"file": "saved/invoice (4).pdf", "size_octets": 9}


def test_a_large_attachment_is_saved_whole(reading: Command) -> None:
    import base64

    octets = bytes(range(256)) * 8000
    body = base64.encodebytes(octets).decode()
    large = message(
        "large", f"--x\n\nsee\n--x\nContent-Type: a/b\nContent-Transfer-Encoding: base64\n\n{body}\n--x--\n"
    )
    deliver(reading.folder, b"Content-Type: multipart/mixed; boundary=x\n" + large)
    reading.run("read", ids(reading, "--search", "subject:large")[0], "--save", ".")
    assert (reading.folder / "attachment-1.bin").read_bytes() == octets


def test_sent_mail_says_how_far_it_came(reading: Command) -> None:
    reading.run("send", "bob@far.test", "-s", "to bob", "-m", "x")
    reading.run("send", "ada@here.test", "-s", "to myself", "-m", "x")

    def states() -> dict[str, str]:
        rows = json.loads(reading.run("read", "--folder", "Sent", "--json").out)
        return {row["subject"]: row["state"] for row in rows}

    assert states() == {"to bob": "waiting", "to myself": "sent"}
    assert "waiting  to bob" in reading.run("read", "--folder", "sent").out
    queue_id = json.loads(reading.run("queue", "list", "--json").out)[0]["queue_id"]
    reading.run("queue", "remove", queue_id, "--yes")
    assert states()["to bob"] == "failed"
    # Its two entries are told apart.
    (row,) = json.loads(reading.run("read", "--search", "subject:myself in:sent", "--json").out)
    assert row["id"].endswith(".1")
    assert "Folder:   Sent (sent)" in reading.run("read", row["id"]).out
    assert "Folder:   Inbox" in reading.run("read", row["id"].removesuffix(".1")).out


def test_several_accounts_are_named(reading: Command) -> None:
    reading.run("account", "add", "bob@here.test")
    assert reading.run("read").failed_with("have accounts here", "--account ada@here.test")
    assert reading.run("read", "--account", "bob@here.test").out == "No mail is in Inbox.\n"
    (queue_id,) = deliver(reading.folder, message("for bob"), login="bob@here.test")
    (name,) = ids(reading, "--account", "bob@here.test")
    assert queue_id.startswith(name)
    assert reading.run("read", queue_id, "--account", "ada@here.test").failed_with("no message has the id")


def test_a_pager_gets_what_is_longer_than_the_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "pager.py"
    script.write_text(f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())")
    monkeypatch.setenv("PAGER", f"{sys.executable} {script}")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("LINES", "10")
    read_letter.page(["one"] * 5)
    assert not (tmp_path / "got").exists()
    read_letter.page(["one"] * 20)
    assert (tmp_path / "got").read_text() == "one\n" * 20


def test_reading_begins_the_index_of_the_running_house(reading: Command) -> None:
    async def accounts() -> int:
        storage = await open_storage(house_config(reading.folder), World())
        try:
            return len(await storage.reading.accounts())
        finally:
            await storage.close()

    assert asyncio.run(accounts()) == 0
    reading.run("read")
    assert asyncio.run(accounts()) == 1
