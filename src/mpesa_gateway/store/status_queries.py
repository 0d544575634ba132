"""Table `transactions`, as the sweeper and the STK query see it: what is due, and its lease.

What names a row by its id hides its state from the planner: docs/decisions/0013.
"""

from __future__ import annotations

from datetime import datetime

from mpesa_gateway.store.pool import Connection


def list_expired_pushes(conn: Connection, now: datetime, limit: int) -> list[int]:
    """Pushes whose process did not end them in time."""
    cursor = conn.execute(
        """
        SELECT id
          FROM transactions
         WHERE push_lease_until <= %(now)s
         ORDER BY push_lease_until
         LIMIT %(limit)s
        """,
        {"now": now, "limit": limit},
    )
    return [row[0] for row in cursor]


def list_due(conn: Connection, now: datetime, limit: int) -> list[int]:
    """Pending transactions to ask Safaricom about.

    The status is hidden from the planner here too: it believes that hardly anything is pending, and
    after an outage would read and sort all that is.
    """
    cursor = conn.execute(
        """
        SELECT id
          FROM transactions
         WHERE next_query_at <= %(now)s
           AND status || '' = 'PENDING'
           AND (query_lease_until IS NULL OR query_lease_until <= %(now)s)
         ORDER BY next_query_at
         LIMIT %(limit)s
        """,
        {"now": now, "limit": limit},
    )
    return [row[0] for row in cursor]


def claim(conn: Connection, row: int, *, lease_until: datetime, now: datetime) -> int | None:
    """The claim number, None when it is not due or another worker is asking."""
    cursor = conn.execute(
        """
        UPDATE transactions
           SET query_claim = query_claim + 1, query_lease_until = %(lease_until)s
         WHERE id = (
             SELECT id
               FROM transactions
              WHERE id = %(id)s
                AND status || '' = 'PENDING'
                AND coalesce(next_query_at, 'infinity') <= %(now)s
                AND (query_lease_until IS NULL OR query_lease_until <= %(now)s)
                FOR UPDATE SKIP LOCKED
         )
        RETURNING query_claim
        """,
        {"lease_until": lease_until, "id": row, "now": now},
    )
    claimed = cursor.fetchone()
    return claimed[0] if claimed else None


def is_ours(conn: Connection, row: int, claim_number: int) -> bool:
    """Whether the claim still holds; with the row locked, until the transaction ends."""
    cursor = conn.execute(
        """
        SELECT
          FROM transactions
         WHERE id = %(id)s
           AND query_claim = %(claim_number)s
        """,
        {"id": row, "claim_number": claim_number},
    )
    return cursor.rowcount == 1


def save_answer(
    conn: Connection,
    row: int,
    *,
    queries_made: int,
    provisional_code: str | None,
    next_query_at: datetime | None,
    now: datetime,
) -> None:
    """A query told nothing final: remember it, plan the next one, give the lease back."""
    conn.execute(
        """
        UPDATE transactions
           SET queries_made = %(queries_made)s, provisional_code = %(provisional_code)s,
               next_query_at = %(next_query_at)s, query_lease_until = NULL, updated_at = %(now)s
         WHERE id = %(id)s
           AND status || '' = 'PENDING'
           AND NOT in_doubt
        """,
        {
            "queries_made": queries_made,
            "provisional_code": provisional_code,
            "next_query_at": next_query_at,
            "now": now,
            "id": row,
        },
    )


def postpone(conn: Connection, row: int, until: datetime) -> None:
    """Ask later, without counting a query."""
    conn.execute(
        """
        UPDATE transactions
           SET next_query_at = %(until)s, query_lease_until = NULL
         WHERE id = %(id)s
           AND status || '' = 'PENDING'
           AND coalesce(next_query_at, 'infinity') < 'infinity'
        """,
        {"until": until, "id": row},
    )
