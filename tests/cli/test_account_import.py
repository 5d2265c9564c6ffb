"""`posthouse account import`: all or nothing, each bad line named, hashes that work afterwards."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from posthouse.cli import account_import
from tests.cli.conftest import Command, Ran

SSHA512 = "{SSHA512}" + base64.b64encode(hashlib.sha512(b"secret" + b"salt").digest() + b"salt").decode()


def line(address: str, **fields: object) -> str:
    return json.dumps({"address": address, "password": SSHA512, **fields}) + "\n"


def accounts(command: Command) -> dict[str, dict[str, object]]:
    return {row["login"]: row for row in json.loads(command.run("account", "list", "--json").out)}


def imported(command: Command, text: str, *options: str) -> Ran:
    (command.folder / "people.ndjson").write_bytes(text.encode())
    return command.run("account", "import", "people.ndjson", *options)


GOOD = line("bob@here.test") + "\n" + line("eve@here.test", quota="2K", aliases=["e@here.test"], suspended=True)


def test_good_lines_become_accounts(furnished: Command) -> None:
    ran = imported(furnished, "\ufeff" + GOOD)
    assert (ran.status, ran.out, ran.err) == (0, "2 accounts imported.\n", "")
    found = accounts(furnished)
    assert (found["eve@here.test"]["quota_octets"], found["eve@here.test"]["suspended"]) == (2000, True)
    assert (found["bob@here.test"]["quota_octets"], found["bob@here.test"]["suspended"]) == (None, False)
    assert "e@here.test" in furnished.run("alias", "list").out


def test_from_standard_input(furnished: Command) -> None:
    ran = furnished.run("account", "import", "-", "--json", stdin=GOOD)
    assert json.loads(ran.out) == [{"imported": 2, "refused": 0, "dry_run": False, "problems": []}]
    assert "bob@here.test" in accounts(furnished)


BAD = [
    ("{", "not a JSON object"),
    ("[1]", "not a JSON object"),
    ("[" * 60_000, "not a JSON object"),
    ("x" * 70_000, "64 KiB"),
    ('{"address": "bob@here.test"}', "password is missing"),
    ('{"password": "x"}', "address is missing"),
    ('{"address": 1, "password": "x"}', "address is missing, or is no string"),
    (line("bob@here.test", adress="x"), "unknown field 'adress'"),
    (line("bob"), "is not an address"),
    (line("bob@here.test", password="{PLAIN}hunter2"), "none of {ARGON2ID}"),
    (line("bob@here.test", quota="much"), "500M"),
    (line("bob@here.test", quota=-1), "500M"),
    (line("bob@here.test", quota=True), "500M"),
    (line("bob@here.test", quota=2**63), "500M"),
    (line("bob@here.test", quota="9999999T"), "500M"),
    (line("bob@here.test", aliases="b@here.test"), "list of addresses"),
    (line("bob@here.test", aliases=["b"]), "is not an address"),
    (line("bob@here.test", aliases=["b@far.test"]), "posthouse domain add far.test"),
    (line("bob@here.test", aliases=["ada@here.test"]), "ada@here.test already"),
    (line("bob@here.test", aliases=["BOB@here.test"]), "itself"),
    (line("bob@here.test", suspended="no"), "true or false"),
    (line("bob@far.test"), "posthouse domain add far.test"),
    (line("Ada@here.test"), "already"),
    (line("carol@here.test"), "already"),
]


def test_bad_lines_are_named_and_stop_all(furnished: Command) -> None:
    text = line("carol@here.test") + "".join(bad.rstrip("\n") + "\n" for bad, _words in BAD) + line("dan@here.test")
    ran = imported(furnished, text)
    assert ran.status == 1
    *told, summary = ran.err.splitlines()
    assert summary.startswith(f"posthouse: people.ndjson: {len(BAD)} lines cannot be imported, so nothing was imported")
    assert "hunter2" not in ran.err
    for number, (problem, (_bad, words)) in enumerate(zip(told, BAD, strict=True), 2):
        assert problem.startswith(f"people.ndjson:{number}: ")
        assert words in problem
    assert list(accounts(furnished)) == ["ada@here.test"]
    skipped = imported(furnished, text, "--skip-errors")
    assert (skipped.status, skipped.out) == (0, "2 accounts imported.\n")
    assert skipped.err.splitlines() == told
    assert set(accounts(furnished)) == {"ada@here.test", "carol@here.test", "dan@here.test"}


def test_a_conflict_in_the_store_stops_all_too(furnished: Command) -> None:
    ran = imported(furnished, line("carol@here.test") + line("Ada@here.test"))
    assert ran.status == 1
    assert "people.ndjson:2: there is an account Ada@here.test already" in ran.err
    assert list(accounts(furnished)) == ["ada@here.test"]


def test_octets_that_are_no_text(furnished: Command) -> None:
    (furnished.folder / "people.ndjson").write_bytes(b'{"address": "\xff"}\n')
    assert "not UTF-8" in furnished.run("account", "import", "people.ndjson").err


def test_a_dry_run_changes_nothing(furnished: Command) -> None:
    ran = imported(furnished, GOOD, "--dry-run")
    assert (ran.status, ran.out) == (0, "2 accounts could be imported; nothing was changed.\n")
    assert imported(furnished, GOOD + line("x@far.test"), "--dry-run").status == 1
    told = json.loads(imported(furnished, GOOD + line("x@far.test"), "--dry-run", "--skip-errors", "--json").out)
    assert (told[0]["imported"], told[0]["refused"], told[0]["dry_run"]) == (2, 1, True)
    assert told[0]["problems"][0]["line"] == 4
    assert list(accounts(furnished)) == ["ada@here.test"]


def test_json_tells_problems_too(furnished: Command) -> None:
    ran = imported(furnished, line("x@far.test"), "--json")
    assert ran.status == 1
    (told,) = json.loads(ran.out)
    assert (told["imported"], told["refused"]) == (0, 1)
    assert "far.test" in told["problems"][0]["problem"]


def test_many_problems_are_cut(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_import, "SHOWN_PROBLEMS", 2)
    ran = imported(furnished, "x\n" * 5)
    assert ran.err.splitlines()[2] == "… and 3 more; all of them: --json"


@pytest.mark.parametrize(
    ("file", "words"), [("nowhere", "nowhere cannot be read"), (".", "cannot be read"), ("empty", "no account")]
)
def test_nothing_to_import(furnished: Command, file: str, words: str) -> None:
    Path("empty").write_text("\n\n")
    assert furnished.run("account", "import", file).failed_with(words)
