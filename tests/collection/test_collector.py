"""Sessions with a maildrop: once and only once, whatever breaks, and deleted there only when it is here."""

from __future__ import annotations

import pytest

from posthouse.mail.folders import INBOX, TRASH
from posthouse.mail.journey import Accepted, Placed
from posthouse.mail.source import DAY_S, Keeping, Policy
from posthouse.storage.errors import StorageFull
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.collection.conftest import Home


def message(number: int, body: str = "hello") -> bytes:
    return (
        f"Message-ID: <{number}@far.test>\r\nDate: now\r\nFrom: x@far.test\r\nSubject: {number}\r\n\r\n{body}\r\n"
    ).encode()


def fill(home: Home, count: int) -> list[bytes]:
    contents = [message(number) for number in range(count)]
    home.maildrop.messages = [(f"uidl{number}", octets) for number, octets in enumerate(contents)]
    return contents


@pytest.mark.parametrize("pipelining", [False, True])
async def test_everything_comes_once_and_stays_there(home: Home, pipelining: bool) -> None:
    home.maildrop.pipelining = pipelining
    wanted = fill(home, 100)
    report = await home.collect()
    assert (report.listed, report.collected, report.deleted, report.failure) == (100, 100, 0, "")
    assert await home.contents() == wanted
    assert (await home.collect()).collected == 0
    assert home.maildrop.fetched() == 100
    assert len(home.maildrop.messages) == 100


async def test_a_message_has_a_journey_and_our_trace(home: Home) -> None:
    fill(home, 1)
    await home.collect()
    (queue_id,) = (await home.storage.maildrops.list(home.account)).queue_ids
    accepted, placed = await home.storage.journey.read(queue_id)
    assert isinstance(accepted, Accepted)
    assert isinstance(placed, Placed)
    assert (accepted.source, accepted.message_id) == ("collection", "<0@far.test>")
    assert accepted.peer == f"127.0.0.1:{home.maildrop.port}"
    whole = await home.whole((await home.storage.maildrops.list(home.account)).uids[0])
    assert whole.startswith(f"Received: from 127.0.0.1\r\n\tby home.test with POP3 id {queue_id};".encode())


@pytest.mark.parametrize("content", [b"", b"\r\n", b"no header\r\n", b".\r\n..\r\n", b"a: b\r\n\r\n.x\r\n" * 1000])
async def test_what_is_no_message_is_kept_as_it_is(home: Home, content: bytes) -> None:
    home.maildrop.messages = [("one", content)]
    assert (await home.collect()).failure == ""
    # (POP3 ends each line, the last one too.)
    assert await home.contents() == [content or b"\r\n"]


async def test_a_header_without_end_is_kept(home: Home) -> None:
    home.maildrop.messages = [("bomb", b"x: y\r\n" * 100_000)]
    assert (await home.collect()).collected == 1
    assert await home.contents() == [b"x: y\r\n" * 100_000]


@pytest.mark.conformance("C267", "C269")
@pytest.mark.parametrize("pipelining", [False, True])
async def test_a_broken_connection_costs_nothing_and_doubles_nothing(home: Home, pipelining: bool) -> None:
    home.maildrop.pipelining = pipelining
    wanted = fill(home, 60)
    await home.keep(Policy(Keeping.DELETE))
    for cut in range(0, 180, 4):
        home.maildrop.cut_after = cut
        report = await home.collect()
        assert report.failure
        assert not report.deleted
        assert len(home.maildrop.messages) == 60
    home.maildrop.cut_after = None
    await home.collect()
    assert sorted(await home.contents()) == sorted(wanted)
    assert home.maildrop.messages == []


@pytest.mark.conformance("C267")
async def test_an_end_that_was_not_heard_deletes_nothing_here(home: Home) -> None:
    wanted = fill(home, 3)
    await home.keep(Policy(Keeping.DELETE))
    home.maildrop.cut_at_quit = True
    assert (await home.collect()).failure
    assert home.maildrop.messages == []
    home.maildrop.cut_at_quit = False
    assert (await home.collect()).failure == ""
    assert await home.contents() == wanted


@pytest.mark.conformance("C267")
async def test_nothing_is_deleted_there_that_could_not_be_committed_here(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = fill(home, 10)
    await home.keep(Policy(Keeping.DELETE))
    original, seen = SqliteStorage.accept, 0

    async def full(storage: SqliteStorage, acceptance: object) -> None:
        nonlocal seen
        seen += 1
        if seen > 4:
            raise StorageFull("the disk is full")
        await original(storage, acceptance)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStorage, "accept", full)
        with pytest.raises(StorageFull):
            await home.collect()
    assert len(home.maildrop.messages) == 10
    assert len(await home.contents()) == 4
    await home.collect()
    assert sorted(await home.contents()) == sorted(wanted)
    assert home.maildrop.messages == []


@pytest.mark.conformance("C267")
async def test_a_crash_between_commit_and_deletion_makes_no_second_copy(home: Home) -> None:
    wanted = fill(home, 5)
    home.maildrop.cut_at_quit = True
    await home.collect()
    await home.crash()
    home.maildrop.cut_at_quit = False
    assert (await home.collect()).collected == 0
    assert await home.contents() == wanted


async def test_days_are_counted_from_when_it_came(home: Home) -> None:
    fill(home, 2)
    await home.keep(Policy(Keeping.DAYS, 7))
    await home.collect()
    home.clock.time += 6 * DAY_S
    home.maildrop.messages.append(("later", message(9)))
    assert (await home.collect()).deleted == 0
    home.clock.time += DAY_S
    assert (await home.collect()).deleted == 2
    assert [uidl for uidl, _ in home.maildrop.messages] == ["later"]
    assert len(await home.contents()) == 3


async def test_what_is_deleted_here_is_deleted_there(home: Home) -> None:
    fill(home, 3)
    await home.keep(Policy(Keeping.MIRROR))
    assert (await home.collect()).deleted == 0
    uids = (await home.storage.maildrops.list(home.account)).uids
    await home.storage.folders.move(home.account, INBOX, uids[:1], "Elsewhere")
    await home.storage.folders.move(home.account, INBOX, uids[1:2], TRASH)
    await home.storage.folders.remove(home.account, INBOX, uids[2:])
    assert (await home.collect()).deleted == 2
    assert [uidl for uidl, _ in home.maildrop.messages] == ["uidl0"]


async def test_an_empty_maildrop_is_not_believed_at_once(home: Home) -> None:
    fill(home, 3)
    await home.collect()
    held, home.maildrop.messages = home.maildrop.messages, []
    for _ in range(2):
        await home.collect()
        assert all(known.gone_at is None for known in (await home.storage.sources.known(await home.source())).values())
    await home.collect()
    assert all(known.gone_at for known in (await home.storage.sources.known(await home.source())).values())
    home.maildrop.messages = held
    assert (await home.collect()).collected == 0
    assert all(known.gone_at is None for known in (await home.storage.sources.known(await home.source())).values())


async def test_a_name_that_is_gone_is_remembered_for_ninety_days(home: Home) -> None:
    fill(home, 2)
    await home.collect()
    lost = home.maildrop.messages.pop()
    await home.collect()
    home.clock.time += 80 * DAY_S
    home.maildrop.messages.append(lost)
    assert (await home.collect()).collected == 0
    home.maildrop.messages.pop()
    await home.collect()
    home.clock.time += 91 * DAY_S
    await home.collect()
    home.maildrop.messages.append(("other", message(7)))
    await home.collect()
    assert sorted(await home.storage.sources.known(await home.source())) == ["other", "uidl0"]


async def test_a_migrated_server_is_recognised(home: Home) -> None:
    wanted = fill(home, 30)
    await home.collect()
    home.maildrop.messages = [(f"new{number}", octets) for number, octets in enumerate(wanted)]
    home.maildrop.messages.append(("really", message(99)))
    home.maildrop.lie_octets = 7
    fetched = home.maildrop.fetched()
    report = await home.collect()
    assert (report.recognised, report.collected) == (30, 1)
    assert home.maildrop.fetched() == fetched + 1
    assert await home.contents() == [*wanted, message(99)]
    assert (await home.collect()).recognised == 0


async def test_one_renamed_message_is_recognised_by_its_size_and_header(home: Home) -> None:
    fill(home, 5)
    await home.collect()
    _, octets = home.maildrop.messages.pop()
    home.maildrop.messages += [("renamed", octets), ("as-large", message(6))]
    report = await home.collect()
    assert (report.recognised, report.collected, report.failure) == (1, 1, "")


@pytest.mark.conformance("C268")
async def test_without_uidl_messages_are_known_by_their_headers(home: Home) -> None:
    wanted = fill(home, 5)
    home.maildrop.has_uidl = False
    assert (await home.collect()).collected == 5
    del home.maildrop.messages[0]
    assert (await home.collect()).collected == 0
    assert home.maildrop.fetched() == 5
    assert await home.contents() == wanted


@pytest.mark.conformance("C268")
async def test_without_uidl_and_top_nothing_is_fetched(home: Home) -> None:
    fill(home, 5)
    home.maildrop.has_uidl = home.maildrop.has_top = False
    report = await home.collect()
    assert "neither UIDL nor TOP" in report.failure
    assert not home.maildrop.fetched()


@pytest.mark.conformance("C268")
async def test_a_uidl_that_repeats_names_each_of_its_messages(home: Home) -> None:
    home.maildrop.messages = [("same", message(1)), ("same", message(2)), ("same", message(1)), ("own", message(3))]
    assert (await home.collect()).collected == 3
    assert await home.contents() == [message(1), message(2), message(3)]
    del home.maildrop.messages[2]
    assert (await home.collect()).collected == 0


async def test_what_the_server_does_not_give_is_told_and_tried_again(home: Home) -> None:
    fill(home, 5)
    home.maildrop.refuse_retr = frozenset({"uidl2"})
    report = await home.collect()
    assert report.collected == 4
    assert report.failure == "1 message was not given by the server: it is broken"
    home.maildrop.refuse_retr = frozenset()
    assert (await home.collect()).collected == 1


@pytest.mark.conformance("C269")
async def test_a_message_that_is_too_large_ends_the_session(home: Home) -> None:
    home.maildrop.messages = [("one", message(1)), ("large", message(2, "x" * 100_000))]
    home.largest_octets = 50_000
    report = await home.collect()
    assert "larger than 50" in report.failure
    assert await home.contents() == [message(1)]


@pytest.mark.parametrize(
    ("said", "refused", "waits_s"),
    [
        ("[AUTH] wrong", True, 60.0),
        ("wrong", False, 60.0),
        ("[IN-USE] later", False, 300.0),
        ("[SYS/TEMP] later", False, 300.0),
        ("[LOGIN-DELAY] later", False, 300.0),
    ],
)
async def test_only_a_wrong_password_asks_for_another(home: Home, said: str, refused: bool, waits_s: float) -> None:
    home.maildrop.refuse_login = said
    report = await home.collect()
    assert report.refused is refused
    state = (await home.source()).state
    assert (state.refused, state.failures, state.failure) == (refused, 1, report.failure)
    assert state.next_at - home.clock.time == waits_s
    assert "secret" not in report.failure
    await home.collect()
    assert (await home.source()).state.next_at - home.clock.time >= 120.0
    home.maildrop.refuse_login = None
    await home.collect()
    state = (await home.source()).state
    assert (state.failures, state.failure, state.refused, state.collected_at) == (0, "", False, home.clock.time)


@pytest.mark.conformance("C269")
@pytest.mark.parametrize("lie", [-50, 7, 10**12])
async def test_a_size_that_lies_changes_nothing(home: Home, lie: int) -> None:
    wanted = fill(home, 5)
    home.maildrop.lie_octets = lie
    assert (await home.collect()).collected == 5
    assert await home.contents() == wanted


@pytest.mark.conformance("C268")
async def test_a_long_uidl_is_a_name_like_others(home: Home) -> None:
    home.maildrop.messages = [("x" * 200, message(1)), ("x" * 200 + "y", message(2))]
    assert (await home.collect()).collected == 2
    assert (await home.collect()).collected == 0
