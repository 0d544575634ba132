"""Pages of `transactions`, newest first, and where in time a page begins."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from psycopg.rows import kwargs_row

from mpesa_gateway.domain.ids import first_id_at
from mpesa_gateway.domain.transaction import Status, Transaction
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.store.transactions import SKEW, as_transaction

ROW_LIMIT = 2**63 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filter:
    """What to list; None means any. `before_row` continues a listing, newest first.

    `needs_person`: what asks for one, and what has an open conflict.
    """

    merchant: str | None = None
    status: Status | None = None
    phone: str | None = None
    order_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    needs_person: bool = False
    before_row: int | None = None
    limit: int = 50


def list_newest(conn: Connection, wanted: Filter) -> list[Transaction]:
    """Transactions, newest first.

    The times become bounds of `id`, by which everything is ordered: without them a page of long ago
    would be looked for from the newest row on. The times themselves are only compared (`+ interval
    '0'`): the planner would multiply both, expect a handful of rows, and read and sort thousands.
    """
    above = _last_row_before(conn, wanted.created_after) if wanted.created_after else 0
    below = _first_row_after(conn, wanted.created_before) if wanted.created_before else ROW_LIMIT
    if wanted.before_row is not None:
        below = min(below, wanted.before_row)
    cursor = conn.cursor(row_factory=kwargs_row(as_transaction))
    # Not "is null or": a plan for any values would read all payments of a merchant, newest first.
    of_order = "" if wanted.order_id is None else "AND order_id = %(order_id)s"
    cursor.execute(
        f"""
        SELECT *
          FROM transactions
         WHERE (%(merchant)s::text IS NULL OR merchant = %(merchant)s)
           AND (%(status)s::text IS NULL OR status = %(status)s)
           AND (%(phone)s::text IS NULL OR phone = %(phone)s)
           AND (%(created_after)s::timestamptz IS NULL
                OR created_at + interval '0' > %(created_after)s)
           AND (%(created_before)s::timestamptz IS NULL
                OR created_at + interval '0' < %(created_before)s)
           AND (NOT %(needs_person)s
                OR id = ANY(ARRAY(SELECT id
                                    FROM transactions
                                   WHERE status = 'PENDING' AND attention IS NOT NULL
                                   UNION ALL
                                  SELECT transaction_id FROM conflicts WHERE closed_at IS NULL)))
           AND id > %(above)s
           AND id < %(below)s
           {of_order}
         ORDER BY id DESC
         LIMIT %(limit)s
        """,  # noqa: S608 - of constants
        {**dataclasses.asdict(wanted), "above": above, "below": below},
    )
    return cursor.fetchall()


def _first_row_after(conn: Connection, at: datetime) -> int:
    """A row that came after all that were created before then; the limit when there is none."""
    cursor = conn.execute(
        "SELECT id FROM transactions WHERE internal_transaction_id >= %s"
        " ORDER BY internal_transaction_id LIMIT 1",
        [first_id_at(at, later=SKEW)],
    )
    found = cursor.fetchone()
    return found[0] if found else ROW_LIMIT


def _last_row_before(conn: Connection, at: datetime) -> int:
    """A row that came before all that were created after then; 0 when there is none."""
    cursor = conn.execute(
        "SELECT id FROM transactions WHERE internal_transaction_id < %s"
        " ORDER BY internal_transaction_id DESC LIMIT 1",
        [first_id_at(at, later=-SKEW)],
    )
    found = cursor.fetchone()
    return found[0] if found else 0
