"""Messages that break mail programs: LIST, RETR and TOP agree about each, octet for octet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.house.wire import Wire
from tests.peers.odd_messages import BODIES, WHOLE
from tests.retrieval.test_session import BOB, reader
from tests.running_house import RunningHouse

MESSAGES = [*WHOLE.values(), *(b"Subject: odd\r\n\r\n" + body for body in BODIES.values())]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path_factory.mktemp("house")) as house:
        with Wire(house.ports["smtp"]).greet() as wire:
            for message in MESSAGES:
                wire.deliver(message, BOB)
        yield house


@pytest.mark.conformance("C242", "C243", "C244", "C250", "C254")
def test_every_list_tells_what_is_sent(house: RunningHouse) -> None:
    with reader(house) as wire:
        assert wire.pop3("LIST").startswith(b"+OK")
        listed = [tuple(map(int, line.split())) for line in wire.multi_line().split(b"\r\n")[:-1]]
        assert [number for number, _ in listed] == list(range(1, len(MESSAGES) + 1))
        assert len(wire.uidls()) == len(MESSAGES)
        assert wire.pop3("STAT") == b"+OK %d %d" % (len(listed), sum(size for _, size in listed))
        for (number, size), message in zip(listed, MESSAGES, strict=True):
            got = wire.retrieve(number)
            assert len(got) == size
            assert got.endswith(message)
            assert top(wire, number, 10**9) == got
            ours = len(got) - len(message)
            header, empty, body = (
                got[ours:].partition(b"\r\n\r\n") if not message.startswith(b"\r\n") else (b"", b"", b"")
            )
            if empty:
                lines = body.split(b"\r\n")
                wanted = (
                    got[:ours] + header + b"\r\n\r\n" + b"".join(line + b"\r\n" for line in lines[:3][: len(lines) - 1])
                )
                assert top(wire, number, 3) == wanted, "TOP counts lines of the body and no others"
        assert wire.pop3("QUIT").startswith(b"+OK")


def top(wire: Wire, number: int, lines: int) -> bytes:
    assert wire.pop3(f"TOP {number} {lines}").startswith(b"+OK")
    return wire.multi_line()


@pytest.mark.conformance("C250")
def test_top_changes_nothing(house: RunningHouse) -> None:
    with reader(house) as wire:
        before = wire.uidls()
        top(wire, 1, 0)
        assert wire.pop3("QUIT").startswith(b"+OK")
    with reader(house) as wire:
        assert wire.uidls() == before
        assert wire.pop3("QUIT").startswith(b"+OK")
