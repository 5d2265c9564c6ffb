"""curl, mpop and poplib fetch odd messages from Posthouse: every octet, and nothing twice."""

from __future__ import annotations

import contextlib
import poplib
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.peers import maildrop, odd_messages
from tests.peers.maildrop import ADA
from tests.peers.programs import PATIENCE_S, Program, Run
from tests.running_house import PASSWORD, RunningHouse

pytestmark = pytest.mark.peers

ODD = odd_messages.all_odd(130)
WITHOUT_NULS = odd_messages.all_odd(128, nuls=False)
LISTEN = {"smtp": ["127.0.0.1:0"], "pop3": ["127.0.0.1:0"], "pop3s": ["127.0.0.1:0"]}


@contextlib.contextmanager
def house_with(folder: Path, contents: list[bytes]) -> Iterator[RunningHouse]:
    """A house whose Ada has this mail, and whose certificate is `folder / "self-signed.crt"`."""
    maildrop.with_tls(folder)
    with RunningHouse(folder, listen=LISTEN) as house:
        maildrop.give(house.ports["smtp"], "anna@client.test", [ADA], contents)
        yield house


class TestPoplib:
    @staticmethod
    def fetch(client: poplib.POP3) -> list[bytes]:
        client.user(ADA)
        client.pass_(PASSWORD)
        fetched = []
        for number in range(1, client.stat()[0] + 1):
            lines = client.retr(number)[1]
            fetched.append(b"".join(line + b"\r\n" for line in lines))
        return fetched

    @pytest.fixture(autouse=True)
    def _long_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(poplib, "_MAXLINE", 2 * odd_messages.LONGEST_LINE_OCTETS)

    def test_fetches_every_octet(self, tmp_path: Path) -> None:
        with house_with(tmp_path, ODD) as house:
            client = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=PATIENCE_S)
            fetched = self.fetch(client)
            sizes = [int(line.split()[1]) for line in client.list()[1]]
            client.quit()
            assert fetched == maildrop.entries(house)
        assert [maildrop.without_ours(message) for message in fetched] == ODD
        assert sizes == [len(message) for message in fetched]

    @pytest.mark.conformance("C265")
    def test_fetches_every_octet_over_tls(self, tmp_path: Path) -> None:
        with house_with(tmp_path, ODD) as house:
            trust = ssl.create_default_context(cafile=tmp_path / "self-signed.crt")
            port = house.ports["pop3s"]
            client = poplib.POP3_SSL(maildrop.TLS_NAME, port, timeout=PATIENCE_S, context=trust)
            fetched = self.fetch(client)
            client.quit()
        assert [maildrop.without_ours(message) for message in fetched] == ODD

    @pytest.mark.conformance("C250")
    def test_top_of_every_message(self, tmp_path: Path) -> None:
        with house_with(tmp_path, ODD) as house:
            client = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=PATIENCE_S)
            client.user(ADA)
            client.pass_(PASSWORD)
            tops = [b"\r\n".join(client.top(number + 1, 3)[1]) for number in range(len(ODD))]
            client.quit()
            for top, whole in zip(tops, maildrop.entries(house), strict=True):
                header, empty_line, body = whole.partition(b"\r\n\r\n")
                wanted = header + empty_line + b"\r\n".join(body.split(b"\r\n")[:3])
                assert top.rstrip(b"\r\n") == wanted.rstrip(b"\r\n")

    @pytest.mark.conformance("C247")
    def test_deletes(self, tmp_path: Path) -> None:
        with house_with(tmp_path, ODD[:5]) as house:
            client = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=PATIENCE_S)
            self.fetch(client)
            client.dele(2)
            client.dele(4)
            client.quit()
            left = maildrop.entries(house)
        assert [maildrop.without_ours(message) for message in left] == [ODD[0], ODD[2], ODD[4]]

    @pytest.mark.long
    def test_fetches_a_huge_message(self, tmp_path: Path) -> None:
        content = odd_messages.huge(20 * 2**20)
        with house_with(tmp_path, [content]) as house:
            client = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=PATIENCE_S)
            (fetched,) = self.fetch(client)
            client.quit()
        assert maildrop.without_ours(fetched) == content


class TestCurl:
    @staticmethod
    def fetch(curl: Program, url: str, folder: Path, *options: str | Path) -> list[bytes]:
        run = curl("-sS", "--disable", "--user", f"{ADA}:{PASSWORD}", *options, "-o", folder / "got.#1", url)
        assert run.succeeded, str(run)
        files = sorted(folder.glob("got.*"), key=lambda path: int(path.suffix[1:]))
        return [path.read_bytes() for path in files]

    def test_fetches_every_octet(self, curl: Program, tmp_path: Path) -> None:
        with house_with(tmp_path, ODD) as house:
            url = f"pop3://127.0.0.1:{house.ports['pop3']}/[1-{len(ODD)}]"
            fetched = self.fetch(curl, url, tmp_path)
            assert fetched == maildrop.entries(house)
        assert [maildrop.without_ours(message) for message in fetched] == ODD

    def test_fetches_every_octet_over_tls(self, curl: Program, tmp_path: Path) -> None:
        with house_with(tmp_path, ODD) as house:
            url = f"pop3s://{maildrop.TLS_NAME}:{house.ports['pop3s']}/[1-{len(ODD)}]"
            fetched = self.fetch(curl, url, tmp_path, "--cacert", tmp_path / "self-signed.crt")
        assert [maildrop.without_ours(message) for message in fetched] == ODD

    @pytest.mark.conformance("C243")
    def test_lists(self, curl: Program, tmp_path: Path) -> None:
        with house_with(tmp_path, ODD[:3]) as house:
            user = ["--user", f"{ADA}:{PASSWORD}"]
            run = curl("-sS", "--disable", *user, f"pop3://127.0.0.1:{house.ports['pop3']}/")
            sizes = [len(entry) for entry in maildrop.entries(house)]
        assert run.succeeded, str(run)
        assert run.stdout == b"".join(b"%d %d\r\n" % pair for pair in enumerate(sizes, start=1))

    @pytest.mark.long
    def test_fetches_a_huge_message(self, curl: Program, tmp_path: Path) -> None:
        content = odd_messages.huge(20 * 2**20)
        with house_with(tmp_path, [content]) as house:
            url = f"pop3://127.0.0.1:{house.ports['pop3']}/[1-1]"
            (fetched,) = self.fetch(curl, url, tmp_path)
        assert maildrop.without_ours(fetched) == content


@dataclass(frozen=True)
class MpopAccount:
    """mpop with one account; `keep`: leave mail on the server."""

    program: Program
    folder: Path
    house: RunningHouse
    delivery: str

    def __call__(self, *, keep: bool, tls: bool = False) -> Run:
        door, host = ("pop3s", maildrop.TLS_NAME) if tls else ("pop3", "127.0.0.1")
        trust = f"tls_trust_file {self.folder / 'self-signed.crt'}\n" if tls else ""
        (self.folder / "mpoprc").write_text(
            f"account house\nhost {host}\nport {self.house.ports[door]}\nuser {ADA}\npassword {PASSWORD}\nauth user\n"
            f"tls {'on' if tls else 'off'}\ntls_starttls off\n{trust}"
            f"keep {'on' if keep else 'off'}\nuidls_file {self.folder / 'uidls'}\nreceived_header off\n"
            f"delivery {self.delivery}\n"
        )
        (self.folder / "mpoprc").chmod(0o600)
        run = self.program("--file", self.folder / "mpoprc", "--quiet", "house")
        assert run.succeeded, str(run)
        return run


def new_maildir(folder: Path) -> Path:
    path = folder / "Maildir"
    for part in ("cur", "new", "tmp"):
        (path / part).mkdir(parents=True)
    return path


def in_maildir(maildir: Path) -> Counter[bytes]:
    """What was delivered; a Maildir's lines end in LF."""
    return Counter(path.read_bytes() for path in (maildir / "new").iterdir())


def as_in_maildir(messages: list[bytes]) -> Counter[bytes]:
    return Counter(message.replace(b"\r\n", b"\n") for message in messages)


class TestMpop:
    @pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
    def test_keeps_and_downloads_nothing_twice(self, mpop: Program, tmp_path: Path, tls: bool) -> None:
        maildir = new_maildir(tmp_path)
        with house_with(tmp_path, WITHOUT_NULS) as house:
            account = MpopAccount(mpop, tmp_path, house, f"maildir {maildir}")
            account(keep=True, tls=tls)
            here = maildrop.entries(house)
            assert [maildrop.without_ours(message) for message in here] == WITHOUT_NULS
            assert in_maildir(maildir) == as_in_maildir(here)
            account(keep=True, tls=tls)
            assert sum(in_maildir(maildir).values()) == len(WITHOUT_NULS)
            maildrop.give(house.ports["smtp"], "anna@client.test", [ADA], [b"Subject: new\r\n\r\nnew\r\n"])
            account(keep=True, tls=tls)
            assert in_maildir(maildir) == as_in_maildir(maildrop.entries(house))
            assert maildrop.count(house) == len(WITHOUT_NULS) + 1

    def test_deletes_what_it_fetched(self, mpop: Program, tmp_path: Path) -> None:
        maildir = new_maildir(tmp_path)
        with house_with(tmp_path, WITHOUT_NULS) as house:
            here = maildrop.entries(house)
            account = MpopAccount(mpop, tmp_path, house, f"maildir {maildir}")
            account(keep=False)
            assert in_maildir(maildir) == as_in_maildir(here)
            assert maildrop.count(house) == 0
            account(keep=False)
            assert sum(in_maildir(maildir).values()) == len(WITHOUT_NULS)

    def test_kept_mail_is_deleted_later_without_another_download(self, mpop: Program, tmp_path: Path) -> None:
        maildir = new_maildir(tmp_path)
        with house_with(tmp_path, WITHOUT_NULS[:10]) as house:
            account = MpopAccount(mpop, tmp_path, house, f"maildir {maildir}")
            account(keep=True)
            account(keep=False)
            assert maildrop.count(house) == 0
        assert sum(in_maildir(maildir).values()) == 10

    def test_writes_the_same_octets_for_exchange(self, mpop: Program, tmp_path: Path) -> None:
        folder = tmp_path / "pickup"
        folder.mkdir()
        with house_with(tmp_path, WITHOUT_NULS) as house:
            MpopAccount(mpop, tmp_path, house, f"exchange {folder}")(keep=True)
            here = maildrop.entries(house)
        assert Counter(path.read_bytes() for path in folder.iterdir()) == Counter(here)
