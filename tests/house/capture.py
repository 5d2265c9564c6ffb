"""A next hop that keeps every octet which came: what really stood on the wire."""

from __future__ import annotations

import queue
import socketserver
import threading
from types import TracebackType

PATIENCE_S = 30.0


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.captured: queue.Queue[bytes] = queue.Queue()
        super().__init__(("127.0.0.1", 0), _Session)


class _Session(socketserver.StreamRequestHandler):
    """Says yes to everything, and offers nothing that would spare dots or lines."""

    server: _Server

    def handle(self) -> None:
        came = bytearray()
        self.wfile.write(b"220 capture.test ESMTP\r\n")
        while line := self.rfile.readline():
            came += line
            verb = line.strip().upper()
            if verb.startswith(b"EHLO"):
                self.wfile.write(b"250-capture.test\r\n250-DSN\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 Go on\r\n")
                while (line := self.rfile.readline()) != b".\r\n" and line:
                    came += line
                came += line
                self.wfile.write(b"250 2.0.0 Taken\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 2.0.0 Bye\r\n")
                break
            else:
                self.wfile.write(b"250 2.0.0 OK\r\n")
        self.server.captured.put(bytes(came))


class Capture:
    """`with Capture() as capture:` — `capture.port`, and what each session sent from `capture.session()`."""

    def __enter__(self) -> Capture:
        self._server = _Server()
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, _kind: type | None, _exc: BaseException | None, _trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def session(self) -> bytes:
        """All that came in the next session that has ended."""
        return self._server.captured.get(timeout=PATIENCE_S)


def commands_and_messages(octets: bytes) -> tuple[list[bytes], list[bytes]]:
    """The lines outside content, and each content as it stood on the wire, stuffed, without its end."""
    commands, messages = [], []
    while octets:
        line, _, octets = octets.partition(b"\r\n")
        commands.append(line)
        if line == b"DATA":
            content, end, octets = (b"\r\n" + octets).partition(b"\r\n.\r\n")
            assert end, "content without an end"
            messages.append(content[2:] + b"\r\n")
    return commands, messages
