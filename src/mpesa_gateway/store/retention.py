"""Removes what a setting says may go: raw callback bodies, and tries of webhooks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from mpesa_gateway.store.pool import Connection

# Of one commit: tens of milliseconds of work on a quiet machine, whatever the table's size.
BATCH = 1000


@dataclass(frozen=True)
class Pass:
    """How far the walk over a table has come, by id."""

    name: str
    position: int
    removed: int


def begin(conn: Connection, name: str, now: datetime) -> None:
    """Make the row of a pass that never ran."""
    conn.execute(
        """
        INSERT INTO retention_passes (name, next_at)
        VALUES (%(name)s, %(now)s)
            ON CONFLICT DO NOTHING
        """,
        {"name": name, "now": now},
    )


def lock_due(conn: Connection, name: str, now: datetime) -> Pass | None:
    """The pass, locked; None when it is not due or another worker holds it."""
    cursor = conn.cursor(row_factory=class_row(Pass))
    cursor.execute(
        """
        SELECT name, position, removed
          FROM retention_passes
         WHERE name = %(name)s
           AND next_at <= %(now)s
           FOR UPDATE SKIP LOCKED
        """,
        {"name": name, "now": now},
    )
    return cursor.fetchone()


def save(conn: Connection, name: str, *, position: int, removed: int, next_at: datetime) -> None:
    """Where the next batch begins, and when."""
    conn.execute(
        """
        UPDATE retention_passes
           SET position = %(position)s, removed = %(removed)s, next_at = %(next_at)s
         WHERE name = %(name)s
        """,
        {"position": position, "removed": removed, "next_at": next_at, "name": name},
    )


def find_callbacks_end(conn: Connection, position: int, before: datetime) -> int | None:
    """The last id of the next batch of old callbacks, None when what follows is younger."""
    return _last_old(
        conn.execute(
            """
            SELECT id, received_at
              FROM callbacks
             WHERE id > %(position)s
             ORDER BY id
             LIMIT %(limit)s
            """,
            {"position": position, "limit": BATCH},
        ).fetchall(),
        before,
    )


def find_attempts_end(conn: Connection, position: int, before: datetime) -> int | None:
    """The last id of the next batch of old attempts, None when what follows is younger."""
    return _last_old(
        conn.execute(
            """
            SELECT id, attempted_at
              FROM webhook_attempts
             WHERE id > %(position)s
             ORDER BY id
             LIMIT %(limit)s
            """,
            {"position": position, "limit": BATCH},
        ).fetchall(),
        before,
    )


def _last_old(rows: list[tuple[int, datetime]], before: datetime) -> int | None:
    """Ids ascend with time but for moments, so the last old one of a batch ends it."""
    return max((row for row, at in rows if at < before), default=None)


def remove_bodies(
    conn: Connection, position: int, end: int, *, before: datetime, now: datetime
) -> int:
    """Empty the old applied callbacks of payments that are over; how many.

    Their digests stay, so a copy that comes later is still a copy. Bodies in quarantine, of open
    conflicts, and of payments whose webhooks have not ended are kept: somebody may need them.
    """
    cursor = conn.execute(
        """
        UPDATE callbacks c
           SET body = '', headers = '{}', body_removed_at = %(now)s
         WHERE c.id > %(position)s
           AND c.id <= %(end)s
           AND c.received_at < %(before)s
           AND c.state = 'APPLIED'
           AND c.body_removed_at IS NULL
           AND EXISTS (
               SELECT
                 FROM transactions t
                WHERE t.id = c.transaction_id
                  AND t.status <> 'PENDING'
           )
           AND NOT EXISTS (
               SELECT
                 FROM deliveries d
                WHERE d.transaction_id = c.transaction_id
                  AND d.state = 'PENDING'
           )
           AND NOT EXISTS (
               SELECT
                 FROM conflicts f
                WHERE f.transaction_id = c.transaction_id
                  AND f.closed_at IS NULL
           )
        """,
        {"now": now, "position": position, "end": end, "before": before},
    )
    return cursor.rowcount


def remove_attempts(conn: Connection, position: int, end: int, *, before: datetime) -> int:
    """Delete the old tries of payments whose every webhook has ended; how many."""
    cursor = conn.execute(
        """
        DELETE FROM webhook_attempts a
         WHERE a.id > %(position)s
           AND a.id <= %(end)s
           AND a.attempted_at < %(before)s
           AND EXISTS (
               SELECT
                 FROM transactions t
                WHERE t.id = a.transaction_id
                  AND t.status <> 'PENDING'
           )
           AND NOT EXISTS (
               SELECT
                 FROM deliveries d
                WHERE d.transaction_id = a.transaction_id
                  AND d.state = 'PENDING'
           )
        """,
        {"position": position, "end": end, "before": before},
    )
    return cursor.rowcount
