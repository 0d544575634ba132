"""Table `redeliveries`: a person's order to send many webhooks again, and how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from psycopg.rows import kwargs_row

from mpesa_gateway.store.pool import Connection


@dataclass(frozen=True, kw_only=True)
class NewRedelivery:
    """An order: whose webhooks, of which time, in which states."""

    merchant: str
    since: datetime
    until: datetime
    states: tuple[str, ...]
    requested_by: str | None


@dataclass(frozen=True)
class Redelivery:
    """An order and how far it has come. `next_at` is None once everything was looked at."""

    id: int
    merchant: str
    since: datetime
    until: datetime
    states: list[str]
    requested_by: str | None
    requested_at: datetime
    first_id: int
    position: int
    last_id: int
    chosen: int
    next_at: datetime | None
    finished_at: datetime | None


_FIELDS = frozenset(field.name for field in fields(Redelivery))


def _redelivery(**columns: Any) -> Redelivery:
    """A row as a Redelivery. Columns of a newer schema are passed over."""
    return Redelivery(**{name: columns[name] for name in _FIELDS})


def find_from(conn: Connection, delivery_id: int) -> tuple[int, datetime] | None:
    """The first delivery at or after this id, and when it was written."""
    cursor = conn.execute(
        """
        SELECT id, created_at
          FROM deliveries
         WHERE id >= %(delivery_id)s
         ORDER BY id
         LIMIT 1
        """,
        {"delivery_id": delivery_id},
    )
    row = cursor.fetchone()
    return (row[0], row[1]) if row else None


def newest_delivery(conn: Connection) -> int:
    """The highest delivery id, 0 when there is none."""
    row = conn.execute("SELECT coalesce(max(id), 0) FROM deliveries").fetchone()
    assert row is not None
    newest: int = row[0]
    return newest


def insert(
    conn: Connection, order: NewRedelivery, *, first_id: int, last_id: int, now: datetime
) -> Redelivery:
    """The new order, due at once."""
    cursor = conn.cursor(row_factory=kwargs_row(_redelivery))
    cursor.execute(
        """
        INSERT INTO redeliveries (merchant, since, until, states, requested_by, requested_at,
            first_id, position, last_id, next_at)
        VALUES (%(merchant)s, %(since)s, %(until)s, %(states)s, %(requested_by)s, %(now)s,
            %(first_id)s, %(first_id)s, %(last_id)s, %(now)s)
        RETURNING *
        """,
        {
            "merchant": order.merchant,
            "since": order.since,
            "until": order.until,
            "states": list(order.states),
            "requested_by": order.requested_by,
            "now": now,
            "first_id": first_id,
            "last_id": last_id,
        },
    )
    inserted = cursor.fetchone()
    assert inserted is not None
    return inserted


def list_due(conn: Connection, now: datetime, limit: int) -> list[int]:
    """Orders with something left to look at."""
    cursor = conn.execute(
        """
        SELECT id
          FROM redeliveries
         WHERE next_at <= %(now)s
         ORDER BY next_at
         LIMIT %(limit)s
        """,
        {"now": now, "limit": limit},
    )
    return [row[0] for row in cursor]


def lock_due(conn: Connection, redelivery_id: int, now: datetime) -> Redelivery | None:
    """The order, locked; None when it is done, not due, or another worker is at it."""
    cursor = conn.cursor(row_factory=kwargs_row(_redelivery))
    cursor.execute(
        """
        SELECT *
          FROM redeliveries
         WHERE id = %(redelivery_id)s
           AND next_at <= %(now)s
           FOR UPDATE SKIP LOCKED
        """,
        {"redelivery_id": redelivery_id, "now": now},
    )
    return cursor.fetchone()


def count_due(conn: Connection, merchant: str, now: datetime, most: int) -> int:
    """How many webhooks of the merchant are due now, counted up to `most`."""
    row = conn.execute(
        """
        SELECT count(*)
          FROM (SELECT
                  FROM deliveries
                 WHERE merchant = %(merchant)s AND next_attempt_at <= %(now)s
                 LIMIT %(most)s) due
        """,
        {"merchant": merchant, "now": now, "most": most},
    ).fetchone()
    assert row is not None
    counted: int = row[0]
    return counted


def find_window_end(conn: Connection, order: Redelivery, size: int) -> int | None:
    """The last id of the next `size` deliveries of anybody, None when nothing is left."""
    row = conn.execute(
        """
        SELECT max(id)
          FROM (
              SELECT id
                FROM deliveries
               WHERE id > %(position)s
                 AND id <= %(last_id)s
               ORDER BY id
               LIMIT %(size)s
          ) w
        """,
        {"position": order.position, "last_id": order.last_id, "size": size},
    ).fetchone()
    return row[0] if row else None


def offer_window(conn: Connection, order: Redelivery, end: int, now: datetime) -> int:
    """Start a new round of the deliveries that the order chooses up to `end`; how many.

    One that is being tried at this moment is chosen too, and left to its try. Each transaction
    gets an event row.
    """
    cursor = conn.execute(
        """
        WITH chosen AS (
            SELECT id, transaction_id, coalesce(lease_until > %(now)s, FALSE) AS held
              FROM deliveries
             WHERE id > %(position)s
               AND id <= %(end)s
               AND merchant = %(merchant)s
               AND state = ANY(%(states)s)
               AND created_at >= %(since)s
               AND created_at <= %(until)s
             ORDER BY id
               FOR UPDATE
        ), items AS (
            INSERT INTO redelivery_items (redelivery_id, delivery_id)
            SELECT %(order)s, id
              FROM chosen
        ), offered AS (
            UPDATE deliveries
               SET state = 'PENDING', failures = 0, next_attempt_at = %(now)s,
                   finished_at = NULL, waits_for_endpoint = FALSE
             WHERE id IN (SELECT id FROM chosen WHERE NOT held)
        ), events AS (
            INSERT INTO transaction_events (transaction_id, at, source, kind, detail)
            SELECT DISTINCT transaction_id, %(now)s::timestamptz, 'person', 'redelivery',
                   jsonb_strip_nulls(
                       jsonb_build_object('redelivery', %(order)s::bigint, 'by', %(by)s::text)
                   )
              FROM chosen
        )
        SELECT count(*)
          FROM chosen
        """,
        {
            "now": now,
            "position": order.position,
            "end": end,
            "merchant": order.merchant,
            "states": order.states,
            "since": order.since,
            "until": order.until,
            "order": order.id,
            "by": order.requested_by,
        },
    )
    row = cursor.fetchone()
    assert row is not None
    chosen: int = row[0]
    return chosen


def save_progress(conn: Connection, redelivery_id: int, position: int, chosen: int) -> None:
    """So far everything up to `position` was looked at."""
    conn.execute(
        """
        UPDATE redeliveries
           SET position = %(position)s, chosen = chosen + %(chosen)s
         WHERE id = %(redelivery_id)s
        """,
        {"position": position, "chosen": chosen, "redelivery_id": redelivery_id},
    )


def finish(conn: Connection, redelivery_id: int, now: datetime) -> None:
    """Nothing is left to look at."""
    conn.execute(
        """
        UPDATE redeliveries
           SET next_at = NULL, finished_at = %(now)s, position = last_id
         WHERE id = %(redelivery_id)s
        """,
        {"now": now, "redelivery_id": redelivery_id},
    )


def find(conn: Connection, redelivery_id: int) -> Redelivery | None:
    """One order."""
    cursor = conn.cursor(row_factory=kwargs_row(_redelivery))
    cursor.execute(
        "SELECT * FROM redeliveries WHERE id = %(redelivery_id)s", {"redelivery_id": redelivery_id}
    )
    return cursor.fetchone()


def list_newest(conn: Connection, limit: int) -> list[Redelivery]:
    """Orders, newest first."""
    cursor = conn.cursor(row_factory=kwargs_row(_redelivery))
    cursor.execute("SELECT * FROM redeliveries ORDER BY id DESC LIMIT %(limit)s", {"limit": limit})
    return cursor.fetchall()


def count_states(conn: Connection, redelivery_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """What became of the deliveries that each order chose, by state."""
    cursor = conn.execute(
        """
        SELECT i.redelivery_id, d.state, count(*)
          FROM redelivery_items i
          JOIN deliveries d ON d.id = i.delivery_id
         WHERE i.redelivery_id = ANY(%(redelivery_ids)s)
         GROUP BY 1, 2
        """,
        {"redelivery_ids": list(redelivery_ids)},
    )
    counted: dict[int, dict[str, int]] = {it: {} for it in redelivery_ids}
    for redelivery_id, state, count in cursor:
        counted[redelivery_id][state] = count
    return counted


def redeliver(
    conn: Connection, transaction: int, now: datetime, *, only: int | None = None
) -> list[int]:
    """Start a new round of a transaction's deliveries that nobody is trying now; their ids."""
    cursor = conn.execute(
        """
        UPDATE deliveries
           SET state = 'PENDING', failures = 0, next_attempt_at = %(now)s, finished_at = NULL,
               waits_for_endpoint = FALSE
         WHERE transaction_id = %(transaction)s
           AND (%(only)s::bigint IS NULL OR id = %(only)s)
           AND (lease_until IS NULL OR lease_until <= %(now)s)
        RETURNING id
        """,
        {"now": now, "transaction": transaction, "only": only},
    )
    return sorted(row[0] for row in cursor)
