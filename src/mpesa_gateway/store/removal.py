"""Removes a month of payments: what is open in it, its partitions, and its rows in batches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg import sql
from psycopg.rows import class_row

from mpesa_gateway.domain.months import Month
from mpesa_gateway.store import months
from mpesa_gateway.store.pool import Connection

# Of one commit: some tens of milliseconds of work.
BATCH = 500

# In the order of their foreign keys. Each names a payment by its row, which is the month's.
_ROWS_OF_PAYMENTS: tuple[LiteralString, ...] = (
    """
    DELETE FROM redelivery_items
     WHERE delivery_id IN (SELECT id FROM deliveries WHERE transaction_id = ANY(%(rows)s))
    """,
    "DELETE FROM webhook_attempts WHERE transaction_id = ANY(%(rows)s)",
    "DELETE FROM deliveries WHERE transaction_id = ANY(%(rows)s)",
    "DELETE FROM conflicts WHERE transaction_id = ANY(%(rows)s)",
    "DELETE FROM callbacks WHERE transaction_id = ANY(%(rows)s)",
    "DELETE FROM transactions WHERE id = ANY(%(rows)s)",
)

# A payment that nobody needs any more, and whose partitions are detached. A webhook that was given
# up counts as open, unless the operator says that it need not arrive any more.
_CLOSED: LiteralString = """
       t.status <> 'PENDING'
   AND NOT EXISTS (SELECT FROM deliveries d
                    WHERE d.transaction_id = t.id
                      AND (d.state = 'PENDING' OR (d.state <> 'DELIVERED' AND NOT %(despite)s)))
   AND NOT EXISTS (SELECT FROM callbacks c
                    WHERE c.transaction_id = t.id AND c.state <> 'APPLIED')
   AND NOT EXISTS (SELECT FROM conflicts f
                    WHERE f.transaction_id = t.id AND f.closed_at IS NULL)
   AND NOT EXISTS (SELECT FROM endings_to_count e WHERE e.transaction_id = t.id)
   AND NOT EXISTS (SELECT FROM transaction_events v WHERE v.transaction_id = t.id)
"""


@dataclass(frozen=True)
class Content:
    """What a month holds, and what of it is open. `newest_at` is None when it holds no payment."""

    newest_at: datetime | None
    pending: int
    webhooks_pending: int
    webhooks_undelivered: int
    callbacks_open: int
    conflicts_open: int
    has_newest_payment: bool
    has_newest_callback: bool


def read_content(conn: Connection, month: Month) -> Content:
    """Look into the month. Each count reads an index of what is open, not the month's rows."""
    cursor = conn.cursor(row_factory=class_row(Content))
    cursor.execute(
        """
        SELECT (SELECT created_at
                  FROM transactions
                 WHERE id >= %(begins)s AND id < %(ends)s
                 ORDER BY id DESC
                 LIMIT 1) AS newest_at,
               (SELECT count(*)
                  FROM transactions
                 WHERE status = 'PENDING'
                   AND id >= %(begins)s AND id < %(ends)s) AS pending,
               (SELECT count(*)
                  FROM deliveries
                 WHERE state = 'PENDING'
                   AND transaction_id >= %(begins)s
                   AND transaction_id < %(ends)s) AS webhooks_pending,
               (SELECT count(*)
                  FROM deliveries
                 WHERE state IN ('EXHAUSTED', 'GONE')
                   AND transaction_id >= %(begins)s
                   AND transaction_id < %(ends)s) AS webhooks_undelivered,
               (SELECT count(*)
                  FROM (SELECT transaction_id FROM callbacks WHERE state = 'RECEIVED'
                         UNION ALL
                        SELECT transaction_id FROM callbacks WHERE state = 'QUARANTINED') AS open
                 WHERE transaction_id >= %(begins)s
                   AND transaction_id < %(ends)s) AS callbacks_open,
               (SELECT count(*)
                  FROM conflicts
                 WHERE closed_at IS NULL
                   AND transaction_id >= %(begins)s
                   AND transaction_id < %(ends)s) AS conflicts_open,
               coalesce((SELECT id FROM transactions ORDER BY id DESC LIMIT 1)
                        BETWEEN %(begins)s AND %(ends)s - 1, false) AS has_newest_payment,
               coalesce((SELECT transaction_id FROM callbacks ORDER BY id DESC LIMIT 1)
                        BETWEEN %(begins)s AND %(ends)s - 1, false) AS has_newest_callback
        """,
        {"begins": month.begins, "ends": month.ends},
    )
    content = cursor.fetchone()
    assert content is not None
    return content


@dataclass(frozen=True)
class Removal:
    """A month that an operator removes or has removed."""

    month: str
    removed_by: str
    reason: str
    started_at: datetime
    finished_at: datetime | None
    payments: int


def begin(conn: Connection, month: Month, *, by: str, reason: str, now: datetime) -> None:
    """Store who removes the month and why. Who began it stays."""
    conn.execute(
        """
        INSERT INTO removed_months (month, removed_by, reason, started_at)
        VALUES (%(month)s, %(by)s, %(reason)s, %(now)s)
            ON CONFLICT (month) DO NOTHING
        """,
        {"month": month.label, "by": by, "reason": reason, "now": now},
    )


def finish(conn: Connection, month: Month, now: datetime) -> None:
    """Store that nothing of the month is left."""
    conn.execute(
        "UPDATE removed_months SET finished_at = %(now)s WHERE month = %(month)s",
        {"month": month.label, "now": now},
    )


def find(conn: Connection, month: Month) -> Removal | None:
    """Return who removes or has removed the month."""
    cursor = conn.cursor(row_factory=class_row(Removal))
    cursor.execute("SELECT * FROM removed_months WHERE month = %(month)s", {"month": month.label})
    return cursor.fetchone()


def list_removals(conn: Connection) -> list[Removal]:
    """Return every month that was removed, the newest first."""
    cursor = conn.cursor(row_factory=class_row(Removal))
    cursor.execute("SELECT * FROM removed_months ORDER BY started_at DESC")
    return cursor.fetchall()


def detach(conn: Connection, table: months.Table, month: Month) -> None:
    """Take the month's partition out of its table: it stays as a table of its own."""
    months.limit_lock_waits(conn)
    conn.execute(
        sql.SQL("ALTER TABLE {table} DETACH PARTITION {partition}").format(
            table=sql.Identifier(table.name),
            partition=sql.Identifier(months.partition_name(table, month)),
        )
    )


def free(conn: Connection, table: months.Table, month: Month) -> None:
    """Let the payments go that a detached partition names."""
    months.limit_lock_waits(conn)
    partition = months.partition_name(table, month)
    for (name,) in conn.execute(
        """
        SELECT conname
          FROM pg_constraint
         WHERE conrelid = to_regclass(%(partition)s) AND contype = 'f'
        """,
        {"partition": partition},
    ).fetchall():
        conn.execute(
            sql.SQL("ALTER TABLE {partition} DROP CONSTRAINT {name}").format(
                partition=sql.Identifier(partition), name=sql.Identifier(name)
            )
        )


def drop(conn: Connection, table: months.Table, month: Month) -> None:
    """Drop a detached partition, and give its room back to the disk."""
    months.limit_lock_waits(conn)
    conn.execute(
        sql.SQL("DROP TABLE IF EXISTS {partition}").format(
            partition=sql.Identifier(months.partition_name(table, month))
        )
    )


def remove_batch(conn: Connection, month: Month, *, after: int, despite: bool) -> tuple[int, int]:
    """Keep the keys of the next payments and delete their rows: the last row, and how many.

    All in the caller's transaction. What is open, or locked by somebody, stays. The last row is
    `after` itself once nothing follows.
    """
    values = {"after": after, "begins": month.begins, "ends": month.ends, "limit": BATCH}
    last = conn.execute(
        """
        SELECT max(id)
          FROM (SELECT id
                  FROM transactions
                 WHERE id > %(after)s AND id >= %(begins)s AND id < %(ends)s
                 ORDER BY id
                 LIMIT %(limit)s) AS batch
        """,
        values,
    ).fetchone()
    if last is None or last[0] is None:
        return after, 0
    locked = conn.execute(
        f"""
        SELECT t.id
          FROM transactions t
         WHERE t.id > %(after)s AND t.id >= %(begins)s AND t.id <= %(last)s
           AND {_CLOSED}
           FOR UPDATE SKIP LOCKED
        """,  # noqa: S608 - a constant
        {**values, "last": last[0], "despite": despite},
    ).fetchall()
    rows = _still_closed(conn, [row for (row,) in locked], despite=despite)
    _keep_keys(conn, rows)
    for statement in _ROWS_OF_PAYMENTS:
        conn.execute(statement, {"rows": rows})
    conn.execute(
        "UPDATE removed_months SET payments = payments + %(count)s WHERE month = %(month)s",
        {"count": len(rows), "month": month.label},
    )
    return last[0], len(rows)


def _still_closed(conn: Connection, rows: list[int], *, despite: bool) -> list[int]:
    """Return those to which nothing has come until they were locked; now nothing can.

    Raises UnavailableError when somebody is at one of their webhooks at this moment.
    """
    conn.execute(
        "SELECT FROM deliveries WHERE transaction_id = ANY(%(rows)s) FOR UPDATE NOWAIT",
        {"rows": rows},
    )
    cursor = conn.execute(
        f"SELECT t.id FROM transactions t WHERE t.id = ANY(%(rows)s) AND {_CLOSED}",  # noqa: S608
        {"rows": rows, "despite": despite},
    )
    return [row for (row,) in cursor]


def _keep_keys(conn: Connection, rows: list[int]) -> None:
    conn.execute(
        """
        INSERT INTO payment_keys (merchant, idempotency_key, internal_transaction_id,
                                  request_sha256, response_status, response_body, status, amount,
                                  receipt, finished_at, order_id)
        SELECT merchant, idempotency_key, internal_transaction_id,
               request_sha256, response_status, response_body, status, amount,
               receipt, finished_at, order_id
          FROM transactions
         WHERE id = ANY(%(rows)s)
        """,
        {"rows": rows},
    )


def count_left(conn: Connection, month: Month) -> int:
    """Return how many payments of the month are there, counted up to a batch."""
    row = conn.execute(
        """
        SELECT count(*)
          FROM (SELECT
                  FROM transactions
                 WHERE id >= %(begins)s AND id < %(ends)s
                 LIMIT %(limit)s) AS left_over
        """,
        {"begins": month.begins, "ends": month.ends, "limit": BATCH},
    ).fetchone()
    assert row is not None
    return int(row[0])
