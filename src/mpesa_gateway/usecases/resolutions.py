"""A person settles what asks for one: event, end, webhook and conflicts in one commit."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mpesa_gateway.domain.delivery import WebhookType
from mpesa_gateway.domain.resolution import (
    Resolution,
    record_receipt,
    resolve,
    statement_metadata,
)
from mpesa_gateway.domain.settlement import ConflictKind
from mpesa_gateway.domain.transaction import FINAL, Ending, Transaction
from mpesa_gateway.errors import NotFoundError, ResolutionRefusedError
from mpesa_gateway.store import callbacks, events, payment_keys, transactions
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.usecases.conflicts import Contradiction, record_conflict
from mpesa_gateway.usecases.finalize import (
    Effects,
    count_transaction,
    end_transaction,
    write_delivery,
)

# Of one round of a sweeper; people are not that fast.
COUNT_LIMIT = 100


@dataclass(frozen=True)
class Resolved:
    """What a resolution did. `noted`: nothing but the note itself."""

    effects: Effects
    closed: list[str]
    # What became of a receipt that the statement shows.
    receipt: Literal["added", "conflict", "known"] | None = None

    @property
    def noted(self) -> bool:
        """Whether neither the state nor a conflict changed."""
        return not self.closed and not self.effects.ended and self.receipt is None


def resolve_transaction(
    pool: Pool, public_id: uuid.UUID, resolution: Resolution, now: datetime
) -> Resolved:
    """Apply an operator's word. Raises NotFoundError, ResolutionRefusedError."""
    if resolution.status is None and resolution.receipt is not None:
        return record_statement(pool, public_id, resolution, now)
    effects = Effects()
    with pool.transaction("resolve") as conn:
        transaction = _lock(conn, public_id)
        ending = _decide(conn, transaction, resolution)
        closed = events.close_conflicts(
            conn, transaction.row, by=resolution.by, note=resolution.reason, now=now
        )
        if transaction.status in FINAL and not closed:
            raise ResolutionRefusedError(
                f"the transaction is {transaction.status} and has no open conflict:"
                " there is nothing to resolve"
            )
        events.append(
            conn,
            transaction.row,
            "person",
            "resolved" if ending is not None or closed else "noted",
            now,
            by=resolution.by,
            reason=resolution.reason,
            conflicts=", ".join(closed) or None,
        )
        if ending is not None:
            end_transaction(conn, transaction, ending, source="person", now=now, effects=effects)
            # Not here: this is a command, whose counters nobody scrapes.
            transactions.leave_to_count(conn, transaction.row)
    return Resolved(effects, closed)


def record_statement(
    pool: Pool, public_id: uuid.UUID, resolution: Resolution, now: datetime
) -> Resolved:
    """Record the receipt that the M-PESA statement shows for a payment that has ended.

    A COMPLETED payment without one takes it over, and the merchant is told by
    `transaction.updated`. For a FAILED one it is a conflict. Raises NotFoundError,
    ResolutionRefusedError.
    """
    assert resolution.receipt is not None
    effects = Effects()
    with pool.transaction("resolve.receipt") as conn:
        transaction = _lock(conn, public_id)
        ending = record_receipt(transaction, resolution.receipt)
        _refuse_what_is_taken(conn, transaction, resolution.receipt)
        events.append(
            conn,
            transaction.row,
            "person",
            "resolved",
            now,
            by=resolution.by,
            reason=resolution.reason,
            receipt=resolution.receipt,
        )
        if ending is not None:
            transactions.fill_in(conn, transaction.row, ending, now)
            filled = transactions.lock(conn, transaction.row)
            write_delivery(conn, filled, WebhookType.UPDATED, now=now, effects=effects)
            return Resolved(effects, [], "added")
        contradiction = Contradiction(
            ConflictKind.PAID_AFTER_FAILED,
            "person",
            receipt=resolution.receipt,
            metadata=statement_metadata(transaction, resolution.receipt),
        )
        is_new = record_conflict(conn, transaction, contradiction, now=now, effects=effects)
    return Resolved(effects, [], "conflict" if is_new else "known")


def _lock(conn: Connection, public_id: uuid.UUID) -> Transaction:
    found = transactions.find(conn, None, public_id)
    if found is None:
        raise NotFoundError("there is no such transaction")
    return transactions.lock(conn, found.row)


def count_resolved(pool: Pool) -> int:
    """Count what people have ended since the last round of any worker; how many there were.

    Each once: a worker that dies between the commit and the count loses it, as with every counter.
    """
    with pool.connection("resolve.count") as conn:
        ended = transactions.take_to_count(conn, COUNT_LIMIT)
    for transaction in ended:
        count_transaction(transaction)
    return len(ended)


def _decide(conn: Connection, transaction: Transaction, resolution: Resolution) -> Ending | None:
    ending = resolve(transaction, resolution)
    if ending is None:
        return None
    _refuse_what_is_taken(conn, transaction, ending.receipt)
    return ending


def _refuse_what_is_taken(conn: Connection, transaction: Transaction, receipt: str | None) -> None:
    if callbacks.has_unapplied(conn, transaction.row):
        raise ResolutionRefusedError(
            "a callback of it has just arrived and is about to be applied: look again in a moment"
        )
    owner = payment_keys.find_receipt_owner(conn, receipt) if receipt else None
    if owner is not None:
        raise ResolutionRefusedError(f"receipt {receipt} belongs to another transaction already")
