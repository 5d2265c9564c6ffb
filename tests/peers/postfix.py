"""A real Postfix on loopback, run from its unpacked package with its files in one temporary folder.

Postfix's `master` starts its daemons as root, and they then become users of their own; so root is needed, but nothing
is installed and no file outside the folder is written.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.peers.programs import PATIENCE_S, Program, accepts, end, environment, find, free_port, spawn, wait_until

# Postfix wants an owner and a group that nothing else of it uses. These exist on every Debian machine.
MAIL_OWNER = "daemon"
DROP_GROUP = "mail"
MAILDIR_USER = "nobody"

QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")

# Postfix's own master.cf, without what needs an installation. (service, type, processes, command)
SERVICES = """
pickup    unix      n - n 60 1 pickup
cleanup   unix      n - n -  0 cleanup
qmgr      unix      n - n 60 1 qmgr
tlsmgr    unix      - - n 1000? 1 tlsmgr
rewrite   unix      - - n -  - trivial-rewrite
bounce    unix      - - n -  0 bounce
defer     unix      - - n -  0 bounce
trace     unix      - - n -  0 bounce
verify    unix      - - n -  1 verify
flush     unix      n - n 1000? 0 flush
proxymap  unix      - - n -  - proxymap
smtp      unix      - - n -  - smtp
relay     unix      - - n -  - smtp
showq     unix      n - n -  - showq
error     unix      - - n -  - error
retry     unix      - - n -  - error
discard   unix      - - n -  - discard
virtual   unix      - n n -  - virtual
anvil     unix      - - n -  1 anvil
scache    unix      - - n -  1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


def why_not() -> str | None:
    """Why Postfix cannot run here, or None when it can."""
    if find("postfix") is None:
        return "Postfix is not here: run scripts/peers"
    if os.geteuid() != 0:
        return "Postfix's master process runs only as root"
    return None


def new_folder() -> Path:
    """A folder that Postfix's other users may enter, which pytest's own temporary folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="posthouse-postfix-"))
    folder.chmod(0o755)
    return folder


@dataclass(kw_only=True)
class PostfixServer:
    """One Postfix. Say what it does with which domain (`relay`, `deliver`, `set`), then start it.

    All methods block; in tests with an event loop call them with `asyncio.to_thread`.
    """

    hostname: str = "postfix.test"
    folder: Path = field(default_factory=new_folder)
    port: int = field(default_factory=free_port)
    _routes: dict[str, str] = field(default_factory=dict)
    _mailboxes: dict[str, Path] = field(default_factory=dict)
    _parameters: dict[str, str] = field(default_factory=dict)
    _master: subprocess.Popen[bytes] | None = None

    # What it does

    def relay(self, domain: str, port: int) -> None:
        """Send mail for `domain` (`*`: for all others) to 127.0.0.1:`port` by SMTP."""
        self._routes[domain] = f"smtp:[127.0.0.1]:{port}"

    def deliver(self, address: str) -> None:
        """Take mail for this address into a Maildir of its own; other addresses of its domain are unknown here."""
        local_part, domain = address.rsplit("@", 1)
        self._mailboxes[address] = self.folder / "mail" / domain / local_part

    def offer_tls(self, chain: Path) -> None:
        """Offer STARTTLS with the key and the certificates in this PEM file (the key first)."""
        self.set("smtpd_tls_security_level", "may")
        self.set("smtpd_tls_chain_files", str(chain))

    def set(self, parameter: str, value: str) -> None:
        """Set any parameter of main.cf."""
        self._parameters[parameter] = value

    # Running it

    def start(self) -> None:
        self._make_folders()
        self._write_configuration()
        program = self._daemon_folder() / "master"
        self._master = spawn([program, "-c", self._configuration, "-d"], self.folder, self.folder / "master.log")
        wait_until(self._is_up, "Postfix did not start")

    def stop(self) -> None:
        """Stop Postfix; its folder stays, so that it may start again with its queue as it was."""
        if self._master is not None:
            end(self._master)
            self._master = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    # Using it

    def send(self, reverse_path: str, forward_paths: Sequence[str], content: bytes, port: int | None = None) -> None:
        """Give it mail by SMTP (or a server on another port), with Python's own client."""
        with smtplib.SMTP("127.0.0.1", port or self.port, local_hostname="client.test", timeout=PATIENCE_S) as client:
            client.sendmail(reverse_path, list(forward_paths), content)

    def messages(self, address: str) -> list[bytes]:
        """What was delivered to this address, in the order of arrival."""
        new = self._mailboxes[address] / "new"
        files = sorted(new.iterdir(), key=lambda file: file.stat().st_mtime_ns) if new.is_dir() else []
        return [file.read_bytes() for file in files]

    def wait_for_messages(self, address: str, count: int = 1, timeout_s: float = PATIENCE_S) -> list[bytes]:
        self._wait(lambda: len(self.messages(address)) >= count, f"fewer than {count} for {address}", timeout_s)
        return self.messages(address)

    def queue(self) -> list[dict[str, object]]:
        """Postfix's queue, as `postqueue -j` tells it."""
        run = self._command("postqueue", "-j")
        return [json.loads(line) for line in run.decode().splitlines()]

    def wait_for_empty_queue(self, timeout_s: float = PATIENCE_S) -> None:
        self._wait(lambda: not self.queue(), "the queue did not become empty", timeout_s)

    def flush(self) -> None:
        """Try now all that is deferred."""
        self._command("postqueue", "-f")

    def log(self) -> str:
        path = self.folder / "mail.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def wait_for_log(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        self._wait(lambda: text in self.log(), f"the log does not say {text!r}", timeout_s)

    # How

    @property
    def _configuration(self) -> Path:
        return self.folder / "etc"

    def _wait(self, condition: Callable[[], bool], reason: str, timeout_s: float) -> None:
        try:
            wait_until(condition, reason, timeout_s)
        except TimeoutError as timeout:
            timeout.add_note(self.log()[-4000:])
            raise

    def _command(self, name: str, *arguments: str) -> bytes:
        program = find(name)
        assert program is not None
        run = Program(program)("-c", self._configuration, *arguments)
        assert run.succeeded, str(run)
        return run.stdout

    def _is_up(self) -> bool:
        assert self._master is not None
        if self._master.poll() is not None:
            raise RuntimeError((self.folder / "master.log").read_text() + self.log())
        return accepts(self.port)

    def _daemon_folder(self) -> Path:
        postfix = find("postfix")
        assert postfix is not None
        return postfix.parents[1] / "lib" / "postfix" / "sbin"

    def _make_folders(self) -> None:
        owner, group = pwd.getpwnam(MAIL_OWNER).pw_uid, grp.getgrnam(DROP_GROUP).gr_gid
        delivering = pwd.getpwnam(MAILDIR_USER).pw_uid
        spool = self.folder / "spool"
        folders = [(spool / name, owner, -1, 0o700) for name in QUEUES]
        folders += [(spool / "maildrop", owner, group, 0o730), (spool / "public", owner, group, 0o710)]
        folders += [(spool / "pid", 0, 0, 0o755), (self._configuration, 0, 0, 0o755)]
        folders += [(self.folder / "data", owner, -1, 0o700), (self.folder / "mail", delivering, -1, 0o755)]
        for path, user, its_group, mode in folders:
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, user, its_group)
            path.chmod(mode)

    def _write_configuration(self) -> None:
        routes = "".join(f"{domain} {route}\n" for domain, route in self._routes.items())
        mail = self.folder / "mail"
        mailboxes = "".join(f"{address} {path.relative_to(mail)}/\n" for address, path in self._mailboxes.items())
        parameters = "".join(f"{name} = {value}\n" for name, value in (self._defaults() | self._parameters).items())
        service = f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
        (self._configuration / "transport").write_text(routes)
        (self._configuration / "mailboxes").write_text(mailboxes)
        (self._configuration / "main.cf").write_text(parameters)
        (self._configuration / "master.cf").write_text(service + SERVICES)

    def _defaults(self) -> dict[str, str]:
        user = pwd.getpwnam(MAILDIR_USER)
        domains = sorted({address.rsplit("@", 1)[1] for address in self._mailboxes})
        libraries = environment()["LD_LIBRARY_PATH"]
        return self._places() | {
            "mail_owner": MAIL_OWNER,
            "setgid_group": DROP_GROUP,
            "default_privs": MAILDIR_USER,
            "import_environment": f"LD_LIBRARY_PATH={libraries} MAIL_CONFIG MAIL_LOGTAG TZ LANG=C",
            "myhostname": self.hostname,
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_peername_lookup": "no",
            # A test has no name servers; every domain is either here or in the transport table.
            "smtp_dns_support_level": "disabled",
            "smtp_host_lookup": "native",
            "transport_maps": f"texthash:{self._configuration}/transport",
            "alias_maps": "",
            "alias_database": "",
            "virtual_mailbox_domains": ", ".join(domains),
            "virtual_mailbox_base": f"{self.folder}/mail",
            "virtual_mailbox_maps": f"texthash:{self._configuration}/mailboxes",
            "virtual_uid_maps": f"static:{user.pw_uid}",
            "virtual_gid_maps": f"static:{user.pw_gid}",
            # What is deferred is tried again within seconds, not minutes.
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "2s",
            "queue_run_delay": "1s",
            "in_flow_delay": "0",
        }

    def _places(self) -> dict[str, str]:
        daemons = self._daemon_folder()
        return {
            "compatibility_level": "3.6",
            "command_directory": f"{daemons.parents[2] / 'sbin'}",
            "daemon_directory": f"{daemons}",
            "shlib_directory": f"{daemons.parent}",
            "meta_directory": f"{self._configuration}",
            "queue_directory": f"{self.folder}/spool",
            "data_directory": f"{self.folder}/data",
            "maillog_file": f"{self.folder}/mail.log",
            "maillog_file_prefixes": f"{self.folder}",
        }
