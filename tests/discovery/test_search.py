"""Finding servers: which way wins, what is refused, and that nothing secret is said before the owner agreed."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthouse.discovery import search as searching
from posthouse.discovery import trial as trying
from posthouse.discovery.candidate import How
from posthouse.discovery.trial import Refused, Unusable
from posthouse.mail.source import Mechanism, Protection, Server
from posthouse.net.dns import Service
from tests.discovery.provider import ADA, MailServer, Provider, page, pop3, running, smtp
from tests.net.authority import Authority

AUTOCONFIG = "https://autoconfig.far.test/mail/config-v1.1.xml"
WELL_KNOWN = "https://far.test/.well-known/autoconfig/mail/config-v1.1.xml"
NAMES = ("far.test", "autoconfig.far.test", "pop.far.test", "mail.far.test", "smtp.far.test", "elsewhere.test")


def document(pop: str = "pop.elsewhere.test", socket: str = "SSL", user: str = "%EMAILADDRESS%") -> str:
    def server(kind: str, type_: str, host: str, port: int) -> str:
        return (
            f'<{kind} type="{type_}"><hostname>{host}</hostname><port>{port}</port><socketType>{socket}</socketType>'
            f"<username>{user}</username><authentication>password-cleartext</authentication></{kind}>"
        )

    servers = server("incomingServer", "imap", "imap.elsewhere.test", 993)
    servers += server("incomingServer", "pop3", pop, 995) + server("outgoingServer", "smtp", "elsewhere.test", 465)
    inside = f'<emailProvider id="x">{servers}</emailProvider>'
    return f'<?xml version="1.0"?><clientConfig version="1.1">{inside}</clientConfig>'


def implicit(provider: Provider, *names: str) -> tuple[MailServer, MailServer]:
    tls = provider.authority.server(*(names or NAMES))
    return pop3(tls=tls, implicit=True), smtp(tls=tls, implicit=True)


async def test_srv_records_into_the_domain_are_taken_first(tmp_path: Path) -> None:
    def furnish(provider: Provider) -> None:
        receiving, sending = implicit(provider)
        provider.servers = {("pop.far.test", 995): receiving, ("mail.far.test", 465): sending}
        provider.records = {
            "_pop3s._tcp.far.test": (Service(20, 1, 995, "mail.far.test"), Service(10, 1, 995, "pop.far.test")),
            "_submissions._tcp.far.test": (Service(0, 1, 465, "mail.far.test"),),
        }
        provider.web_tls = provider.authority.server(*NAMES)
        provider.pages = {AUTOCONFIG: page(document())}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA)
    assert found.pop3 is not None
    assert found.smtp is not None
    assert found.pop3.candidate.server == Server("pop.far.test", 995, Protection.IMPLICIT)
    assert found.smtp.candidate.server == Server("mail.far.test", 465, Protection.IMPLICIT)
    assert (found.pop3.candidate.how, found.pop3.candidate.vouched) == (How.DNS, True)
    assert found.pop3.mechanisms == {Mechanism.PASSWORD}
    assert found.smtp.mechanisms == {Mechanism.PASSWORD, Mechanism.XOAUTH2}
    assert provider.passwords() == []


@pytest.mark.conformance("C219")
@pytest.mark.parametrize("url", [AUTOCONFIG, WELL_KNOWN])
async def test_autoconfig_comes_before_records_that_lead_elsewhere(tmp_path: Path, url: str) -> None:
    def furnish(provider: Provider) -> None:
        receiving, sending = implicit(provider, "pop.elsewhere.test", "elsewhere.test", "evil.test")
        provider.servers = {("pop.elsewhere.test", 995): receiving, ("elsewhere.test", 465): sending}
        provider.servers[("evil.test", 995)] = implicit(provider, "evil.test")[0]
        provider.records = {"_pop3s._tcp.far.test": (Service(0, 1, 995, "evil.test"),)}
        provider.web_tls = provider.authority.server(*NAMES)
        provider.pages = {url: page(document(user="%EMAILLOCALPART%"))}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA)
    assert found.pop3 is not None
    assert found.pop3.candidate.server == Server("pop.elsewhere.test", 995, Protection.IMPLICIT)
    assert (found.pop3.candidate.how, found.pop3.candidate.login) == (How.AUTOCONFIG, "ada")
    assert f"{url}?emailaddress=ada@far.test" in provider.asked


@pytest.mark.conformance("C218")
async def test_a_record_that_leads_elsewhere_is_not_vouched_for(tmp_path: Path) -> None:
    def furnish(provider: Provider) -> None:
        receiving, sending = implicit(provider, "pop.elsewhere.test", "smtp.far.test")
        provider.servers = {("pop.elsewhere.test", 995): receiving, ("smtp.far.test", 465): sending}
        provider.records = {"_pop3s._tcp.far.test": (Service(0, 1, 995, "pop.elsewhere.test"),)}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA)
    assert found.pop3 is not None
    assert found.smtp is not None
    assert not found.pop3.candidate.vouched
    assert (found.smtp.candidate.how, found.smtp.candidate.vouched) == (How.USUAL, True)


@pytest.mark.conformance("C218")
async def test_what_is_not_offered_is_not_tried(tmp_path: Path) -> None:
    def furnish(provider: Provider) -> None:
        receiving, sending = implicit(provider)
        provider.servers = {("pop.far.test", 995): receiving, ("smtp.far.test", 465): sending}
        provider.records = {"_pop3s._tcp.far.test": (Service(0, 0, 0, ""),)}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA)
        assert found.pop3 is None
        assert found.denied == {"POP3"}
        assert ("pop.far.test", 995) not in provider.connected
        # Only one of both services: the other is used.
        provider.records["_pop3._tcp.far.test"] = (Service(0, 0, 110, "pop.far.test"),)
        assert "POP3" not in (await provider.search().find(ADA)).denied


@pytest.mark.parametrize("port", [995, 110])
async def test_usual_names_are_tried_with_and_without_starttls(tmp_path: Path, port: int) -> None:
    def furnish(provider: Provider) -> None:
        tls = provider.authority.server(*NAMES)
        submission = 465 if port == 995 else 587
        provider.servers = {
            ("mail.far.test", port): pop3(tls=tls, implicit=port == 995),
            ("mail.far.test", submission): smtp(tls=tls, implicit=port == 995),
        }

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA)
    assert found.pop3 is not None
    assert found.smtp is not None
    assert found.pop3.candidate.server.port == port
    protection = Protection.IMPLICIT if port == 995 else Protection.STARTTLS
    assert found.smtp.candidate.server.protection is protection
    assert "pop.far.test:995: it cannot be reached: Connection refused" in found.tried["POP3"]


def of_name(provider: Provider) -> dict[str, MailServer]:
    """Servers that must not be used, by what is wrong with them."""
    good, authority = provider.authority.server(*NAMES), provider.authority
    return {
        "name": pop3(tls=authority.server("other.test"), implicit=True),
        "expired": pop3(tls=authority.server(*NAMES, begins_days=-20), implicit=True),
        "client": pop3(tls=authority.server(*NAMES, for_servers=False), implicit=True),
        "unknown": pop3(tls=Authority(Path(authority.file).parent / "b").server(*NAMES), implicit=True),
        "clear": pop3(),
        "stripped": pop3(offers=("USER",), start_tls=b"-ERR what\r\n"),
        "injected": pop3(tls=good, start_tls=b"+OK go\r\n+OK\r\nUSER\r\n.\r\n"),
        "half a line": pop3(tls=good, start_tls=b"+OK go\r\n+OK"),
        "nothing": pop3(tls=good, implicit=True, offers=("TOP",)),
        "garbage": MailServer(greeting=b"+\xff\xfe\r\n\r\nHTTP/1.0 400\r\n"),
        "refusal": MailServer(greeting=b"-ERR go away\r\n"),
    }


@pytest.mark.conformance("C145", "C271", "S4", "S5")
@pytest.mark.parametrize(
    "fault",
    [
        *("name", "expired", "client", "unknown", "clear", "stripped"),
        *("injected", "half a line", "nothing", "garbage", "refusal"),
    ],
)
async def test_a_server_that_is_not_safe_is_not_found(tmp_path: Path, fault: str) -> None:
    (tmp_path / "b").mkdir()

    def furnish(provider: Provider) -> None:
        server = of_name(provider)[fault]
        provider.servers = {("pop.far.test", 995 if server.implicit else 110): server}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA, sends=False)
        assert found.pop3 is None
        assert any(line.startswith("pop.far.test:") for line in found.tried["POP3"])
        assert provider.passwords() == []
        (server,) = provider.servers.values()
        assert set(server.in_clear) <= {"STLS", "QUIT", "CAPA"}


@pytest.mark.conformance("C271", "S4", "S5")
@pytest.mark.parametrize(
    "options",
    [
        {"offers": ("AUTH PLAIN",)},
        {"start_tls": b"454 no\r\n"},
        {"start_tls": b"220 go\r\n250-x\r\n250 AUTH PLAIN\r\n"},
        {"start_tls": b"220 go\r\n250"},
        {"start_tls": b"354 go\r\n"},
    ],
)
async def test_a_submission_server_that_is_not_safe_is_not_found(tmp_path: Path, options: dict[str, object]) -> None:
    def furnish(provider: Provider) -> None:
        provider.servers = {("smtp.far.test", 587): smtp(tls=provider.authority.server(*NAMES), **options)}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA)
        assert found.smtp is None
        server = Server("smtp.far.test", 587, Protection.STARTTLS)
        with pytest.raises(Unusable):
            await provider.search().trial.log_in(server, "ada", "geheim", Mechanism.PASSWORD)
        assert provider.passwords() == []


@pytest.mark.conformance("C219", "S5")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (page(document(socket="plain")), ""),
        (b"HTTP/1.1 302 x\r\nLocation: http://far.test/x\r\nContent-Length: 0\r\n\r\n", "only HTTPS is asked"),
        (b"HTTP/1.1 302 x\r\nLocation: //far.test:0/\r\nContent-Length: 0\r\n\r\n", "leads to no address"),
        (b"HTTP/1.1 302 x\r\nContent-Length: 0\r\n\r\n", "redirects again and again"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 80_000, "too long"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke the protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 80_000, "broke the protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", "broke the protocol"),
        (b"", "broke the protocol"),
        (page(b"\x00\x01"), "is not XML"),
    ],
)
async def test_an_autoconfig_that_is_not_safe_is_not_believed(tmp_path: Path, answer: bytes, words: str) -> None:
    def furnish(provider: Provider) -> None:
        # Nobody speaks TLS there; what is asked of it would be in clear.
        provider.servers = {("pop.elsewhere.test", 995): pop3()}
        provider.web_tls = provider.authority.server(*NAMES)
        provider.pages = {AUTOCONFIG: answer}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA, sends=False)
        assert found.pop3 is None
        assert any(words in line for line in found.tried[""])
        assert ("pop.elsewhere.test", 995) not in provider.connected
        assert all(port == 443 for host, port in provider.connected if host in ("far.test", "autoconfig.far.test"))


async def test_a_redirect_to_https_is_followed(tmp_path: Path) -> None:
    def furnish(provider: Provider) -> None:
        receiving, _ = implicit(provider, "pop.elsewhere.test")
        provider.servers = {("pop.elsewhere.test", 995): receiving}
        provider.web_tls = provider.authority.server(*NAMES)
        moved = b"HTTP/1.1 301 x\r\nLocation: https://elsewhere.test/here\r\nContent-Length: 0\r\n\r\n"
        provider.pages = {AUTOCONFIG: moved, "https://elsewhere.test/here": page(document())}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA, sends=False)
    assert found.pop3 is not None
    assert found.pop3.candidate.how is How.AUTOCONFIG


@pytest.mark.conformance("C145")
async def test_an_autoconfig_of_a_wrong_host_is_not_asked_for(tmp_path: Path) -> None:
    def furnish(provider: Provider) -> None:
        provider.web_tls = provider.authority.server("other.test")
        provider.pages = {AUTOCONFIG: page(document())}

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA, sends=False)
        assert provider.asked == []
    assert any("its certificate is for another name" in line for line in found.tried[""])


async def test_servers_that_say_nothing_do_not_hold_the_others_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "TRIAL_S", 0.2)

    def furnish(provider: Provider) -> None:
        receiving, sending = implicit(provider)
        provider.servers = {
            ("pop.far.test", 995): pop3(silent=True),
            ("mail.far.test", 995): receiving,
            ("smtp.far.test", 465): sending,
        }

    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA)
        assert found.pop3 is not None
        assert found.pop3.candidate.server.host == "mail.far.test"
        assert found.smtp is not None
        monkeypatch.setattr(searching, "WHOLE_S", 0.05)
        monkeypatch.setattr(trying, "TRIAL_S", 60.0)
        assert (await provider.search().find(ADA, sends=False)).pop3 is None


async def test_what_is_given_is_tried_and_nothing_is_looked_for(tmp_path: Path) -> None:
    def furnish(provider: Provider) -> None:
        receiving, sending = implicit(provider, "here.test")
        provider.servers = {("here.test", 995): receiving, ("here.test", 465): sending}

    given = [Server("here.test", port, Protection.IMPLICIT) for port in (995, 465)]
    async with running(tmp_path, furnish) as provider:
        found = await provider.search().find(ADA, pop3=given[0], smtp=given[1])
        assert found.pop3 is not None
        assert found.pop3.candidate.how is How.GIVEN
        assert {host for host, _ in provider.connected} == {"here.test"}


async def test_a_login_is_proven(tmp_path: Path) -> None:
    def furnish(provider: Provider) -> None:
        provider.servers = {("here.test", 465): implicit(provider, "here.test")[1]}

    server = Server("here.test", 465, Protection.IMPLICIT)
    async with running(tmp_path, furnish) as provider:
        trial = provider.search().trial
        await trial.log_in(server, "ada", "geheim", Mechanism.PASSWORD)
        await trial.log_in(server, "ada", "token", Mechanism.XOAUTH2)
        provider.servers["here.test", 465].refuse_login = True
        with pytest.raises(Refused, match=r"5\.7\.8 wrong"):
            await trial.log_in(server, "ada", "geheim", Mechanism.PASSWORD)
        with pytest.raises(Unusable, match="OAUTHBEARER"):
            await trial.log_in(server, "ada", "token", Mechanism.OAUTHBEARER)
