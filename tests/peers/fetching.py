"""Programs that fetch a maildrop by POP3, each as its users set it up: what they hold afterwards, octet for octet."""

from __future__ import annotations

import hashlib
import poplib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.peers.maildrop import ADA
from tests.peers.programs import PATIENCE_S, Program
from tests.running_house import PASSWORD, RunningHouse

LONG_S = 4 * PATIENCE_S


def digests(messages: Iterable[bytes]) -> Counter[bytes]:
    return Counter(hashlib.sha256(message).digest() for message in messages)


class Client(ABC):
    """A program with an account at the house, and a folder of its own. `lines_end`: how it keeps them."""

    lines_end = b"\n"

    def __init__(self, house: RunningHouse, folder: Path, program: Program | None = None) -> None:
        self.port = house.ports["pop3"]
        self.folder = folder
        self.mail = folder / "mail"
        self._program = program
        for part in ("cur", "new", "tmp"):
            (self.mail / part).mkdir(parents=True)

    @abstractmethod
    def fetch(self, *, keep: bool) -> None:
        """Fetch what is new to it; `keep`: leave it in the maildrop, else delete it there."""

    @property
    def program(self) -> Program:
        assert self._program is not None
        return self._program

    def fetched(self) -> list[bytes]:
        return [path.read_bytes() for part in ("cur", "new") for path in (self.mail / part).iterdir()]

    def assert_has(self, messages: list[bytes]) -> None:
        """Each of these once, and nothing else."""
        mine = digests(self.fetched())
        wanted = digests(message.replace(b"\r\n", self.lines_end) for message in messages)
        assert mine == wanted, f"{(wanted - mine).total()} are missing, {(mine - wanted).total()} are not as they were"

    def settings(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def one_file_for_each(self) -> Path:
        """A program that puts what it reads into a file of its own."""
        return self.settings("deliver", f"#!/bin/sh\nexec cat >{self.mail}/new/$$\n", 0o700)


class Mpop(Client):
    remembers = True

    def fetch(self, *, keep: bool) -> None:
        settings = self.settings(
            "mpoprc",
            f"account house\nhost 127.0.0.1\nport {self.port}\nuser {ADA}\npassword {PASSWORD}\nauth user\ntls off\n"
            f"keep {'on' if keep else 'off'}\nuidls_file {self.folder / 'uidls'}\nreceived_header off\n"
            f"delivery maildir {self.mail}\n",
        )
        run = self.program("--file", settings, "--quiet", "house", timeout_s=LONG_S)
        assert run.succeeded, str(run)


class Mutt(Client):
    remembers = False

    def fetch(self, *, keep: bool) -> None:
        settings = self.settings(
            "muttrc",
            f'set folder="{self.folder}" mbox_type=Maildir spoolfile="{self.mail}" header_cache="" sleep_time=0\n'
            f'set pop_host="pop://127.0.0.1:{self.port}" pop_user="{ADA}" pop_pass="{PASSWORD}"\n'
            f"set pop_authenticators=user pop_delete={'no' if keep else 'yes'} ssl_starttls=no ssl_force_tls=no\n"
            'push "<fetch-mail><quit>"\n',
        )
        run = self.program.on_a_terminal("-n", "-F", settings, "-f", self.mail, home=self.folder, timeout_s=LONG_S)
        assert run.succeeded, str(run)


class Fetchmail(Client):
    remembers = True

    def fetch(self, *, keep: bool) -> None:
        settings = self.settings(
            "fetchmailrc",
            "set invisible\nset no bouncemail\n"
            f"poll 127.0.0.1 protocol POP3 port {self.port} auth password uidl bad-header accept\n"
            f' user "{ADA}" password "{PASSWORD}" {"keep" if keep else "nokeep"} no rewrite pass8bits stripcr\n'
            f" sslproto '' mda \"{self.one_file_for_each()}\"\n",
        )
        files = ["--idfile", self.folder / "ids", "--pidfile", self.folder / "pid"]
        run = self.program("--silent", "--fetchmailrc", settings, *files, home=self.folder, timeout_s=LONG_S)
        assert run.status in (0, 1), str(run)  # 1: there was nothing new


class Curl(Client):
    lines_end = b"\r\n"
    remembers = False

    def fetch(self, *, keep: bool) -> None:
        door = f"pop3://127.0.0.1:{self.port}"
        options = ["-sS", "--disable", "--user", f"{ADA}:{PASSWORD}"]
        listed = self.program(*options, f"{door}/")
        assert listed.succeeded, str(listed)
        if not (count := listed.stdout.count(b"\r\n")):
            return
        run = self.program(*options, "-o", self.mail / "new" / "#1", f"{door}/[1-{count}]", timeout_s=LONG_S)
        assert run.succeeded, str(run)
        if not keep:
            run = self.program(*options, "--request", "DELE", "--head", f"{door}/[1-{count}]", timeout_s=LONG_S)
            assert run.succeeded, str(run)


class Poplib(Client):
    lines_end = b"\r\n"
    remembers = False

    def fetch(self, *, keep: bool) -> None:
        client = poplib.POP3("127.0.0.1", self.port, timeout=LONG_S)
        client.user(ADA)
        client.pass_(PASSWORD)
        for number in range(1, client.stat()[0] + 1):
            octets = b"".join(line + b"\r\n" for line in client.retr(number)[1])
            (self.mail / "new" / str(number)).write_bytes(octets)
            if not keep:
                client.dele(number)
        client.quit()


class NetPop3(Client):
    """Perl's own class, in as many lines as its manual shows."""

    remembers = False
    script = """
        use strict; use Net::POP3;
        my ($port, $login, $password, $folder, $keep) = @ARGV;
        my $pop = Net::POP3->new("127.0.0.1", Port => $port, Timeout => 120) or die "no greeting";
        defined $pop->login($login, $password) or die "no login: " . $pop->message;
        for my $number (sort { $a <=> $b } keys %{ $pop->list }) {
            open my $file, ">:raw", "$folder/$number" or die $!;
            $pop->get($number, $file) or die $pop->message;
            close $file or die $!;
            $pop->delete($number) or die $pop->message unless $keep;
        }
        $pop->quit or die $pop->message;
    """

    def fetch(self, *, keep: bool) -> None:
        arguments = [str(self.port), ADA, PASSWORD, self.mail / "new", "1" if keep else "0"]
        run = self.program("-e", self.script, *arguments, timeout_s=LONG_S)
        assert run.succeeded, str(run)
