from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import replace

import pytest

from posthouse.config_values import Endpoint
from posthouse.forwarding.attempt import TRANSCRIPT_OCTETS, bounded
from posthouse.forwarding.dial import Dialer
from posthouse.mail.acceptance import Notify
from posthouse.mail.address import Address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import ContentId
from posthouse.mail.outcome import Deferred, Delivered, Failed, Outcome, Uncertain
from posthouse.mail.spool import SpoolRow
from posthouse.net.connect import TcpConnector
from posthouse.net.dns import MxHost
from posthouse.net.smtp_transcript import Step
from tests.fake_world import FakeClock, FakeResolver
from tests.forwarding.peer import DROP, peer
from tests.forwarding.relays import CONTENT, THERE, Contents, attempt, kinds, relay_to, session_to
from tests.forwarding.rows import a_message, a_row


async def test_a_message_arrives_as_it_is_with_our_prefix() -> None:
    async with peer() as next_hop:
        done = await attempt(next_hop)
    assert kinds(done) == [Delivered, Delivered]
    assert next_hop.messages == [(("bob@there.test", "eve@there.test"), b"Received: here\r\n" + CONTENT)]
    assert (done.next_hop, done.address) == ("mx1.test:25", "192.0.2.1")
    assert done.reports_passed_on
    assert "S: 250 2.0.0 Taken" in done.transcript
    assert not any("A dot" in line for line in done.transcript)


async def test_each_line_of_the_dialogue_has_its_time() -> None:
    class Ticking(FakeClock):
        def monotonic(self) -> float:
            self.steady_s += 0.01
            return super().monotonic()

    async with peer() as next_hop:
        session = relay_to(next_hop, clock=Ticking())[0].session(THERE)
        for _ in range(2):
            done = await session.attempt((a_row(),))
            times = done.transcript_ms
            assert len(times) == len(done.transcript) > 4
            assert list(times) == sorted(set(times))
            assert 0 < times[0] < times[-1] < round(done.duration_s * 1000)
        await session.close()


BOTH_LATER, BOTH_NEVER = [Deferred, Deferred], [Failed, Failed]
PHASES = [
    # command, its answer, the outcomes of bob and eve
    *(("", answer, kind) for answer, kind in [("451 later", BOTH_LATER), ("554 never", BOTH_NEVER)]),
    *(("EHLO", answer, kind) for answer, kind in [("451 later", BOTH_LATER)]),
    *((verb, "451 4.3.0 later", BOTH_LATER) for verb in ("MAIL", "RCPT", "DATA", ".")),
    *((verb, "550 5.7.1 never", BOTH_NEVER) for verb in ("MAIL", "RCPT", "DATA", ".")),
    *((verb, "421 4.3.2 closing", BOTH_LATER) for verb in ("", "EHLO", "MAIL", "RCPT", "DATA", ".")),
    *((verb, DROP, BOTH_LATER) for verb in ("", "MAIL", "RCPT", "DATA")),
    *((verb, b"\xff\x00garbage\r\n", BOTH_LATER) for verb in ("", "EHLO", "MAIL", "RCPT", "DATA")),
    *((verb, "354 more", BOTH_LATER) for verb in ("EHLO", "MAIL", "RCPT")),
    ("", "521 5.3.2 no mail here", BOTH_NEVER),  # RFC 7504
    ("RCPT", "556 5.1.10 no mail there", BOTH_NEVER),
    ("DATA", "250 2.0.0 fine", BOTH_LATER),
    (".", DROP, [Uncertain, Uncertain]),
    (".", b"garbage\r\n", [Uncertain, Uncertain]),
    (".", "354 more", [Uncertain, Uncertain]),
    ("RCPT TO:<bob", "550 5.1.1 no bob", [Failed, Delivered]),
    ("RCPT TO:<bob", "450 4.2.1 bob later", [Deferred, Delivered]),
    ("RCPT TO:<eve", "550 5.1.1 no eve", [Delivered, Failed]),
    ("RCPT TO:<eve", "452 4.5.3 too many", [Delivered, Deferred]),
    ("RCPT TO:<eve", "552 too many", [Delivered, Deferred]),
    ("RCPT TO:<eve", DROP, BOTH_LATER),
    ("RCPT TO:<eve", "421 4.3.2 closing", BOTH_LATER),
]


@pytest.mark.conformance("C44", "C100")
@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(("command", "answer", "outcomes"), PHASES)
async def test_each_phase_decides_for_each_recipient(
    command: str, answer: str | bytes, outcomes: list[type[Outcome]], pipelining: bool
) -> None:
    ehlo = "250-there.test\r\n250 PIPELINING" if pipelining else "250 there.test"
    async with peer({command: answer}, ehlo) as next_hop:
        done = await attempt(next_hop)
    assert kinds(done) == outcomes
    assert next_hop.recipients == [
        name for name, kind in zip(["bob@there.test", "eve@there.test"], outcomes, strict=True) if kind is Delivered
    ]


@pytest.mark.parametrize("endless", [b"250-more\r\n" * 5000, b"250 " + b"x" * 100_000 + b"\r\n", b"y" * 1_000_000])
async def test_endless_replies_end_the_session_and_are_not_kept(endless: bytes) -> None:
    async with peer({"MAIL": endless}) as next_hop:
        done = await attempt(next_hop)
    assert kinds(done) == BOTH_LATER
    assert sum(map(len, done.transcript)) <= TRANSCRIPT_OCTETS + 100


async def test_a_host_that_hangs_up_at_ehlo_gets_helo_over_a_fresh_connection() -> None:
    async with peer({"EHLO": DROP}) as next_hop:
        done = await attempt(next_hop)
        waits = await attempt(next_hop, rows=(a_row(message=EIGHT_BIT_BODY),))
    assert kinds(done) == [Delivered, Delivered]
    assert next_hop.connections == 4
    assert next_hop.commands[:2] == ["EHLO mx.here.test", "HELO mx.here.test"]
    # What it would have offered, nobody knows.
    assert kinds(waits) == [Deferred]


async def test_ehlo_refused_is_followed_by_helo() -> None:
    async with peer({"EHLO": "500 what"}) as next_hop:
        done = await attempt(next_hop)
    assert kinds(done) == [Delivered, Delivered]
    assert "HELO mx.here.test" in next_hop.commands
    assert not done.reports_passed_on


@pytest.mark.parametrize(
    "broken",
    [
        {"": "421 4.3.2 busy"},
        {"": "554 5.3.2 no service"},
        {"": DROP},
        {"EHLO": DROP, "HELO": DROP},
        {"EHLO": "421 4.3.2 busy"},
        {"MAIL": DROP},
        {"MAIL": "421 4.3.2 busy"},
        {"DATA": DROP},
    ],
)
async def test_the_second_host_is_tried_where_the_first_decides_nothing(broken: dict[str, str | bytes]) -> None:
    async with peer(broken) as first, peer() as second:
        done = await attempt(first, second)
    assert kinds(done) == [Delivered, Delivered]
    assert done.next_hop == "mx2.test:25"
    assert any("mx1.test" in line for line in done.transcript)


async def test_the_second_host_is_tried_where_the_first_does_not_answer() -> None:
    async with peer() as second:
        done = await attempt(None, second)
    assert kinds(done) == [Delivered, Delivered]
    assert second.connections == 1


@pytest.mark.conformance("C100")
async def test_nobody_is_tried_again_after_the_final_dot() -> None:
    async with peer({".": DROP}) as first, peer() as second:
        done = await attempt(first, second)
    assert kinds(done) == [Uncertain, Uncertain]
    assert second.connections == 0


async def test_a_refused_recipient_is_not_taken_to_the_second_host() -> None:
    async with peer({"RCPT TO:<bob": "550 5.1.1 no bob", "DATA": "421 4.3.2 closing"}) as first, peer() as second:
        done = await attempt(first, second)
    assert kinds(done) == [Failed, Deferred]
    assert second.connections == 0


async def test_later_wins_over_never_where_no_host_took_the_session() -> None:
    async with peer({"": "554 5.3.2 no"}) as first:
        assert kinds(await attempt(first, None)) == BOTH_LATER
        assert kinds(await attempt(None, first)) == BOTH_LATER
        assert kinds(await attempt(first)) == BOTH_NEVER


async def test_one_connection_serves_all_messages() -> None:
    async with peer({"RCPT TO:<bob": "550 5.1.1 no bob"}) as next_hop:
        session = session_to(next_hop)
        done = [await session.attempt((a_row(name),)) for name in ("eve", "bob", "joe", "bob", "ann")]
        await session.close()
    assert [kinds(each) for each in done] == [[Delivered], [Failed], [Delivered], [Failed], [Delivered]]
    assert next_hop.connections == 1
    assert next_hop.commands[-1] == "QUIT"
    assert [sum("MAIL FROM" in line for line in each.transcript) for each in done] == [1] * 5


async def test_a_host_that_is_tired_of_us_is_connected_to_again() -> None:
    taken = 0

    def two_each(line: str, _number: int) -> str | None:
        nonlocal taken
        if line == ".":
            taken += 1
        return "421 4.7.0 enough" if line.startswith("MAIL") and taken >= 4 else None

    async with peer(two_each) as next_hop:
        session = session_to(next_hop)
        done = [await session.attempt((a_row(),)) for _ in range(2)]
        taken = 4
        refused = await session.attempt((a_row(),))
        taken = 0
        again = await session.attempt((a_row(),))
        await session.close()
    assert [kinds(each) for each in (*done, refused, again)] == [[Delivered], [Delivered], [Deferred], [Delivered]]
    assert next_hop.connections == 3


async def test_a_dead_destination_is_asked_once_for_all_messages() -> None:
    relay, ports = relay_to(None, None)
    session = relay.session(THERE)
    done = [await session.attempt((a_row(),)) for _ in range(100)]
    assert ports.tried == ["192.0.2.1", "192.0.2.2"]
    assert all(kinds(each) == [Deferred] for each in done)
    assert not session.has_reached


async def test_a_host_that_breaks_everything_is_left_alone_after_two_messages() -> None:
    async with peer({"DATA": DROP}) as next_hop:
        session = session_to(next_hop)
        done = [await session.attempt((a_row(),)) for _ in range(10)]
    assert all(kinds(each) == [Deferred] for each in done)
    assert next_hop.connections == 2


async def test_one_message_that_breaks_the_connection_does_not_stop_the_others() -> None:
    async with peer({"RCPT TO:<bad": DROP}) as next_hop:
        session = session_to(next_hop)
        done = [await session.attempt((a_row(name),)) for name in ("a", "bad", "b", "bad", "c")]
        await session.close()
    assert [kinds(each) for each in done] == [[Delivered], [Deferred], [Delivered], [Deferred], [Delivered]]


async def test_content_that_cannot_be_read_never_looks_complete() -> None:
    async with peer() as next_hop:
        session = session_to(next_hop, content=Contents(damaged=frozenset({7})))
        with pytest.raises(RuntimeError, match="unreadable"):
            await session.attempt((a_row(message=a_message(content_id=ContentId(7))),))
        session.abort()
        assert kinds(await session.attempt((a_row(),))) == [Delivered]
        await session.close()
    assert len(next_hop.messages) == 1


EIGHT_BIT_BODY = a_message(facts=ContentFacts(eight_bit_body=True))
UTF8_HEADER = a_message(facts=ContentFacts(eight_bit_header=True), smtputf8=True)
PLAIN_ASKED_UTF8 = a_message(smtputf8=True)
JOERG = Address("jörg", "there.test")


@pytest.mark.conformance("C195")
@pytest.mark.parametrize(
    ("row", "missing", "code"),
    [
        (a_row(message=EIGHT_BIT_BODY), "8BITMIME", "5.6.3"),
        (a_row(message=UTF8_HEADER), "SMTPUTF8", "5.6.7"),
        (a_row(forward_path=JOERG), "SMTPUTF8", "5.6.7"),
        (a_row(reverse_path=replace(JOERG, domain="here.test")), "SMTPUTF8", "5.6.7"),
        (a_row(message=a_message(content=b"x" * 999_999)), "", "5.3.4"),
    ],
)
async def test_what_the_next_hop_cannot_take_fails_before_mail(row: SpoolRow, missing: str, code: str) -> None:
    offered = "\r\n".join(f"250-{word}" for word in ("8BITMIME", "SMTPUTF8", "SIZE 1000000") if word != missing)
    async with peer(ehlo=f"250-there.test\r\n{offered}\r\n250 HELP") as next_hop:
        done = await attempt(next_hop, rows=(row,))
    assert kinds(done) == [Failed]
    assert str(done.outcomes[0].reply.enhanced) == code
    assert not any(line.startswith("MAIL") for line in next_hop.commands)


def offering(*extensions: str) -> str:
    return "\r\n".join(("250-there.test", *(f"250-{each}" for each in extensions), "250 HELP"))


EVERYTHING = ("8BITMIME", "SMTPUTF8", "SIZE 1000000")


@pytest.mark.parametrize(
    ("row", "offered"),
    [
        (a_row(message=EIGHT_BIT_BODY), ("SMTPUTF8",)),
        (a_row(message=UTF8_HEADER), ("8BITMIME",)),
        (a_row(forward_path=JOERG), ("8BITMIME",)),
        (a_row(message=a_message(content=b"x" * 2000)), ("SIZE 1000",)),
    ],
    ids=["8 bits", "UTF-8 header", "UTF-8 address", "size"],
)
async def test_the_second_host_is_tried_where_the_first_cannot_take_the_message(
    row: SpoolRow, offered: tuple[str, ...]
) -> None:
    """RFC 5321 §5.1: all hosts, before the message is given up."""
    async with peer(ehlo=offering(*offered)) as first, peer(ehlo=offering(*EVERYTHING)) as second:
        done = await attempt(first, second, rows=(row,))
    assert kinds(done) == [Delivered]
    assert done.next_hop == "mx2.test:25"
    assert first.commands == ["EHLO mx.here.test", "QUIT"]


async def test_what_no_host_can_take_fails_with_the_best_ones_reason() -> None:
    row = a_row(message=a_message(content=b"x" * 2000, facts=ContentFacts(eight_bit_body=True)))
    async with peer(ehlo=offering("SIZE 1000")) as first, peer(ehlo=offering("8BITMIME", "SIZE 1000")) as second:
        done = await attempt(first, second, rows=(row,))
    assert kinds(done) == [Failed]
    assert str(done.outcomes[0].reply.enhanced) == "5.6.3"
    assert first.connections == second.connections == 1


@pytest.mark.parametrize("dead", [None, {"": "421 4.3.2 busy"}, {"": DROP}, {"MAIL": DROP}])
@pytest.mark.parametrize("dead_first", [True, False])
async def test_a_host_that_may_take_it_later_keeps_the_message_waiting(
    dead: dict[str, str | bytes] | None, dead_first: bool
) -> None:
    async with peer(ehlo=offering("SMTPUTF8")) as unfit, peer(dead or {}, offering(*EVERYTHING)) as busy:
        other = None if dead is None else busy
        done = await attempt(*((other, unfit) if dead_first else (unfit, other)), rows=(a_row(message=EIGHT_BIT_BODY),))
    assert kinds(done) == [Deferred]


async def test_a_dead_address_of_a_host_that_answers_keeps_nothing_waiting() -> None:
    """As IPv6 ones often are."""
    async with peer(ehlo=offering()) as unfit:
        relay, ports = relay_to(None, unfit)
        addresses = {"mx1.test": ("192.0.2.1", "192.0.2.2", "192.0.2.1")}
        resolver = FakeResolver({"there.test": (MxHost(1, "mx1.test"),)}, addresses)
        session = replace(relay, router=replace(relay.router, resolver=resolver)).session(THERE)
        done = await session.attempt((a_row(message=EIGHT_BIT_BODY),))
        await session.close()
    assert kinds(done) == [Failed]
    assert ports.tried[-1] == "192.0.2.2"


async def test_a_claim_full_of_what_nobody_takes_asks_each_host_once() -> None:
    plain, unfit = (a_row(),), (a_row(message=EIGHT_BIT_BODY),)
    async with peer(ehlo=offering()) as first, peer(ehlo=offering()) as second:
        relay, ports = relay_to(first, None)
        session = relay.session(THERE)
        done = [await session.attempt(rows) for rows in (unfit, plain, unfit, plain, unfit)]
        await session.close()
        assert [kinds(each) for each in done] == [[Deferred], [Delivered], [Deferred], [Delivered], [Deferred]]
        assert ports.tried == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
        relay, ports = relay_to(first, second)
        session = relay.session(THERE)
        done = [await session.attempt(rows) for rows in (plain, unfit, plain, unfit, unfit)]
        await session.close()
        assert [kinds(each) for each in done] == [[Delivered], [Failed], [Delivered], [Failed], [Failed]]
        assert ports.tried == ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1"]
    assert len(second.messages) == 0


async def test_one_host_that_cannot_take_a_message_takes_the_others_on_one_connection() -> None:
    async with peer(ehlo=offering("SIZE 1000")) as only:
        session = session_to(only)
        large = a_message(content=b"x" * 2000)
        done = [
            await session.attempt((a_row(message=each),)) for each in (large, a_message(), large, a_message(), large)
        ]
        await session.close()
    assert [kinds(each) for each in done] == [[Failed], [Delivered], [Failed], [Delivered], [Failed]]
    assert only.connections == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (a_row(message=EIGHT_BIT_BODY), " BODY=8BITMIME"),
        (a_row(message=UTF8_HEADER), " SMTPUTF8"),
        (a_row(forward_path=JOERG), " SMTPUTF8"),
        (a_row(reverse_path=replace(JOERG, domain="here.test")), " SMTPUTF8"),
        (a_row(message=a_message(content=CONTENT)), f" SIZE={len(CONTENT) + len(b'Received: here') + 2}"),
    ],
)
async def test_mail_says_what_the_message_needs(row: SpoolRow, said: str) -> None:
    async with peer() as next_hop:
        done = await attempt(next_hop, rows=(row,))
    assert kinds(done) == [Delivered]
    assert said in next(line for line in next_hop.commands if line.startswith("MAIL"))


@pytest.mark.conformance("C44")
@pytest.mark.parametrize(
    "answers",
    [{"": "521 5.3.2 there.test takes no mail"}, {"RCPT": "556 5.1.10 That domain takes no mail"}],
    ids=["521 greeting", "556"],
)
async def test_a_host_or_domain_that_takes_no_mail_is_not_asked_again(answers: dict[str, str | bytes]) -> None:
    async with peer(answers) as next_hop:
        done = await attempt(next_hop)
    assert set(kinds(done)) == {Failed}


@pytest.mark.conformance("C196")
async def test_smtputf8_that_nothing_needs_is_not_demanded_of_the_next_hop() -> None:
    async with peer(ehlo="250 there.test") as next_hop:
        done = await attempt(next_hop, rows=(a_row(message=PLAIN_ASKED_UTF8),))
    assert kinds(done) == [Delivered]


async def test_each_recipient_keeps_its_own_notify() -> None:
    rows = (a_row("bob", notify=frozenset({Notify.NEVER})), a_row("eve", recipient_number=1))
    async with peer() as next_hop:
        await attempt(next_hop, rows=rows)
    assert "RCPT TO:<bob@there.test> NOTIFY=NEVER" in next_hop.commands
    assert "RCPT TO:<eve@there.test>" in next_hop.commands


async def test_the_null_reverse_path_stays_null() -> None:
    async with peer() as next_hop:
        await attempt(next_hop, rows=(a_row(reverse_path=None),))
    assert any(line.startswith("MAIL FROM:<>") for line in next_hop.commands)


@pytest.mark.conformance("C98")
async def test_a_hundred_and_fifty_recipients_take_two_transactions() -> None:
    rows = tuple(a_row(f"r{number}", recipient_number=number) for number in range(150))
    async with peer() as next_hop:
        done = await attempt(next_hop, rows=rows)
    assert kinds(done) == [Delivered] * 150
    assert [len(recipients) for recipients, _content in next_hop.messages] == [100, 50]
    assert len(set(next_hop.recipients)) == 150
    assert sum(map(len, done.transcript)) <= TRANSCRIPT_OCTETS + 100


async def test_a_real_port_that_nobody_listens_on_is_deferred() -> None:
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        relay, _ports = relay_to()
        explicit = Endpoint("127.0.0.1", closed.getsockname()[1])
        routed = replace(
            relay,
            router=replace(relay.router, explicit=lambda _domain: explicit),
            dialer=Dialer(connector=TcpConnector()),
        )
        done = await routed.session(THERE).attempt((a_row(),))
    assert kinds(done) == [Deferred]
    assert not done.outcomes[0].from_peer  # type: ignore[union-attr]
    assert str(done.outcomes[0].reply.enhanced) == "4.4.1"


def test_a_short_transcript_is_kept_whole() -> None:
    steps = [Step("C: QUIT", 1.0), Step("S: 221", 1.5)]
    assert bounded(steps) == tuple(steps)


def test_a_long_transcript_keeps_its_beginning_and_its_end() -> None:
    lines = [f"S: {number} " + "x" * 100 for number in range(1000)]
    steps = bounded([Step(line, float(number)) for number, line in enumerate(lines)])
    kept = [step.line for step in steps]
    times = [step.at_s for step in steps]
    assert times == sorted(times)
    assert kept[0] == lines[0]
    assert kept[-1] == lines[-1]
    assert sum(map(len, kept)) <= TRANSCRIPT_OCTETS + 100
    assert len(set(kept)) == len(kept)


def test_one_endless_line_is_left_out() -> None:
    assert bounded([Step("S: " + "x" * 100_000, 1.0)]) == (Step("C: (1 lines are left out here)", 1.0),)


@pytest.mark.parametrize(("answer", "kind"), [("550 5.1.1 no bob", Failed), ("450 4.2.1 bob is busy", Deferred)])
async def test_who_was_refused_before_the_dot_is_certain_whatever_came_after(answer: str, kind: type[Outcome]) -> None:
    async with peer({"RCPT TO:<bob": answer, ".": DROP}) as next_hop:
        done = await attempt(next_hop)
    assert kinds(done) == [kind, Uncertain]
    assert str(done.outcomes[0].reply) == answer


async def test_who_was_refused_before_a_loss_fails_and_the_others_go_to_the_second_host() -> None:
    async with peer({"RCPT TO:<bob": "550 5.1.1 no bob", "DATA": DROP}) as first, peer() as second:
        done = await attempt(first, second)
    assert kinds(done) == [Failed, Delivered]
    assert second.recipients == ["eve@there.test"]


@pytest.mark.parametrize(
    "answers", [{"MAIL": b"550 5.7.1 you are blocked\r\n"}, {"RCPT": "550 5.1.1 nobody here"}], ids=["MAIL", "RCPT"]
)
async def test_a_host_that_refuses_and_hangs_up_has_refused(answers: dict[str, str | bytes]) -> None:
    """Without waiting for the rest of the group: what it said is its answer."""
    dropping = {"RCPT": DROP} if "MAIL" in answers else {"DATA": DROP}
    async with peer({**answers, **dropping}) as first, peer() as second:
        done = await attempt(first, second)
    assert kinds(done) == [Failed, Failed]
    assert done.outcomes[0].reply.text in ("you are blocked", "nobody here")
    assert second.connections == 0
