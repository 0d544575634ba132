"""Reads transactions and their deliveries, for the API and for people on call."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from datetime import datetime
from typing import Any

from mpesa_gateway.domain.representation import conflict_view, time_text, transaction_view
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import InvalidInputError, NotFoundError, NothingToDeliverError
from mpesa_gateway.store import delivery_listing, events, redeliveries, transactions
from mpesa_gateway.store.delivery_listing import AttemptRow, DeliveryRow
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.store.transaction_listing import Filter, list_newest

# A cursor is the public id of a transaction that its merchant was shown.
CURSOR_PATTERN = "t[0-9a-f]{32}"
_CURSOR = re.compile(CURSOR_PATTERN)
NO_CURSOR = "is not a cursor of this API"


def read_transaction(pool: Pool, merchant: str | None, public_id: uuid.UUID) -> dict[str, Any]:
    """One transaction with its conflicts. Raises NotFoundError."""
    with pool.connection("read.transaction") as conn:
        transaction = transactions.find(conn, merchant, public_id)
        if transaction is None:
            raise NotFoundError("there is no such transaction")
        conflicts = events.list_conflicts(conn, transaction.row)
    return transaction_view(transaction, [conflict_view(conflict) for conflict in conflicts])


def list_transactions(
    pool: Pool, wanted: Filter, before: uuid.UUID | None = None
) -> dict[str, Any]:
    """A page, newest first, and the cursor of the next one. Raises InvalidInputError."""
    page = replace(wanted, limit=wanted.limit + 1)
    with pool.connection("read.transactions") as conn:
        if before is not None:
            last = transactions.find(conn, wanted.merchant, before)
            if last is None:
                raise InvalidInputError.of("cursor", NO_CURSOR)
            page = replace(page, before_row=last.row)
        found = list_newest(conn, page)
    items, more = found[: wanted.limit], len(found) > wanted.limit
    return {
        "items": [transaction_view(transaction) for transaction in items],
        "next": to_cursor(items[-1].id) if more else None,
    }


def list_open_conflicts(pool: Pool, items: list[dict[str, Any]]) -> dict[str, str]:
    """What contradicts the listed transactions and waits for a person, by transaction id."""
    with pool.connection("read.conflicts") as conn:
        ids = [uuid.UUID(item["transaction_id"]) for item in items]
        return events.list_open_conflicts(conn, ids)


def to_cursor(public_id: uuid.UUID) -> str:
    """Return the cursor behind a transaction. Its row number would tell the platform's volume."""
    return f"t{public_id.hex}"


def parse_cursor(text: str) -> uuid.UUID:
    """Return the transaction to continue before. Raises InvalidInputError."""
    if not _CURSOR.fullmatch(text):
        raise InvalidInputError.of("cursor", NO_CURSOR)
    return uuid.UUID(text.removeprefix("t"))


def read_deliveries(pool: Pool, merchant: str | None, public_id: uuid.UUID) -> dict[str, Any]:
    """The webhooks of a transaction, each with its attempts. Raises NotFoundError."""
    with pool.connection("read.deliveries") as conn:
        row = _row(conn, merchant, public_id)
        found = delivery_listing.list_of_transaction(conn, row)
        attempts = delivery_listing.list_attempts(conn, row)
        bodies = delivery_listing.list_bodies(conn, row)
    views = [delivery_view(delivery, attempts) for delivery in found]
    for delivery, view in zip(found, views, strict=True):
        view["request_body"] = bodies[delivery.id].decode()
    return {"items": views}


def delivery_view(delivery: DeliveryRow, attempts: list[AttemptRow] | None) -> dict[str, Any]:
    """A delivery as JSON; `attempts` of other deliveries are passed over."""
    view: dict[str, Any] = {
        "id": delivery.webhook_id,
        "transaction_id": str(delivery.transaction_id),
        "type": delivery.type,
        "state": delivery.state,
        "url": delivery.url,
        "attempts_made": delivery.attempts_made,
        "next_attempt_at": time_text(delivery.next_attempt_at),
        "parked": delivery.parked,
        "created_at": time_text(delivery.created_at),
        "finished_at": time_text(delivery.finished_at),
    }
    if attempts is not None:
        mine = [attempt for attempt in attempts if attempt.delivery_id == delivery.id]
        view["attempts"] = [_attempt_view(attempt) for attempt in mine]
    return view


def _attempt_view(attempt: AttemptRow) -> dict[str, Any]:
    return {
        "attempt_number": attempt.attempt_number,
        "outcome": attempt.outcome,
        "success": attempt.success,
        "response_status_code": attempt.response_status_code,
        "response_time_ms": attempt.response_time_ms,
        "error_message": attempt.error_message,
        "response_body": attempt.response_body,
        "attempted_at": time_text(attempt.attempted_at),
    }


def redeliver(
    pool: Pool, merchant: str | None, public_id: uuid.UUID, now: datetime
) -> tuple[dict[str, Any], list[Work]]:
    """Send a transaction's webhooks again, delivered ones too.

    Returns the webhooks, and the work to notify workers of.

    Raises NotFoundError, NothingToDeliverError.
    """
    with pool.transaction("redeliver") as conn:
        row = _row(conn, merchant, public_id)
        found = delivery_listing.list_of_transaction(conn, row)
        if not found:
            raise NothingToDeliverError("the transaction has not ended: there is no webhook yet")
        offered = redeliveries.redeliver(conn, row, now)
        source: events.Source = "caller" if merchant is not None else "person"
        events.append(conn, row, source, "redelivery", now)
        found = delivery_listing.list_of_transaction(conn, row)
    work = [Work(WorkKind.DELIVERY, delivery_id) for delivery_id in offered]
    return {"items": [delivery_view(delivery, None) for delivery in found]}, work


def _row(conn: Connection, merchant: str | None, public_id: uuid.UUID) -> int:
    transaction = transactions.find(conn, merchant, public_id)
    if transaction is None:
        raise NotFoundError("there is no such transaction")
    return transaction.row
