"""A house whose mail leaves through another house's submission doors: TLS with a verified certificate, and a login."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.config import ConfigError
from posthouse.doors import SELF_SIGNED
from posthouse.mail.journey import Operated
from posthouse.net.tls import make_self_signed
from posthouse.storage.interfaces import Storage
from tests.house.test_forwarding import maildrop, send, until_served
from tests.running_house import PASSWORD, RunningHouse

LOGIN = "bob@there.test"


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[RunningHouse]:
    """Its certificate is for its address; ada@here.test is an identity of its own there."""
    folder = tmp_path / "there"
    folder.mkdir()
    make_self_signed("[127.0.0.1]", folder / SELF_SIGNED[0], folder / SELF_SIGNED[1], time.time())
    doors = {door: ["127.0.0.1:0"] for door in ("smtp", "submission", "submissions", "pop3")}
    people = ("ada@here.test", LOGIN)
    with RunningHouse(
        folder, people, hostname="mx.there.test", postmaster=LOGIN, listen=doors, auth={"allow_cleartext": True}
    ) as house:
        yield house


def forwarding(tmp_path: Path, provider: RunningHouse, door: str, **more: object) -> dict[str, object]:
    """`[forwarding]` of the house here; writes the password's file."""
    folder = tmp_path / "here"
    folder.mkdir(exist_ok=True)
    (folder / "provider.password").write_text(f"{PASSWORD}\n")
    (folder / "provider.password").chmod(0o600)
    hop = f"127.0.0.1:{provider.ports[door]}"
    login = {"user": "ada@here.test", "password_file": "provider.password"}
    if door == "submissions":
        login["tls"] = "implicit"
    else:
        login["tls"] = "required"
    return {
        "routes": {"*": hop},
        "login": {hop: login},
        "tls_authorities": str(provider.config.data_dir / SELF_SIGNED[0]),
        **more,
    }


@pytest.mark.parametrize("door", ["submission", "submissions"])
def test_mail_leaves_through_a_submission_door(tmp_path: Path, provider: RunningHouse, door: str) -> None:
    options = forwarding(tmp_path, provider, door)
    with RunningHouse(tmp_path / "here", hostname="mx.here.test", forwarding=options) as house:
        send(house, LOGIN)
        until_served(house)
    ((_uidl, _size, content),) = maildrop(provider, LOGIN)
    assert b"with ESMTPSA" in content.replace(b"\r\n\t", b" ")


@pytest.mark.conformance("C92")
@pytest.mark.parametrize(
    ("hello", "name"), [({}, b"mx.here.test"), ({"hello_name": "out.here.test"}, b"out.here.test")]
)
def test_the_house_says_its_full_name(
    tmp_path: Path, provider: RunningHouse, hello: dict[str, str], name: bytes
) -> None:
    (tmp_path / "here").mkdir()
    routes = {"*": f"127.0.0.1:{provider.ports['smtp']}"}
    with RunningHouse(tmp_path / "here", hostname="mx.here.test", forwarding={"routes": routes, **hello}) as house:
        send(house, LOGIN)
        until_served(house)
    ((_uidl, _size, content),) = maildrop(provider, LOGIN)
    assert b"Received: from " + name in content


@pytest.mark.conformance("S5", "C143")
def test_a_certificate_of_nobody_known_gets_no_password(tmp_path: Path, provider: RunningHouse) -> None:
    options = forwarding(tmp_path, provider, "submission")
    del options["tls_authorities"]
    with RunningHouse(tmp_path / "here", hostname="mx.here.test", forwarding=options) as house:
        send(house, LOGIN)
        (reply,) = until_tried(house)
        assert reply.startswith("451 4.7.5 ")
        assert "self-signed" in reply
    assert maildrop(provider, LOGIN) == []


def test_another_password_is_read_at_a_reload(tmp_path: Path, provider: RunningHouse) -> None:
    options = forwarding(tmp_path, provider, "submission")
    file = tmp_path / "here" / "provider.password"
    file.write_text("wrong\n")
    with RunningHouse(tmp_path / "here", hostname="mx.here.test", forwarding=options) as house:
        send(house, LOGIN)
        (reply,) = until_tried(house)
        assert reply.startswith("451 4.7.8 ")
        assert "535" in reply
        file.write_text(f"{PASSWORD}\n")
        assert reload(house)
        file.chmod(0o644)
        assert not reload(house)
        assert "can be read by others" in house.log.getvalue()
        retry_all(house)
        until_served(house)
    assert len(maildrop(provider, LOGIN)) == 1
    assert "wrong" not in house.log.getvalue()


def test_without_its_password_a_house_does_not_start(tmp_path: Path) -> None:
    login = {"relay.test:587": {"user": "me", "password_file": "none"}}
    with pytest.raises(ConfigError, match=r"forwarding\.login: .*/none does not exist; write the password into it"):
        with RunningHouse(tmp_path, forwarding={"login": login}):
            pass


def test_authorities_that_are_none_are_told_when_starting(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"forwarding\.tls_authorities: .*a\.pem holds no certificates"):
        with RunningHouse(tmp_path, forwarding={"tls_authorities": "a.pem"}):
            pass


def reload(house: RunningHouse) -> bool:
    """As SIGHUP: the files are read again."""

    async def again(_storage: Storage) -> bool:
        return house.house.reload(lambda: house.config)

    return house.ask(again)


def until_tried(house: RunningHouse) -> list[str]:
    """What stands in the way of the recipients that wait."""

    async def wait(storage: Storage) -> list[str]:
        while True:
            rows = await storage.spool.list()
            if rows and all(row.last_reply and not row.claimed for row in rows):
                return [row.last_reply or "" for row in rows]
            await storage.changes.wait(0.05)

    return house.ask(wait)


def retry_all(house: RunningHouse) -> None:
    """As `posthouse queue retry`."""

    async def retry(storage: Storage) -> None:
        now = time.time()
        for row in await storage.spool.list():
            event = Operated(queue_id=row.message.queue_id, at=now, action="retry", forward_paths=(), by="test")
            await storage.spool.retry(row.message.queue_id, now, event)

    house.ask(retry)
