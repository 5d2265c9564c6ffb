"""The SQLite engine: one database file, content files beside it, one writer. Only this folder imports `apsw`."""
