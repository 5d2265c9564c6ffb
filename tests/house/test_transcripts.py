"""The written dialogues, played against the live house over sockets, whole and in pieces."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from posthouse.admission.admission import Admission
from posthouse.admission.peer import Peer
from posthouse.mail.acceptance import Acceptance, Placement
from posthouse.mail.address import ReversePath, parse_address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import QueueId, Uidl
from posthouse.mail.reply import Reply, reply
from posthouse.storage.errors import StorageBusy
from posthouse.storage.interfaces import Storage
from tests.house.faults import faulty_house
from tests.house.wire import Wire
from tests.protocol.pop3_house import CONTENTS
from tests.running_house import PASSWORD, RunningHouse
from tests.transcripts.player import Kind, Step, Transcript, load_all, play_server

PEOPLE = ("jones@foo.test", "brown@foo.test", "b@foo.test", "a@b.test", "b@b.test", "alice@foo.test", "busy@foo.test")
UNPLAYED = {"smtp_refused_service"}
"""A live house refuses service with 421 and closes; the dialogue is of 554."""
SMTP = [t for t in load_all("smtp_*.txt") if "client_only" not in t.settings and t.name not in UNPLAYED]
POP3 = [t for t in load_all("pop3_*.txt") if not {"client_only", "options"} & t.settings.keys()]
"""The dialogue with STLS wants a real handshake: tests/house/test_pop3_doors.py."""
PIECES = [0, 1, 7]


def _plain(password: str) -> str:
    return base64.b64encode(f"\0a@b.test\0{password}".encode()).decode()


# What the tests' own receiver says, or is told, and the live house's word for it.
SMTP_WORDS = {
    "at your service": "greets you",
    "354 Go ahead": "354 End with <CRLF>.<CRLF>",
    "250 2.6.0 Accepted": "250 2.0.0 Stored as …",
    "550 5.1.1 Unknown": "550 5.1.1 There is no such mailbox here",
    "451 4.3.0 Not now": "451 4.3.0 The message could not be stored; try again later",
    "252 2.0.0 Cannot verify": "252 2.1.5 Not verified; send the message and see",
    "SIZE 10000": "SIZE 65536",
    "LIMITS RCPTMAX=1000": "LIMITS RCPTMAX=1000 MAILMAX=10000",
    "AUTH PLAIN LOGIN": "AUTH SCRAM-SHA-256 PLAIN LOGIN",
    "535 5.7.8 No": "535 5.7.8 The login or the password is wrong",
    "YWxpY2U=": base64.b64encode(b"a@b.test").decode(),
    "AGFsaWNlAHdyb25n": _plain("wrong"),
    "AGFsaWNlAHJpZ2h0": _plain(PASSWORD),
}
POP3_WORDS = {
    "USER alice\r\n": "USER alice@foo.test\r\n",
    "USER busy\r\n": "USER busy@foo.test\r\n",
    "PASS secret\r\n": f"PASS {PASSWORD}\r\n",
    "AGFsaWNlAHNlY3JldA==": base64.b64encode(f"\0alice@foo.test\0{PASSWORD}".encode()).decode(),
    "AGFsaWNlAHdyb25n": base64.b64encode(b"\0alice@foo.test\0wrong").decode(),
    "Ym9iAGFsaWNlAHNlY3JldA==": base64.b64encode(f"b@foo.test\0alice@foo.test\0{PASSWORD}".encode()).decode(),
}


def adapted(transcript: Transcript, words: dict[str, str]) -> Transcript:
    """In the live house's words, without the steps that it has no part in."""
    steps = []
    skipping = False
    for step in transcript.steps:
        if step.kind is Kind.CLIENT:
            # The live house greets everybody.
            skipping = step.octets == b"EHLO refused.test\r\n"
        if not skipping and step.kind is not Kind.ACTION:
            octets = step.octets
            for ours, theirs in words.items():
                octets = octets.replace(ours.encode(), theirs.encode())
            steps.append(replace(step, octets=octets))
    return replace(transcript, steps=tuple(steps))


class SocketPeer:
    """The player's peer over a socket. It knows how many lines each answer has, so it never waits for silence."""

    def __init__(self, port: int, transcript: Transcript, *, all_at_once: bool = False) -> None:
        self._wire = Wire(port)
        self._answers = [sum(step.octets.count(b"\r\n") for step in turn) for turn in _answers(transcript, all_at_once)]

    def send(self, octets: bytes) -> None:
        if octets:
            self._wire.send_in_pieces(octets, 0)
        else:
            self._wire.end()

    def received(self) -> bytes:
        if self._answers:
            return b"".join(self._wire.line() + b"\r\n" for _ in range(self._answers.pop(0)))
        # The last question: whatever else the house would say.
        self._wire.end()
        return self._wire.rest() if self._wire.socket.fileno() >= 0 else b""

    def ended(self) -> bool:
        return self._wire.rest() == b""


def _answers(transcript: Transcript, all_at_once: bool) -> list[list[Step]]:
    """The server's steps, as the player asks for them."""
    if all_at_once:
        return [[step for step in transcript.steps if step.kind is Kind.SERVER]]
    turns: list[list[Step]] = []
    speaking = False
    for step in transcript.steps:
        if step.kind in (Kind.SERVER, Kind.SERVER_ENDS):
            if not speaking:
                turns.append([])
            turns[-1].append(step)
        speaking = step.kind in (Kind.SERVER, Kind.SERVER_ENDS)
    return turns


class ChoosyAdmission(Admission):
    """Takes nothing from bad.test."""

    async def judge_sender(self, peer: Peer, reverse_path: ReversePath) -> Reply:
        if reverse_path is not None and reverse_path.domain == "bad.test":
            return reply(550, "5.1.8", "Not from there")
        return await super().judge_sender(peer, reverse_path)


@pytest.fixture
def smtp_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Transcript], RunningHouse]:
    def make(transcript: Transcript) -> RunningHouse:
        monkeypatch.setattr("posthouse.app.Admission", ChoosyAdmission)
        limits = {"message_size_octets": 65536, "errors": 100}
        house, faults = faulty_house(tmp_path, monkeypatch, hostname="mx.test", people=PEOPLE, reception=limits)
        if any(step.octets == b"REFUSE\r\n" for step in transcript.steps):
            faults["accept"] = StorageBusy()
        return house

    return make


@pytest.mark.conformance(
    "C3", "C33", "C34", "C45", "C61", "C62", "C63", "C67", "C120", "C121", "C122", "C155", "C157", "C163", "C164"
)
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("transcript", SMTP, ids=lambda transcript: transcript.name)
def test_smtp(smtp_house: Callable[[Transcript], RunningHouse], transcript: Transcript, piece: int) -> None:
    play = adapted(transcript, SMTP_WORDS)
    with smtp_house(play) as house:
        port = house.ports["submission" if "auth_required" in play.settings else "smtp"]
        play_server(play, SocketPeer(port, play), piece=piece)


@pytest.mark.conformance("C154")
@pytest.mark.parametrize("transcript", SMTP, ids=lambda transcript: transcript.name)
def test_smtp_in_one_write(smtp_house: Callable[[Transcript], RunningHouse], transcript: Transcript) -> None:
    play = adapted(transcript, SMTP_WORDS)
    with smtp_house(play) as house:
        port = house.ports["submission" if "auth_required" in play.settings else "smtp"]
        play_server(play, SocketPeer(port, play, all_at_once=True), all_at_once=True)


async def _fill(storage: Storage) -> None:
    """Alice's maildrop is the one of the dialogues, octet for octet; busy's is locked."""
    alice = await storage.directory.account("alice@foo.test")
    busy = await storage.directory.account("busy@foo.test")
    assert alice is not None
    assert busy is not None
    await storage.maildrops.lock(busy.account)
    for number, content in enumerate(CONTENTS, start=1):
        draft = await storage.content.draft()
        await draft.write(content)
        entry = Placement(
            account=alice.account,
            forward_path=parse_address("alice@foo.test"),
            prefix=b"",
            uidl=Uidl(f"uidl-{number}"),
        )
        await storage.accept(
            Acceptance(
                queue_id=QueueId(f"0{number}" * 13),
                accepted_at=0.0,
                reverse_path=None,
                prefix=b"",
                content=await draft.seal(ContentFacts()),
                placements=(entry,),
            )
        )


@pytest.mark.conformance("C235", "C236", "C237", "C239", "C241", "C246", "C247", "C250", "C253", "C256", "C263")
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("transcript", POP3, ids=lambda transcript: transcript.name)
def test_pop3(tmp_path: Path, transcript: Transcript, piece: int) -> None:
    play = adapted(transcript, POP3_WORDS)
    with RunningHouse(tmp_path, PEOPLE, hostname="mx.test") as house:
        house.ask(_fill)
        play_server(play, SocketPeer(house.ports["pop3"], play), piece=piece)


@pytest.mark.conformance("C259")
@pytest.mark.parametrize("transcript", POP3, ids=lambda transcript: transcript.name)
def test_pop3_in_one_write(tmp_path: Path, transcript: Transcript) -> None:
    play = adapted(transcript, POP3_WORDS)
    with RunningHouse(tmp_path, PEOPLE, hostname="mx.test") as house:
        house.ask(_fill)
        play_server(play, SocketPeer(house.ports["pop3"], play, all_at_once=True), all_at_once=True)
