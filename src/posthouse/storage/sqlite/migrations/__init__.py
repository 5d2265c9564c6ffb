"""Numbered migrations; `PRAGMA user_version` is the number of the last one applied."""
