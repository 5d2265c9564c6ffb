"""The running house keeps what is read here ready to be searched."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path

import pytest

from posthouse.mail.indexed import Listed
from posthouse.mail.mail_query import parse_query
from posthouse.storage.interfaces import Storage
from tests.running_house import RunningHouse


def test_mail_that_comes_is_found_without_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.indexing.LOOK_EVERY_S", 0.05)

    async def begin(storage: Storage) -> None:
        account = await storage.directory.account("ada@here.test")
        assert account is not None
        await storage.reading.begin(account.account)

    async def find(storage: Storage) -> tuple[Listed, ...]:
        account = await storage.directory.account("ada@here.test")
        assert account is not None
        return await storage.reading.find(account.account, parse_query("walrus"), 10)

    with RunningHouse(tmp_path) as house:
        house.ask(begin)
        with smtplib.SMTP("127.0.0.1", house.ports["smtp"], timeout=20) as client:
            client.sendmail("x@far.test", ["ada@here.test"], b"From: x@far.test\r\nSubject: x\r\n\r\nA walrus.\r\n")
        deadline = time.monotonic() + 20
        while not (found := house.ask(find)):
            assert time.monotonic() < deadline
    assert [each.sender for each in found] == ["x@far.test"]
