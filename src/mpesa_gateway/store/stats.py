"""How much waits and how old it is, and the last hour: counts that partial indexes answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from psycopg.rows import class_row

from mpesa_gateway.domain.ids import first_id_at
from mpesa_gateway.store.deliveries import IN_TURN
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.store.transactions import SKEW


@dataclass(frozen=True)
class StatusCount:
    """Payments of one status, and their money."""

    status: str
    count: int
    amount: Decimal


def count_created_since(conn: Connection, since: datetime) -> list[StatusCount]:
    """What was asked for since then, by how it stands now. The time-ordered id bounds the look.

    New rows lie on old pages where vacuum made room, so an index of ranges of pages would not. The
    time is only compared (`+ interval '0'`), as in `transaction_listing.list_newest`.
    """
    cursor = conn.cursor(row_factory=class_row(StatusCount))
    cursor.execute(
        """
        SELECT status, count(*), sum(amount) AS amount
          FROM transactions
         WHERE internal_transaction_id >= %(first_id)s
           AND created_at + interval '0' >= %(since)s::timestamptz
         GROUP BY status
        """,
        {"first_id": first_id_at(since, later=-SKEW), "since": since},
    )
    return cursor.fetchall()


@dataclass(frozen=True)
class Backlog:
    """What is not done. `oldest` times are None where nothing waits."""

    pending: int
    pending_oldest: datetime | None
    attention: int
    conflicts: int
    callbacks_waiting: int
    callbacks_oldest: datetime | None
    quarantined: int
    deliveries_due: int
    deliveries_oldest_due: datetime | None
    deliveries_retrying: int
    deliveries_parked: int
    deliveries_exhausted: int
    deliveries_gone: int
    endpoints_parked: int


def measure(conn: Connection, now: datetime) -> Backlog:
    """Each part reads a partial index that holds only what it counts."""
    cursor = conn.cursor(row_factory=class_row(Backlog))
    cursor.execute(
        f"""
        WITH open AS MATERIALIZED (
            SELECT next_attempt_at, waits_for_endpoint, {IN_TURN} AS in_turn
              FROM deliveries d
             WHERE state = 'PENDING'
        ), ended AS MATERIALIZED (
            SELECT state
              FROM deliveries
             WHERE state IN ('EXHAUSTED', 'GONE')
        )
        SELECT p.pending, p.pending_oldest, p.attention,
               (SELECT count(*) FROM conflicts WHERE closed_at IS NULL) AS conflicts,
               c.callbacks_waiting, c.callbacks_oldest,
               (SELECT count(*) FROM callbacks WHERE state = 'QUARANTINED') AS quarantined, d.*,
               (SELECT count(*) FROM ended WHERE state = 'EXHAUSTED') AS deliveries_exhausted,
               (SELECT count(*) FROM ended WHERE state = 'GONE') AS deliveries_gone,
               (SELECT count(*) FROM failing_endpoints
                 WHERE parked_until > %(now)s) AS endpoints_parked
          FROM (
              SELECT count(*) AS pending, min(created_at) AS pending_oldest,
                     count(attention) AS attention
                FROM transactions
               WHERE status = 'PENDING'
          ) p, (
              SELECT count(*) AS callbacks_waiting, min(received_at) AS callbacks_oldest
                FROM callbacks
               WHERE state = 'RECEIVED'
          ) c, (
              SELECT count(*) FILTER (WHERE due) AS deliveries_due,
                     min(next_attempt_at) FILTER (WHERE due) AS deliveries_oldest_due,
                     count(*) FILTER (WHERE NOT due AND NOT waits_for_endpoint)
                         AS deliveries_retrying,
                     count(*) FILTER (WHERE waits_for_endpoint) AS deliveries_parked
                FROM (
                    SELECT *,
                           next_attempt_at <= %(now)s AND NOT waits_for_endpoint AND in_turn AS due
                      FROM open
                ) o
          ) d
        """,  # noqa: S608 - a constant
        {"now": now},
    )
    row = cursor.fetchone()
    assert row is not None
    return row
