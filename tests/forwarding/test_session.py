"""One claim at one destination: what is remembered of hosts, limits of a transaction, connections that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from posthouse.config_forwarding import Credentials, Forwarding
from posthouse.config_values import Endpoint
from posthouse.forwarding.attempt import Attempt
from posthouse.forwarding.hosts import BUSY_S, FIRST_S
from posthouse.forwarding.pool import IDLE_S, POOL_LIMIT
from posthouse.forwarding.relay import Relay
from posthouse.forwarding.session import ClaimLost
from posthouse.mail.acceptance import Destination
from posthouse.mail.address import Address, parse_address
from posthouse.mail.content import ContentFacts
from posthouse.mail.journey import LEFT_ALONE
from posthouse.mail.outcome import Deferred, Delivered, Failed, Uncertain
from posthouse.mail.spool import AT_ONCE, SpoolRow
from tests.fake_world import FakeClock
from tests.forwarding.peer import DROP, EHLO, Peer, Script, peer
from tests.forwarding.relays import THERE, Contents, attempt, attempt_in, kinds, relay_to
from tests.forwarding.rows import a_message, a_row


def rows(count: int) -> tuple[SpoolRow, ...]:
    return tuple(a_row(f"r{number}", recipient_number=number) for number in range(count))


async def a_claim(relay: Relay, *messages: tuple[SpoolRow, ...]) -> list[Attempt]:
    """Each message of a claim, as the runner does."""
    session = relay.session(THERE)
    done = [await session.attempt(each) for each in messages or ((a_row(),),)]
    await session.close()
    return done


async def leave(relay: Relay) -> int:
    """End what waits; how many connections."""
    waiting = relay.pool.tired(everything=True)
    for opened in waiting:
        await opened.connection.quit()
    return len(waiting)


def verbs(next_hop: Peer) -> list[str]:
    return [line.split(" ")[0] for line in next_hop.commands]


@pytest.mark.conformance("C97")
async def test_a_dead_host_is_not_asked_again_inside_its_back_off() -> None:
    clock = FakeClock()
    relay, ports = relay_to(None, None, clock=clock)
    (first,) = await a_claim(relay)
    assert ports.tried == ["192.0.2.1", "192.0.2.2"]
    assert first.not_before is None
    clock.advance(FIRST_S - 1)
    (second,) = await a_claim(relay)
    assert len(ports.tried) == 2, "both are left alone"
    assert kinds(second) == [Deferred]
    assert second.not_before == clock.now() + 1
    assert any("alone" in line for line in second.transcript)
    clock.advance(1)
    (third,) = await a_claim(relay)
    assert len(ports.tried) == 4
    assert third.not_before is None


async def test_that_a_host_is_left_alone_is_told_only_where_none_was_asked() -> None:
    clock = FakeClock()
    relay, ports = relay_to(None, None, clock=clock)
    await a_claim(relay)
    relay.hosts.answered(Endpoint("192.0.2.1", 25))
    (mixed,) = await a_claim(relay)
    assert len(ports.tried) == 3
    assert "No connection to mx1.test" in str(mixed.outcomes[0].reply)
    clock.advance(BUSY_S)
    relay.hosts.failed(Endpoint("192.0.2.1", 25))
    (alone,) = await a_claim(relay)
    assert len(ports.tried) == 3
    assert str(alone.outcomes[0].reply).endswith(LEFT_ALONE)


@pytest.mark.conformance("C97")
async def test_a_host_that_never_greets_is_dead_too_and_its_neighbour_is_not() -> None:
    async with peer({"": DROP}) as first, peer() as second:
        relay, _ports = relay_to(first, second)
        done = [(await a_claim(relay))[0] for _ in range(3)]
    assert [kinds(each) for each in done] == [[Delivered]] * 3
    assert (first.connections, second.connections) == (1, 3)


@pytest.mark.conformance("C97")
async def test_a_host_that_answers_again_is_forgotten() -> None:
    clock = FakeClock()
    async with peer({"": DROP}) as next_hop:
        relay, _ports = relay_to(next_hop, clock=clock)
        await a_claim(relay)
        clock.advance(FIRST_S)
        next_hop.script = lambda _line, _number: None
        assert kinds((await a_claim(relay))[0]) == [Delivered]
        assert kinds((await a_claim(relay))[0]) == [Delivered]


@pytest.mark.conformance("C97")
@pytest.mark.parametrize("answer", ["550 5.7.1 not you", "554 5.7.1 never"])
async def test_a_refusal_of_one_sender_is_not_remembered_for_the_next(answer: str) -> None:
    async with peer(lambda line, _number: answer if "ada@" in line and "MAIL" in line else None) as next_hop:
        relay, _ports = relay_to(next_hop)
        eve = a_row(reverse_path=Address("eve", "here.test"))
        done = await a_claim(relay, (a_row(),), (eve,), (a_row(),), (eve,))
        again = await a_claim(relay, (eve,))
    assert [kinds(each) for each in done] == [[Failed], [Delivered], [Failed], [Delivered]]
    assert kinds(again[0]) == [Delivered]
    assert next_hop.connections == 2


async def test_a_dead_host_is_asked_at_once_where_a_person_wants_it() -> None:
    relay, ports = relay_to(None)
    await a_claim(relay)
    async with peer() as next_hop:
        ports.ports["192.0.2.1"] = next_hop.port
        (waits,) = await a_claim(relay)
        # A claim begins with those that were due first.
        wanted, after = await a_claim(relay, (a_row(not_before=AT_ONCE),), (a_row(message=a_message("q3")),))
    assert (kinds(waits), kinds(wanted), kinds(after)) == ([Deferred], [Delivered], [Delivered])


@pytest.mark.conformance("C97")
async def test_refusing_everybody_at_the_greeting_is_an_answer_not_a_death() -> None:
    async with peer({"": "554 5.3.2 no"}) as next_hop:
        relay, _ports = relay_to(next_hop)
        for _ in range(2):
            assert kinds((await a_claim(relay))[0]) == [Failed]
    assert next_hop.connections == 2


@pytest.mark.conformance("C98")
async def test_at_most_a_hundred_recipients_share_a_transaction() -> None:
    async with peer() as next_hop:
        done = await attempt(next_hop, rows=rows(150))
    assert kinds(done) == [Delivered] * 150
    assert [len(recipients) for recipients, _content in next_hop.messages] == [100, 50]
    assert sorted(next_hop.recipients) == sorted(str(row.forward_path) for row in rows(150))
    assert next_hop.connections == 1


def at_most(next_hop: Peer, limit: int, answer: str) -> Script:
    """A script that refuses the recipients above a limit."""

    def script(line: str, _number: int) -> str | None:
        if not line.startswith("RCPT"):
            return None
        said = verbs(next_hop)
        begun = len(said) - said[::-1].index("MAIL")
        return answer if said[begun:].count("RCPT") > limit else None

    return script


@pytest.mark.conformance("C99")
@pytest.mark.parametrize("answer", ["552 too many", "552 5.5.3 too many", "452 4.5.3 too many"])
@pytest.mark.parametrize("ehlo", [EHLO, "250 there.test"])
async def test_of_whom_the_host_had_too_many_the_rest_follows_at_once(answer: str, ehlo: str) -> None:
    async with peer(ehlo=ehlo) as next_hop:
        next_hop.script = at_most(next_hop, 10, answer)
        done = await attempt(next_hop, rows=rows(25))
    assert kinds(done) == [Delivered] * 25
    assert [len(recipients) for recipients, _content in next_hop.messages] == [10, 10, 5]
    assert sorted(next_hop.recipients) == sorted(str(row.forward_path) for row in rows(25))
    assert next_hop.connections == 1
    # What the host bears is asked of it from then on.
    assert verbs(next_hop).count("RCPT") <= 25 + 15


@pytest.mark.conformance("C99")
@pytest.mark.parametrize("answer", ["552 too many", "452 4.5.3 too many", "552 5.2.2 full", "452 4.2.2 full"])
async def test_who_is_refused_alone_waits_for_the_schedule(answer: str) -> None:
    async with peer({"RCPT TO:<r1@": answer}) as next_hop:
        done = await attempt(next_hop, rows=rows(3))
    assert kinds(done) == [Delivered, Deferred, Delivered]
    assert len(next_hop.messages) == 1
    assert next_hop.recipients == ["r0@there.test", "r2@there.test"]


async def test_a_host_that_takes_nobody_is_not_asked_without_end() -> None:
    async with peer({"RCPT": "452 4.5.3 too many"}) as next_hop:
        done = await attempt(next_hop, rows=rows(20))
    assert kinds(done) == [Deferred] * 20
    assert verbs(next_hop).count("MAIL") == 1


@pytest.mark.parametrize(("limits", "sizes"), [("RCPTMAX=3", [3, 3, 2]), ("RCPTMAX=100 RCPTDOMAINMAX=1", [8])])
async def test_the_limits_that_a_host_announces_are_kept(limits: str, sizes: list[int]) -> None:
    async with peer(ehlo=EHLO.replace("250-DSN", f"250-LIMITS {limits}")) as next_hop:
        done = await attempt(next_hop, rows=rows(8))
    assert kinds(done) == [Delivered] * 8
    assert [len(recipients) for recipients, _content in next_hop.messages] == sizes


async def test_after_as_many_messages_as_a_host_takes_another_connection_follows() -> None:
    async with peer(ehlo=EHLO.replace("250-DSN", "250-LIMITS MAILMAX=2")) as next_hop:
        relay, _ports = relay_to(next_hop, pool_limit=POOL_LIMIT)
        done = await a_claim(relay, *((row,) for row in rows(5)))
        assert next_hop.connections == 3
        assert await leave(relay) == 1, "the third has room for one more"
    assert [kinds(each) for each in done] == [[Delivered]] * 5
    assert verbs(next_hop).count("QUIT") == 3


async def test_a_connection_waits_for_the_next_claim() -> None:
    clock = FakeClock()
    async with peer() as next_hop:
        relay, _ports = relay_to(next_hop, pool_limit=POOL_LIMIT, clock=clock)
        for _ in range(3):
            assert kinds((await a_claim(relay))[0]) == [Delivered]
            clock.advance(IDLE_S / 2)
        assert next_hop.connections == 1
        assert "QUIT" not in next_hop.commands
        clock.advance(IDLE_S / 2)
        (tired,) = relay.pool.tired()
        await tired.connection.quit()
        assert relay.pool.tired(everything=True) == []
    assert next_hop.commands[-1] == "QUIT"


@pytest.mark.parametrize("farewell", ["421 4.4.2 idle", DROP, "451 4.7.1 enough"])
async def test_the_first_failure_of_a_kept_connection_is_not_held_against_the_message(farewell: str) -> None:
    async with peer(
        lambda line, number: farewell if line.startswith("MAIL") and "eve" in line and number == 1 else None
    ) as next_hop:
        relay, _ports = relay_to(next_hop, pool_limit=POOL_LIMIT)
        await a_claim(relay)
        eve = a_row(reverse_path=Address("eve", "here.test"))
        (done,) = await a_claim(relay, (eve,))
        assert kinds(done) == [Delivered]
        assert next_hop.connections == 2
        await leave(relay)


@pytest.mark.parametrize("farewell", ["451 4.7.1 enough of you", "452 4.5.3 too many messages", "421 4.7.0 bye", DROP])
async def test_a_host_that_takes_one_message_in_a_connection_gets_each_in_its_own(farewell: str) -> None:
    used: set[int] = set()

    def script(line: str, number: int) -> str | None:
        if line == ".":
            used.add(number)
        return farewell if line.startswith("MAIL") and number in used else None

    async with peer(script) as next_hop:
        relay, _ports = relay_to(next_hop)
        done = await a_claim(relay, *((row,) for row in rows(4)))
    assert [kinds(each) for each in done] == [[Delivered]] * 4
    assert all(each.slow_down is None for each in done)


@pytest.mark.parametrize("answer", ["451 4.3.0 later", "452 4.3.1 full"])
async def test_where_one_host_cannot_take_any_mail_now_another_is_asked(answer: str) -> None:
    async with peer({"MAIL": answer}) as first, peer() as second:
        done = await attempt(first, second)
    assert kinds(done) == [Delivered, Delivered]
    assert first.commands[-1] == "QUIT"


async def test_what_is_refused_for_now_says_nothing_of_the_next_message() -> None:
    async with peer({"MAIL FROM:<ada": "451 4.3.0 later"}) as first:
        relay, _ports = relay_to(first, None)
        later, taken = await a_claim(relay, (a_row(),), (a_row(reverse_path=Address("eve", "here.test")),))
    assert (kinds(later), kinds(taken)) == ([Deferred], [Delivered])
    assert later.outcomes[0].reply.text == "later"


async def test_what_one_host_takes_later_is_not_returned_since_another_never_can() -> None:
    message = a_message(facts=ContentFacts(eight_bit_body=True))
    async with peer({"MAIL": "451 4.3.0 later"}) as first, peer(ehlo="250 there.test") as second:
        done = await attempt(first, second, rows=(a_row(message=message),))
    assert kinds(done) == [Deferred]
    assert second.connections == 1


async def test_not_all_hosts_of_a_domain_are_asked_for_one_that_refuses_for_now() -> None:
    async with peer({"MAIL": "451 4.3.0 later"}) as first, peer({"MAIL": "451 4.3.0 no"}) as second, peer() as third:
        relay, _ports = relay_to(first, second, third)
        done = await a_claim(relay, *((row,) for row in rows(3)))
    assert [kinds(each) for each in done] == [[Deferred]] * 3
    assert third.connections == 0


async def test_whom_a_host_does_not_know_as_a_sender_now_another_will_not_either() -> None:
    async with peer({"MAIL": "450 4.1.8 sender's domain not found"}) as first, peer() as second:
        done = await attempt(first, second)
    assert kinds(done) == [Deferred, Deferred]
    assert second.connections == 0


async def test_a_host_that_refuses_one_connection_of_several_is_busy() -> None:
    def script(line: str, number: int) -> str | None:
        return DROP if line == "" and number == 2 else None

    async with peer(script) as next_hop:
        relay, _ports = relay_to(next_hop)
        first, second, third = relay.session(THERE), relay.session(THERE), relay.session(THERE)
        assert kinds(await first.attempt((a_row(),))) == [Delivered]
        assert kinds(await second.attempt((a_row(),))) == [Deferred]
        assert kinds(await third.attempt((a_row(),))) == [Delivered]
        for session in (first, second, third):
            await session.close()


async def test_a_connection_waits_only_after_a_message_that_was_taken() -> None:
    async with peer({"RCPT": "550 5.1.1 no"}) as next_hop:
        relay, _ports = relay_to(next_hop, pool_limit=POOL_LIMIT)
        await a_claim(relay)
    assert next_hop.commands[-1] == "QUIT"
    assert await leave(relay) == 0


async def test_on_a_fresh_connection_it_is() -> None:
    async with peer({"MAIL": "451 4.7.1 enough"}) as next_hop:
        relay, _ports = relay_to(next_hop, pool_limit=POOL_LIMIT)
        assert kinds((await a_claim(relay))[0]) == [Deferred]
        assert next_hop.connections == 1


@pytest.mark.parametrize("says", ["421 4.4.2 idle\r\n", "250 surprise\r\n", ""])
async def test_a_kept_connection_that_spoke_or_left_is_dropped(says: str) -> None:
    async with peer() as next_hop:
        relay, _ports = relay_to(next_hop, pool_limit=POOL_LIMIT)
        await a_claim(relay)
        ((_since, opened),) = relay.pool._idle
        assert opened.is_quiet
        next_hop.writers[0].write(says.encode())
        if not says:
            next_hop.writers[0].close()
        while opened.is_quiet:
            await asyncio.sleep(0)
        assert kinds((await a_claim(relay))[0]) == [Delivered]
        assert next_hop.connections == 2
        assert verbs(next_hop).count("MAIL") == 2, "nothing was said over the first one any more"
        await leave(relay)


ONCE = ["MAIL", "RCPT", "DATA"]


@pytest.mark.conformance("C102")
@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, ["EHLO", *ONCE, *ONCE, "QUIT"]),
        ({"RCPT": "550 5.1.1 no"}, ["EHLO", *ONCE, "RSET", *ONCE, "QUIT"]),
        ({"DATA": "451 4.3.0 no"}, ["EHLO", *ONCE, "RSET", *ONCE, "QUIT"]),
        ({"MAIL": "550 5.7.1 no"}, ["EHLO", *ONCE, *ONCE, "QUIT"]),
        ({"": "554 5.3.2 no"}, []),
    ],
)
async def test_a_session_ends_with_quit_and_after_refusals_begins_with_rset(
    answers: dict[str, str | bytes], said: list[str]
) -> None:
    async with peer(answers, EHLO) as next_hop:
        relay, _ports = relay_to(next_hop)
        await a_claim(relay, (a_row(),), (a_row(),))
    assert verbs(next_hop) == said


@pytest.mark.conformance("C101")
async def test_each_recipient_has_its_own_outcome() -> None:
    answers: dict[str, str | bytes] = {"RCPT TO:<r1@": "450 4.2.1 later", "RCPT TO:<r3@": "550 5.1.1 nobody"}
    async with peer(answers) as next_hop:
        done = await attempt(next_hop, rows=rows(5))
    assert kinds(done) == [Delivered, Deferred, Delivered, Failed, Delivered]
    assert next_hop.recipients == ["r0@there.test", "r2@there.test", "r4@there.test"]


JOERG = Address("jörg", "there.test")


@pytest.mark.conformance("C195")
async def test_whose_address_the_host_cannot_take_fails_alone() -> None:
    plain, other = a_row("bob"), a_row(forward_path=JOERG, recipient_number=1)
    for together in ((plain, other), (other, plain)):
        async with peer(ehlo="250-there.test\r\n250 8BITMIME") as next_hop:
            done = await attempt(next_hop, rows=together)
        assert dict(zip(done.rows, kinds(done), strict=True)) == {plain: Delivered, other: Failed}
        assert all(line.isascii() for line in next_hop.commands)


@pytest.mark.conformance("C195", "C196")
async def test_an_internationalised_domain_goes_as_a_labels_and_needs_no_smtputf8() -> None:
    """`parse_address` makes A-labels of domains, so that only local parts can need the extension."""
    row = a_row(forward_path=parse_address("bob@bücher.test"))
    async with peer(ehlo="250 there.test") as next_hop:
        done = await attempt(next_hop, rows=(row,))
    assert kinds(done) == [Delivered]
    assert "RCPT TO:<bob@xn--bcher-kva.test>" in next_hop.commands


@pytest.mark.conformance("C195")
async def test_a_header_in_utf8_never_reaches_a_host_that_does_not_take_it() -> None:
    message = a_message(facts=ContentFacts(eight_bit_header=True), smtputf8=True)
    async with peer(ehlo="250-there.test\r\n250 8BITMIME") as next_hop:
        done = await attempt(next_hop, rows=(a_row(message=message),))
    assert kinds(done) == [Failed]
    assert str(done.outcomes[0].reply.enhanced) == "5.6.7"
    assert verbs(next_hop) == ["EHLO", "QUIT"]


@pytest.mark.conformance("C162")
async def test_eight_bits_are_neither_stripped_nor_converted() -> None:
    content = "Subject: 8\r\n\r\nGrüße\r\n".encode()
    message = a_message(content=content, facts=ContentFacts(eight_bit_body=True))
    async with peer() as able, peer(ehlo="250 there.test") as unable:
        taken = await attempt(able, rows=(a_row(message=message),), content=Contents(content))
        refused = await attempt(unable, rows=(a_row(message=message),), content=Contents(content))
    assert kinds(taken) == [Delivered]
    assert able.messages[0][1].endswith(content)
    assert kinds(refused) == [Failed]
    assert str(refused.outcomes[0].reply.enhanced) == "5.6.3"
    assert unable.messages == []


@pytest.mark.conformance("C152")
async def test_what_is_too_large_for_the_host_is_not_sent_there() -> None:
    message = a_message(content=b"x" * 2000)
    async with peer(ehlo="250-there.test\r\n250 SIZE 1000") as next_hop:
        done = await attempt(next_hop, rows=(a_row(message=message),))
    assert kinds(done) == [Failed]
    assert str(done.outcomes[0].reply.enhanced) == "5.3.4"
    assert verbs(next_hop) == ["EHLO", "QUIT"]


VIA = Destination("127.0.0.1:587", "there.test")


def own_server(next_hop: Peer, **options: object) -> Relay:
    """A relay of a house one of whose identities sends through its own server, here on loopback."""
    login = {"127.0.0.1:587": {"user": "me", "password_file": "p", "tls": "never"}}
    relay, ports = relay_to(
        terms=Forwarding.model_validate({"login": login}),
        credentials={"127.0.0.1:587": Credentials("me", "geheim")},
        **options,  # type: ignore[arg-type]
    )
    ports.ports["127.0.0.1"] = next_hop.port
    return relay


WITH_LOGIN = EHLO.replace("250-DSN", "250-AUTH PLAIN")


@pytest.mark.parametrize("ehlo", [WITH_LOGIN, "250-there.test\r\n250 AUTH PLAIN"])
async def test_a_durable_mark_precedes_the_final_dot_of_an_identity(ehlo: str) -> None:
    marked: list[int] = []

    async with peer({"AUTH": "235 2.7.0 in"}, ehlo) as next_hop:

        async def mark(rows: object) -> bool:
            marked.append(len(next_hop.messages))
            return True

        done = await attempt_in(own_server(next_hop).session(VIA, mark=mark), rows(2))
    assert kinds(done) == [Delivered, Delivered]
    assert marked == [0], "once, and before it was taken"


async def test_without_its_mark_no_dot_leaves() -> None:
    async def lost(_rows: object) -> bool:
        return False

    async with peer({"AUTH": "235 2.7.0 in"}, WITH_LOGIN) as next_hop:
        session = own_server(next_hop).session(VIA, mark=lost)
        with pytest.raises(ClaimLost):
            await session.attempt((a_row(),))
        session.abort()
    assert next_hop.messages == []


async def test_after_the_dot_its_owner_must_decide() -> None:
    async def mark(_rows: object) -> bool:
        return True

    async with peer({"AUTH": "235 2.7.0 in", ".": DROP}, WITH_LOGIN) as next_hop:
        done = await attempt_in(own_server(next_hop).session(VIA, mark=mark), rows(2))
    assert kinds(done) == [Uncertain, Uncertain]
    assert "posthouse queue release" in done.outcomes[0].reply.text
    assert next_hop.connections == 1


async def test_only_who_may_get_it_is_marked() -> None:
    marked: list[int] = []

    async def mark(rows: Sequence[SpoolRow]) -> bool:
        marked.extend(row.recipient_number for row in rows)
        return True

    answers: dict[str, str | bytes] = {"AUTH": "235 2.7.0 in", "RCPT TO:<r1@": "550 5.1.1 nobody", ".": DROP}
    async with peer(answers, WITH_LOGIN) as next_hop:
        done = await attempt_in(own_server(next_hop).session(VIA, mark=mark), rows(3))
    assert kinds(done) == [Uncertain, Failed, Uncertain]
    assert marked == [0, 2]


async def test_other_mail_needs_no_mark() -> None:
    async def mark(_rows: object) -> bool:
        raise AssertionError

    async with peer() as next_hop:
        relay, _ports = relay_to(next_hop)
        done = await attempt_in(relay.session(THERE, mark=mark))
    assert kinds(done) == [Delivered, Delivered]


@pytest.mark.parametrize(
    ("answers", "asks"),
    [
        ({"": "421 4.7.0 too many connections"}, True),
        ({"": "450 4.7.1 later"}, True),
        ({"": "554 5.7.1 never"}, False),
        ({"MAIL": "421 4.7.0 too fast"}, True),
        ({"MAIL": "451 4.7.1 too fast"}, True),
        ({"MAIL": "452 4.3.1 full"}, True),
        ({"MAIL": "450 4.1.8 unknown sender"}, False),
        ({"MAIL": "550 5.7.1 no"}, False),
        ({"RCPT": "451 4.7.1 too fast"}, True),
        ({"RCPT": "450 4.2.1 busy"}, False),
        ({"RCPT": "452 4.2.2 full"}, False),
        ({"RCPT TO:<r1@": "451 4.7.1 later"}, False),
        ({"RCPT TO:<r1@": "421 4.7.0 too fast"}, True),
        ({".": "451 4.7.1 spam?"}, False),
        ({}, False),
    ],
)
async def test_what_asks_to_slow_down(answers: dict[str, str | bytes], asks: bool) -> None:
    async with peer(answers) as next_hop:
        done = await attempt(next_hop, rows=rows(2))
    assert (done.slow_down is not None) is asks


async def test_one_mailbox_that_is_busy_slows_nothing_down() -> None:
    async with peer({"RCPT": "450 busy"}) as next_hop:
        assert (await attempt(next_hop, rows=rows(1))).slow_down is None
        assert (await attempt(next_hop, rows=rows(2))).slow_down is not None
