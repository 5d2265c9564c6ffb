"""Certificates: what cannot be used is explained in one line, and nothing asks for a password."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from posthouse.net.tls import CertificateUnusable, make_self_signed, server_context

NOW = 1_800_000_000.0


def test_old_tls_is_not_offered(server_tls: ssl.SSLContext) -> None:
    assert server_tls.minimum_version == ssl.TLSVersion.TLSv1_2
    assert server_tls.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize("hostname", ["mx.example.org", "[127.0.0.1]", "[IPv6:::1]", "x" * 60 + "." + "y" * 60])
def test_self_signed(tmp_path: Path, hostname: str) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_self_signed(hostname, certificate, key, NOW)
    server_context(certificate, key)
    assert key.stat().st_mode & 0o777 == 0o600
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [hostname.strip("[]").removeprefix("IPv6:")]


@pytest.mark.parametrize("existing", ["c.pem", "k.pem"])
def test_nothing_is_overwritten_and_nothing_is_left(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    with pytest.raises(FileExistsError):
        make_self_signed("mx.example.org", tmp_path / "c.pem", tmp_path / "k.pem", NOW)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(existing, "mine")]


def _locked(key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    lock = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no certificate", r"c\.pem does not exist"),
        ("no key", r"k\.pem does not exist"),
        ("folder", r"c\.pem cannot be read: Is a directory"),
        ("garbage", r"c\.pem and .*k\.pem cannot be used together"),
        ("other key", r"cannot be used together: key values mismatch"),
        ("encrypted key", r"k\.pem is encrypted"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, what: str, message: str) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_self_signed("mx.example.org", certificate, key, NOW)
    match what:
        case "no certificate":
            certificate.unlink()
        case "no key":
            key.unlink()
        case "folder":
            certificate.unlink()
            certificate.mkdir()
        case "garbage":
            certificate.write_text("hello")
        case "other key":
            make_self_signed("mx.example.org", tmp_path / "c2.pem", tmp_path / "k2.pem", NOW)
            (tmp_path / "k2.pem").rename(key)
        case "encrypted key":
            _locked(key)
    with pytest.raises(CertificateUnusable, match=message) as raised:
        server_context(certificate, key)
    assert "\n" not in str(raised.value)
