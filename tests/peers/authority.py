"""A certificate authority of our own, so that scanners judge a house's certificate as one that was bought."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PEM = serialization.Encoding.PEM
_REVOCATIONS = "http://authority.test/revoked.crl"
"""Nobody fetches it; a scanner wants it named."""


def certify(folder: Path, *names: str) -> Path:
    """Write `chain.pem` and `chain.key` for a server of these names; returns the authority's own certificate."""
    issuer_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Test authority")
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    authority = (
        _new(issuer, issuer, issuer_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    revoked_at = x509.DistributionPoint([x509.UniformResourceIdentifier(_REVOCATIONS)], None, None, None)
    certificate = (
        _new(_name(names[0]), issuer, key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.CRLDistributionPoints([revoked_at]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    (folder / "authority.pem").write_bytes(authority.public_bytes(_PEM))
    (folder / "chain.pem").write_bytes(certificate.public_bytes(_PEM))
    (folder / "chain.key").write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain))
    (folder / "chain.key").chmod(0o600)
    return folder / "authority.pem"


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _new(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """For ninety days, as those that renew themselves."""
    now = datetime.datetime.now(datetime.UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=89),
    )
