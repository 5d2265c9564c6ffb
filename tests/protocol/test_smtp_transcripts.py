"""The written dialogues, played against both halves, whole and in pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posthouse.mail.address import parse_address
from posthouse.mail.reply import reply
from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.smtp_client import (
    Challenged,
    ClientEvent,
    ClientRecipient,
    ClientTransaction,
    ContentWanted,
    Ready,
    SmtpClient,
)
from tests.protocol.smtp_reception import OPTIONS, Reception
from tests.transcripts.player import Transcript, load_all, play_client, play_server

TRANSCRIPTS = load_all("smtp_*.txt")
SERVER_SIDE = [transcript for transcript in TRANSCRIPTS if "client_only" not in transcript.settings]
CLIENT_SIDE = [transcript for transcript in TRANSCRIPTS if transcript.for_client]
PIECES = [0, 1, 7]


def reception_for(transcript: Transcript) -> Reception:
    settings = transcript.settings
    mechanisms = tuple(settings["auth_mechanisms"].split(",")) if "auth_mechanisms" in settings else ()
    options = replace(OPTIONS, auth_mechanisms=mechanisms, auth_required="auth_required" in settings)
    return Reception(options, reply(int(settings["refuse"]), "5.7.1", "Not for you") if "refuse" in settings else None)


@pytest.mark.conformance("C3", "C155", "C157", "C163", "C164", "C193")
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("transcript", SERVER_SIDE, ids=lambda transcript: transcript.name)
def test_server_half(transcript: Transcript, piece: int) -> None:
    play_server(transcript, reception_for(transcript), piece=piece)


@pytest.mark.conformance("C154")
@pytest.mark.parametrize("transcript", SERVER_SIDE, ids=lambda transcript: transcript.name)
def test_server_half_with_everything_in_one_write(transcript: Transcript) -> None:
    play_server(transcript, reception_for(transcript), all_at_once=True)


class Sender:
    """A driver of the client half that follows a transcript's actions."""

    def __init__(self, *, chunking: bool) -> None:
        self.client = SmtpClient("bar.test")
        self.chunking = chunking
        self.events: list[ClientEvent] = []
        self.signal: Signal = NEED_DATA

    def send(self, octets: bytes) -> None:
        self.client.receive(octets)
        while not isinstance(event := self.client.next_event(), Signal):
            self.events.append(event)
            if isinstance(event, Challenged):
                self.client.answer_challenge()
            if isinstance(event, Ready) and not self.chunking:
                self.client.extensions.pop("CHUNKING", None)
        self.signal = event

    def received(self) -> bytes:
        return self.client.outgoing()

    def ended(self) -> bool:
        return self.signal is CLOSED

    def act(self, action: str) -> None:
        match action.split(" ", 1):
            case ["begin", rest]:
                reverse_path, recipients, size = rest.split(" ")
                self.client.begin(
                    ClientTransaction(
                        reverse_path=None if reverse_path == "<>" else parse_address(reverse_path),
                        recipients=tuple(ClientRecipient(parse_address(each)) for each in recipients.split(",")),
                        size_octets=int(size),
                    )
                )
            case ["starttls"]:
                self.client.start_tls()
            case ["handshake"]:
                self.client.tls_started()
            case ["content", *text]:
                assert isinstance(self.events[-1], ContentWanted)
                self.client.content("".join(text).encode().decode("unicode_escape").encode())
                self.client.end_content()
            case ["login", rest]:
                self.client.login(*rest.split(" "), "rOprNGfwEbeRWgbNEkqO")
            case ["reset"]:
                self.client.reset()
            case ["quit"]:
                self.client.quit()
            case _:
                raise AssertionError(action)


@pytest.mark.conformance("C50", "C91", "C93", "C102", "C144", "C158", "C159", "C176")
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("transcript", CLIENT_SIDE, ids=lambda transcript: transcript.name)
def test_client_half(transcript: Transcript, piece: int) -> None:
    sender = Sender(chunking="chunking" in transcript.settings)
    play_client(transcript, sender, sender.act, piece=piece)
