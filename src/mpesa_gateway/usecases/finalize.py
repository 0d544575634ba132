"""Ends a transaction: final state, event and webhook delivery, in one database transaction."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mpesa_gateway.domain.delivery import WebhookType, webhook_body, webhook_id
from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.ids import uuid7
from mpesa_gateway.domain.ownership import public_name
from mpesa_gateway.domain.transaction import (
    Ending,
    Status,
    Transaction,
    finish,
    result_meaning,
)
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.store import deliveries, events, finalize
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.tracing import traceparent_within


@dataclass
class Effects:
    """What follows a commit: work to wake somebody up for, and what to count."""

    work: list[Work] = field(default_factory=list)
    ended: list[Transaction] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    def count(self) -> None:
        """Count, once the database transaction is committed."""
        for transaction in self.ended:
            count_transaction(transaction)
        for kind in self.conflicts:
            metrics.reconciliation_conflicts_total.labels(kind).inc()


def count_transaction(transaction: Transaction) -> None:
    """Count that it was created, or that it ended: its status tells which."""
    status = transaction.status
    metrics.transactions_total.labels(status.value).inc()
    metrics.transactions_amount_total.labels(status.value).inc(int(transaction.amount))
    metrics.MERCHANT_LABELS.count(public_name(transaction.merchant), status)
    meaning = result_meaning(transaction)
    if meaning is not None:
        cause = meaning.cause or metrics.NOBODY
        metrics.transaction_results_total.labels(cause, meaning.reason).inc()


def new_id(now: datetime) -> uuid.UUID:
    """A fresh time-ordered id."""
    return uuid7(now, secrets.token_bytes(10))


def end_transaction(
    conn: Connection,
    transaction: Transaction,
    ending: Ending,
    *,
    source: events.Source,
    now: datetime,
    effects: Effects,
) -> Transaction | None:
    """End it, record who said so, and write its webhook. None when it was final already.

    Raises UniqueViolation when the receipt belongs to another transaction.
    """
    finished = finish(transaction, ending, now)
    completed = finished.status is Status.COMPLETED
    kind = WebhookType.COMPLETED if completed else WebhookType.FAILED
    detail = {
        "code": ending.result_code,
        "reason": ending.failure_reason,
        "receipt": ending.receipt,
    }
    delivery = finalize.save(
        conn, finished, _webhook(finished, kind, now), source=source, detail=detail, now=now
    )
    if delivery is None:
        return None
    effects.work.append(Work(WorkKind.DELIVERY, delivery))
    effects.ended.append(finished)
    return finished


def write_delivery(
    conn: Connection,
    transaction: Transaction,
    kind: WebhookType,
    *,
    now: datetime,
    effects: Effects,
    conflict: int | None = None,
    conflict_detail: dict[str, Any] | None = None,
) -> None:
    """Freeze a webhook's bytes and plan its first try, now."""
    delivery = _webhook(transaction, kind, now, conflict=conflict, detail=conflict_detail)
    effects.work.append(Work(WorkKind.DELIVERY, deliveries.insert(conn, delivery, now)))


def _webhook(
    transaction: Transaction,
    kind: WebhookType,
    now: datetime,
    *,
    conflict: int | None = None,
    detail: dict[str, Any] | None = None,
) -> deliveries.NewDelivery:
    # The URL was vetted when it was given; here only its origin is needed.
    origin = parse_endpoint(transaction.webhook_url, allow_private=True).origin
    return deliveries.NewDelivery(
        webhook_id=webhook_id(kind, transaction.id, *_subject(detail)),
        transaction=transaction.row,
        merchant=transaction.merchant,
        type=kind,
        url=transaction.webhook_url,
        origin=origin,
        body=webhook_body(kind, transaction, now, conflict=detail),
        conflict=conflict,
        traceparent=traceparent_within(transaction.traceparent),
    )


def _subject(conflict: dict[str, Any] | None) -> tuple[str, ...]:
    """What tells one conflict of a payment from another, as the table does (`conflicts_once`)."""
    return () if conflict is None else (conflict["kind"], conflict["receipt"] or "")
