"""Our side of an outgoing session against real servers: smtp-sink with less and less to offer, and Postfix."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from tests.peers import odd_messages
from tests.peers.authority import certify
from tests.peers.conftest import program
from tests.peers.load import SmtpSink
from tests.peers.postfix import PostfixServer
from tests.peers.programs import wait_until

from posthouse.mail.address import parse_address
from posthouse.net.connect import TcpConnector
from posthouse.net.smtp_connection import ClosedAtHello, ConnectionBroke, HandshakeFailed, SmtpConnection, SmtpTimeouts
from posthouse.net.stream import Stream
from posthouse.net.tls import client_context
from posthouse.protocol.smtp_client import ClientRecipient, ClientTransaction
from posthouse.protocol.smtp_client_content import CHUNK_OCTETS

pytestmark = pytest.mark.peers

BEN = "ben@far.test"
CONTENT = odd_messages.headed(1, b".\r\n..\r\nx\r\n.\r\n")
EIGHT_BIT = odd_messages.headed(2, "Grüße\r\n".encode())


@contextmanager
def sink(folder: Path, *options: str) -> Iterator[SmtpSink]:
    program("smtp-sink")
    with SmtpSink(folder=folder / "sink", options=options) as running:
        yield running


class Recorded:
    """A stream whose writes are written down: what leaves together is one of them."""

    def __init__(self, stream: Stream) -> None:
        self.writes: list[bytes] = []
        self._write = stream.write
        stream.write = self._note  # type: ignore[method-assign]

    def _note(self, octets: bytes) -> None:
        self.writes.append(octets)
        self._write(octets)


@asynccontextmanager
async def session(
    port: int, *, extended: bool = True, timeouts: SmtpTimeouts | None = None
) -> AsyncIterator[tuple[SmtpConnection, Recorded]]:
    stream = await TcpConnector().connect("127.0.0.1", port)
    recorded = Recorded(stream)
    try:
        yield SmtpConnection(stream, "house.test", timeouts, extended=extended), recorded
    finally:
        stream.abort()


def transaction(*forward_paths: str, size_octets: int = 100, body: str = "7BIT") -> ClientTransaction:
    return ClientTransaction(
        reverse_path=parse_address("anna@house.test"),
        recipients=tuple(ClientRecipient(parse_address(path)) for path in forward_paths),
        size_octets=size_octets,
        body=body,
    )


async def pieces(content: bytes, size: int = 64 * 1024) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


class TestSmtpSink:
    @pytest.mark.conformance("C91", "C158", "C159")
    @pytest.mark.parametrize(
        ("options", "pipelined", "extended"),
        [((), True, True), (("-p",), False, True), (("-8",), True, True), (("-e",), False, False)],
    )
    async def test_with_less_and_less_to_offer(
        self, tmp_path: Path, options: tuple[str, ...], pipelined: bool, extended: bool
    ) -> None:
        """Two messages in a session; what is not offered is not used, and then nothing leaves together."""
        with sink(tmp_path, *options) as running:
            async with session(running.port) as (ours, recorded):
                await ours.start()
                assert ("PIPELINING" in ours.extensions) is pipelined
                assert bool(ours.extensions) is extended
                for _ in range(2):
                    ended = await ours.deliver(transaction(BEN, "two@far.test", body="8BITMIME"), pieces(EIGHT_BIT))
                    assert ended.final is not None
                    assert ended.final.is_positive
                await ours.quit()
            messages = running.wait_for_messages(2)
        for message in messages:
            # The sink writes LF, and an empty line behind it.
            assert message.replace(b"\n", b"\r\n").endswith(EIGHT_BIT + b"\r\n")
        said = b"".join(recorded.writes)
        assert (b"HELO house.test" in said) is not extended
        assert (b" BODY=8BITMIME" in said) is (extended and "-8" not in options)
        commands = [write for write in recorded.writes if write[:4].isupper()]
        assert any(write.count(b"\r\n") > 1 for write in commands) is pipelined
        for write in commands:
            assert not any(word in write[: write.rfind(b"\n", 0, -1) + 1] for word in (b"EHLO", b"DATA", b"QUIT"))

    @pytest.mark.conformance("C91")
    @pytest.mark.parametrize("options", [("-q", "ehlo"), ("-f", "ehlo")])
    async def test_that_does_not_know_ehlo(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        """It closes, or says 500: HELO then, on a new connection where there is no other way."""
        with sink(tmp_path, *options) as running:
            closes = "-q" in options
            if closes:
                async with session(running.port) as (ours, _):
                    with pytest.raises(ClosedAtHello):
                        await ours.start()
            async with session(running.port, extended=not closes) as (ours, recorded):
                await ours.start()
                assert (await ours.deliver(transaction(BEN), pieces(CONTENT))).final is not None
                await ours.quit()
            running.wait_for_messages(1)
        assert b"HELO house.test" in b"".join(recorded.writes)

    @pytest.mark.conformance("C95")
    @pytest.mark.parametrize(
        ("command", "limits"), [("mail", "command_s"), ("rcpt", "command_s"), ("data", "data_s"), (".", "final_s")]
    )
    async def test_that_is_slow(self, tmp_path: Path, command: str, limits: str) -> None:
        """With RFC 5321's times divided by 600, a second is too long for each command but the final dot."""
        whole = SmtpTimeouts()
        shortened = SmtpTimeouts(
            command_s=whole.command_s / 600, data_s=whole.data_s / 600, final_s=whole.final_s / 600
        )
        assert getattr(shortened, limits) <= 1
        with sink(tmp_path, "-W", f"{command}:3") as running:
            async with session(running.port) as (ours, _):
                await ours.start()
                ours.timeouts = shortened
                with pytest.raises(ConnectionBroke, match="no answer within") as raised:
                    await ours.deliver(transaction(BEN), pieces(CONTENT))
                assert raised.value.final_dot_sent is (command == ".")

    @pytest.mark.conformance("C158")
    @pytest.mark.parametrize(
        ("options", "code", "where"),
        [
            (("-f", "mail"), 500, "mail"),
            (("-r", "rcpt"), 450, "rcpt"),
            (("-f", "data"), 500, "data"),
            (("-r", "."), 450, "final"),
        ],
    )
    async def test_that_refuses(self, tmp_path: Path, options: tuple[str, ...], code: int, where: str) -> None:
        with sink(tmp_path, *options) as running:
            async with session(running.port) as (ours, _):
                await ours.start()
                ended = await ours.deliver(transaction(BEN), pieces(CONTENT))
                answers = {
                    "mail": ended.mail,
                    "rcpt": ended.recipients[0],
                    "data": ended.data,
                    "final": ended.final,
                }
                answer = answers[where]
                assert answer is not None
                assert answer.code // 100 == code // 100
                await ours.quit()


class TestPostfix:
    @pytest.mark.conformance("C141", "C145")
    async def test_starttls_and_chunks(self, postfix: PostfixServer, tmp_path: Path) -> None:
        """Octet for octet, in chunks, to a server whose certificate we check; and not to one of another name."""
        authority = certify(tmp_path, "postfix.test")
        chain = tmp_path / "both.pem"
        chain.write_bytes((tmp_path / "chain.key").read_bytes() + (tmp_path / "chain.pem").read_bytes())
        postfix.offer_tls(chain)
        postfix.deliver(BEN)
        postfix.start()
        strict = client_context(verified=True, authorities=authority)
        big = odd_messages.headed(3, b"0123456789abcde.\r\n.\r\n" * (CHUNK_OCTETS * 5 // 20))
        async with session(postfix.port) as (ours, recorded):
            await self._start(ours, strict)
            assert {"CHUNKING", "PIPELINING"} <= ours.extensions.keys()
            assert "STARTTLS" not in ours.extensions
            for content in (CONTENT, big):
                ended = await ours.deliver(transaction(BEN, size_octets=len(content)), pieces(content))
                assert ended.final is not None
                assert ended.final.is_positive, str(ended.final)
            await ours.quit()
        assert b"DATA" not in b"".join(recorded.writes).split(b"BDAT")[0]
        assert "C: (TLS 1.3, TLS_AES_256_GCM_SHA384, certificate checked)" in ours.transcript
        first, second = postfix.wait_for_messages(BEN, 2)
        assert first.replace(b"\n", b"\r\n").endswith(CONTENT)
        assert second.replace(b"\n", b"\r\n").endswith(big)
        async with session(postfix.port) as (ours, _):
            with pytest.raises(HandshakeFailed, match="another name"):
                await self._start(ours, strict, "mx.other.test")
        wait_until(lambda: "SSL_accept error" in postfix.log(), "Postfix did not notice that we left")

    async def _start(self, ours: SmtpConnection, context: ssl.SSLContext, name: str = "postfix.test") -> None:
        await ours.start()
        await ours.start_tls(context, name)
        assert ours.tls is not None

    async def test_a_chunk_that_is_too_much(self, postfix: PostfixServer) -> None:
        """Postfix refuses it in the middle; the session goes on."""
        postfix.set("message_size_limit", "200000")
        postfix.set("mailbox_size_limit", "0")
        postfix.deliver(BEN)
        postfix.start()
        marks: list[str] = []

        async def mark() -> None:
            marks.append("may have arrived")

        big = odd_messages.headed(3, b"0123456789abcdef\r\n" * (CHUNK_OCTETS * 4 // 18))
        async with session(postfix.port) as (ours, _):
            await ours.start()
            # The size is not told, so that only the content tells it.
            ours.extensions.pop("SIZE")
            ended = await ours.deliver(transaction(BEN), pieces(big), before_end=mark)
            assert ended.final is not None
            assert ended.final.code == 552
            assert marks == []
            assert (await ours.deliver(transaction(BEN), pieces(CONTENT), before_end=mark)).final is not None
            assert marks == ["may have arrived"]
            await ours.quit()
        postfix.wait_for_messages(BEN, 1)
