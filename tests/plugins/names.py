"""No test asks the machine's name servers. `smtplib` would at each connection, for a name to say at EHLO, and where
nobody answers that takes a part of a second, or many."""

from __future__ import annotations

import smtplib

import pytest

NAME = "client.test"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give every client of `smtplib` a name that needs no look-up."""
    patch = pytest.MonkeyPatch()
    patch.setattr(smtplib.SMTP, "__init__", _named(smtplib.SMTP.__init__))
    patch.setattr(smtplib.SMTP_SSL, "__init__", _named(smtplib.SMTP_SSL.__init__))
    config.add_cleanup(patch.undo)


def _named(begin):  # type: ignore[no-untyped-def]
    def __init__(self, host="", port=0, local_hostname=None, *rest, **named):  # type: ignore[no-untyped-def]
        begin(self, host, port, local_hostname or NAME, *rest, **named)

    return __init__
