"""Handshakes at a door: which certificate, which protocols, whose tickets; both ends in memory."""

from __future__ import annotations

import io
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posthouse.log import make_log
from posthouse.net.certificates import LOOK_EVERY_S, RENEW_EVERY_S, Certificates, Pair, PairSet
from posthouse.net.handshake import DoorContext
from posthouse.net.tls import CertificateUnusable, make_self_signed
from tests.net.test_client_hello import in_records, message, name_extension

SERVICES = {"smtp": ("smtp", "esmtp"), "pop3": ("pop3",)}
HOSTS = ("mx.here.test", "mail.there.test", "*.wild.test")


class Watch:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return self.time


class House:
    """Certificates for HOSTS in a folder; the first is everybody's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Watch()
        self.out = io.StringIO()
        self.pairs = {host: self.make(host, str(number)) for number, host in enumerate(HOSTS)}
        default, *named = self.pairs.items()
        self.set = PairSet(default[1], dict(named))
        self.certificates = Certificates(self.set, SERVICES, self.clock, make_log(self.out))
        self.smtp = self.certificates.door("smtp")
        self.pop3 = self.certificates.door("pop3")

    def make(self, host: str, name: str) -> Pair:
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        make_self_signed(host, pair.certificate, pair.key, time.time())
        return pair

    def renew(self, pair: Pair, host: str) -> None:
        """As certbot does it: new files in the place of the old ones."""
        made = self.make(host, "renewed")
        os.replace(made.certificate, pair.certificate)
        os.replace(made.key, pair.key)

    def later(self, seconds: float = LOOK_EVERY_S) -> None:
        self.clock.time += seconds


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def client(version: ssl.TLSVersion | None = None, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def shake(
    door: DoorContext,
    context: ssl.SSLContext,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
    cut: int = 1 << 20,
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A whole handshake; octets go over in pieces of `cut`. Raises the client's error."""
    to_client, to_server, from_server, from_client = (ssl.MemoryBIO() for _ in range(4))
    peer = context.wrap_bio(to_client, from_client, server_hostname=name, session=session)
    ours = door.wrap_bio(to_server, from_server, server_side=True)
    waiting = {peer, ours}
    for _turn in range(20):
        for end in (peer, ours):
            if end is ours:
                octets = from_client.read()
                for at in range(0, len(octets), cut):
                    to_server.write(octets[at : at + cut])
                    if _step(end):
                        waiting.discard(end)
            elif _step(end):
                waiting.discard(end)
        to_client.write(from_server.read())
        if not waiting:
            # Tickets of TLS 1.3 come behind the handshake.
            with pytest.raises(ssl.SSLWantReadError):
                peer.read(1)
            return peer, ours
    raise AssertionError("the handshake does not end")


def _step(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def host_of(peer: ssl.SSLObject) -> str:
    der = peer.getpeercert(binary_form=True)
    assert der is not None
    return next(host for host in (*HOSTS, "renewed.test") if host.encode() in der)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("name", "host"),
    [
        (None, "mx.here.test"),
        ("mx.here.test", "mx.here.test"),
        ("MAIL.there.test", "mail.there.test"),
        ("a.wild.test", "*.wild.test"),
        ("a.b.wild.test", "mx.here.test"),
        ("wild.test", "mx.here.test"),
        ("unknown.test", "mx.here.test"),
        ("192.0.2.1", "mx.here.test"),
    ],
)
def test_the_certificate_goes_by_server_name(
    house: House, version: ssl.TLSVersion, name: str | None, host: str
) -> None:
    assert host_of(shake(house.smtp, client(version), name)[0]) == host


@pytest.mark.parametrize("cut", [1, 100])
def test_a_hello_may_come_in_pieces(house: House, cut: int) -> None:
    assert host_of(shake(house.smtp, client(), "mail.there.test", cut=cut)[0]) == "mail.there.test"


@pytest.mark.conformance("C297")
@pytest.mark.parametrize("name", [b"\xff\xfe\xfd", b"a\0b", b"", "bücher.test".encode()])
def test_a_strange_server_name_gets_an_answer_and_no_traceback(house: House, name: bytes) -> None:
    """Python's own callback prints one for each name that is not ASCII. pytest would fail for it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = house.smtp.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(in_records(message(name_extension(name)), 1000))
    # OpenSSL answers it (this hello lacks what TLS 1.3 needs), with the default certificate in hand.
    with pytest.raises(ssl.SSLError) as raised:
        ours.do_handshake()
    assert raised.value.reason is not None
    assert outgoing.read()[:1] in (b"", b"\x15", b"\x16")


@pytest.mark.conformance("C137")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=lambda version: version.name)
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_old_versions_are_refused(house: House, version: ssl.TLSVersion) -> None:
    context = client(version)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shake(house.smtp, context)


@pytest.mark.conformance("C137")
@pytest.mark.parametrize("suite", ["AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA", "DHE-RSA-AES256-GCM-SHA384", "NULL"])
def test_no_suite_without_forward_secrecy_and_aead(house: House, suite: str) -> None:
    context = client(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shake(house.smtp, context)


@pytest.mark.conformance("C296")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("protocols", [("h2",), ("http/1.1", "ftp"), ("pop3",), ("imap",)])
def test_clients_of_other_services_are_refused(
    house: House, version: ssl.TLSVersion, protocols: tuple[str, ...]
) -> None:
    """ALPACA: a browser that is led to a mail server with a good certificate must not get through."""
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        shake(house.smtp, client(version, protocols))


@pytest.mark.conformance("C297")
def test_a_certificate_of_the_client_is_neither_asked_for_nor_looked_at(house: House) -> None:
    context = client()
    other = house.pairs["mail.there.test"]
    context.load_cert_chain(other.certificate, other.key)
    _peer, ours = shake(house.smtp, context)
    assert ours.getpeercert(binary_form=True) is None


@pytest.mark.parametrize(
    ("protocols", "chosen"), [((), None), (("smtp",), "smtp"), (("esmtp",), "esmtp"), (("h2", "smtp"), "smtp")]
)
def test_our_own_clients_are_not(house: House, protocols: tuple[str, ...], chosen: str | None) -> None:
    peer, ours = shake(house.smtp, client(protocols=protocols))
    assert peer.selected_alpn_protocol() == ours.selected_alpn_protocol() == chosen
    assert shake(house.pop3, client(protocols=("pop3",)))[0].selected_alpn_protocol() == "pop3"


def test_after_a_refusal_nothing_goes_on(house: House) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = house.smtp.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(in_records(message((16, b"\0\3\2h2")), 1000))
    with pytest.raises(ssl.SSLWantReadError):
        ours.do_handshake()
    assert outgoing.read() == b"\x15\x03\x03\x00\x02\x02\x78"
    for use in (ours.do_handshake, ours.unwrap, lambda: ours.read(1), lambda: ours.write(b"x"), ours.pending):
        with pytest.raises(ssl.SSLError):
            use()


@pytest.mark.conformance("C137", "C297", "S31")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_is_good_at_its_own_door_and_for_its_own_certificate(house: House, version: ssl.TLSVersion) -> None:
    context = client(version)
    session = shake(house.smtp, context, "mx.here.test")[0].session
    assert session is not None
    tried: list[tuple[DoorContext, str, bool]] = [
        (house.smtp, "mx.here.test", True),
        (house.smtp, "mail.there.test", False),
        (house.pop3, "mx.here.test", False),
    ]
    for door, name, resumed in tried:
        peer, ours = shake(door, context, name, session)
        assert peer.session_reused is ours.session_reused is resumed, name


@pytest.mark.conformance("C316", "S39")
def test_a_renewed_certificate_is_used_at_once(house: House) -> None:
    before = shake(house.smtp, client(), "mail.there.test")
    house.renew(house.pairs["mail.there.test"], "renewed.test")
    assert host_of(shake(house.smtp, client(), "mail.there.test")[0]) == "mail.there.test"
    house.later()
    assert host_of(shake(house.smtp, client(), "mail.there.test")[0]) == "renewed.test"
    assert host_of(shake(house.pop3, client(), "mail.there.test")[0]) == "renewed.test"
    assert host_of(shake(house.smtp, client())[0]) == "mx.here.test"
    # Who was inside goes on.
    peer, ours = before
    assert peer.write(b"x") == 1
    assert ours.version() == peer.version()
    assert house.out.getvalue().count("certificate reloaded") == 1


def _garbage(pair: Pair) -> None:
    pair.certificate.write_text("nothing")


def _gone(pair: Pair) -> None:
    pair.key.unlink()


def _other_key(pair: Pair) -> None:
    pair.key.write_bytes(pair.key.with_name("1.key").read_bytes())


@pytest.mark.conformance("S39")
@pytest.mark.parametrize("damage", [_garbage, _gone, _other_key])
def test_a_broken_new_pair_changes_nothing_and_is_told_once(house: House, damage: Callable[[Pair], None]) -> None:
    damage(house.set.default)
    for _ in range(3):
        house.later()
        assert host_of(shake(house.smtp, client())[0]) == "mx.here.test"
    assert house.out.getvalue().count("\n") == 1
    assert "certificate not reloaded" in house.out.getvalue()
    with pytest.raises(CertificateUnusable):
        house.certificates.configure(house.set)
    assert host_of(shake(house.smtp, client())[0]) == "mx.here.test"


def test_other_pairs_may_be_configured(house: House) -> None:
    house.certificates.configure(PairSet(house.pairs["mail.there.test"], {}))
    assert host_of(shake(house.smtp, client(), "mx.here.test")[0]) == "mail.there.test"


def test_keys_of_tickets_are_made_anew(house: House) -> None:
    context = client()
    session = shake(house.smtp, context, "mx.here.test")[0].session
    house.later(RENEW_EVERY_S)
    assert not shake(house.smtp, context, "mx.here.test", session)[0].session_reused
    assert house.out.getvalue() == ""


def test_an_expired_certificate_is_told_and_used(house: House) -> None:
    pair = Pair(house.folder / "old.crt", house.folder / "old.key")
    make_self_signed("mx.here.test", pair.certificate, pair.key, time.time() - 11 * 365 * 86400)
    house.certificates.configure(PairSet(pair, {}))
    assert "not valid now" in house.out.getvalue()
    assert host_of(shake(house.smtp, client())[0]) == "mx.here.test"
