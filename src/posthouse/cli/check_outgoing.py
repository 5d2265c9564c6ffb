"""What `posthouse check` says about connections to next hops: logins, authorities, source addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from posthouse.cli.findings import OK, PROBLEM, Finding

if TYPE_CHECKING:
    from posthouse.config import Config


def outgoing(config: Config) -> Iterator[Finding]:
    """What would keep mail waiting, or `serve` from starting."""
    from posthouse.config_forwarding import UnusablePassword
    from posthouse.net.tls import CertificateUnusable, client_context

    terms = config.forwarding
    for name, login in terms.login.items():
        try:
            login.credentials()
        except UnusablePassword as exc:
            yield Finding("login", PROBLEM, f"{name}: {exc}")
        else:
            yield Finding("login", OK, f"as {login.user} at {name}")
    if terms.tls_authorities is not None:
        try:
            client_context(verified=True, authorities=terms.tls_authorities)
        except CertificateUnusable as exc:
            yield Finding("authorities", PROBLEM, str(exc))
    for address in terms.source_addresses:
        yield _source(address)


def _source(address: str) -> Finding:
    """Whether this machine has the address that connections are to come from."""
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as opened:
            opened.bind((address, 0))
    except OSError as exc:
        mend = "forwarding.source_addresses must be addresses of this machine"
        return Finding("source", PROBLEM, f"nothing can come from {address}: {exc.strerror}; {mend}")
    return Finding("source", OK, f"connections come from {address}")
