"""`posthouse check` on certificates and keys: each trouble is one line that says what mends it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from posthouse.net.tls import make_self_signed
from tests.cli.conftest import CONFIG, Command

YEAR_S = 365 * 86400.0
TLS = '\n[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n'
NAMES = '\n[[tls.names]]\nhost = "{}"\ncertificate = "n.pem"\nkey = "n.key"\n'


def found(furnished: Command, tls: str) -> dict[str, str]:
    """What check says about certificates and keys: text to state."""
    Path("posthouse.toml").write_text(CONFIG + tls)
    findings = json.loads(furnished.run("check", "--json").out)
    return {line["text"]: line["state"] for line in findings if line["check"] in ("certificate", "key")}


def make(host: str = "mx.here.test", name: str = "c.pem", key: str = "k.pem", now: float | None = None) -> None:
    make_self_signed(host, Path(name), Path(key), time.time() if now is None else now)


def has(findings: dict[str, str], state: str, *words: str) -> bool:
    return any(shown == state and all(word in text for word in words) for text, shown in findings.items())


def test_a_good_pair(furnished: Command) -> None:
    make()
    assert set(found(furnished, TLS).values()) == {"ok"}


def test_no_pair_at_all(furnished: Command) -> None:
    assert has(found(furnished, ""), "note", "no TLS is offered")


def test_the_self_signed_pair_is_told(furnished: Command) -> None:
    make(name="self-signed.crt", key="self-signed.key")
    assert has(found(furnished, ""), "note", "self-signed", "[tls]")


@pytest.mark.parametrize(
    ("made_at", "state", "word"),
    [(-11 * YEAR_S, "problem", "expired"), (-9.99 * YEAR_S, "note", "renew"), (YEAR_S, "problem", "good only in")],
)
def test_age(furnished: Command, made_at: float, state: str, word: str) -> None:
    make(now=time.time() + made_at)
    assert has(found(furnished, TLS), state, "c.pem", word)


def test_another_name(furnished: Command) -> None:
    make("mx.other.test")
    assert has(found(furnished, TLS), "problem", "not for mx.here.test but for mx.other.test")


def test_further_names(furnished: Command) -> None:
    make()
    make("mail.there.test", "n.pem", "n.key")
    assert set(found(furnished, TLS + NAMES.format("mail.there.test")).values()) == {"ok"}
    assert has(found(furnished, TLS + NAMES.format("*.there.test")), "problem", "not for *.there.test")
    Path("n.key").unlink()
    assert has(found(furnished, TLS + NAMES.format("mail.there.test")), "problem", "n.key does not exist")


def test_a_key_of_another_certificate(furnished: Command) -> None:
    make()
    make("mx.here.test", "n.pem", "n.key")
    Path("n.key").replace("k.pem")
    assert has(found(furnished, TLS), "problem", "key values mismatch")


@pytest.mark.conformance("S39")
@pytest.mark.parametrize(
    ("mode", "told"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True), (0o602, True)]
)
def test_a_key_that_others_may_read(furnished: Command, mode: int, told: bool) -> None:
    make()
    Path("k.pem").chmod(mode)
    assert has(found(furnished, TLS), "problem", "k.pem is open to others", "chmod") is told
