"""The systemd unit of a house, as narrow as it works: a page of rules about what the process may not do.

`deploy/posthouse.service` is this text for the usual places, and `posthouse service install` writes it for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UNIT_NAME = "posthouse.service"
UNIT_FOLDER = Path("/etc/systemd/system")
STATE_FOLDER = Path("/var/lib")
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))

_TEMPLATE = """\
[Unit]
Description=Posthouse, a mail system
Documentation=file:{documents}
# Without a right clock, dates, expiry and certificates are wrong.
After=network-online.target time-sync.target nss-lookup.target
Wants=network-online.target
# A house that cannot start is started again for good: mail waits at its senders meanwhile.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={program} serve --config {config}
ExecReload=/bin/kill -HUP $MAINPID
User={user}
Group={group}
UMask=0077
{state}
# Starting again: after a crash at once, after a mistake in the configuration without hurry.
Restart=always
RestartSec=5s
# Sessions and attempts have 10 s to finish, and what does not end then is killed: nothing acknowledged is lost by it.
TimeoutStopSec=45s
# A new version may have a large database to migrate first.
TimeoutStartSec=1h
# The house says that it is alive as long as its loop and its writer are; else it ends itself, and at last it is ended.
WatchdogSec=90s
LimitNOFILE=65536

# Ports below 1024, and no other right.
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes

# It reads the system, and writes where its mail is.
ProtectSystem=strict
{home}
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
DevicePolicy=closed
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RemoveIPC=yes

# Nothing but sockets of IP, of systemd, and what asks for our own addresses.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @keyring @memlock @setuid
# As many open files as LimitNOFILE= gives.
SystemCallFilter=setrlimit prlimit64
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What differs from house to house. All paths are absolute."""

    program: tuple[str, ...] = ("/opt/posthouse/bin/posthouse",)
    """The words before `serve`."""
    config: Path = Path("/etc/posthouse/posthouse.toml")
    data_dir: Path = STATE_FOLDER / "posthouse"
    user: str = "posthouse"
    group: str = "posthouse"

    def text(self) -> str:
        """The unit file."""
        return _TEMPLATE.format(
            documents="/usr/share/doc/posthouse",
            program=" ".join(map(quoted, self.program)),
            config=quoted(str(self.config)),
            user=self.user,
            group=self.group,
            state=self._state(),
            home=self._home(),
        )

    def _state(self) -> str:
        """systemd makes what lies in /var/lib, and lets it be written; another folder has to be there."""
        if self.data_dir.parent == STATE_FOLDER and quoted(self.data_dir.name) == self.data_dir.name:
            return f"StateDirectory={self.data_dir.name}\nStateDirectoryMode=0700"
        return f"ReadWritePaths={quoted(str(self.data_dir))}"

    def _home(self) -> str:
        paths = (Path(self.program[0]), self.config, self.data_dir)
        if any(path.is_relative_to(home) for path in paths for home in HOMES):
            return "# What it needs lies in a home: those can be seen, and not written.\nProtectHome=read-only"
        return "ProtectHome=yes"


def quoted(word: str) -> str:
    """One word of a unit's line (systemd.syntax(7), systemd.service(5): "%" and "$" stand twice)."""
    doubled = word.replace("%", "%%").replace("$", "$$")
    if doubled and all(c.isalnum() or c in "/._-+=@:,%$" for c in doubled):
        return doubled
    return '"' + doubled.replace("\\", "\\\\").replace('"', '\\"') + '"'
