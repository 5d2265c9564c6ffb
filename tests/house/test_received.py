"""How mail came, as its first field tells: with which protocol, to an internationalised address too."""

from __future__ import annotations

import base64
import functools
import ssl
import time
from collections.abc import Iterator

import pytest

from posthouse import app
from posthouse.doors import SELF_SIGNED
from posthouse.net.tls import make_self_signed
from posthouse.protocol.smtp_server import ServerOptions
from tests.house.test_addresses import emptied
from tests.house.wire import Wire
from tests.running_house import DOORS, PASSWORD, RunningHouse

ADA, JURGEN = "ada@here.test", "j\u00fcrgen@here.test"
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
EXTENSIONS = frozenset({"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    folder = tmp_path_factory.mktemp("house")
    make_self_signed("mx.here.test", folder / SELF_SIGNED[0], folder / SELF_SIGNED[1], time.time())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "ServerOptions", functools.partial(ServerOptions, extensions=EXTENSIONS))
        with RunningHouse(
            folder,
            (ADA, JURGEN, "dan@b\u00fccher.test"),
            listen={door: ["127.0.0.1:0"] for door in (*DOORS, "submissions")},
        ) as house:
            yield house


@pytest.fixture
def tls(house: RunningHouse) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0])


def log_in(wire: Wire) -> None:
    secret = base64.b64encode(f"\0{ADA}\0{PASSWORD}".encode()).decode()
    assert wire.say(f"AUTH PLAIN {secret}").startswith(b"235 ")


@pytest.mark.conformance("C70")
@pytest.mark.parametrize("utf8", [False, True])
@pytest.mark.parametrize(
    ("door", "starttls", "protocol"),
    [
        ("smtp", False, b"ESMTP"),
        ("smtp", True, b"ESMTPS"),
        ("submission", False, b"ESMTPA"),
        ("submission", True, b"ESMTPSA"),
        ("submissions", False, b"ESMTPSA"),
    ],
)
def test_with_which_protocol(
    house: RunningHouse, tls: ssl.SSLContext, door: str, starttls: bool, protocol: bytes, utf8: bool
) -> None:
    with Wire(house.ports[door], tls=tls if door == "submissions" else None).greet() as wire:
        if starttls:
            assert wire.say("STARTTLS").startswith(b"220 ")
            wire.start_tls(tls)
            assert wire.say("EHLO client.test").startswith(b"250 ")
        if door != "smtp":
            log_in(wire)
        assert wire.say(f"MAIL FROM:<{ADA}>{' SMTPUTF8' if utf8 else ''}").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{ADA}>").startswith(b"250 ")
        assert wire.content(LETTER).startswith(b"250 ")
    (message,) = emptied(house, ADA)
    protocol = protocol.replace(b"ESMTP", b"UTF8SMTP") if utf8 else protocol
    assert b"\tby mx.here.test with " + protocol + b" id " in message


@pytest.mark.conformance("C142")
def test_mail_for_us_is_taken_in_clear(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]) as wire:
        assert wire.reply().startswith(b"220 ")
        wire.send(b"EHLO client.test\r\n")
        offered = [wire.line()]
        while offered[-1][3:4] == b"-":
            offered.append(wire.line())
        assert any(line[4:] == b"STARTTLS" for line in offered)
        queue_id = wire.deliver(LETTER, ADA)
    (message,) = emptied(house, ADA)
    assert b" with ESMTP id " + queue_id.encode() in message


@pytest.mark.conformance("C70")
def test_an_old_greeting(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]) as wire:
        assert wire.reply().startswith(b"220 ")
        assert wire.say("HELO client.test").startswith(b"250 ")
        wire.deliver(LETTER, ADA)
    (message,) = emptied(house, ADA)
    assert b" with SMTP id " in message


@pytest.mark.conformance("C24", "C198", "C200")
@pytest.mark.parametrize(
    ("path", "person"),
    [
        ("j\u00fcrgen@here.test", JURGEN),
        ("ju\u0308rgen@here.test", JURGEN),
        ('"J\u00fcrgen"@HERE.test', JURGEN),
        ("j\u00fcrgen+x@here.test", JURGEN),
        ("dan@b\u00fccher.test", "dan@b\u00fccher.test"),
        ("dan@bu\u0308cher.test", "dan@b\u00fccher.test"),
        ("dan@xn--bcher-kva.test", "dan@b\u00fccher.test"),
        ("Postmaster@b\u00fccher.test", ADA),
    ],
)
def test_one_mailbox_however_its_name_is_composed(house: RunningHouse, path: str, person: str) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        if not path.isascii():
            assert wire.say("MAIL FROM:<>").startswith(b"250 ")
            assert wire.say(f"RCPT TO:<{path}>").startswith(b"553 5.6.7 ")
            assert wire.say("RSET").startswith(b"250 ")
        assert wire.say("MAIL FROM:<> SMTPUTF8").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{path}>").startswith(b"250 ")
        assert wire.content(LETTER).startswith(b"250 ")
    account = house.ask(lambda storage: storage.directory.account(person))
    assert account is not None
    listing = house.ask(lambda storage: storage.maildrops.list(account.account))
    assert len(listing) == 1
    lock = house.ask(lambda storage: storage.maildrops.lock(account.account))
    assert house.ask(lambda storage: storage.maildrops.expunge(lock, listing.uids, ()))
    house.ask(lambda storage: storage.maildrops.unlock(lock))
