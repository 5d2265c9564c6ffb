"""TLS contexts. TLS 1.2 and newer; one context for each service, so that no ticket crosses services."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class CertificateUnusable(Exception):
    """The certificate or key cannot be used; the message names the file and says what to do."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context for one listening service. Raises CertificateUnusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as exc:
        for path in (certificate, key):
            if not path.exists():
                raise CertificateUnusable(f"{path} does not exist") from exc
        raise CertificateUnusable(f"{certificate} and {key} cannot be used together: {exc}") from exc
    return context


def make_self_signed(hostname: str, certificate: Path, key: Path, now: float) -> None:
    """Write a self-signed pair (P-256, ten years) so that a new house can offer TLS at once; the key is 0600."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    begins = datetime.fromtimestamp(now, UTC) - timedelta(days=1)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .sign(private_key, hashes.SHA256())
    )
    pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, octets in ((key, pem), (certificate, signed.public_bytes(serialization.Encoding.PEM))):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(octets)
