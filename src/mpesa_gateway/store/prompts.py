"""Table `transactions`, as the person with the phone sees it: how many prompts, and when."""

from __future__ import annotations

from datetime import datetime, timedelta

from mpesa_gateway.domain.ids import first_id_at
from mpesa_gateway.store.pool import Connection

HOUR = timedelta(hours=1)
# Ids carry the clock of the pod that made them; `created_at` is compared exactly.
SKEW = timedelta(minutes=5)


def find_next_prompt_at(
    conn: Connection, phone: str, *, per_hour: int, now: datetime
) -> datetime | None:
    """Return when the phone may be prompted again, None when it may be now.

    Prompts of all merchants count, also those that may only have reached the phone. The caller
    holds the phone's lock, so that two merchants do not count the same ones.
    """
    cursor = conn.execute(
        """
        SELECT created_at
          FROM transactions
         WHERE phone = %(phone)s
           AND id > coalesce((SELECT id
                                FROM transactions
                               WHERE internal_transaction_id < %(first_id)s
                               ORDER BY internal_transaction_id DESC
                               LIMIT 1), 0)
           AND created_at > %(since)s
           AND push_state NOT IN ('REFUSED', 'NOT_SENT')
         ORDER BY id DESC
        OFFSET %(others)s
         LIMIT 1
        """,
        {
            "phone": phone,
            "first_id": first_id_at(now, later=-HOUR - SKEW),
            "since": now - HOUR,
            "others": per_hour - 1,
        },
    )
    row = cursor.fetchone()
    return row[0] + HOUR if row else None
