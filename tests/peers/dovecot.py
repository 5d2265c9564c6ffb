"""A real Dovecot on loopback that serves POP3, run from its unpacked package with its files in one temporary folder.

Its `master` starts as root and lets its processes become other users, as Postfix's does; nothing is installed.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.peers.programs import accepts, end, environment, find, free_port, spawn, wait_until

INTERNAL_USER = "daemon"
LOGIN_USER = "nobody"
MAIL_USER = "mail"
COMPILED_MODULES = b"/usr/lib/dovecot/modules\0"
"""Where its library looks for modules, whatever is configured; our copy of the library looks into our folder."""

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
libexec_dir = {libraries}
mail_plugin_dir = {libraries}/modules
auth_stats = no
import_environment = TZ LD_LIBRARY_PATH={search}
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
listen = 127.0.0.1
protocols = pop3
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 0
mail_uid = {mail}
mail_gid = {mail_group}
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%u
mail_fsync = never
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/users
}}
userdb {{
  driver = static
  args = uid={mail} gid={mail_group} home={folder}/mail/%u
}}
service pop3-login {{
  chroot =
  service_count = 0
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service pop3 {{
  service_count = 100
  process_limit = 50
}}
service anvil {{
  chroot =
  # Nobody waits for longer and longer because others guessed wrong.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
{settings}
"""


def why_not() -> str | None:
    """Why Dovecot cannot run here, or None when it can."""
    if find("dovecot") is None:
        return "Dovecot is not here: run scripts/peers"
    if os.geteuid() != 0:
        return "Dovecot's master process runs only as root"
    return None


def new_folder() -> Path:
    """A folder that Dovecot's other users may enter."""
    # A short name: it has to fit into the place of COMPILED_MODULES.
    folder = Path(tempfile.mkdtemp(prefix="dove-", dir="/tmp"))
    folder.chmod(0o755)
    return folder


@dataclass(kw_only=True)
class DovecotServer:
    """One Dovecot. `fill` makes a maildrop, whose owner logs in with `password`."""

    password: str = "secret"
    settings: str = ""
    folder: Path = field(default_factory=new_folder)
    port: int = field(default_factory=free_port)
    _master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        dovecot = find("dovecot")
        assert dovecot is not None
        for name in ("run", "state", "mail"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "users").touch()
        self._give(self.folder / "mail")
        libraries = dovecot.parents[1] / "lib" / "dovecot"
        self._place_modules(libraries)
        users = {name: pwd.getpwnam(user) for name, user in (("internal", INTERNAL_USER), ("mail", MAIL_USER))}
        text = CONFIGURATION.format(
            folder=self.folder,
            port=self.port,
            settings=self.settings,
            libraries=libraries,
            search=f"{self.folder}:{libraries}/modules/old-stats:{environment()['LD_LIBRARY_PATH']}",
            internal=INTERNAL_USER,
            internal_group=grp.getgrgid(users["internal"].pw_gid).gr_name,
            login=LOGIN_USER,
            mail=MAIL_USER,
            mail_group=grp.getgrgid(users["mail"].pw_gid).gr_name,
        )
        configuration = self.folder / "dovecot.conf"
        configuration.write_text(text)
        doveconf = find("doveconf")
        assert doveconf is not None
        # As its master would do by itself, were doveconf where it was compiled to be.
        reading = [doveconf, "-f", "service=master", "-c", configuration, "-m", "master", "-e"]
        command = [*reading, dovecot, "-F", "-c", configuration]
        self._master = spawn(command, self.folder, self.folder / "master.log")
        wait_until(self._is_up, "Dovecot did not start")

    def stop(self) -> None:
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

    def fill(self, login: str, messages: Sequence[bytes]) -> None:
        """Put messages, whose lines end in CRLF, into a maildrop that does not exist yet, in this order."""
        with (self.folder / "users").open("a") as users:
            users.write(f"{login}:{{PLAIN}}{self.password}::::::\n")
        maildrop = self.folder / "mail" / login
        for part in ("", "cur", "new", "tmp"):
            (maildrop / part).mkdir()
            self._give(maildrop / part)
        for number, message in enumerate(messages, start=1):
            path = maildrop / "new" / f"{1_700_000_000 + number}.M{number}P1.there,S={len(message)}"
            path.write_bytes(message)
            self._give(path)

    def messages(self, login: str) -> list[bytes]:
        """What is in a maildrop now, in the order of arrival."""
        maildrop = self.folder / "mail" / login
        files = [path for part in ("cur", "new") for path in (maildrop / part).iterdir()]
        return [path.read_bytes() for path in sorted(files, key=lambda path: path.name)]

    def log(self) -> str:
        texts = [self.folder / name for name in ("master.log", "dovecot.log")]
        return "".join(path.read_text("utf-8", "replace") for path in texts if path.exists())

    def _place_modules(self, libraries: Path) -> None:
        place = self.folder / "m"
        place.symlink_to(libraries / "modules")
        library = (libraries / "libdovecot.so.0").read_bytes()
        assert library.count(COMPILED_MODULES) == 1
        (self.folder / "libdovecot.so.0").write_bytes(
            library.replace(COMPILED_MODULES, str(place).encode().ljust(len(COMPILED_MODULES), b"\0"))
        )

    def _give(self, path: Path) -> None:
        user = pwd.getpwnam(MAIL_USER)
        os.chown(path, user.pw_uid, user.pw_gid)

    def _is_up(self) -> bool:
        assert self._master is not None
        if self._master.poll() is not None:
            raise RuntimeError(self.log())
        return accepts(self.port)
