"""The written dialogues of POP3, played against both halves, whole and in pieces."""

from __future__ import annotations

import pytest

from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.pop3_client import Event, Pop3Client
from tests.protocol.pop3_house import CLEAR_OPTIONS, OPTIONS, House
from tests.transcripts.player import Transcript, load_all, play_client, play_server

TRANSCRIPTS = load_all("pop3_*.txt")
SERVER_SIDE = [transcript for transcript in TRANSCRIPTS if "client_only" not in transcript.settings]
PIPELINED = [transcript for transcript in SERVER_SIDE if "options" not in transcript.settings]
"""Nothing may follow STLS."""
CLIENT_SIDE = [transcript for transcript in TRANSCRIPTS if transcript.for_client]
PIECES = [0, 1, 7]


class Fetcher:
    """A driver of the client half that follows a transcript's actions."""

    def __init__(self) -> None:
        self.client = Pop3Client()
        self.events: list[Event] = []
        self._signal: Signal = NEED_DATA

    def act(self, action: str) -> None:
        name, *words = action.split(" ")
        method = getattr(self.client, name)
        method(*words) if name == "login" else method(*(int(word) for word in words))

    def send(self, octets: bytes) -> None:
        self.client.receive(octets)
        while not isinstance(event := self.client.next_event(), Signal):
            self.events.append(event)
        self._signal = event

    def received(self) -> bytes:
        return self.client.outgoing()

    def ended(self) -> bool:
        return self._signal is CLOSED


def house_for(transcript: Transcript) -> House:
    """With what the transcript says that it offers."""
    return House(options=CLEAR_OPTIONS if transcript.settings.get("options") == "stls" else OPTIONS)


@pytest.mark.conformance("C235", "C236", "C237", "C239", "C241", "C246", "C253", "C256", "C263")
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("transcript", SERVER_SIDE, ids=lambda transcript: transcript.name)
def test_server_half(transcript: Transcript, piece: int) -> None:
    play_server(transcript, house_for(transcript), piece=piece)


@pytest.mark.conformance("C259")
@pytest.mark.parametrize("transcript", PIPELINED, ids=lambda transcript: transcript.name)
def test_server_half_with_everything_in_one_write(transcript: Transcript) -> None:
    play_server(transcript, House(), all_at_once=True)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("transcript", CLIENT_SIDE, ids=lambda transcript: transcript.name)
def test_client_half(transcript: Transcript, piece: int) -> None:
    fetcher = Fetcher()
    play_client(transcript, fetcher, fetcher.act, piece=piece)
