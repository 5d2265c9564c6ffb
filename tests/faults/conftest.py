"""The programs that these tests need."""

from __future__ import annotations

from tests.peers.conftest import strace

__all__ = ["strace"]
