"""The configuration: each mistake is one line that names its key, and the document says what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from posthouse import config
from posthouse.config import Config, ConfigError, find, load, parse, reloaded
from posthouse.config_forwarding import Credentials, TlsMode, UnusablePassword
from posthouse.config_values import Endpoint, parse_duration, parse_endpoint

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
LEAST = 'hostname = "mx.example.org"\ndata_dir = "data"\n'


def house(text: str = "", least: str = LEAST) -> Config:
    return parse(tomllib.loads(least + text), Path("/etc/house/posthouse.toml"))


BAD = {
    "unknown": ("hostnam = 1", "unknown key hostnam; did you mean hostname?"),
    "unknown in a section": ("[reception]\nrecipient = 1", "unknown key reception.recipient; did you mean recipients?"),
    "unknown section": ("[listn]\nsmtp = []", "unknown key listn; did you mean listen?"),
    "unknown, nothing near": ("[reception]\nzzz = 1", "unknown key reception.zzz"),
    "unknown with a line end": ('"a\\nb" = 1', r"unknown key a\nb"),
    "section as value": ("listen = 5", "listen must be a table"),
    "number as text": ('[reception]\nrecipients = "200"', "reception.recipients must be a whole number"),
    "flag as number": ("[reception]\nsessions = true", "reception.sessions must be a whole number"),
    "fraction": ("[reception]\nsessions = 1.5", "reception.sessions must be a whole number"),
    "text as flag": ('[auth]\nallow_cleartext = "yes"', "auth.allow_cleartext must be true or false"),
    "number as flag": ("[auth]\nallow_cleartext = 1", "auth.allow_cleartext must be true or false"),
    "too small": ("[reception]\nmessage_size_octets = 5", "reception.message_size_octets: Input should be greater"),
    "no sessions": ("[retrieval]\nsessions = 0", "retrieval.sessions: Input should be greater"),
    "few recipients": ("[reception]\nrecipients = 99", "reception.recipients: Input should be greater"),
    "port": ("[forwarding]\nport = 65536", "forwarding.port: Input should be less"),
    "duration without unit": ('[reception]\ncommand_timeout = "5"', "reception.command_timeout: '5' is not a duration"),
    "duration as number": ("[reception]\ncommand_timeout = 5", "reception.command_timeout: 5 is not a duration"),
    "duration as fraction": ("[reception]\ncommand_timeout = 5.0", "reception.command_timeout: 5.0 is not a duration"),
    "duration of nothing": ('[retrieval]\nidle_timeout = "0s"', "retrieval.idle_timeout: '0s' must be longer than"),
    "negative duration": ('[forwarding]\nexpire_after = "-5d"', "forwarding.expire_after: '-5d' is not a duration"),
    "duration in a list": ('[forwarding]\nretry = ["5m", "x"]', "forwarding.retry.1: 'x' is not a duration"),
    "duration for a list": ('[forwarding]\nretry = "5m"', "forwarding.retry must be a list"),
    "empty retry": ("[forwarding]\nretry = []", "forwarding.retry: at least one interval"),
    "listen on a name": ('[listen]\nsmtp = ["localhost:25"]', "listen.smtp.0: 'localhost:25': listen on an IP address"),
    "listen without port": ('[listen]\nsmtp = ["127.0.0.1"]', "listen.smtp.0: '127.0.0.1' lacks a port"),
    "listen on a large port": ('[listen]\nsmtp = ["127.0.0.1:70000"]', "listen.smtp.0: '127.0.0.1:70000' has a port"),
    "IPv6 without brackets": ('[listen]\npop3 = ["::1:110"]', "listen.pop3.0: '::1:110' is not host:port"),
    "listen as text": ('[listen]\npop3 = "127.0.0.1:110"', "listen.pop3 must be a list"),
    "listen as number": ("[listen]\npop3 = [110]", "listen.pop3.0: 110 is not a string like"),
    "cleartext submission": (
        '[auth]\nallow_cleartext = true\n[listen]\nsubmission = ["0.0.0.0:587"]',
        "auth.allow_cleartext would send passwords in clear over 0.0.0.0:587",
    ),
    "cleartext POP3": (
        '[auth]\nallow_cleartext = true\n[listen]\npop3 = ["127.0.0.1:110", "[2001:db8::1]:110"]',
        "auth.allow_cleartext would send passwords in clear over [2001:db8::1]:110",
    ),
    "certificate without key": ('[tls]\ncertificate = "c.pem"', "tls.certificate and tls.key belong together"),
    "key without certificate": ('[tls]\nkey = "k.pem"', "tls.certificate and tls.key belong together"),
    "name with two certificates": (
        "".join('[[tls.names]]\nhost = "A.test"\ncertificate = "c"\nkey = "k"\n' for _ in range(2)),
        "tls.names: 'a.test' has two certificates",
    ),
    "name that is none": (
        '[[tls.names]]\nhost = "*"\ncertificate = "c"\nkey = "k"',
        "tls.names.0.host: '*' is not a host name",
    ),
    "name without key": ('[[tls.names]]\nhost = "a.test"\ncertificate = "c"', "tls.names.0.key is missing"),
    "proxy by name": ('[reception]\nproxy_from = ["proxy.test"]', "reception.proxy_from.0: 'proxy.test' does not"),
    "empty path": ('[tls]\nkey = ""\ncertificate = "c"', "tls.key: '' is not a path"),
    "path with NUL": ('[tls]\nkey = "a\\u0000"\ncertificate = "c"', r"tls.key: 'a\x00' is not a path"),
    "path as number": ("[tls]\nkey = 5", "tls.key must be a path in quotes"),
    "engine": ('[storage]\ndatabase = "postgresql://x/y"', 'storage.database: this version has only "sqlite"'),
    "content engine": ('[storage]\ncontent = "s3://x"', 'storage.content: this version has only "local"'),
    "network with host bits": (
        '[reception]\ntrusted_networks = ["10.0.0.1/8"]',
        "reception.trusted_networks.0: 10.0.0.1/8",
    ),
    "network as number": ("[reception]\ntrusted_networks = [5]", "reception.trusted_networks.0: 5 is not a string"),
    "route from no domain": ('[forwarding]\nroutes = { "a b" = "x" }', "forwarding.routes: 'a b' is not a host name"),
    "route to no host": ('[forwarding]\nroutes = { "*" = "a b" }', "forwarding.routes: 'a b' is not a host name"),
    "route to port 0": ('[forwarding]\nroutes = { "*" = "x:0" }', "forwarding.routes: 'x:0' has port 0"),
    "route given twice": (
        '[forwarding]\nroutes = { "a.test" = "", "A.test" = "x" }',
        "forwarding.routes: 'a.test' has two routes",
    ),
    "route to a number": ("[forwarding]\nroutes = { x = 5 }", "forwarding.routes.x must be a string"),
    "routes as text": ('[forwarding]\nroutes = "x"', "forwarding.routes must be a table"),
    "hello of localhost": ('[forwarding]\nhello_name = "localhost"', "forwarding.hello_name: 'localhost' is neither"),
    "hello below localhost": ('[forwarding]\nhello_name = "mx.localhost"', "forwarding.hello_name: 'mx.localhost' is"),
    "hello of one label": ('[forwarding]\nhello_name = "mx"', "forwarding.hello_name: 'mx' is neither a full name"),
    "hello as address": ('[forwarding]\nhello_name = "192.0.2.1"', "forwarding.hello_name: '192.0.2.1' is neither"),
    "source by name": (
        '[forwarding]\nsource_addresses = ["a.test"]',
        "forwarding.source_addresses.0: 'a.test' does not",
    ),
    "two sources": (
        '[forwarding]\nsource_addresses = ["192.0.2.1", "192.0.2.2"]',
        "forwarding.source_addresses: at most one IPv4 and one IPv6",
    ),
    "TLS that is none": ('[forwarding]\ntls = "maybe"', "forwarding.tls: Input should be 'never'"),
    "implicit TLS for all": ('[forwarding]\ntls = "implicit"', "forwarding.tls: implicit is for single next hops"),
    "implicit TLS for a domain": (
        '[forwarding]\ntls_policies = { "bank.test" = "implicit" }',
        "forwarding.tls_policies: 'bank.test': implicit is for a next hop with its port, such as bank.test:465",
    ),
    "two policies": (
        '[forwarding]\ntls_policies = { "A.test" = "never", "a.test" = "required" }',
        "forwarding.tls_policies: 'a.test' has two policies",
    ),
    "MX at 465": ("[forwarding]\nport = 465", "forwarding: port 465 is for submission"),
    "login without port": (
        '[forwarding.login."relay.test"]\nuser = "me"\npassword_file = "p"',
        "forwarding.login: 'relay.test' lacks a port: write for example relay.test:587",
    ),
    "login without user": (
        '[forwarding.login."r.test:587"]\npassword_file = "p"',
        "forwarding.login.r.test:587.user is",
    ),
    "login in clear": (
        '[forwarding.login."r.test:587"]\nuser = "me"\npassword_file = "p"\ntls = "never"',
        "forwarding.login: 'r.test:587' would get the password in clear",
    ),
    "login maybe in clear": (
        '[forwarding.login."r.test:587"]\nuser = "me"\npassword_file = "p"\ntls = "opportunistic"',
        "forwarding.login: 'r.test:587' would get the password in clear",
    ),
    "login without name": (
        '[forwarding.login."r.test:587"]\nuser = ""\npassword_file = "p"',
        "forwarding.login.r.test",
    ),
    "name server by name": ('[dns]\nservers = ["ns.test"]', "dns.servers: 'ns.test': a name server is an IP address"),
    "postmaster": ('postmaster = "me"', "postmaster: 'me' is not an address"),
    "postmaster as number": ("postmaster = 5", "postmaster: 5 is not a string"),
    "no workers": ("workers = 0", "workers"),
    "admin for strangers": (
        '[listen]\nadmin = ["192.0.2.1:8026"]',
        "listen.admin.0: 192.0.2.1:8026 can be reached by strangers, and asks nobody who they are",
    ),
    "admin for everybody": ('[listen]\nadmin = ["0.0.0.0:8026"]', "listen.admin.0: 0.0.0.0:8026 can be reached"),
    "admin for everybody, IPv6": ('[listen]\nadmin = ["[::]:8026"]', "listen.admin.0: [::]:8026 can be reached"),
    "admin for strangers, mapped": (
        '[listen]\nadmin = ["[::ffff:192.0.2.1]:8026"]',
        "listen.admin.0: [::ffff:192.0.2.1]:8026 can be reached",
    ),
    "not yet: web": ('[listen]\nweb = ["127.0.0.1:8025"]', "unknown key listen.web"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(ConfigError) as raised:
        house(text)
    shown = str(raised.value)
    assert shown.startswith(f"/etc/house/posthouse.toml: {message}")
    assert shown.isprintable()
    assert len(shown) < 400


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.1.2.3", "192.168.1.1", "100.64.0.1", "[fd00::1]"])
def test_the_admin_door_is_for_this_machine_and_private_networks(host: str) -> None:
    (endpoint,) = house(f'[listen]\nadmin = ["{host}:8026"]').listen.admin
    assert str(endpoint) == f"{host}:8026"


@pytest.mark.parametrize(
    ("least", "message"),
    [
        ('data_dir = "x"', "hostname is missing"),
        ('hostname = "mx.example.org"', "data_dir is missing"),
        ('hostname = "localhost"\ndata_dir = "x"', "hostname 'localhost' is not a full name"),
        ('hostname = "192.0.2.1"\ndata_dir = "x"', "hostname '192.0.2.1' is an IP address; write [192.0.2.1]"),
        ('hostname = "a b.test"\ndata_dir = "x"', "hostname: 'a b.test' is not a host name"),
        ('hostname = 5\ndata_dir = "x"', "hostname: 5 is not a string"),
        ('hostnme = "mx.example.org"\ndata_dir = "x"', "unknown key hostnme; did you mean hostname?"),
    ],
)
def test_what_every_house_needs(least: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        house(least=least)
    assert str(raised.value).startswith(f"/etc/house/posthouse.toml: {message}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "posthouse.toml"
    messages = []
    for octets in (b"hostname = ", b"hostname = \xff", b"x = " + b"[" * 100_000):
        file.write_bytes(octets)
        with pytest.raises(ConfigError) as raised:
            load(file)
        messages.append(str(raised.value).removeprefix(f"{file} ").split(" (")[0])
    assert messages[0].startswith("is not valid TOML: Invalid value")
    assert messages[1] == "is not UTF-8, as TOML must be"
    assert messages[2].startswith("is not valid TOML")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"does not exist; make a house with: posthouse init$"):
        load(tmp_path / "none.toml")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "posthouse.toml").write_text(LEAST, encoding="utf-8-sig")
    assert load(tmp_path / "posthouse.toml").hostname == "mx.example.org"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "p.toml").write_text(LEAST + '[tls]\ncertificate = "c.pem"\nkey = "/run/k.pem"\n')
    for path in (Path("etc/p.toml"), tmp_path / "etc" / "p.toml"):
        loaded = load(path)
        assert loaded.data_dir == tmp_path / "etc" / "data"
        assert loaded.tls.certificate == tmp_path / "etc" / "c.pem"
        assert loaded.tls.key == Path("/run/k.pem")


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSTHOUSE_CONFIG", raising=False)
    monkeypatch.setattr(config, "MACHINES", tmp_path / "etc.toml")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with pytest.raises(
        ConfigError, match=r"the folder of the house, or name its file with --config FILE; .*posthouse init"
    ):
        find(None)
    (tmp_path / "etc.toml").touch()
    assert find(None) == tmp_path / "etc.toml"
    (tmp_path / "posthouse.toml").touch()
    assert find(None) == Path("posthouse.toml")
    monkeypatch.setenv("POSTHOUSE_CONFIG", "/x/named.toml")
    assert find(None) == Path("/x/named.toml")
    assert find(Path("told.toml")) == Path("told.toml")


def test_certificates_by_name() -> None:
    text = '[[tls.names]]\nhost = "*.BÜCHER.test"\ncertificate = "c.pem"\nkey = "/run/k.pem"'
    (name,) = house(text).tls.names
    assert (name.host, name.certificate, name.key) == (
        "*.xn--bcher-kva.test",
        Path("/etc/house/c.pem"),
        Path("/run/k.pem"),
    )


def test_what_a_running_house_makes_of_another_file() -> None:
    before = house('[listen]\npop3 = ["0.0.0.0:110"]')
    after = house('[listen]\npop3 = ["127.0.0.1:110"]\n[reception]\nerrors = 7')
    kept, ignored = reloaded(before, after)
    assert ignored == ("listen",)
    assert (kept.listen, kept.reception.errors) == (before.listen, 7)
    assert reloaded(after, after) == (after, ())
    clear = house('[auth]\nallow_cleartext = true\n[listen]\npop3 = ["127.0.0.1:110"]')
    with pytest.raises(ConfigError, match=r"listen cannot change before a restart.*in clear over 0\.0\.0\.0:110"):
        reloaded(before, clear)


def test_routes() -> None:
    routes = '{ "exact.test" = "127.0.0.1:2727", "BÜCHER.test" = "relay", "mx.test" = "", "*" = "[::1]:26" }'
    forwarding = house(f"[forwarding]\nroutes = {routes}").forwarding
    assert forwarding.next_hop("exact.test") == Endpoint("127.0.0.1", 2727)
    assert forwarding.next_hop("xn--bcher-kva.test") == Endpoint("relay", 25)
    assert forwarding.next_hop("other.test") == Endpoint("::1", 26)
    assert forwarding.next_hop("sub.exact.test") == Endpoint("::1", 26)
    assert forwarding.next_hop("mx.test") is None
    assert house().forwarding.next_hop("x.test") is None
    assert house('[forwarding]\nroutes = { "*" = "" }').forwarding.next_hop("x.test") is None


LOGIN = '[forwarding.login."%s"]\nuser = "me"\npassword_file = "p"\n'


@pytest.mark.parametrize(
    ("hop", "mode"),
    [
        (Endpoint("relay.test", 465), TlsMode.IMPLICIT),
        (Endpoint("relay.test", 587), TlsMode.REQUIRED),
        (Endpoint("127.0.0.1", 587), TlsMode.NEVER),
    ],
)
def test_how_a_login_is_protected(hop: Endpoint, mode: TlsMode) -> None:
    tls = 'tls = "never"\n' if hop.is_loopback else ""
    assert house(LOGIN % hop + tls).forwarding.tls_mode("x.test", hop) is mode


def test_the_strictest_of_what_is_said_protects() -> None:
    policies = '{ "BANK.test" = "required", "mx.bad.test" = "never", "relay.test:465" = "implicit" }'
    forwarding = house(f"[forwarding]\ntls_policies = {policies}").forwarding
    mx, bad = Endpoint("mx.x.test", 25), Endpoint("mx.bad.test", 25)
    assert forwarding.tls_mode("x.test", mx) is TlsMode.OPPORTUNISTIC
    assert forwarding.tls_mode("x.test", bad) is TlsMode.NEVER
    assert forwarding.tls_mode("bank.test", mx) is TlsMode.REQUIRED
    assert forwarding.tls_mode("bank.test", bad) is TlsMode.REQUIRED
    assert forwarding.tls_mode("x.test", Endpoint("relay.test", 465)) is TlsMode.IMPLICIT
    assert forwarding.tls_mode("x.test", Endpoint("other.test", 465)) is TlsMode.IMPLICIT
    assert house('[forwarding]\ntls = "required"').forwarding.tls_mode("x.test", mx) is TlsMode.REQUIRED


def test_connections_come_from_the_address_of_their_family() -> None:
    forwarding = house('[forwarding]\nsource_addresses = ["192.0.2.1", "2001:DB8::1"]').forwarding
    assert forwarding.source_address("198.51.100.1") == "192.0.2.1"
    assert forwarding.source_address("2001:db8:1::1") == "2001:db8::1"
    assert house().forwarding.source_address("198.51.100.1") is None


def test_passwords_of_next_hops(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("geheim ü\n")
    (tmp_path / "p").chmod(0o600)
    loaded = parse(tomllib.loads(LEAST + LOGIN % "Relay.test:587"), tmp_path / "posthouse.toml")
    credentials = loaded.forwarding.read_credentials()
    assert credentials == {"relay.test:587": Credentials("me", "geheim ü")}
    assert "geheim" not in repr(credentials)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, 0, "p does not exist; write the password into it"),
        (b"geheim\n", 0o640, "p can be read by others than its owner; run: chmod 600 "),
        (b"", 0o600, "p does not hold a password on one line"),
        (b"a\nb\n", 0o600, "p does not hold a password on one line"),
        (b"x" * 5000, 0o600, "p does not hold a password on one line"),
        (b"\xff", 0o600, "p is not UTF-8"),
    ],
)
def test_files_of_passwords_that_cannot_be_used(tmp_path: Path, content: bytes | None, mode: int, message: str) -> None:
    if content is not None:
        (tmp_path / "p").write_bytes(content)
        (tmp_path / "p").chmod(mode)
    loaded = parse(tomllib.loads(LEAST + LOGIN % "relay.test:587"), tmp_path / "posthouse.toml")
    with pytest.raises(UnusablePassword) as raised:
        loaded.forwarding.read_credentials()
    assert str(raised.value).startswith(f"{tmp_path}/{message}")


def test_cleartext_on_loopback_is_allowed() -> None:
    doors = '["127.0.0.1:0", "[::1]:110"]'
    assert house(f"[auth]\nallow_cleartext = true\n[listen]\npop3 = {doors}\nsubmission = {doors}").auth.allow_cleartext


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [("a.test:26", Endpoint("a.test", 26)), ("[::1]:0", Endpoint("::1", 0)), ("192.0.2.1:1", Endpoint("192.0.2.1", 1))],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize("text", ["", ":25", "a:", "a:b", "a:1:2", "[::1", "::1", "a:٢٥", "a:25\n", "[::1]x:25"])
def test_endpoints_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_endpoint(text)


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("4h", 14400), ("5d", 432000)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["", "5", "s", "5 m", "5M", "1.5h", "-1s", "5m\n", "٥m", "0d", 5, None, True, []])
def test_durations_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"duration|longer"):
        parse_duration(value)


@pytest.mark.conformance("C238")
def test_who_reads_mail_may_be_idle_for_ten_minutes() -> None:
    """RFC 1939 §3: unless an operator says otherwise."""
    assert house().retrieval.idle_timeout >= 600


def test_nothing_can_be_changed_later() -> None:
    loaded = house()
    with pytest.raises(ValueError, match="frozen"):
        loaded.hostname = "other.test"  # type: ignore[misc]


def keys_of_the_code(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, FieldInfo]:
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys_of_the_code(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def rows_of_the_document(heading: str) -> dict[str, list[str]]:
    section = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [re.split(r" \| ", line.strip("| ")) for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_document_lists_each_key_in_order() -> None:
    assert list(rows_of_the_document("Keys")) == list(keys_of_the_code())


@pytest.mark.parametrize("key", keys_of_the_code())
def test_the_document_says_the_default(key: str) -> None:
    default, meaning = rows_of_the_document("Keys")[key]
    assert meaning
    field = keys_of_the_code()[key]
    if default == "must be given":
        assert field.is_required()
        return
    actual = field.get_default(call_default_factory=True)
    if default == "none":
        assert actual is None
        return
    section, _, name = key.rpartition(".")
    table = f"[{section}]\n" if section else ""
    loaded: Any = house(f"{table}{name} = {default.strip('`')}")
    assert getattr(getattr(loaded, section) if section else loaded, name) == actual


def test_what_is_not_there_yet_is_unknown() -> None:
    for key in rows_of_the_document("Not yet"):
        section, _, name = key.rpartition(".")
        text = f"[{section}]\n{name} = 1" if section else f"{name} = 1"
        with pytest.raises(ConfigError, match="unknown key"):
            house(text)


def test_the_example_of_the_document_is_valid() -> None:
    example = DOCUMENT.read_text().split("```toml\n")[1].split("```")[0]
    assert house(example, least="").forwarding.next_hop("partner.example") == Endpoint("10.0.0.7", 2525)
