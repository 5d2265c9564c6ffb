"""`posthouse account app-password`, and what a suspended account is."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from posthouse.engines import open_storage
from posthouse.world import World
from tests.cli.conftest import Command
from tests.running_house import house_config


def test_add_list_and_revoke(furnished: Command) -> None:
    added = furnished.run("account", "app-password", "add", "ada@here.test", "old laptop")
    assert re.search(r"shown this once: app(-[a-z2-7]{5}){4}-[a-z2-7]{6}\n", added.out)
    (phone,) = json.loads(furnished.run("account", "app-password", "add", "ADA@here.test", "phone", "--json").out)
    assert (phone["name"], phone["password"][:4]) == ("phone", "app-")
    assert phone["password"] not in added.out
    listed = json.loads(furnished.run("account", "app-password", "list", "ada@here.test", "--json").out)
    assert [(row["name"], row["last_used_at"]) for row in listed] == [("old laptop", None), ("phone", None)]
    shown = furnished.run("account", "app-password", "list", "ada@here.test").out
    assert "old laptop" in shown
    assert "never" in shown
    assert phone["password"] not in shown
    assert "revoked" in furnished.run("account", "app-password", "revoke", "ada@here.test", "old laptop").out
    assert "old laptop" not in furnished.run("account", "app-password", "list", "ada@here.test").out


def test_none_yet(furnished: Command) -> None:
    assert "app-password add ada@here.test" in furnished.run("account", "app-password", "list", "ada@here.test").out
    assert json.loads(furnished.run("account", "app-password", "list", "ada@here.test", "--json").out) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("add ada@here.test phone", ("'phone' already", "app-password list")),
        ("add bob@here.test phone", ("no account bob@here.test",)),
        ("add nobody phone", ("not an address",)),
        ("add ada@here.test ", ("64 characters",)),
        ("add ada@here.test", ("NAME",)),
        (f"add ada@here.test {'x' * 65}", ("64 characters",)),
        ("add ada@here.test a\x1bb", ("can be printed",)),
        ("list bob@here.test", ("no account",)),
        ("revoke ada@here.test tablet", ("'tablet'", "app-password list ada@here.test")),
        ("revoke bob@here.test tablet", ("no account",)),
    ],
)
def test_what_cannot_be_done_is_one_line(furnished: Command, line: str, words: tuple[str, ...]) -> None:
    furnished.run("account", "app-password", "add", "ada@here.test", "phone")
    assert furnished.run("account", "app-password", *line.split(" ")).failed_with(*words)


def test_suspend_and_resume(furnished: Command) -> None:
    for words, suspended in (("suspend", True), ("resume", False), ("suspend", True), ("resume", False)):
        assert furnished.run("account", *words.split(), "ada@here.test").status == 0
        (ada,) = json.loads(furnished.run("account", "list", "--json").out)
        assert ada["suspended"] is suspended
    assert furnished.run("account", "resume", "bob@here.test").failed_with("no account")


@pytest.mark.parametrize(
    ("password", "words"),
    [("x" * 1025, "1024 octets"), ("a\0bcdefgh", "NUL"), ("app-aaaaa-aaaaa-aaaaa-aaaaa-aaaaaa", "form")],
)
def test_passwords_that_cannot_be_chosen(furnished: Command, password: str, words: str) -> None:
    for command in (["add", "bob@here.test"], ["password", "ada@here.test"]):
        ran = furnished.run("account", *command, "--password-stdin", stdin=password + "\n")
        assert ran.failed_with(words)
        assert password not in ran.err


@pytest.mark.parametrize(
    ("setting", "stdin", "kept"),
    [
        ("", "", True),
        ("", "chosen by me\n", False),
        ("scram_for_passwords = true", "chosen by me\n", True),
        (
            "scram_for_passwords = true",
            "\U0001f511\U0001f511\U0001f511\U0001f511\U0001f511\U0001f511\U0001f511\U0001f511\n",
            False,
        ),
        ("scram = false", "", True),
    ],
)
def test_scram_keys_are_kept_of_what_cannot_be_guessed(
    furnished: Command, setting: str, stdin: str, kept: bool
) -> None:
    """Nobody guesses what was made here; of what people choose they are kept where that is asked for."""
    file = furnished.folder / "posthouse.toml"
    file.write_text(file.read_text().replace("[auth]", f"[auth]\n{setting}"))
    options = ["--password-stdin"] if stdin else []
    for command, login in (("add", "bob@here.test"), ("password", "ada@here.test")):
        assert furnished.run("account", command, login, *options, stdin=stdin).status == 0
        assert (scram_of(furnished, login) is not None) is kept


def scram_of(command: Command, login: str) -> object:
    async def read() -> object:
        storage = await open_storage(house_config(command.folder), World())
        try:
            account = await storage.directory.account(login)
            assert account is not None
            return account.credentials[0].scram
        finally:
            await storage.close()

    return asyncio.run(read())


def test_check_says_why_scram_is_not_offered(furnished: Command) -> None:
    def said() -> tuple[str, str]:
        (line,) = [line for line in json.loads(furnished.run("check", "--json").out) if line["check"] == "SCRAM"]
        return line["state"], line["text"]

    assert said() == ("ok", "offered: it works with every password")
    assert furnished.run("account", "add", "bob@here.test", "--password-stdin", stdin="chosen by me\n").status == 0
    state, text = said()
    assert state == "note"
    assert "not offered: it would not work with the passwords of bob@here.test; set auth.scram_for_passwords" in text
    file = furnished.folder / "posthouse.toml"
    before = file.read_text()
    file.write_text(before.replace("[auth]", "[auth]\nscram_for_passwords = true"))
    assert "logged in by PLAIN" in said()[1]
    file.write_text(before.replace("[auth]", "[auth]\nscram = false"))
    assert said() == ("ok", "not offered, as auth.scram says")
