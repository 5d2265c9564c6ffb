"""What certificates say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthouse.net.certificate_facts import CertificateFacts, certificate_facts
from posthouse.net.tls import CertificateUnusable, make_self_signed


def facts(*names: str) -> CertificateFacts:
    return CertificateFacts(names=names, begins_at=0, expires_at=1, is_self_signed=False, has_chain=False)


@pytest.mark.parametrize(
    ("name", "host", "covered"),
    [
        ("mx.here.test", "mx.here.test", True),
        ("mx.here.test", "MX.here.test", True),
        ("mx.here.test", "here.test", False),
        ("*.here.test", "mx.here.test", True),
        ("*.here.test", "a.mx.here.test", False),
        ("*.here.test", "here.test", False),
        ("*.here.test", "*.here.test", True),
        ("192.0.2.1", "[192.0.2.1]", True),
        ("2001:db8::1", "[IPv6:2001:DB8:0::1]", True),
        ("2001:db8::1", "[192.0.2.1]", False),
    ],
)
def test_for_whom_it_is(name: str, host: str, covered: bool) -> None:
    assert facts(name).covers(host) is covered


def test_what_is_read(tmp_path: Path) -> None:
    make_self_signed("[IPv6:2001:db8::1]", tmp_path / "c", tmp_path / "k", 1_000_000.0)
    read = certificate_facts(tmp_path / "c")
    assert read.names == ("2001:db8::1",)
    assert (read.begins_at, read.expires_at) == (1_000_000 - 86400, 1_000_000 + 3649 * 86400)
    assert read.is_self_signed
    assert not read.has_chain
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes() * 2)
    assert certificate_facts(tmp_path / "c").has_chain


@pytest.mark.parametrize("text", [None, "", "nothing", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_what_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "c").write_text(text)
    with pytest.raises(CertificateUnusable, match=r"c (cannot be read|holds no certificate)"):
        certificate_facts(tmp_path / "c")
