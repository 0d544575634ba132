"""The end of a transaction: four tables, one statement, because every payment comes by here.

What names a row by its id hides its state from the planner: docs/decisions/0013.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from mpesa_gateway.domain.transaction import Transaction
from mpesa_gateway.store.deliveries import NewDelivery
from mpesa_gateway.store.events import Source
from mpesa_gateway.store.pool import Connection


def save(
    conn: Connection,
    finished: Transaction,
    delivery: NewDelivery,
    *,
    source: Source,
    detail: dict[str, Any],
    now: datetime,
) -> int | None:
    """Store the final state, who said so, what a held callback came to, and the webhook.

    The webhook's id, None when another worker finished the transaction first. Raises
    UniqueViolation when the receipt belongs to another transaction.
    """
    known = {name: value for name, value in detail.items() if value is not None}
    cursor = conn.execute(
        """
        WITH ended AS (
            UPDATE transactions
               SET status = %(status)s, settled_by = %(by)s, result_code = %(code)s,
                   result_desc = %(desc)s, failure_reason = %(reason)s, receipt = %(receipt)s,
                   metadata = %(metadata)s, attention = NULL, next_query_at = NULL,
                   query_lease_until = NULL, updated_at = %(updated)s,
                   finished_at = %(finished)s
             WHERE id = %(row)s
               AND status || '' = 'PENDING'
            RETURNING id
        ), event AS (
            INSERT INTO transaction_events (transaction_id, at, source, kind, detail)
            SELECT id, %(now)s, %(source)s, %(outcome)s, %(detail)s
              FROM ended
        ), released AS (
            UPDATE callbacks
               SET state = 'APPLIED', outcome = %(outcome)s, applied_at = %(now)s
             WHERE transaction_id = (SELECT id FROM ended)
               AND (by_token OR NOT by_token)
               AND state = 'HELD'
        )
        INSERT INTO deliveries (webhook_id, transaction_id, merchant, type, url, origin, body,
            next_attempt_at, created_at, traceparent)
        SELECT %(webhook)s, id, %(merchant)s, %(type)s, %(url)s, %(origin)s, %(body)s, %(now)s,
               %(now)s, %(traceparent)s
          FROM ended
        RETURNING id
        """,
        {
            "row": finished.row,
            "status": finished.status,
            "by": finished.settled_by,
            "code": finished.result_code,
            "desc": finished.result_desc,
            "reason": finished.failure_reason,
            "receipt": finished.receipt,
            "metadata": None if finished.metadata is None else Jsonb(finished.metadata),
            "updated": finished.updated_at,
            "finished": finished.finished_at,
            "now": now,
            "source": source,
            "outcome": finished.status.lower(),
            "detail": Jsonb(known),
            "webhook": delivery.webhook_id,
            "merchant": delivery.merchant,
            "type": delivery.type,
            "url": delivery.url,
            "origin": delivery.origin,
            "body": delivery.body,
            "traceparent": delivery.traceparent,
        },
    )
    row = cursor.fetchone()
    return row[0] if row else None
