"""Which program listens on a port, for whoever finds it taken. On Linux; elsewhere nobody is found."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_LISTENS = "0A"
_SERVICE = re.compile(r"/([^/\n]+\.service)")


@dataclass(frozen=True, slots=True)
class PortOwner:
    """A process, and the systemd unit that it runs in, where it is one."""

    program: str
    process: int
    unit: str | None

    def __str__(self) -> str:
        return f"{self.program} (process {self.process})"

    @property
    def ending(self) -> str:
        """The command that ends it, also after the next start of the machine where that can be said."""
        return f"systemctl disable --now {self.unit}" if self.unit else f"kill {self.process}"


def port_owner(host: str, port: int, *, proc: Path = PROC) -> PortOwner | None:
    """Who listens where `host` and `port` would; None where that cannot be seen (other users' processes need root)."""
    inodes = set(_inodes(host, port, proc))
    if not inodes:
        return None
    for folder in proc.iterdir():
        if folder.name.isdecimal() and _holds(folder, inodes):
            return PortOwner(_read(folder / "comm").strip() or "?", int(folder.name), _unit(folder))
    return None


def _inodes(host: str, port: int, proc: Path) -> Iterator[str]:
    """The sockets that listen on the port, at that address or at all of them."""
    wanted = ipaddress.ip_address(host)
    for name in ("tcp", "tcp6"):
        for line in _read(proc / "net" / name).splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != _LISTENS:
                continue
            address, _colon, number = fields[1].partition(":")
            if int(number, 16) != port:
                continue
            there = _address(address)
            if wanted.is_unspecified or there.is_unspecified or there == wanted:
                yield fields[9]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """From the kernel's spelling: words of 32 bits, each as the machine orders its octets."""
    octets = bytes.fromhex(text)
    if sys.byteorder == "little":
        octets = b"".join(octets[at : at + 4][::-1] for at in range(0, len(octets), 4))
    return ipaddress.ip_address(octets)


def _holds(folder: Path, inodes: set[str]) -> bool:
    try:
        descriptors = os.listdir(folder / "fd")
    except OSError:
        # It has ended, or is somebody else's.
        return False
    return any(_inode(folder / "fd" / each) in inodes for each in descriptors)


def _inode(descriptor: Path) -> str:
    try:
        link = os.readlink(descriptor)
    except OSError:
        # Closed meanwhile.
        return ""
    return link.removeprefix("socket:[").removesuffix("]")


def _unit(folder: Path) -> str | None:
    # The last one: a user's own service runs inside user@1000.service.
    found = _SERVICE.findall(_read(folder / "cgroup"))
    return found[-1] if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
