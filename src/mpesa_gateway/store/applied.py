"""The version of the schema that a database has."""

from __future__ import annotations

from mpesa_gateway.store.pool import Connection


def applied_version(conn: Connection) -> int:
    """The schema's version, 0 for an empty database."""
    row = conn.execute("SELECT to_regclass('schema_migrations')").fetchone()
    if row is None or row[0] is None:
        return 0
    row = conn.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    assert row is not None
    version: int = row[0]
    return version
