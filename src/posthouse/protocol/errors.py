"""The two ways in which a dialogue can break."""

from __future__ import annotations


class RemoteProtocolError(Exception):
    """The peer did what it may not; the connection cannot go on. Random input raises nothing else."""


class LocalProtocolError(Exception):
    """We did what we may not: a bug in the driver."""
