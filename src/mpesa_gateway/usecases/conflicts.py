"""Records what contradicts a final state: the state stays, and the merchant is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mpesa_gateway.domain.delivery import WebhookType
from mpesa_gateway.domain.settlement import ConflictKind
from mpesa_gateway.domain.transaction import Transaction, metadata_of
from mpesa_gateway.store import events
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.telemetry.log import get_logger
from mpesa_gateway.usecases.finalize import Effects, write_delivery

LOGGER = get_logger(__name__)


@dataclass(frozen=True)
class Contradiction:
    """What somebody says against a final state. `callback_id` is None for an operator."""

    kind: ConflictKind
    source: events.Source
    callback_id: int | None = None
    result_code: str | None = None
    receipt: str | None = None
    metadata: dict[str, Any] | None = None


def record_conflict(
    conn: Connection,
    transaction: Transaction,
    contradiction: Contradiction,
    *,
    now: datetime,
    effects: Effects,
) -> bool:
    """Open a conflict and write its webhook. False when the same was recorded before."""
    conflict = events.open_conflict(
        conn,
        transaction.row,
        contradiction.callback_id,
        contradiction.kind,
        receipt=contradiction.receipt,
        result_code=contradiction.result_code,
        now=now,
    )
    if conflict is None:
        return False
    events.append(
        conn,
        transaction.row,
        contradiction.source,
        "conflict",
        now,
        conflict=contradiction.kind,
        code=contradiction.result_code,
        receipt=contradiction.receipt,
    )
    effects.conflicts.append(contradiction.kind)
    LOGGER.error("conflict", conflict=contradiction.kind)
    write_delivery(
        conn,
        transaction,
        WebhookType.CONFLICT,
        now=now,
        effects=effects,
        conflict=conflict,
        conflict_detail=_detail(transaction, contradiction),
    )
    return True


def _detail(transaction: Transaction, contradiction: Contradiction) -> dict[str, Any]:
    """`conflict` of the webhook. A failure brings no metadata: the payment's own stand."""
    metadata = contradiction.metadata
    return {
        "kind": contradiction.kind,
        "receipt": contradiction.receipt,
        "result_code": contradiction.result_code,
        "metadata": metadata if contradiction.receipt is not None else metadata_of(transaction),
    }
