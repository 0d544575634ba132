"""Table `heartbeats`: one row of each process, written to learn whether Postgres takes writes."""

from __future__ import annotations

from datetime import datetime

from mpesa_gateway.store.pool import Connection


def beat(conn: Connection, process: str, now: datetime) -> None:
    """Write the row of this process."""
    conn.execute(
        """
        INSERT INTO heartbeats (process, beat_at)
        VALUES (%(process)s, %(now)s)
            ON CONFLICT (process) DO UPDATE
           SET beat_at = excluded.beat_at
        """,
        {"process": process, "now": now},
    )


def forget_before(conn: Connection, moment: datetime) -> None:
    """Delete the rows of processes that are gone."""
    conn.execute(
        """
        DELETE FROM heartbeats
         WHERE beat_at < %(moment)s
        """,
        {"moment": moment},
    )
