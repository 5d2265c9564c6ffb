"""Hosts that hang, drip and babble: each phase has its limit, and nothing of what they say breaks anything."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from posthouse.config_forwarding import Forwarding
from posthouse.forwarding.outgoing import timeouts_of
from posthouse.mail.outcome import Deferred, Delivered, Failed, Outcome, Uncertain
from posthouse.net.smtp_connection import SmtpTimeouts
from tests.forwarding.relays import THERE, attempt_in, kinds, relay_to
from tests.forwarding.rows import a_row
from tests.scripted_peer import Drip, Expect, Hang, Raw, ScriptedPeer, Send, Step, TakeContent, scripted_peers

HELLO = (Send("220 there.test"), Expect("EHLO"), Send("250 there.test"))
ENVELOPE = (Expect("MAIL"), Send("250 ok"), Expect("RCPT"), Send("250 ok"))
CONTENT = (Expect("DATA"), Send("354 go"), TakeContent())
ONE = (a_row(),)


def steps_to(phase: str) -> tuple[Step, ...]:
    """What a usual host does before it answers in this phase."""
    usual = (*HELLO, *ENVELOPE, *CONTENT)
    if phase == "greeting":
        return ()
    if phase == ".":
        return usual
    index = next(number for number, step in enumerate(usual) if step == Expect(phase))
    return usual[: index + 1]


LIMITS = {
    "greeting": "greeting_s",
    "EHLO": "command_s",
    "MAIL": "command_s",
    "RCPT": "command_s",
    "DATA": "data_s",
    ".": "final_s",
}


async def tried(*scripts: tuple[Step, ...], timeouts: SmtpTimeouts) -> tuple[list[type[Outcome]], ScriptedPeer, float]:
    """The outcome, the peer, and how long it took."""
    async with scripted_peers(*scripts) as peer:
        relay, _ports = relay_to(peer)  # type: ignore[arg-type]
        patient = replace(relay, dialer=replace(relay.dialer, timeouts=timeouts))
        began = time.monotonic()
        done = await attempt_in(patient.session(THERE), ONE)
        return kinds(done), peer, time.monotonic() - began


@pytest.mark.conformance("C95")
@pytest.mark.parametrize("phase", LIMITS)
async def test_each_phase_has_its_own_limit(phase: str) -> None:
    """That of the phase is short and all others are long: only its own can have ended the wait."""
    short = replace(SmtpTimeouts(quit_s=0.05), **{LIMITS[phase]: 0.05})
    outcomes, _peer, took_s = await tried((*steps_to(phase), Hang()), timeouts=short)
    assert outcomes == [Uncertain if phase == "." else Deferred]
    assert took_s < 5


@pytest.mark.conformance("C95")
@pytest.mark.parametrize("phase", LIMITS)
async def test_no_other_limit_ends_a_phase(phase: str) -> None:
    """All others are short, and the host takes longer than these where it may."""
    long = replace(
        SmtpTimeouts(**dict.fromkeys(set(LIMITS.values()), 0.1), quit_s=0.1, block_s=5.0), **{LIMITS[phase]: 5.0}
    )
    before = steps_to(phase)
    usual = (*HELLO, *ENVELOPE, *CONTENT, Send("250 taken"), Hang())
    script = (*before, Pause(0.3), *usual[len(before) :])
    outcomes, _peer, _took_s = await tried(script, timeouts=long)
    assert outcomes == [Delivered]


def Pause(seconds: float) -> Step:
    """Nothing, for a while: an octet that is none."""
    return Drip(b"", seconds)


@pytest.mark.conformance("C95", "S22")
@pytest.mark.parametrize("phase", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_a_host_that_drips_holds_no_place_for_ever(phase: str) -> None:
    """An octet now and then, each soon enough, of one reply: the whole reply has the limit."""
    short = replace(SmtpTimeouts(quit_s=0.05), **{LIMITS[phase]: 0.2})
    endless = Drip(b"250-" + b"x" * 400, 0.02)
    outcomes, _peer, took_s = await tried((*steps_to(phase), endless), timeouts=short)
    assert outcomes == [Deferred]
    assert took_s < 4


@pytest.mark.conformance("C95", "S22")
async def test_a_host_that_answers_in_time_each_time_has_one_limit_for_all() -> None:
    limits = SmtpTimeouts(quit_s=0.05, transaction_s=0.3)
    many = tuple(a_row(f"r{number}", recipient_number=number) for number in range(50))
    script: tuple[Step, ...] = (*HELLO, Expect("MAIL"), Send("250 ok"))
    for _ in many:
        script = (*script, Expect("RCPT"), Drip(b"250 ok\r\n", 0.01))
    async with scripted_peers(script) as peer:
        relay, _ports = relay_to(peer)  # type: ignore[arg-type]
        patient = replace(relay, dialer=replace(relay.dialer, timeouts=limits))
        began = time.monotonic()
        done = await attempt_in(patient.session(THERE), many)
    assert set(kinds(done)) == {Deferred}
    assert time.monotonic() - began < 2.5


@pytest.mark.conformance("C95")
def test_the_limits_are_those_of_the_rfc_and_can_be_configured() -> None:
    usual = timeouts_of(Forwarding())
    assert (usual.greeting_s, usual.command_s, usual.data_s) == (300, 300, 120)
    assert (usual.block_s, usual.final_s) == (180, 600)
    short = timeouts_of(
        Forwarding.model_validate(
            {
                "connect_timeout": "1s",
                "greeting_timeout": "2s",
                "command_timeout": "3s",
                "content_timeout": "4s",
                "final_timeout": "5s",
                "transaction_timeout": "6s",
            }
        )
    )
    assert (short.connect_s, short.greeting_s, short.command_s, short.data_s) == (1, 2, 3, 3)
    assert (short.block_s, short.final_s, short.transaction_s) == (4, 5, 6)


HOSTILE = {
    "endless line": b"250 " + b"x" * 2_000_000,
    "endless lines": b"250-more\r\n" * 100_000,
    "mixed codes": b"250-ok\r\n550 no\r\n",
    "bare CR": b"550 5.1.1 no\rMAIL FROM:<evil@x.test>\r\n",
    "NUL and escapes": b"550 5.1.1 no \x00\x1b[2J\x07 there\r\n",
    "stale code": b"550 2.1.5 no\r\n",
    "bare enhanced code": b"550 5.7.2\r\n",
    "8 bits": b"550 5.1.1 \xff\xfe\r\n",
    "nothing": b"\r\n",
}


@pytest.mark.conformance("S22")
@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("phase", LIMITS)
async def test_what_hostile_hosts_say_is_bounded_and_harmless(phase: str, what: str) -> None:
    async with scripted_peers((*steps_to(phase), Raw(HOSTILE[what]), Hang())) as peer:
        relay, _ports = relay_to(peer)  # type: ignore[arg-type]
        soon = SmtpTimeouts(**dict.fromkeys(("greeting_s", "command_s", "data_s", "final_s", "quit_s"), 0.2))
        patient = replace(relay, dialer=replace(relay.dialer, timeouts=soon))
        async with asyncio.timeout(10):
            done = await attempt_in(patient.session(THERE), ONE)
    assert type(done.outcomes[0]) in (Deferred, Failed, Uncertain)
    reply = done.outcomes[0].reply
    assert str(reply).isprintable()
    assert len(str(reply)) < 5000
    assert all(line.isprintable() for line in done.transcript)
    assert sum(map(len, done.transcript)) < 10_000
    if isinstance(done.outcomes[0], Failed):
        assert reply.enhanced is None or reply.enhanced.klass == 5
