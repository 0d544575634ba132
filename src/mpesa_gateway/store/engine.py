"""Whether what answers at MPESA_DATABASE_URL is a Postgres that will do."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from mpesa_gateway.domain.durability import refusal_of
from mpesa_gateway.store.applied import applied_version
from mpesa_gateway.store.connection_errors import why_not
from mpesa_gateway.store.durability import find_refused_engine
from mpesa_gateway.store.pool import CONNECT_TIMEOUT_S, Connection

# As docs/install.md says.
OLDEST_VERSION = 140_000


def find_unsupported(conn: Connection) -> str | None:
    """Say what is refused and why; None when it is a Postgres that will do."""
    engine = find_refused_engine(conn)
    if engine is not None:
        return refusal_of(engine)
    if conn.info.server_version < OLDEST_VERSION:
        return f"this is an older Postgres: {OLDEST_VERSION // 10_000} or later is needed"
    return None


@dataclass(frozen=True)
class Look:
    """What a first look at the database found. `unusable` says why it could not be looked at."""

    unsupported: str | None = None
    schema_version: int | None = None
    is_read_only: bool = False
    unusable: str | None = None


def look_at(url: str) -> Look:
    """Look once, at start. A database that does not answer is not judged."""
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as conn:
            unsupported = find_unsupported(conn)
            if unsupported is not None:
                return Look(unsupported)
            # In a transaction: a pooler in statement mode refuses one.
            with conn.transaction():
                return Look(schema_version=applied_version(conn), is_read_only=_is_read_only(conn))
    except psycopg.Error:
        return Look(unusable=why_not(url))


def _is_read_only(conn: Connection) -> bool:
    """Whether it is a standby, or in read-only mode."""
    return conn.execute("SHOW transaction_read_only").fetchone() == ("on",)
