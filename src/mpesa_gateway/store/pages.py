"""What is due of each merchant, in turn: for pages that the backlog of one would fill alone.

Asked only where a page is full. The merchants are found by hopping from one to the next in an
index, so that of a backlog only the rows are read that are returned.
"""

from __future__ import annotations

from datetime import datetime

from psycopg.rows import class_row

from mpesa_gateway.store.deliveries import DueDelivery
from mpesa_gateway.store.pool import Connection

# Of each merchant in one page; the rest of the page is filled with what is oldest.
TURNS = 10


def list_deliveries(
    conn: Connection, now: datetime, *, fresh_before: datetime, limit: int
) -> list[DueDelivery]:
    """Return due deliveries as `deliveries.list_due` does: the oldest of each merchant first."""
    cursor = conn.cursor(row_factory=class_row(DueDelivery))
    cursor.execute(
        """
        WITH RECURSIVE waiting AS (
            (SELECT merchant
               FROM deliveries
              WHERE next_attempt_at IS NOT NULL
              ORDER BY merchant
              LIMIT 1)
            UNION ALL
            SELECT (SELECT d.merchant
                      FROM deliveries d
                     WHERE d.next_attempt_at IS NOT NULL AND d.merchant > waiting.merchant
                     ORDER BY d.merchant
                     LIMIT 1)
              FROM waiting
             WHERE waiting.merchant IS NOT NULL
        )
        SELECT due.id, due.fresh
          FROM waiting
         CROSS JOIN LATERAL (
               SELECT d.id,
                      d.next_attempt_at,
                      d.attempts_made = 0 AND d.next_attempt_at = d.created_at AND NOT EXISTS (
                          SELECT FROM failing_endpoints f
                           WHERE f.merchant = d.merchant AND f.origin = d.origin) AS fresh,
                      row_number() OVER (ORDER BY d.next_attempt_at
                                         ROWS UNBOUNDED PRECEDING) AS turn
                 FROM deliveries d
                WHERE d.merchant = waiting.merchant
                  AND d.next_attempt_at <= %(now)s
                  AND (d.attempts_made > 0 OR d.next_attempt_at <= %(fresh_before)s)
                  AND (d.lease_until IS NULL OR d.lease_until <= %(now)s)
                  AND NOT EXISTS (
                          SELECT FROM deliveries e
                           WHERE e.transaction_id = d.transaction_id
                             AND e.id < d.id AND e.state || '' = 'PENDING')
                ORDER BY d.next_attempt_at
                LIMIT %(turns)s) due
         ORDER BY due.turn, due.next_attempt_at
         LIMIT %(limit)s
        """,
        {"now": now, "fresh_before": fresh_before, "turns": TURNS, "limit": limit},
    )
    return cursor.fetchall()


def list_queries(conn: Connection, now: datetime, limit: int) -> list[int]:
    """Return pending transactions to query as `queries.list_due` does, each merchant's in turn."""
    cursor = conn.execute(
        """
        WITH RECURSIVE waiting AS (
            (SELECT merchant
               FROM transactions
              WHERE next_query_at IS NOT NULL
              ORDER BY merchant
              LIMIT 1)
            UNION ALL
            SELECT (SELECT t.merchant
                      FROM transactions t
                     WHERE t.next_query_at IS NOT NULL AND t.merchant > waiting.merchant
                     ORDER BY t.merchant
                     LIMIT 1)
              FROM waiting
             WHERE waiting.merchant IS NOT NULL
        )
        SELECT due.id
          FROM waiting
         CROSS JOIN LATERAL (
               SELECT t.id,
                      t.next_query_at,
                      row_number() OVER (ORDER BY t.next_query_at
                                         ROWS UNBOUNDED PRECEDING) AS turn
                 FROM transactions t
                WHERE t.merchant = waiting.merchant
                  AND t.next_query_at <= %(now)s
                  AND t.status || '' = 'PENDING'
                  AND (t.query_lease_until IS NULL OR t.query_lease_until <= %(now)s)
                ORDER BY t.next_query_at
                LIMIT %(turns)s) due
         ORDER BY due.turn, due.next_query_at
         LIMIT %(limit)s
        """,
        {"now": now, "turns": TURNS, "limit": limit},
    )
    return [row[0] for row in cursor]
