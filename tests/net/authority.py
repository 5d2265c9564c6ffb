"""An authority of our own, and servers with good and bad certificates of it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from posthouse.net.tls import server_context

_PEM = serialization.Encoding.PEM
_DAY = datetime.timedelta(days=1)


class Authority:
    """`file` holds its own certificate, which clients may trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("An authority")
        self._made = 0
        self.file = folder / "authority.pem"
        own = _new(self._name, self._name, self._key, 10)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(_PEM))

    def server(
        self, *names: str, common_name: str = "nobody.test", begins_days: float = -1, for_servers: bool = True
    ) -> ssl.SSLContext:
        """What a server with a certificate for these names and addresses has; it is good for ten days."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _new(_name(common_name), self._name, key, 10, begins_days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if for_servers else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        self._made += 1
        certificate, private = self._folder / f"{self._made}.pem", self._folder / f"{self._made}.key"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM))
        plain = serialization.NoEncryption()
        private.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain))
        return server_context(certificate, private)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _new(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, begins_days: float = -1
) -> x509.CertificateBuilder:
    begins = datetime.datetime.now(datetime.UTC) + begins_days * _DAY
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=begins,
        not_valid_after=begins + days * _DAY,
    )
