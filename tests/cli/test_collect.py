"""`posthouse collect` from a real house; what is said of each source."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from posthouse.cli import collect
from posthouse.collecting import turns_folder, vault_of
from posthouse.collection.turn import turn
from posthouse.config import Config
from posthouse.engines import open_storage
from posthouse.mail.address import parse_address
from posthouse.mail.ids import SourceId
from posthouse.mail.source import Keeping, Policy, Protection, Server, SourceSettings
from posthouse.world import World
from tests.cli.conftest import Command
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse, house_config

FAR = "bob@far.test"


@pytest.fixture
def far(tmp_path: Path) -> RunningHouse:
    return RunningHouse(tmp_path / "far", (FAR,))


async def add_source(config: Config, port: int, secret: str, *, login: str = FAR) -> None:
    storage = await open_storage(config, World())
    try:
        account = await storage.directory.account("ada@here.test")
        assert account is not None
        await storage.sources.add(
            SourceSettings(
                address=parse_address(login),
                account=account.account,
                server=Server("127.0.0.1", port, Protection.NONE),
                login=FAR,
                secret=secret,
                policy=Policy(Keeping.DELETE),
            )
        )
    finally:
        await storage.close()


@pytest.fixture
def config(furnished: Command) -> Config:
    return house_config(furnished.folder)


def deliver(house: RunningHouse, count: int) -> None:
    with Wire(house.ports["smtp"]) as wire:
        wire.greet()
        for number in range(count):
            wire.deliver(b"Subject: %d\r\n\r\nhello\r\n" % number, FAR)


def test_mail_is_fetched_once_and_deleted_there(furnished: Command, far: RunningHouse, config: Config) -> None:
    secret = vault_of(config).keep(FAR, PASSWORD)
    with far as house:
        deliver(house, 30)
        asyncio.run(add_source(config, house.ports["pop3"], secret))
        ran = furnished.run("collect", "--once")
        assert ran.status == 0, ran.err
        assert ran.out.startswith("bob@far.test: 30 new messages (")
        assert ran.out.endswith(", 30 deleted there\n")
        assert furnished.run("collect", "--once", FAR).out == "bob@far.test: nothing new\n"
        (row,) = json.loads(furnished.run("collect", "--once", "--json").out)
        assert (row["state"], row["collected"], row["listed"], row["failure"]) == ("done", 0, 0, None)
    (account,) = json.loads(furnished.run("account", "list", "--json").out)
    assert account["messages"] == 30
    listed = furnished.run("collect", "--list").out.splitlines()
    assert listed[0].split() == ["address", "server", "keeps", "every", "collected", "state"]
    assert "bob@far.test" in listed[1]
    assert listed[1].endswith("ok")


def test_a_wrong_password_is_told_and_not_shown(furnished: Command, far: RunningHouse, config: Config) -> None:
    secret = vault_of(config).keep(FAR, "open sesame")
    with far as house:
        asyncio.run(add_source(config, house.ports["pop3"], secret))
        ran = furnished.run("collect", "--once")
        assert ran.failed_with("bob@far.test: the login was refused: ")
        assert "sesame" not in ran.out + ran.err
    assert "needs a password" in furnished.run("collect", "--list").out


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("file:nothing", ("there is no password in ",)),
        ("command:/no/such/program", ("cannot be run",)),
        ("elsewhere:x", ("is no place that secrets are kept in",)),
    ],
)
def test_a_password_that_is_not_there_is_told(
    furnished: Command, config: Config, secret: str, words: tuple[str, ...]
) -> None:
    asyncio.run(add_source(config, 1, secret))
    assert furnished.run("collect", "--once").failed_with(*words)


def test_a_server_that_is_not_there_is_told(furnished: Command, config: Config) -> None:
    asyncio.run(add_source(config, 1, vault_of(config).keep(FAR, "x")))
    ran = furnished.run("collect", "--once", "--json")
    assert ran.failed_with("127.0.0.1:1 cannot be reached: Connection refused")
    assert json.loads(ran.out)[0]["state"] == "failed"


def test_a_source_that_another_process_has_is_left_to_it(furnished: Command, config: Config) -> None:
    asyncio.run(add_source(config, 1, vault_of(config).keep(FAR, "x")))
    with turn(turns_folder(config), SourceId(1)):
        assert furnished.run("collect", "--once").out == "bob@far.test: the running house is collecting from it now\n"


def test_where_nothing_is_collected_it_says_how_to(furnished: Command) -> None:
    for line in (("--once",), (), ("--list",)):
        assert "posthouse add-account ADDRESS" in furnished.run("collect", *line).out
    assert json.loads(furnished.run("collect", "--list", "--json").out) == []
    assert furnished.run("collect", "--once", FAR).failed_with("no mail is collected from bob@far.test")
    assert furnished.run("collect", "--json").failed_with("--once --json")


def test_it_goes_on_until_it_is_ended(
    furnished: Command, far: RunningHouse, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += 1
        if slept == 2:
            raise KeyboardInterrupt

    with far as house:
        deliver(house, 2)
        asyncio.run(add_source(config, house.ports["pop3"], vault_of(config).keep(FAR, PASSWORD)))
        monkeypatch.setattr(collect.asyncio, "sleep", sleep)
        ran = furnished.run("collect")
    assert ran.status == 130
    assert ran.out.startswith("bob@far.test: 2 new messages (")
    assert ran.out.count("\n") == 1
    assert slept == 2


def test_a_house_that_runs_collects_by_itself(tmp_path: Path, far: RunningHouse) -> None:
    home = RunningHouse(tmp_path / "home", ("ada@here.test",))
    with far as house, home as running:
        deliver(house, 3)
        secret = vault_of(running.config).keep(FAR, PASSWORD)
        asyncio.run(add_source(running.config, house.ports["pop3"], secret))
        with Wire(running.ports["pop3"]) as wire:
            wire.line()
        await_log(running, '"event": "collected"', '"messages": 3')


def await_log(house: RunningHouse, *words: str) -> None:
    """Wait until a line of the log holds these words."""
    import time

    ends = time.monotonic() + 30
    while not any(all(word in line for word in words) for line in house.log.getvalue().splitlines()):
        assert time.monotonic() < ends, house.log.getvalue()
        time.sleep(0.05)
