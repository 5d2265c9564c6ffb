"""What mail is listed and found by: filled when asked, true wherever entries go, and right against a naive search."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posthouse.indexing import bring_up_to_date, index_step
from posthouse.mail.folders import ARCHIVE, INBOX, SEEN, TRASH
from posthouse.mail.ids import AccountId, QueueId, Uid
from posthouse.mail.indexed import Listed
from posthouse.mail.mail_query import MailQuery, parse_query
from tests.storage.contract.engines import kill
from tests.storage.contract.world import House, alice, bob

DAY_S = 86_400


def letter(subject: str = "", text: str = "", **fields: str) -> bytes:
    header = {"subject": subject, "from": "Bob <bob@far.test>", "to": "alice@house.test", **fields}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in header.items()]
    return "\r\n".join([*lines, "", text, ""]).encode()


async def arrive(house: House, account: AccountId, octets: bytes) -> QueueId:
    acceptance = await house.acceptance(to=[account], octets=octets)
    await house.storage.accept(acceptance)
    house.clock.time += 1
    return acceptance.queue_id


async def found(house: House, account: AccountId, query: str = "", limit: int = 100) -> Sequence[Listed]:
    await bring_up_to_date(house.storage, account)
    return await house.storage.reading.find(account, parse_query(query), limit)


async def subjects(house: House, account: AccountId, query: str = "", limit: int = 100) -> list[str]:
    return [each.subject for each in await found(house, account, query, limit)]


async def test_mail_is_listed_the_newest_first(house: House) -> None:
    account, other = await house.account(), await house.account(bob)
    for number in range(5):
        await arrive(house, account, letter(f"message {number}"))
    await arrive(house, other, letter("of another"))
    assert await subjects(house, account) == [f"message {number}" for number in (4, 3, 2, 1, 0)]
    assert await subjects(house, account, limit=2) == ["message 4", "message 3"]
    assert await subjects(house, other, "another") == ["of another"]
    assert await subjects(house, account, "another") == []
    assert not [flaw async for flaw in house.storage.check()]


async def test_words_are_found_where_they_are(house: House) -> None:
    account = await house.account()
    await arrive(house, account, letter("Invoice", "please pay", cc="Carol <carol@far.test>"))
    await arrive(house, account, letter("Grüße", "the invoice was paid", **{"from": "carol@far.test"}))
    attached = (
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: application/pdf; name=Plan.pdf\r\n"
    )
    await arrive(house, account, b"Subject: plan\r\nFrom: dan@x.test\r\n" + attached + b"\r\nx\r\n--x--\r\n")
    for query, wanted in {
        "invoice": ["Grüße", "Invoice"],
        "subject:invoice": ["Invoice"],
        "body:invoice": ["Grüße"],
        "grusse": [],
        "gruße": ["Grüße"],
        "from:carol": ["Grüße"],
        "from:carol@far.test": ["Grüße"],
        "to:carol": ["Invoice"],
        'carol "far test"': ["Grüße", "Invoice"],
        "inv*": ["Grüße", "Invoice"],
        "invoice -paid": ["Invoice"],
        "-invoice": ["plan"],
        "file:plan.pdf": ["plan"],
        "has:attachment": ["plan"],
        "-has:attachment": ["Grüße", "Invoice"],
        '"pay please"': [],
        '"please pay"': ["Invoice"],
        "invoice AND nothing": [],
        'un"closed': [],
        "!!! ...": ["plan", "Grüße", "Invoice"],
    }.items():
        assert await subjects(house, account, query) == wanted, query


async def test_flags_folders_and_days_narrow_it(house: House) -> None:
    account = await house.account()
    for number in range(4):
        await arrive(house, account, letter(f"m{number} word"))
        house.clock.time += DAY_S
    folders = house.storage.folders
    await folders.flag(account, INBOX, [Uid(1), Uid(2)], add=[SEEN])
    await folders.move(account, INBOX, [Uid(2), Uid(3)], ARCHIVE)
    assert await subjects(house, account, "is:unread") == ["m3 word", "m2 word"]
    assert await subjects(house, account, "word is:unread in:inbox") == ["m3 word"]
    assert await subjects(house, account, "in:archive") == ["m2 word", "m1 word"]
    assert await subjects(house, account, "word in:archive is:read") == ["m1 word"]
    assert await subjects(house, account, "in:nowhere") == []
    # The clock began at 2027-01-15.
    assert await subjects(house, account, "before:2027-01-17") == ["m1 word", "m0 word"]
    assert await subjects(house, account, "word on:2027-01-16") == ["m1 word"]
    assert await subjects(house, account, "after:2027-01-16") == ["m3 word", "m2 word"]
    assert await subjects(house, account, "word since:2027-01-16 before:2027-01-18") == ["m2 word", "m1 word"]


async def test_what_moves_and_goes_is_reflected_without_reading_it_again(house: House) -> None:
    account = await house.account()
    for number in range(3):
        await arrive(house, account, letter(f"m{number} word"))
    assert len(await found(house, account)) == 3
    await house.storage.folders.move(account, INBOX, [Uid(1)], TRASH)
    missing = await house.storage.reading.missing(account, 10)
    assert [(each.folder, each.is_known) for each in missing] == [(TRASH, True)]
    assert [(each.subject, each.folder) for each in await found(house, account, "word in:trash")] == [
        ("m0 word", TRASH)
    ]
    lock = await house.storage.maildrops.lock(account)
    await house.storage.maildrops.expunge(lock, [Uid(2)], [])  # type: ignore[arg-type]
    assert await house.storage.reading.missing_count(account) == 0
    # Found no more though the index still has it.
    assert [each.subject for each in await house.storage.reading.find(account, parse_query("word"), 9)] == [
        "m2 word",
        "m0 word",
    ]
    assert await house.storage.reading.tidy(account) == 1
    assert await house.storage.reading.tidy(account) == 0
    assert await subjects(house, account, "word") == ["m2 word", "m0 word"]


async def test_it_is_filled_in_steps_and_after_a_kill(house: House) -> None:
    account = await house.account()
    for number in range(7):
        await arrive(house, account, letter(f"m{number}"))
    assert await house.storage.reading.missing_count(account) == 7
    assert await index_step(house.storage, account, 3) == 3
    kill(house.storage)
    house.storage = await house.open_another()
    assert await house.storage.reading.missing_count(account) == 4
    assert len(await found(house, account)) == 7
    # Two that fill it at once do it once.
    await arrive(house, account, letter("m7"))
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(index_step(house.storage, account, 10))
    assert len(await found(house, account)) == 8
    assert not [flaw async for flaw in house.storage.check()]


async def test_who_reads_here_is_remembered(house: House) -> None:
    account = await house.account()
    assert await house.storage.reading.accounts() == ()
    for _ in range(2):
        await house.storage.reading.begin(account)
    assert await house.storage.reading.accounts() == (account,)
    await house.storage.administration.remove_account(str(alice), keep_mail=True, now=1.0)
    assert await house.storage.reading.accounts() == ()


async def test_nothing_is_known_of_an_account_that_went_with_its_mail(house: House) -> None:
    account, other = await house.account(), await house.account(bob)
    for _ in range(3):
        await arrive(house, account, letter("secret", message_id=f"<{house.clock.time}@x>"))
    await arrive(house, other, letter("secret"))
    for each in (account, other):
        await house.storage.reading.begin(each)
        await bring_up_to_date(house.storage, each)
    await house.storage.administration.remove_account(str(alice), keep_mail=False, now=1.0)
    assert await house.storage.reading.find(account, MailQuery(), 10) == ()
    await house.storage.reading.forget_removed()
    assert await house.storage.reading.tidy(account) == 0
    assert await house.storage.reading.named(account, "0", 10) == ()
    assert await house.storage.reading.accounts() == (other,)
    assert await subjects(house, other, "secret") == ["secret"]


async def test_ids_are_as_long_as_needed(house: House) -> None:
    account = await house.account()
    ids = [await arrive(house, account, letter(f"m{number}")) for number in range(50)]
    await bring_up_to_date(house.storage, account)
    short = await house.storage.reading.short_names(account, ids, 4)
    for queue_id, name in short.items():
        assert queue_id.startswith(name)
        assert [each.queue_id for each in await house.storage.reading.named(account, name, 9)] == [queue_id]
        if len(name) > 4:
            assert len(await house.storage.reading.named(account, name[:-1], 9)) > 1


async def conversations(house: House, account: AccountId) -> list[list[str]]:
    """Subjects of each, the one that began first first."""
    together: dict[int, list[str]] = {}
    for each in reversed(await found(house, account)):
        together.setdefault(each.conversation, []).append(each.subject)
    return list(together.values())


async def test_conversations_follow_references(house: House) -> None:
    account = await house.account()
    await arrive(house, account, letter("a", message_id="<1@x>"))
    await arrive(house, account, letter("other", message_id="<9@x>"))
    await arrive(house, account, letter("b", message_id="<2@x>", in_reply_to="<1@x>"))
    await arrive(house, account, letter("d", message_id="<4@x>", references="<3@x>"))
    assert await conversations(house, account) == [["a", "b"], ["other"], ["d"]]
    # What was missing between them connects them, though they were there before.
    await arrive(house, account, letter("c", message_id="<3@x>", references="<1@x>\r\n <2@x>"))
    assert await conversations(house, account) == [["a", "b", "d", "c"], ["other"]]
    first = (await found(house, account))[0]
    query = MailQuery(conversation=first.conversation)
    assert len(await house.storage.reading.find(account, query, 10)) == 4


async def test_a_subject_joins_only_an_answer_between_the_same_people(house: House) -> None:
    account = await house.account()
    await arrive(house, account, letter("Lunch on Friday", **{"from": "alice@house.test", "to": "bob@far.test"}))
    await arrive(house, account, letter("AW: Re: lunch  on friday"))
    await arrive(house, account, letter("Re: Lunch on Friday", **{"from": "eve@evil.test"}))
    await arrive(house, account, letter("Lunch on Friday"))
    house.clock.time += 40 * DAY_S
    await arrive(house, account, letter("Re: Lunch on Friday"))
    assert [len(each) for each in await conversations(house, account)] == [2, 1, 1, 1]


async def test_a_removed_letter_leaves_its_conversation_alone(house: House) -> None:
    account = await house.account()
    date = {"date": "Fri, 15 Jan 2027 08:00:00 +0000"}
    await arrive(house, account, letter("a", message_id="<1@x>", **date))
    await arrive(house, account, letter("b", message_id="<2@x>", references="<1@x>"))
    assert len(await conversations(house, account)) == 1
    await house.storage.folders.remove(account, INBOX, [Uid(1)])
    await house.storage.reading.tidy(account)
    # Of the same second: it must not get the number that the conversation still has.
    await arrive(house, account, letter("c", message_id="<3@x>", **date))
    assert sorted(await conversations(house, account)) == [["b"], ["c"]]


async def test_hostile_letters_are_listed(house: House) -> None:
    account = await house.account()
    for octets in (
        b"",
        b"\r\n",
        b"no header",
        b"Subject: \0\xff=?x?q?=00?=\r\n\r\n\0",
        b"Date: nonsense\r\nFrom: <<>>\r\n",
    ):
        await arrive(house, account, octets)
    many = b"References: " + b" ".join(b"<%d@x>" % number for number in range(5000))
    await arrive(house, account, many + b"\r\nDate: Mon, 1 Jan 9999 00:00:00 +0000\r\n\r\n")
    assert len(await found(house, account)) == 6
    assert (await found(house, account))[0].date == 1_800_000_005


WORDS = ["alpha", "beta", "Gamma", "delta9", "x-ray", "été", "ΑΒΓ", "bob@far.test"]
TEXTS = st.lists(st.sampled_from([*WORDS, ".", "alphabet"]), max_size=6).map(" ".join)
TERMS = st.builds(
    lambda no, field, word, star: f"{no}{field}{word}{star}",
    st.sampled_from(["", "", "", "-"]),
    st.sampled_from(["", "", "subject:", "body:", "from:"]),
    st.sampled_from([*WORDS, '"alpha beta"', "alp"]),
    st.sampled_from(["", "", "*"]),
)


def tokens(text: str) -> list[str]:
    import unicodedata

    plain = unicodedata.normalize("NFD", text.lower())
    return re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c)))


def holds(text: str, wanted: str, *, prefix: bool) -> bool:
    there, asked = tokens(text), tokens(wanted)
    for at in range(len(there) - len(asked) + 1):
        part = there[at : at + len(asked)]
        if part[:-1] == asked[:-1] and (part[-1].startswith(asked[-1]) if prefix else part[-1] == asked[-1]):
            return True
    return False


def naive(query: MailQuery, texts: dict[str, str]) -> bool:
    columns = {"subject": texts["subject"], "text": texts["text"], "sender": texts["sender"], "recipients": "alice@x"}
    for words in query.words:
        among = [columns[words.column]] if words.column else list(columns.values())
        if any(holds(text, words.text, prefix=words.is_prefix) for text in among) is words.is_not:
            return False
    return True


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(letters=st.lists(st.tuples(TEXTS, TEXTS), max_size=8), asked=st.lists(TERMS, min_size=1, max_size=3))
def test_search_is_as_good_as_a_naive_one(
    letters: list[tuple[str, str]], asked: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.storage.contract.engines import ENGINES, open_engine
    from tests.storage.contract.world import SeededRandom, SetClock

    async def compare() -> None:
        clock, chance = SetClock(), SeededRandom(7)
        storage = await open_engine(ENGINES[0], tmp_path_factory.mktemp("house") / "data", clock, chance)

        async def never() -> object:
            raise AssertionError

        house = House(storage, clock, chance, never)  # type: ignore[arg-type]
        try:
            account = await house.account()
            for number, (subject, text) in enumerate(letters):
                octets = letter(
                    f"{number}n {subject}", text, mime_version="1.0", content_type="text/plain; charset=utf-8"
                )
                await arrive(house, account, octets)
            query = parse_query(" ".join(asked))
            wanted = [
                f"{number}n"
                for number, (subject, text) in reversed(list(enumerate(letters)))
                if naive(query, {"subject": f"{number}n {subject}", "text": text, "sender": "Bob bob@far.test"})
            ]
            assert [each.split()[0] for each in await subjects(house, account, " ".join(asked))] == wanted
        finally:
            await storage.close()

    asyncio.run(compare())
