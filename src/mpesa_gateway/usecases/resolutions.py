"""A person settles what asks for one: event, end, webhook and conflicts in one commit."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from mpesa_gateway.domain.resolution import Resolution, resolve
from mpesa_gateway.domain.transaction import FINAL, Ending, Transaction
from mpesa_gateway.errors import NotFoundError, ResolutionRefusedError
from mpesa_gateway.store import callbacks, events, transactions
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.usecases.endings import Effects, count_transaction, end_transaction

# Of one round of a sweeper; people are not that fast.
COUNT_LIMIT = 100


@dataclass(frozen=True)
class Resolved:
    """What a resolution did. `noted`: nothing but the note itself."""

    effects: Effects
    closed: list[str]

    @property
    def noted(self) -> bool:
        """Whether neither the state nor a conflict changed."""
        return not self.closed and not self.effects.ended


def resolve_transaction(
    pool: Pool, public_id: uuid.UUID, resolution: Resolution, now: datetime
) -> Resolved:
    """Apply a person's word. Raises NotFoundError, ResolutionRefusedError."""
    effects = Effects()
    with pool.transaction("resolve") as conn:
        found = transactions.find(conn, None, public_id)
        if found is None:
            raise NotFoundError("there is no such transaction")
        transaction = transactions.lock(conn, found.row)
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
    if callbacks.has_unapplied(conn, transaction.row):
        raise ResolutionRefusedError(
            "a callback of it has just arrived and is about to be applied: look again in a moment"
        )
    owner = transactions.find_row_by_receipt(conn, ending.receipt) if ending.receipt else None
    if owner is not None:
        raise ResolutionRefusedError(
            f"receipt {ending.receipt} belongs to another transaction already"
        )
    return ending
