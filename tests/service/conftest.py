"""Folders that other users may enter; pytest's own are closed to them."""

from tests.cli.conftest import public_folder

__all__ = ["public_folder"]
