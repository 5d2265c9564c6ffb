"""A plain socket that speaks SMTP or POP3 as the test says, octet for octet."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from types import TracebackType

from tests.running_house import PASSWORD

TIMEOUT_S = 30.0
_STORED = re.compile(rb"250 2\.0\.0 Stored as ([0-9A-Z]{26})\Z")


class Wire:
    """One connection. A server that does not answer fails the test after TIMEOUT_S."""

    def __init__(
        self, port: int, *, tls: ssl.SSLContext | None = None, timeout_s: float = TIMEOUT_S, source: str = ""
    ) -> None:
        """`source`: the address of 127.0.0.0/8 to come from, else the system picks 127.0.0.1."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        if tls is not None:
            self.start_tls(tls)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, _kind: type | None, _exc: BaseException | None, _trace: TracebackType | None) -> None:
        self.socket.close()

    def start_tls(self, context: ssl.SSLContext) -> None:
        assert not self._buffer, f"octets before the handshake: {bytes(self._buffer)!r}"
        self.socket = context.wrap_socket(self.socket, server_hostname="mx.here.test")

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def send_in_pieces(self, octets: bytes, size: int) -> None:
        """In writes of `size` octets; 0: in one. A server that has closed already is no error."""
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(octets), size or len(octets)):
                self.send(octets[at : at + (size or len(octets))])

    def end(self) -> None:
        """Say that no more comes."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """Vanish: the server reads a reset, not an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def line(self) -> bytes:
        """One line without its CRLF."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            octets = self.socket.recv(1 << 16)
            assert octets, f"the server ended inside {bytes(self._buffer)!r}"
            self._buffer += octets
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def reply(self) -> bytes:
        """The last line of one SMTP reply."""
        while (line := self.line())[3:4] == b"-":
            pass
        return line

    def say(self, line: str | bytes) -> bytes:
        """Send a line and return the reply to it."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply()

    def rest(self) -> bytes:
        """Everything up to the end of the connection, a reset included; then it is closed."""
        try:
            while octets := self.socket.recv(1 << 16):
                self._buffer += octets
        except TimeoutError:
            raise AssertionError("the server did not end the connection") from None
        except OSError:
            pass
        finally:
            self.socket.close()
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def multi_line(self) -> bytes:
        """A POP3 response's data: octets without status line, dot-stuffing and end."""
        lines = []
        while (line := self.line()) != b".":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(line + b"\r\n" for line in lines)

    # Whole steps.

    def login(self, person: str, password: str = PASSWORD) -> bytes:
        """A POP3 login from the greeting on; returns the answer to PASS."""
        assert self.line().startswith(b"+OK")
        assert self.pop3(f"USER {person}").startswith(b"+OK")
        return self.pop3(f"PASS {password}")

    def pop3(self, line: str | bytes) -> bytes:
        """Send a line, return the status line."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.line()

    def uidls(self) -> list[str]:
        """UIDL of everything, in order."""
        assert self.pop3("UIDL").startswith(b"+OK")
        return [line.split(b" ")[1].decode() for line in self.multi_line().split(b"\r\n")[:-1]]

    def retrieve(self, number: int) -> bytes:
        """RETR, or fail."""
        status = self.pop3(f"RETR {number}")
        assert status.startswith(b"+OK"), status
        return self.multi_line()

    def greet(self, name: str = "client.test") -> Wire:
        """Read the greeting, say EHLO."""
        assert self.reply().startswith(b"220 ")
        assert self.say(f"EHLO {name}").startswith(b"250 ")
        return self

    def envelope(self, *recipients: str, sender: str = "carol@far.test") -> Wire:
        """MAIL and RCPT, all accepted."""
        assert self.say(f"MAIL FROM:<{sender}>").startswith(b"250 ")
        for recipient in recipients:
            assert (answer := self.say(f"RCPT TO:<{recipient}>")).startswith(b"250 "), answer
        return self

    def content(self, content: bytes) -> bytes:
        """DATA and the content (which ends in CRLF), dot-stuffed; returns the reply to its end."""
        assert self.say("DATA").startswith(b"354 ")
        self.send(stuffed(content))
        return self.reply()

    def deliver(self, content: bytes, *recipients: str, sender: str = "carol@far.test") -> str:
        """A whole transaction that must be accepted; returns the queue id."""
        return stored(self.envelope(*recipients, sender=sender).content(content))


def stuffed(content: bytes) -> bytes:
    """Content as DATA carries it, with its end."""
    assert not content or content.endswith(b"\r\n"), "DATA cannot carry content without a final CRLF"
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def stored(answer: bytes) -> str:
    """The queue id of the reply to an accepted message."""
    match = _STORED.match(answer)
    assert match is not None, answer
    return match[1].decode()
