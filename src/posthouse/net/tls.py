"""TLS contexts: TLS 1.2 and newer, forward secrecy only. Which of them a client gets: `certificates`, `handshake`.

As a client we have two: one that encrypts to whoever is there (RFC 7435), and one that knows to whom (RFC 9525).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class CertificateUnusable(Exception):
    """The certificate or key cannot be used; the message names the file and says what to do."""


TLS_1_2_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and AEAD only (RFC 9325 §4.2); those of TLS 1.3 are all of that kind."""


def server_context(certificate: Path, key: Path, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A context for one listening service, whose ALPN names are `protocols`. Raises CertificateUnusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(TLS_1_2_SUITES)
    if protocols:
        context.set_alpn_protocols(protocols)
    try:
        # Without a password OpenSSL would ask for one on the terminal, and a server would hang.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as exc:
        for path in (certificate, key):
            _check_readable(path)
        raise CertificateUnusable(f"{certificate} and {key} cannot be used together: {_reason(exc)}") from exc
    return context


def client_context(*, verified: bool, authorities: Path | None = None) -> ssl.SSLContext:
    """A context for connections to others; make it once, it reads all authorities.

    `verified`: the certificate must be good and name the server as it was asked for, in its subjectAltName (RFC 9525
    §6; IP addresses too), by the authorities of the system or of this file. Else any certificate will do: encrypted
    is better than clear (RFC 7435). Raises CertificateUnusable for `authorities`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.set_ciphers(TLS_1_2_SUITES)
    context.hostname_checks_common_name = False
    if authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(authorities)
    except (OSError, ValueError) as exc:
        _check_readable(authorities)
        raise CertificateUnusable(f"{authorities} holds no certificates of authorities in PEM") from exc
    return context


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """How a connection is protected: `TLSv1.3`, the suite's name, and whether the certificate was checked."""

    version: str
    cipher: str
    verified: bool

    def __str__(self) -> str:
        checked = "certificate checked" if self.verified else "certificate not checked"
        return f"{self.version.replace('TLSv', 'TLS ')}, {self.cipher}, {checked}"


def tls_facts(tls: ssl.SSLObject) -> TlsFacts:
    """Of a connection whose handshake is done."""
    context, cipher = tls.context, tls.cipher()
    verified = context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    return TlsFacts(tls.version() or "", cipher[0] if cipher else "", verified)


_CERTIFICATE_FAULTS = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is self-signed",
    19: "its certificate comes from an authority that we do not trust",
    20: "its certificate comes from an authority that we do not know",
    21: "its certificate comes from an authority that we do not know",
    23: "its certificate was revoked",
    26: "its certificate is not meant for servers",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
"""By OpenSSL's X509_V_ERR numbers."""
_HANDSHAKE_FAULTS = {
    "WRONG_VERSION_NUMBER": "its answer is not TLS",
    "RECORD_LAYER_FAILURE": "its answer is not TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks no version of TLS that we take (1.2 or newer)",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no version of TLS that we take (1.2 or newer)",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it has no cipher suite in common with us",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection",
}


def handshake_fault(error: Exception) -> str:
    """Why a handshake failed, as half a sentence about the peer, for a journey or a report."""
    match error:
        case ssl.SSLCertVerificationError(verify_code=code, verify_message=message):
            return _CERTIFICATE_FAULTS.get(code, f"its certificate is not good: {message}")
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "it closed the connection"
        case ssl.SSLError(reason=str(reason)):
            return _HANDSHAKE_FAULTS.get(reason, reason.lower().replace("_", " "))
        case TimeoutError():
            return "it did not answer in time"
        case ConnectionAbortedError():
            # What asyncio and uvloop say when their own limit for a handshake is reached, or the peer closes.
            return "it did not finish the handshake"
        case ConnectionError():
            return "it reset the connection"
        case _:
            return "it did not finish the handshake"


def _check_readable(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            encrypted = b"ENCRYPTED" in file.read(65536)
    except FileNotFoundError as exc:
        raise CertificateUnusable(f"{path} does not exist") from exc
    except OSError as exc:
        raise CertificateUnusable(f"{path} cannot be read: {exc.strerror}") from exc
    if encrypted:
        raise CertificateUnusable(f"{path} is encrypted; take the password off: openssl pkey -in {path}")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason is not None:
        return error.reason.lower().replace("_", " ")
    return "they are not a certificate and its key in PEM"


def make_self_signed(hostname: str, certificate: Path, key: Path, now: float) -> None:
    """Write a self-signed pair (P-256, ten years) so that a new house can offer TLS at once; the key is 0600.

    Raises OSError; where one of the two exists already, nothing is written.
    """
    for path in (key, certificate):
        if path.exists():
            raise FileExistsError(errno.EEXIST, "it exists already", str(path))
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
        .add_extension(x509.SubjectAlternativeName([_alternative_name(hostname)]), critical=False)
        .sign(private_key, hashes.SHA256())
    )
    pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, octets in ((key, pem), (certificate, signed.public_bytes(serialization.Encoding.PEM))):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(octets)


def _alternative_name(hostname: str) -> x509.GeneralName:
    """The name as RFC 5280 §4.2.1.6 wants it: a house without a name has an address literal."""
    if hostname.startswith("["):
        return x509.IPAddress(ipaddress.ip_address(hostname[1:-1].removeprefix("IPv6:")))
    return x509.DNSName(hostname)
