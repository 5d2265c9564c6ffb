"""`posthouse domain`, `account` and `alias`, and where a configuration is found."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from posthouse.cli import MODULES
from tests.cli.conftest import CONFIG, Command


def test_lists_are_tables_and_json(furnished: Command) -> None:
    furnished.run("alias", "add", "info@here.test", "ada@here.test", "x@far.test")
    assert furnished.run("alias", "list").out.splitlines()[1] == "info@here.test  ada@here.test, x@far.test"
    for kind, key in (("alias", "address"), ("account", "login"), ("domain", "domain")):
        assert furnished.run(kind, "list").out.startswith(key)
        assert key in json.loads(furnished.run(kind, "list", "--json").out)[0]
    assert json.loads(furnished.run("queue", "list", "--json").out) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("domain add here.test", ("already",)),
        ("domain add a_b", ("not a domain",)),
        ("domain remove here.test", ("posthouse account remove ada@here.test",)),
        ("domain remove far.test", ("far.test", "posthouse domain list")),
        ("account quota ada@here.test much", ("not a size",)),
        ("account quota bob@here.test 1G", ("no account bob@here.test",)),
        ("account add ada@here.test", ("already",)),
        ("account add ada@far.test", ("posthouse domain add far.test",)),
        ("account add bob@here.test --quota much", ("500M",)),
        ("account add bob@here.test --password-stdin", ("no password",)),
        ("account suspend bob@here.test", ("posthouse account list",)),
        ("account remove bob@here.test", ("posthouse account list",)),
        ("alias add ada@here.test x@far.test", ("already",)),
        ("alias add info@here.test info@here.test", ("itself",)),
        ("alias remove info@here.test", ("posthouse alias list",)),
        ("queue show 1", ("26 characters",)),
        ("queue retry 01M840N9KJ48ER4NRDDMA3SZ09", ("posthouse journey",)),
        ("journey", ("--to",)),
        ("journey 01M840N9KJ48ER4NRDDMA3SZ09", ("no journey",)),
        ("nonsense", ("posthouse --help",)),
        ("account add", ("ADDRESS", "posthouse account add --help")),
        ("account list --config nowhere", ("nowhere does not exist",)),
        ("account list --config .", ("cannot be read",)),
    ],
)
def test_what_cannot_be_done_is_one_line(furnished: Command, line: str, words: tuple[str, ...]) -> None:
    assert furnished.run(*line.split()).failed_with(*words)


def test_an_account_comes_and_goes(furnished: Command) -> None:
    furnished.run("account", "add", "bob@here.test", "--quota", "2K", "--password-stdin", stdin="a secret\n")
    (_ada, bob) = json.loads(furnished.run("account", "list", "--json").out)
    assert (bob["login"], bob["quota_octets"], bob["suspended"]) == ("bob@here.test", 2000, False)
    assert "3 MB at most" in furnished.run("account", "quota", "bob@here.test", "3M").out
    assert json.loads(furnished.run("account", "list", "--json").out)[1]["quota_octets"] == 3_000_000
    furnished.run("account", "quota", "bob@here.test", "none")
    assert json.loads(furnished.run("account", "list", "--json").out)[1]["quota_octets"] is None
    furnished.run("alias", "add", "b@here.test", "bob@here.test")
    removed = furnished.run("account", "remove", "bob@here.test")
    assert removed.status == 0
    assert removed.err == "But b@here.test still leads there: posthouse alias remove b@here.test\n"
    assert "note     alias          b@here.test leads to bob@here.test" in furnished.run("check").out
    furnished.run("alias", "remove", "b@here.test")
    assert "alias  " not in furnished.run("check").out
    assert "bob" not in furnished.run("account", "list").out


def test_a_short_password_is_not_taken(furnished: Command) -> None:
    for command in (("account", "add", "bob@here.test"), ("account", "password", "ada@here.test")):
        assert furnished.run(*command, "--password-stdin", stdin="sevenis\n").failed_with("at least 8")


def test_what_suspends_says_how_to_resume(furnished: Command) -> None:
    told = furnished.run("account", "suspend", "ada@here.test").out
    command = told.strip().rpartition("posthouse ")[2]
    assert furnished.run(*command.split()).out == "ada@here.test may log in.\n"


def test_an_alias_to_nobody_is_made_and_told(furnished: Command) -> None:
    ran = furnished.run("alias", "add", "info@here.test", "ada@here.test", "nobdy@here.test", "x@far.test")
    assert ran.status == 0
    assert ran.err == "But nobdy@here.test is nobody so far: posthouse account add nobdy@here.test\n"
    assert furnished.run("alias", "add", "office@here.test", "ada@here.test", "abuse@here.test").err == ""


def test_a_catch_all_is_an_alias_without_a_name(furnished: Command) -> None:
    added = furnished.run("alias", "add", "@HERE.test", "ada@here.test")
    assert added.out == "Every other address of here.test now leads to ada@here.test.\n"
    assert furnished.run("alias", "list").out.splitlines()[1] == "@here.test  ada@here.test"
    assert furnished.run("alias", "add", "@here.test", "x@far.test").failed_with("already", "posthouse alias list")
    assert furnished.run("alias", "add", "@far.test", "x@far.test").failed_with("posthouse domain add far.test")
    assert furnished.run("alias", "add", "@", "x@far.test").failed_with("not a domain")
    assert furnished.run("alias", "remove", "@here.test").status == 0


@pytest.mark.parametrize(
    ("next_hop", "mechanism"),
    [("192.0.2.9", "ip4:192.0.2.9"), ("[2001:db8::9]:25", "ip6:2001:db8::9"), ("smart.test:26", "a:smart.test")],
)
def test_a_smarthost_stands_in_the_spf_record(furnished: Command, next_hop: str, mechanism: str) -> None:
    file = furnished.folder / "posthouse.toml"
    file.write_text(file.read_text().replace("127.0.0.1:1", next_hop))
    assert f'"v=spf1 mx {mechanism} -all"' in furnished.run("dns").out


def test_the_configuration_is_found_in_order(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert furnished.run("domain", "list").status == 0
    monkeypatch.setenv("POSTHOUSE_CONFIG", "named.toml")
    assert furnished.run("domain", "list").failed_with("named.toml")
    Path("told.toml").write_text(CONFIG)
    assert furnished.run("domain", "list", "--config", "told.toml").status == 0


def test_help_fits_80_columns_and_cuts_nothing(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for group in ((), ("domain",), ("account",), ("alias",), ("queue",), ("account", "app-password")):
        shown = command.run(*group, "--help").out
        assert shown.startswith("Usage: posthouse ")
        assert "..." not in shown.replace("]...", ""), shown
        assert max(map(len, shown.splitlines())) <= 80
    for group in (("init",), ("journey",), ("check",), ("dns",), ("prove",)):
        shown = command.run(*group, "--help").out
        assert "..." not in shown.replace("]...", ""), shown
        assert max(map(len, shown.splitlines())) <= 80


def test_the_version_needs_no_house_and_loads_none(command: Command) -> None:
    assert command.run("--version").out.startswith("posthouse 0.")
    program = "import sys, posthouse.cli; print('posthouse.app' in sys.modules, 'posthouse.demo' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=_path())
    assert loaded.stdout.split() == ["False", "False"]


def test_a_reader_that_goes_is_no_error(furnished: Command) -> None:
    line = f"{sys.executable} -m posthouse.cli account list --json | true"
    ran = subprocess.run(line, shell=True, capture_output=True, text=True, env=_path())
    assert ran.stderr == ""


def _path() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.mark.parametrize("module", MODULES)
def test_each_command_stands_beside_its_module(module: str) -> None:
    """A command that stood nowhere could be called only as an unknown one, after everything was imported."""
    app = typer.Typer()
    import_module(f"posthouse.cli.{module}").register(app)
    commands = [each.name for each in (*app.registered_commands, *app.registered_groups)]
    assert tuple(commands) == MODULES[module]


def test_a_command_loads_what_it_needs_and_no_more(furnished: Command) -> None:
    """`posthouse queue list` took 0.7 s, most of it for the server's code."""
    program = "import sys; sys.argv[1:] = ['queue', 'list']\ntry:\n from posthouse.cli import main; main()\nfinally:\n"
    program += " print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=_path(), cwd=furnished.folder
    )
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert "posthouse.engines" in loaded
    heavy = {"posthouse.app", "posthouse.doors", "posthouse.cli.accounts", "posthouse.admission", "rich", "dns"}
    assert loaded & heavy == set()
