"""What a house writes of a day: a line for each thing that ended, and never a secret."""

from __future__ import annotations

import base64
import contextlib
import json
import poplib
import smtplib
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.running_house import PASSWORD, RunningHouse

GUESSES = ("guess-Zulu-1", 'guess "Zulu" \\ 2')
SUBJECT, BODY = "Subject-known-to-nobody", "Words-for-bob-alone"


def lines(house: RunningHouse, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in house.log.getvalue().splitlines()]
    return [line for line in found if line["event"] == event]


def a_day(house: RunningHouse) -> int:
    """Mail in, sent, read, refused; logins of all kinds, right and wrong; lines where nobody awaits them.

    Returns how many octets were read.
    """
    for mechanism in ("auth_plain", "auth_login"):
        with smtplib.SMTP("127.0.0.1", house.ports["submission"], timeout=20) as client:
            client.ehlo()
            client.user, client.password = "ada@here.test", PASSWORD
            client.auth(mechanism[5:].upper(), getattr(client, mechanism))
            content = f"From: ada@here.test\r\nSubject: {SUBJECT}\r\n\r\n{BODY}\r\n"
            client.sendmail("ada@here.test", ["bob@here.test"], content.encode())
    for guess in GUESSES:
        with contextlib.suppress(smtplib.SMTPAuthenticationError):
            with smtplib.SMTP("127.0.0.1", house.ports["submission"], timeout=20) as client:
                client.ehlo()
                client.login("ada@here.test", guess)
        reader = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=20)
        reader.user("bob@here.test")
        with pytest.raises(poplib.error_proto):
            reader.pass_(guess)
        reader.close()
    reader = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=20)
    reader.user("bob@here.test")
    reader.pass_(PASSWORD)
    # (Its lines are without their CRLF.)
    octets = sum(len(line) + 2 for number in (1, 2) for line in reader.retr(number)[1])
    reader.quit()
    blind(house)
    return octets


def blind(house: RunningHouse) -> None:
    """Clients that send the answer to a question that was not asked: their secrets come where commands stand."""
    response = base64.b64encode(f"\0ada@here.test\0{PASSWORD}".encode())
    word = base64.b64encode(PASSWORD.encode())
    for door, octets in (
        ("smtp", b"EHLO c.test\r\nAUTH PLAIN\r\n" + response + b"\r\nAUTH LOGIN\r\n" + word + b"\r\nQUIT\r\n"),
        ("submission", b"EHLO c.test\r\nAUTH NONE\r\n" + response + b"\r\nAUTH PLAIN !" + response + b"\r\nQUIT\r\n"),
        (
            "pop3",
            b"AUTH NONE\r\n" + response + b"\r\nPASS " + PASSWORD.encode() + b"\r\nXUSER " + word + b"\r\nQUIT\r\n",
        ),
    ):
        with socket.create_connection(("127.0.0.1", house.ports[door]), timeout=20) as client:
            client.sendall(octets)
            while client.recv(4096):
                pass


def spellings(secret: str) -> set[str]:
    """A secret as it may stand in a log: as it is, escaped, and as parts of base64 at any place in it."""
    encoded = {base64.b64encode(b"\0" * skip + secret.encode()).decode()[4:-4] for skip in range(3)}
    return {secret, json.dumps(secret)[1:-1], *encoded}


@pytest.mark.conformance("C299", "S28")
def test_no_secret_of_a_day_is_in_its_log(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        a_day(house)
    log = house.log.getvalue()
    for secret in (PASSWORD, *GUESSES, SUBJECT, BODY):
        for spelling in spellings(secret):
            assert spelling.lower() not in log.lower(), spelling


def test_each_thing_that_ended_is_a_line(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        octets = a_day(house)
    assert len(lines(house, "session ended")) == 10
    accepted = [line["queue_id"] for line in lines(house, "message accepted")]
    (retrieved,) = lines(house, "messages retrieved")
    assert (retrieved["login"], retrieved["messages"], retrieved["queue_ids"].split()) == ("bob@here.test", 2, accepted)
    assert retrieved["size_octets"] == octets
    failed = lines(house, "login failed")
    assert {line["protocol"] for line in failed} == {"smtp", "pop3"}
    assert all(line["peer"] == "127.0.0.1" and line["level"] == "warning" for line in failed)
