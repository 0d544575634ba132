"""Table `transactions`: the push, the query and the end of each payment.

What names a row by its id hides its state from the planner: docs/decisions/0013.
"""

from __future__ import annotations

import dataclasses
import uuid
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from mpesa_gateway.domain.ids import first_id_at
from mpesa_gateway.domain.push import PushOutcome
from mpesa_gateway.domain.transaction import (
    Ending,
    PaymentRequest,
    PushState,
    Status,
    Transaction,
)
from mpesa_gateway.store.pool import Connection

# Rows and their time-ordered ids come in the same order, but for the clocks of two processes and
# for how long one may wait for a lock.
SKEW = timedelta(minutes=5)
# The leases of a push and the prompt's life are three minutes; the rest is for the clocks.
OLDEST_PROMPT = timedelta(minutes=15)
_FIELDS = frozenset(field.name for field in dataclasses.fields(Transaction))


def as_transaction(**columns: Any) -> Transaction:
    """A row as a Transaction. Columns of a newer schema are passed over."""
    columns["row"] = columns["id"]
    columns["id"] = columns["internal_transaction_id"]
    columns["status"] = Status(columns["status"])
    columns["push_state"] = PushState(columns["push_state"])
    return Transaction(**{name: columns[name] for name in _FIELDS})


def find_by_key(conn: Connection, merchant: str, key: uuid.UUID) -> Transaction | None:
    """The transaction that an idempotency key made, for ever."""
    cursor = conn.cursor(row_factory=kwargs_row(as_transaction))
    cursor.execute(
        "SELECT * FROM transactions WHERE merchant = %s AND idempotency_key = %s", [merchant, key]
    )
    return cursor.fetchone()


def lock_phone(conn: Connection, short_code: str, phone: str) -> None:
    """Let nobody else decide about this phone until the transaction ends.

    The first lock is for prompts of all merchants; the second is all that the release before this
    one takes.
    """
    conn.execute(
        """
        SELECT pg_advisory_xact_lock(hashtextextended('phone ' || %(phone)s, 0)),
               pg_advisory_xact_lock(
                   hashtextextended('prompt ' || %(short_code)s || ' ' || %(phone)s, 0)
               )
        """,
        {"short_code": short_code, "phone": phone},
    )


def find_open_prompt(
    conn: Connection, short_code: str, phone: str, now: datetime
) -> datetime | None:
    """Until when a prompt may be open on that phone, None when there is none.

    Only its latest payments are looked at: a prompt is open for minutes at most.
    """
    cursor = conn.execute(
        "SELECT max(prompt_until) FROM transactions WHERE short_code = %s AND phone = %s"
        " AND status || '' = 'PENDING' AND prompt_until > %s"
        " AND id > coalesce((SELECT id FROM transactions WHERE internal_transaction_id < %s"
        " ORDER BY internal_transaction_id DESC LIMIT 1), 0)",
        [short_code, phone, now, first_id_at(now, later=-OLDEST_PROMPT)],
    )
    row = cursor.fetchone()
    until: datetime | None = row[0] if row else None
    return until


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intent:
    """A payment about to be asked for: the request and what the gateway adds."""

    id: uuid.UUID
    merchant: str
    request: PaymentRequest
    short_code: str
    webhook_url: str
    callback_secret_sha256: bytes
    push_lease_until: datetime
    prompt_until: datetime
    traceparent: str | None = None


def insert_intent(conn: Connection, intent: Intent, now: datetime) -> Transaction | None:
    """The new transaction, or None when the merchant used the key before.

    Raises UniqueViolation where another attempt of its order is paid or may still be.
    """
    request = intent.request
    cursor = conn.cursor(row_factory=kwargs_row(as_transaction))
    cursor.execute(
        """
        INSERT INTO transactions (internal_transaction_id, merchant, idempotency_key,
                                  request_sha256, amount, phone, short_code, webhook_url,
                                  account_reference, description, order_id, custom_data, push_state,
                                  push_lease_until, prompt_until, callback_secret_sha256,
                                  created_at, updated_at, traceparent)
        VALUES (%(id)s, %(merchant)s, %(idempotency_key)s,
                %(request_sha256)s, %(amount)s, %(phone)s, %(short_code)s, %(webhook_url)s,
                %(account_reference)s, %(description)s, %(order_id)s, %(custom_data)s, 'INTENT',
                %(push_lease_until)s, %(prompt_until)s, %(callback_secret_sha256)s,
                %(now)s, %(now)s, %(traceparent)s)
            ON CONFLICT (merchant, idempotency_key) DO NOTHING
        RETURNING *
        """,
        {
            **vars(request),
            **vars(intent),
            "request_sha256": request.sha256(),
            "webhook_url": intent.webhook_url,
            "custom_data": Jsonb(request.custom_data) if request.custom_data else None,
            "now": now,
        },
    )
    return cursor.fetchone()


def mark_sending(
    conn: Connection, it: Transaction, *, lease: datetime, prompt_until: datetime, now: datetime
) -> bool:
    """From here on the push may have left. False when it was taken for dead, or has no row here."""
    cursor = conn.execute(
        "UPDATE transactions SET push_state = 'SENDING', push_lease_until = %s, prompt_until = %s,"
        " updated_at = %s WHERE id = %s AND internal_transaction_id = %s"
        " AND push_state IN ('INTENT', 'SENDING') AND status || '' = 'PENDING'",
        [lease, prompt_until, now, it.row, it.id],
    )
    return cursor.rowcount == 1


def renew_push_leases(conn: Connection, rows: list[int], until: datetime) -> int:
    """Of pushes that have not ended; how many.

    A row that is locked is being ended, or marked: there is nothing to renew.
    """
    cursor = conn.execute(
        "UPDATE transactions SET push_lease_until = greatest(push_lease_until, %s)"
        " WHERE id IN (SELECT id FROM transactions WHERE id = ANY(%s)"
        " AND coalesce(push_lease_until, '-infinity') > '-infinity' FOR UPDATE SKIP LOCKED)",
        [until, rows],
    )
    return cursor.rowcount


def save_push_state(
    conn: Connection,
    row: int,
    push_state: PushState,
    *,
    next_query_at: datetime | None,
    outcome: PushOutcome | None,
    now: datetime,
) -> None:
    """The push has ended: release its lease, and plan the first query while it is pending.

    An answer that comes after the sweeper gave up brings the question forward.
    """
    conn.execute(
        "UPDATE transactions SET push_state = %s, push_lease_until = NULL, updated_at = %s,"
        " merchant_request_id = coalesce(merchant_request_id, %s),"
        " next_query_at = CASE WHEN status = 'PENDING' AND NOT in_doubt"
        " THEN least(next_query_at, %s) END"
        " WHERE id = %s",
        [push_state, now, outcome.merchant_request_id if outcome else None, next_query_at, row],
    )


def save_response(conn: Connection, row: int, status: int, body: str) -> None:
    """What POST /initiate answers from now on. The first answer stays."""
    conn.execute(
        "UPDATE transactions SET response_status = %s, response_body = %s"
        " WHERE id = %s AND response_status IS NULL",
        [status, body, row],
    )


def lock(conn: Connection, row: int) -> Transaction:
    """The transaction, locked until the database transaction ends."""
    cursor = conn.cursor(row_factory=kwargs_row(as_transaction))
    cursor.execute("SELECT * FROM transactions WHERE id = %s FOR UPDATE", [row])
    transaction = cursor.fetchone()
    assert transaction is not None, row
    return transaction


def lock_checkout_request_id(conn: Connection, checkout_request_id: str) -> None:
    """Let nobody else match or adopt this id until the transaction ends."""
    conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('checkout ' || %s, 0))",
        [checkout_request_id],
    )


def lock_with_checkout_request_id(
    conn: Connection, row: int, checkout_request_id: str
) -> Transaction:
    """Both locks in one round trip, and in the order that everybody keeps: the id, then the row."""
    cursor = conn.cursor(row_factory=kwargs_row(as_transaction))
    # The row is locked as the join gives it out, which has waited for the id by then, and is read
    # as it is at that moment.
    cursor.execute(
        "WITH held AS MATERIALIZED (SELECT"
        " pg_advisory_xact_lock(hashtextextended('checkout ' || %s, 0)))"
        " SELECT t.* FROM held, transactions t WHERE t.id = %s FOR UPDATE OF t",
        [checkout_request_id, row],
    )
    transaction = cursor.fetchone()
    assert transaction is not None, row
    return transaction


def find_row_by_checkout_request_id(conn: Connection, checkout_request_id: str) -> int | None:
    """The row that Safaricom's id names."""
    cursor = conn.execute(
        "SELECT id FROM transactions WHERE checkout_request_id = %s", [checkout_request_id]
    )
    found = cursor.fetchone()
    return found[0] if found else None


def adopt_checkout_request_id(
    conn: Connection, row: int, checkout_request_id: str, now: datetime
) -> bool:
    """Learn Safaricom's id. False when another id is known already."""
    cursor = conn.execute(
        "UPDATE transactions SET checkout_request_id = %s, updated_at = %s"
        " WHERE id = %s AND (checkout_request_id IS NULL OR checkout_request_id = %s)",
        [checkout_request_id, now, row, checkout_request_id],
    )
    return cursor.rowcount == 1


def leave_to_count(conn: Connection, row: int) -> None:
    """Have a worker count its end: who ended it has no metrics of its own."""
    conn.execute("INSERT INTO endings_to_count (transaction_id) VALUES (%s)", [row])


def take_to_count(conn: Connection, limit: int) -> list[Transaction]:
    """Ended transactions that nobody has counted yet; each is handed out once."""
    cursor = conn.cursor(row_factory=kwargs_row(as_transaction))
    cursor.execute(
        "WITH taken AS (DELETE FROM endings_to_count WHERE transaction_id IN"
        " (SELECT transaction_id FROM endings_to_count LIMIT %s FOR UPDATE SKIP LOCKED)"
        " RETURNING transaction_id)"
        " SELECT t.* FROM transactions t JOIN taken ON taken.transaction_id = t.id",
        [limit],
    )
    return cursor.fetchall()


def fill_in(conn: Connection, row: int, ending: Ending, now: datetime) -> bool:
    """Add the receipt that a query could not tell. False when there is one already."""
    cursor = conn.execute(
        "UPDATE transactions SET receipt = %s, metadata = %s, updated_at = %s"
        " WHERE id = %s AND status = 'COMPLETED' AND receipt IS NULL",
        [ending.receipt, Jsonb(ending.metadata), now, row],
    )
    return cursor.rowcount == 1


def set_attention(
    conn: Connection, row: int, sentence: str, *, in_doubt: bool, now: datetime
) -> None:
    """Ask for a person, and stop asking Safaricom. `in_doubt`: for good, its answer is no use.

    A query's lease goes too, whoever holds it: nobody asks any more, so nobody would take it over.
    """
    conn.execute(
        "UPDATE transactions SET attention = %s, updated_at = %s, next_query_at = NULL,"
        " query_lease_until = NULL, in_doubt = in_doubt OR %s"
        " WHERE id = %s AND status || '' = 'PENDING'",
        [sentence, now, in_doubt, row],
    )


def ask_at(conn: Connection, row: int, at: datetime) -> None:
    """Plan the next query of a pending transaction that is not in doubt."""
    conn.execute(
        "UPDATE transactions SET next_query_at = %s"
        " WHERE id = %s AND status || '' = 'PENDING' AND NOT in_doubt",
        [at, row],
    )


def find(conn: Connection, merchant: str | None, public_id: uuid.UUID) -> Transaction | None:
    """The merchant's transaction by the id it knows; of any merchant when `merchant` is None."""
    cursor = conn.cursor(row_factory=kwargs_row(as_transaction))
    cursor.execute(
        "SELECT * FROM transactions WHERE internal_transaction_id = %s"
        " AND (%s::text IS NULL OR merchant = %s)",
        [public_id, merchant, merchant],
    )
    return cursor.fetchone()


def has_any(conn: Connection, merchant: str) -> bool:
    """Whether the merchant ever asked for a payment."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM transactions WHERE merchant = %s)", [merchant]
    ).fetchone()
    return row == (True,)
