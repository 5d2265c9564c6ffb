"""Posthouse: a whole mail system in one program. docs/ARCHITECTURE.md is the map."""

__version__ = "0.1.0"
