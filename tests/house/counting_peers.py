"""Houses of others on addresses of loopback, all on one port: they take everything and count who came."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress


class CountingPeer(socketserver.ThreadingTCPServer):
    """`taken` are the recipients it said 250 to after content, `connections` how often somebody came."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.connections = 0
        self.taken: list[str] = []
        self.open: set[socket.socket] = set()
        super().__init__((address, port), _Session)


class _Session(socketserver.StreamRequestHandler):
    server: CountingPeer

    def handle(self) -> None:
        self.server.connections += 1
        self.server.open.add(self.connection)
        recipients: list[str] = []
        self._say("220 peer.test ESMTP")
        while line := self.rfile.readline().decode().strip():
            verb = line.partition(" ")[0].upper()
            if verb == "RCPT":
                recipients.append(line[line.index("<") + 1 : line.index(">")])
            if verb == "DATA":
                self._say("354 Go on")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self.server.taken += recipients
            if verb in ("DATA", "RSET"):
                recipients = []
            if verb == "QUIT":
                self.server.open.discard(self.connection)
            self._say("250-peer.test\r\n250 8BITMIME" if verb == "EHLO" else "221 Bye" if verb == "QUIT" else "250 OK")

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


@contextmanager
def counting_peer(address: str, port: int) -> Iterator[CountingPeer]:
    """One that is there for a while."""
    with CountingPeer(address, port) as peer:
        thread = threading.Thread(target=peer.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield peer
        finally:
            peer.shutdown()
            thread.join(10)
            # A house keeps connections for the next message; who is gone takes none.
            for connection in peer.open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def counting_peers(addresses: Sequence[str]) -> Iterator[tuple[int, list[CountingPeer]]]:
    """One port that is free on 127.0.0.1, for a house, and on these addresses, with a peer on each."""
    for _try in range(20):
        with socket.create_server(("127.0.0.1", 0)) as house:
            port = house.getsockname()[1]
        with ExitStack() as stack:
            try:
                peers = [stack.enter_context(counting_peer(address, port)) for address in addresses]
            except OSError:
                continue
            yield port, peers
            return
    raise AssertionError("no port is free on all of these addresses")
