"""What systemd is told (sd_notify(3)): one datagram for each change, to the socket that `$NOTIFY_SOCKET` names.

Without that variable nobody listens, and nothing is sent. Nothing here can fail: a house whose supervisor has gone
serves on.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, MutableMapping

SOCKET, WATCHDOG_TIME, WATCHDOG_PROCESS = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
PINGS = 3
"""Signs of life in the time after which systemd ends a silent service."""


class Notifier:
    """Tells the supervisor how it goes; a line `STATUS=` is what `systemctl status` shows."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address`: a path, or `@` and a name of Linux's abstract space; "" for nobody."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_every_s = watchdog_s / PINGS if watchdog_s is not None else None
        """How often `alive` has to be called; None: nobody waits for it."""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str], process: int) -> Notifier:
        """As systemd's variables say, which are taken out: no child of ours may speak for us."""
        watchdog_s = _watchdog_s(environment, process)
        address = environment.pop(SOCKET, "")
        for name in (WATCHDOG_TIME, WATCHDOG_PROCESS):
            environment.pop(name, None)
        return cls(address if address.startswith(("/", "@")) else "", watchdog_s)

    def ready(self, status: str) -> None:
        """The doors are open; or: the configuration was read again."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again, until `ready`."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=Closing: sessions may finish what they began")

    def alive(self) -> None:
        """The sign of life that the watchdog of systemd waits for."""
        if self.watchdog_every_s is not None:
            self._send("WATCHDOG=1")

    def _send(self, *fields: str) -> None:
        if not self._address:
            return
        text = "\n".join(" ".join(field.splitlines()) for field in fields)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
                to.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError:
            pass


def _watchdog_s(environment: Mapping[str, str], process: int) -> float | None:
    """How long we may be silent; None where that is not asked of this process."""
    meant_for = environment.get(WATCHDOG_PROCESS, str(process))
    asked = environment.get(WATCHDOG_TIME, "")
    if meant_for != str(process) or not asked.isascii() or not asked.isdigit() or not int(asked):
        return None
    return int(asked) / 1_000_000
