"""Transactions and deliveries as JSON: the same objects in the API and behind `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from mpesa_gateway.domain.amount import amount_text
from mpesa_gateway.domain.delivery import failure_of
from mpesa_gateway.domain.ownership import public_name
from mpesa_gateway.domain.transaction import (
    Status,
    Transaction,
    metadata_of,
    next_step,
    result_of,
)


def time_text(at: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def transaction_view(
    transaction: Transaction, conflicts: Sequence[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A transaction as its merchant sees it. `conflicts` is left out of listings."""
    view: dict[str, Any] = {
        "transaction_id": str(transaction.id),
        "merchant": public_name(transaction.merchant),
        "status": transaction.status.value,
        "amount": amount_text(transaction.amount),
        "phone": transaction.phone,
        "account_reference": transaction.account_reference,
        "description": transaction.description,
        "order_id": transaction.order_id,
        "custom_data": transaction.custom_data or {},
        "webhook_url": transaction.webhook_url,
        "idempotency_key": str(transaction.idempotency_key),
        "push": transaction.push_state.value,
        "checkout_request_id": transaction.checkout_request_id,
        "receipt": transaction.receipt,
        "metadata": metadata_of(transaction),
        "result": result_of(transaction),
        "failure": failure_of(transaction) if transaction.status is Status.FAILED else None,
        "settled_by": transaction.settled_by,
        "attention": transaction.attention,
        "next_step": _next_step_view(transaction),
        "created_at": time_text(transaction.created_at),
        "updated_at": time_text(transaction.updated_at),
        "finished_at": time_text(transaction.finished_at),
    }
    if conflicts is not None:
        view["conflicts"] = list(conflicts)
    return view


def _next_step_view(transaction: Transaction) -> dict[str, Any] | None:
    step = next_step(transaction)
    return None if step is None else {"action": step.action, "at": time_text(step.at)}


class _Conflict(Protocol):
    """What a conflict row offers; `store` has the record itself."""

    @property
    def kind(self) -> str: ...
    @property
    def receipt(self) -> str | None: ...
    @property
    def result_code(self) -> str | None: ...
    @property
    def opened_at(self) -> datetime: ...
    @property
    def closed_at(self) -> datetime | None: ...
    @property
    def closing_note(self) -> str | None: ...


def conflict_view(conflict: _Conflict) -> dict[str, Any]:
    """A contradiction of a final state."""
    return {
        "kind": conflict.kind,
        "receipt": conflict.receipt,
        "result_code": conflict.result_code,
        "opened_at": time_text(conflict.opened_at),
        "closed_at": time_text(conflict.closed_at),
        "closing_note": conflict.closing_note,
    }
