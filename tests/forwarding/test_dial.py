"""Connections to next hops: TLS as the policy wants it, login, HELO, source address (RFC 3207 §4.1, RFC 4954)."""

from __future__ import annotations

import base64
import ssl
import time
from dataclasses import dataclass
from typing import Any

import pytest

from posthouse.config_forwarding import Credentials, Forwarding
from posthouse.forwarding.attempt import Attempt
from posthouse.forwarding.dial import ClientTls
from posthouse.mail.acceptance import Destination
from posthouse.mail.outcome import Deferred, Delivered
from posthouse.net.tls import make_self_signed, server_context
from tests.forwarding.peer import DROP, EHLO, Peer, peer
from tests.forwarding.relays import attempt, attempt_in, kinds, relay_to
from tests.forwarding.rows import a_row

WITH_STARTTLS = EHLO.replace("250-PIPELINING", "250-STARTTLS\r\n250-AUTH PLAIN\r\n250-PIPELINING")
TAKEN, WAITS = [Delivered, Delivered], [Deferred, Deferred]
REQUIRED = Forwarding.model_validate({"tls": "required"})
OPPORTUNISTIC = Forwarding()
YEAR_S = 365 * 86400


@dataclass(frozen=True)
class Certificates:
    """Of mx1.test: one that is right, the same by somebody whom nobody knows, one that has expired, another's."""

    good: ssl.SSLContext
    unknown: ssl.SSLContext
    expired: ssl.SSLContext
    other_name: ssl.SSLContext
    trust: ClientTls
    trust_expired: ClientTls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder, made, pems = tmp_path_factory.mktemp("tls"), {}, b""
    now = time.time()
    for name, host, at in [
        ("good", "mx1.test", now),
        ("unknown", "mx1.test", now),
        ("expired", "mx1.test", now - 11 * YEAR_S),
        ("other_name", "elsewhere.test", now),
    ]:
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        make_self_signed(host, certificate, key, at)
        made[name] = server_context(certificate, key)
        # OpenSSL looks authorities up by their names: two of one name would be confused.
        pems += certificate.read_bytes() if name in ("good", "other_name") else b""
    authorities = folder / "authorities.pem"
    authorities.write_bytes(pems)
    return Certificates(**made, trust=ClientTls(authorities), trust_expired=ClientTls(folder / "expired.pem"))


BROKEN: dict[str, dict[str, Any]] = {
    # what the peer answers to STARTTLS, and how the handshake goes
    "refused for now": {"answers": {"STARTTLS": "454 4.7.0 not now"}},
    "refused for ever": {"answers": {"STARTTLS": "502 5.5.1 what"}},
    "dropped": {"answers": {"STARTTLS": DROP}},
    "dropped in the handshake": {"answers": {"STARTTLS": "220 go"}},
    "injection": {"answers": {"STARTTLS": b"220 go\r\n250-SIZE 5\r\n250 AUTH PLAIN\r\n"}},
    "half a line": {"answers": {"STARTTLS": b"220 go\r\n250"}},
    "garbage": {"answers": {"STARTTLS": b"220 go\r\n\x15\x03\x01\x00\x02\x02\x28"}},
    "354": {"answers": {"STARTTLS": "354 go"}},
}
FAULTY = {"unknown": "self-signed", "expired": "has expired", "other_name": "for another name"}


@pytest.mark.conformance("C143")
@pytest.mark.parametrize("how", BROKEN)
async def test_where_tls_fails_opportunistic_mail_goes_in_clear_over_a_fresh_connection(how: str) -> None:
    async with peer(**BROKEN[how], ehlo=WITH_STARTTLS) as next_hop:
        ehlo_once = next_hop.script

        def script(line: str, number: int) -> str | bytes | None:
            return ehlo_once(line, number) if number == 1 else None

        next_hop.script = script
        done = await attempt(next_hop)
    assert kinds(done) == TAKEN
    assert next_hop.connections == 2
    # Nothing of the mail was said over the connection on which TLS failed, and TLS was not tried on the second.
    first = next_hop.commands[: next_hop.commands.index("STARTTLS") + 1]
    assert first == ["EHLO mx.here.test", "STARTTLS"]
    assert next_hop.commands.count("STARTTLS") == 1
    assert any("in clear" in line for line in done.transcript)


@pytest.mark.conformance("C143", "S5")
@pytest.mark.parametrize("how", [*BROKEN, "hidden"])
async def test_where_tls_is_required_nothing_goes_in_clear(how: str) -> None:
    ehlo = WITH_STARTTLS.replace("250-STARTTLS\r\n", "") if how == "hidden" else WITH_STARTTLS
    credentials = {"mx1.test:25": Credentials("me", "geheim")}
    async with peer(**BROKEN.get(how, {}), ehlo=ehlo) as next_hop:
        terms = Forwarding.model_validate({"tls": "required", "routes": {"*": "mx1.test"}})
        done = await attempt(next_hop, terms=terms, credentials=credentials)
    assert kinds(done) == WAITS
    assert not done.outcomes[0].from_peer  # type: ignore[union-attr]
    assert str(done.outcomes[0].reply.enhanced) in ("4.7.4", "4.7.5")
    assert set(next_hop.commands) <= {"EHLO mx.here.test", "STARTTLS", "QUIT"}


@pytest.mark.conformance("C143")
@pytest.mark.parametrize("fault", FAULTY)
async def test_a_bad_certificate_is_taken_only_where_any_is(fault: str, certificates: Certificates) -> None:
    async with peer(ehlo=WITH_STARTTLS, tls=getattr(certificates, fault)) as next_hop:
        trust = certificates.trust_expired if fault == "expired" else certificates.trust
        waits = await attempt(next_hop, terms=REQUIRED, tls=trust)
        assert not next_hop.messages
        done = await attempt(next_hop, terms=OPPORTUNISTIC, tls=certificates.trust)
    assert kinds(waits) == WAITS
    assert str(waits.outcomes[0].reply.enhanced) == "4.7.5"
    assert waits.outcomes[0].reply.text.endswith(FAULTY[fault])
    assert kinds(done) == TAKEN
    assert not any(line.startswith("MAIL") for line in next_hop.in_clear)


@pytest.mark.parametrize("terms", [REQUIRED, OPPORTUNISTIC])
async def test_mail_goes_encrypted_where_it_can(terms: Forwarding, certificates: Certificates) -> None:
    async with peer(ehlo=WITH_STARTTLS, tls=certificates.good) as next_hop:
        done = await attempt(next_hop, terms=terms, tls=certificates.trust)
    assert kinds(done) == TAKEN
    assert next_hop.in_clear == ["EHLO mx.here.test", "STARTTLS"]
    assert next_hop.connections == 1
    assert any("TLS 1.3" in line for line in done.transcript)


async def test_tls_is_not_tried_where_it_is_never_wanted(certificates: Certificates) -> None:
    terms = Forwarding.model_validate({"tls_policies": {"mx1.test": "never"}})
    async with peer(ehlo=WITH_STARTTLS, tls=certificates.good) as next_hop:
        done = await attempt(next_hop, terms=terms)
    assert kinds(done) == TAKEN
    assert "STARTTLS" not in next_hop.commands


async def test_the_policy_of_a_domain_holds_at_its_hosts() -> None:
    terms = Forwarding.model_validate({"tls_policies": {"there.test": "required"}})
    async with peer(ehlo=EHLO) as next_hop:
        assert kinds(await attempt(next_hop, terms=terms)) == WAITS
        assert kinds(await attempt(next_hop)) == TAKEN


@pytest.mark.conformance("C143")
async def test_the_second_host_is_tried_where_the_first_has_no_tls(certificates: Certificates) -> None:
    terms = Forwarding.model_validate({"tls": "required"})
    async with peer(ehlo=EHLO) as first, peer(ehlo=WITH_STARTTLS, tls=certificates.other_name) as second:
        done = await attempt(first, second, terms=terms, tls=certificates.trust)
        assert kinds(done) == WAITS
    async with peer(ehlo=WITH_STARTTLS) as first, peer(ehlo=WITH_STARTTLS, tls=certificates.good) as second:
        done = await attempt(second, first, terms=terms, tls=certificates.trust)
        assert kinds(done) == TAKEN


def logged_in(next_hop: Peer) -> list[str]:
    """Who logged in, under TLS or not."""
    sent = [line.split(" ")[2] for line in next_hop.commands if line.startswith("AUTH PLAIN ")]
    return [base64.b64decode(each).decode() for each in sent]


def smarthost(hop: str, **login: str) -> dict[str, Any]:
    """Options of an attempt: all mail goes to `hop`, with a login there."""
    terms = {"routes": {"*": hop}, "login": {hop: {"user": "me", "password_file": "p", **login}}}
    return {"terms": Forwarding.model_validate(terms), "credentials": {hop: Credentials("me", "geheim")}}


async def test_a_smarthost_with_login_over_starttls(certificates: Certificates) -> None:
    async with peer({"AUTH": "235 2.7.0 in"}, WITH_STARTTLS, tls=certificates.good) as next_hop:
        done = await attempt(next_hop, **smarthost("mx1.test:587"), tls=certificates.trust)
    assert kinds(done) == TAKEN
    assert logged_in(next_hop) == ["\0me\0geheim"]
    assert next_hop.in_clear == ["EHLO mx.here.test", "STARTTLS"]
    assert not any("geheim" in line or "Z2VoZWlt" in line for line in done.transcript)


async def test_a_smarthost_with_login_over_implicit_tls(certificates: Certificates) -> None:
    async with peer({"AUTH": "235 2.7.0 in"}, WITH_STARTTLS, tls=certificates.good, implicit=True) as next_hop:
        done = await attempt(next_hop, **smarthost("mx1.test:465"), tls=certificates.trust)
    assert kinds(done) == TAKEN
    assert logged_in(next_hop) == ["\0me\0geheim"]
    assert "STARTTLS" not in next_hop.commands


async def test_implicit_tls_with_a_bad_certificate_sends_nothing(certificates: Certificates) -> None:
    async with peer(tls=certificates.expired, implicit=True) as next_hop:
        done = await attempt(next_hop, **smarthost("mx1.test:465"), tls=certificates.trust_expired)
    assert kinds(done) == WAITS
    assert done.outcomes[0].reply.text.endswith("its certificate has expired")
    assert next_hop.commands == []


@pytest.mark.parametrize("answer", ["535 5.7.8 wrong", "454 4.7.0 not now", DROP])
async def test_a_login_that_is_refused_keeps_mail_waiting(answer: str, certificates: Certificates) -> None:
    async with peer({"AUTH": answer}, WITH_STARTTLS, tls=certificates.good) as next_hop:
        done = await attempt(next_hop, **smarthost("mx1.test:587"), tls=certificates.trust)
    assert kinds(done) == WAITS
    assert not any(line.startswith("MAIL") for line in next_hop.commands)
    assert not done.outcomes[0].from_peer  # type: ignore[union-attr]


WITH_SCRAM = WITH_STARTTLS.replace("AUTH PLAIN", "AUTH SCRAM-SHA-256 PLAIN")


@pytest.mark.parametrize("answer", ["535 5.7.8 no such verifier", "504 5.5.4 not for you", "534 5.7.9 another way"])
async def test_where_scram_is_refused_a_verified_host_is_told_the_password(
    answer: str, certificates: Certificates
) -> None:
    answers: dict[str, str | bytes] = {"AUTH SCRAM": answer, "AUTH PLAIN": "235 2.7.0 in"}
    async with peer(answers, WITH_SCRAM, tls=certificates.good) as next_hop:
        done = await attempt(next_hop, **smarthost("mx1.test:587"), tls=certificates.trust)
    assert kinds(done) == TAKEN
    assert logged_in(next_hop) == ["\0me\0geheim"]
    assert not any("AHRoZWltAA" in line or "geheim" in line for line in done.transcript)


@pytest.mark.parametrize("answer", ["454 4.7.0 not now", "235 2.7.0 in", DROP])
async def test_what_is_no_refusal_of_scram_tells_nobody_the_password(answer: str, certificates: Certificates) -> None:
    answers: dict[str, str | bytes] = {"AUTH SCRAM": answer, "AUTH PLAIN": "235 2.7.0 in"}
    async with peer(answers, WITH_SCRAM, tls=certificates.good) as next_hop:
        done = await attempt(next_hop, **smarthost("mx1.test:587"), tls=certificates.trust)
    assert kinds(done) == WAITS
    assert logged_in(next_hop) == []


async def test_a_password_that_was_refused_is_not_said_again_in_other_words(certificates: Certificates) -> None:
    ehlo = WITH_STARTTLS.replace("AUTH PLAIN", "AUTH PLAIN LOGIN")
    async with peer({"AUTH": "535 5.7.8 wrong"}, ehlo, tls=certificates.good) as next_hop:
        done = await attempt(next_hop, **smarthost("mx1.test:587"), tls=certificates.trust)
    assert kinds(done) == WAITS
    assert sum(line.startswith("AUTH") for line in next_hop.commands) == 1


@pytest.mark.conformance("S5")
async def test_where_the_certificate_was_not_looked_at_scram_is_not_fallen_back_from() -> None:
    answers: dict[str, str | bytes] = {"AUTH SCRAM": "535 5.7.8 no", "AUTH PLAIN": "235 2.7.0 in"}
    async with peer(answers, WITH_SCRAM.replace("250-STARTTLS\r\n", "")) as next_hop:
        relay, ports = relay_to(next_hop, **smarthost("127.0.0.1:587", tls="never"))
        ports.ports["127.0.0.1"] = next_hop.port
        done = await attempt_in(relay.session(Destination("", "there.test")))
    assert kinds(done) == WAITS
    assert logged_in(next_hop) == []


async def test_where_the_password_is_wrong_too_the_last_answer_is_told(certificates: Certificates) -> None:
    answers: dict[str, str | bytes] = {"AUTH SCRAM": "535 5.7.8 no", "AUTH PLAIN": DROP}
    async with peer(answers, WITH_SCRAM, tls=certificates.good) as next_hop:
        done = await attempt(next_hop, **smarthost("mx1.test:587"), tls=certificates.trust)
    assert kinds(done) == WAITS
    assert "535 5.7.8 no" in done.outcomes[0].reply.text


@pytest.mark.conformance("S5")
async def test_a_login_in_clear_stays_on_this_machine(certificates: Certificates) -> None:
    ehlo = WITH_STARTTLS.replace("250-STARTTLS\r\n", "")
    async with peer({"AUTH": "235 2.7.0 in"}, ehlo) as next_hop:
        terms = Forwarding.model_validate({"routes": {"*": "mx1.test:587"}, "tls": "never"})
        credentials = {"mx1.test:587": Credentials("me", "geheim")}
        waits = await attempt(next_hop, terms=terms, credentials=credentials)
        assert kinds(waits) == WAITS
        assert logged_in(next_hop) == []
        relay, ports = relay_to(next_hop, **smarthost("127.0.0.1:587", tls="never"))
        ports.ports["127.0.0.1"] = next_hop.port
        done = await attempt_in(relay.session(Destination("", "there.test")))
    assert kinds(done) == TAKEN
    assert logged_in(next_hop) == ["\0me\0geheim"]


async def test_a_host_found_by_mx_gets_no_login() -> None:
    credentials = {"mx1.test:25": Credentials("me", "geheim")}
    async with peer(ehlo=WITH_STARTTLS.replace("250-STARTTLS\r\n", "")) as next_hop:
        done = await attempt(next_hop, credentials=credentials)
    assert kinds(done) == TAKEN
    assert logged_in(next_hop) == []


async def test_mail_of_an_identity_leaves_through_its_own_server(certificates: Certificates) -> None:
    async with peer({"AUTH": "235 2.7.0 in"}, WITH_STARTTLS, tls=certificates.good) as own, peer() as other:
        options = smarthost("mx1.test:587")
        terms = options["terms"].model_copy(update={"routes": {"*": "mx2.test"}})
        relay, _ports = relay_to(own, other, terms=terms, credentials=options["credentials"], tls=certificates.trust)
        done = await attempt_in(relay.session(Destination("mx1.test:587", "there.test")))
    assert kinds(done) == TAKEN
    assert logged_in(own) == ["\0me\0geheim"]
    assert other.connections == 0


@pytest.mark.parametrize("via", ["mx1.test:587", "no such thing"])
async def test_a_via_without_a_login_waits_and_says_why(via: str) -> None:
    relay, ports = relay_to(None)
    done: Attempt = await relay.session(Destination(via, "there.test")).attempt((a_row(),))
    assert kinds(done) == [Deferred]
    assert str(done.outcomes[0].reply.enhanced) == "4.3.5"
    assert via in done.outcomes[0].reply.text
    assert ports.tried == []


async def test_connections_come_from_the_configured_address() -> None:
    terms = Forwarding.model_validate({"source_addresses": ["127.0.0.1", "2001:db8::1"]})
    async with peer() as next_hop:
        relay, ports = relay_to(next_hop, terms=terms)
        assert kinds(await attempt_in(relay.session(Destination("", "there.test")))) == TAKEN
    assert ports.sources == ["127.0.0.1"]


@pytest.mark.parametrize("name", ["mx.example.org", "[192.0.2.7]"])
@pytest.mark.conformance("C92")
async def test_the_name_in_ehlo_is_the_configured_one(name: str) -> None:
    async with peer() as next_hop:
        relay, _ports = relay_to(next_hop)
        renamed = type(relay)(**{field: getattr(relay, field) for field in relay.__slots__} | {"hello_name": name})
        await attempt_in(renamed.session(Destination("", "there.test")))
    assert next_hop.commands[0] == f"EHLO {name}"
