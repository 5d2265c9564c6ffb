"""Numbered migrations; `PRAGMA user_version` is the number of the last one applied.

Every one but the first has its way back, a file of the same name in `back/`, for `posthouse rollback`: it leaves the
schema as the migration found it, keeps all mail, and makes rows that older programs would misread into ones they know.
"""
