"""The people of the demo: they use their houses through the same doors as anybody's programs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from posthouse.mail.address import parse_address
from posthouse.mail.header import date_time
from posthouse.mail.reply import Reply
from posthouse.net.connect import TcpConnector
from posthouse.net.pop3_connection import Pop3Connection
from posthouse.net.pop3_connection import Trace as Pop3Trace
from posthouse.net.smtp_connection import SmtpConnection, Trace
from posthouse.protocol.smtp_client import ClientRecipient, ClientTransaction


class NotTaken(Exception):
    """A house did not take a letter; the message is its reply."""


@dataclass(frozen=True, slots=True)
class Letter:
    """Sender, recipient and the content as it goes over the wire."""

    sender: str
    recipient: str
    content: bytes


def write_letter(sender: str, recipient: str, subject: str, text: str, *, now: float, unique: str) -> Letter:
    """A plain letter with the fields that RFC 5322 §3.6 asks for."""
    content = (
        f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {subject}\r\nDate: {date_time(now)}\r\n"
        f"Message-ID: <{unique}@{sender.partition('@')[2]}>\r\n\r\n{text}\r\n"
    )
    return Letter(sender, recipient, content.encode())


async def hand_over(
    letter: Letter, port: int, *, login: tuple[str, str] | None = None, trace: Trace | None = None
) -> Reply:
    """Send a letter through a house's door; the reply to the final dot. Raises NotTaken and connection errors."""
    stream = await TcpConnector().connect("127.0.0.1", port)
    connection = SmtpConnection(stream, "laptop.test", trace=trace)
    try:
        await connection.start()
        if login is not None:
            answer = await connection.login(*login, in_clear=True)
            if not answer.is_positive:
                raise NotTaken(str(answer))
        reply = await deliver(connection, letter)
    except BaseException:
        connection.abort()
        raise
    await connection.quit()
    return reply


async def deliver(connection: SmtpConnection, letter: Letter) -> Reply:
    """One transaction on an open connection."""
    transaction = ClientTransaction(
        reverse_path=parse_address(letter.sender),
        recipients=(ClientRecipient(parse_address(letter.recipient)),),
        size_octets=len(letter.content),
    )
    ended = await connection.deliver(transaction, _chunks(letter.content))
    reply = ended.final or ended.data or ended.recipients[0] or ended.mail
    if ended.final is None or not ended.final.is_positive:
        raise NotTaken(str(reply))
    return ended.final


async def open_maildrop(name: str, password: str, port: int, trace: Pop3Trace | None = None) -> Pop3Connection:
    """Log in at a house's POP3 door."""
    stream = await TcpConnector().connect("127.0.0.1", port)
    connection = Pop3Connection(stream, trace=trace)
    try:
        await connection.start()
        await connection.login(name, password)
    except BaseException:
        stream.abort()
        raise
    return connection


async def read_message(connection: Pop3Connection, number: int) -> bytes:
    """One whole message."""
    return b"".join([chunk async for chunk in connection.retrieve(number)])


async def _chunks(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content
