"""What the parent of several workers has read from files, and keeps as it was last usable.

A worker that replaces another one begins with it: a certificate or a password that is broken just then keeps no house
from taking mail. Nothing is kept on disk; the worker has it since it is forked.
"""

from __future__ import annotations

import io

from posthouse.config import Config
from posthouse.doors import SERVICES, certificate_pairs
from posthouse.forwarding.outgoing import Outgoing
from posthouse.log import make_log
from posthouse.mail.world import Clock
from posthouse.net.certificates import Certificates


class HeldFiles:
    """Certificates and the passwords of next hops. It logs nothing: each worker says what it finds itself."""

    def __init__(self, config: Config, clock: Clock) -> None:
        """Raises CertificateUnusable, ConfigError."""
        self._clock = clock
        self._log = make_log(io.StringIO(), level="critical")
        self.reload(config)

    def reload(self, config: Config) -> None:
        """Read them again, for another configuration. Raises as at first; nothing has changed then."""
        outgoing, pairs = Outgoing.of(config.forwarding), certificate_pairs(config)
        certificates = Certificates(pairs, SERVICES, self._clock, self._log) if pairs is not None else None
        self.outgoing, self.certificates = outgoing, certificates

    def look(self) -> None:
        """Take what was renewed; what cannot be used leaves what was there."""
        if self.certificates is not None:
            self.certificates.look()
