"""Sockets whose family and type are numbers.

`socket.socket` looks up members of enumerations each time one of them is asked for: five times for each connection,
from accepting it to handing it to the loop, which took 2 % of a message's time.
"""

from __future__ import annotations

import socket


class PlainSocket(socket.socket):
    """The standard socket with the family and type of the class beneath it."""

    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]

    def accept(self) -> tuple[PlainSocket, object]:
        """A connection of the same kind, and the name of its peer."""
        descriptor, name = self._accept()  # type: ignore[attr-defined]
        return PlainSocket(self.family, self.type, self.proto, descriptor), name
