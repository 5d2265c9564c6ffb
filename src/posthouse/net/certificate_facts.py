"""What a certificate says of itself: for whom and how long it is good."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from posthouse.net.tls import CertificateUnusable


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """`names` are lower-case DNS names, wildcards included, and IP addresses. Times are Unix seconds."""

    names: tuple[str, ...]
    begins_at: float
    expires_at: float
    is_self_signed: bool
    has_chain: bool
    """Whether more certificates follow in the file."""

    def covers(self, host: str) -> bool:
        """Whether a client that wants this host is content (RFC 6125 §6.4.3: `*` stands for one label)."""
        literal = host.removeprefix("[").removesuffix("]").removeprefix("IPv6:")
        wildcard = "*." + host.partition(".")[2]
        return any(name in self.names for name in (host.lower(), wildcard.lower(), _canonical(literal)))


def certificate_facts(certificate: Path) -> CertificateFacts:
    """Of the first certificate in a file. Raises CertificateUnusable."""
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
        first = chain[0]
        return CertificateFacts(
            names=_names(first),
            begins_at=first.not_valid_before_utc.timestamp(),
            expires_at=first.not_valid_after_utc.timestamp(),
            is_self_signed=first.issuer == first.subject,
            has_chain=len(chain) > 1,
        )
    except OSError as exc:
        raise CertificateUnusable(f"{certificate} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise CertificateUnusable(f"{certificate} holds no certificate in PEM") from exc


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *(name.lower() for name in found.get_values_for_type(x509.DNSName)),
        *(str(address) for address in found.get_values_for_type(x509.IPAddress)),
    )


def _canonical(literal: str) -> str:
    try:
        return str(ipaddress.ip_address(literal))
    except ValueError:
        return literal
