"""Which engine this is, and how durable it says it is."""

from __future__ import annotations

from psycopg.rows import class_row

from mpesa_gateway.domain.durability import Durability, refused_engine
from mpesa_gateway.store.pool import Connection


def find_refused_engine(conn: Connection) -> str | None:
    """Return the name of an engine that the gateway refuses, None for PostgreSQL.

    A statement of its own: such an engine fails at what else is asked of PostgreSQL.
    """
    row = conn.execute("SELECT version()").fetchone()
    return refused_engine(row[0]) if row else None


def read_durability(conn: Connection) -> Durability:
    """Return what the server says; any role may ask."""
    cursor = conn.cursor(row_factory=class_row(Durability))
    cursor.execute(
        """
        SELECT current_setting('fsync')::bool AS fsync,
               current_setting('full_page_writes')::bool AS full_page_writes,
               current_setting('synchronous_commit') AS synchronous_commit,
               current_setting('synchronous_standby_names') AS synchronous_standby_names,
               (SELECT count(*) FROM pg_stat_replication) AS replicas,
               pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only
        """
    )
    found = cursor.fetchone()
    assert found is not None
    return found
