"""Who said what about one payment: events, callbacks and webhook tries in order of time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mpesa_gateway.domain.representation import time_text
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.store import callbacks, delivery_listing, events, transactions
from mpesa_gateway.store.callbacks import CallbackRow, Reveal
from mpesa_gateway.store.delivery_listing import AttemptRow, DeliveryRow
from mpesa_gateway.store.events import Event
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.usecases import reading


@dataclass(frozen=True)
class Moment:
    """One line of the timeline. `rank` orders what has the same time: cause before effect."""

    at: datetime
    rank: int
    who: str
    what: str
    detail: dict[str, Any]


def read_history(pool: Pool, public_id: uuid.UUID) -> dict[str, Any]:
    """The API's object with events, deliveries and the timeline. Raises NotFoundError."""
    view = reading.read_transaction(pool, None, public_id)
    with pool.connection("read.history") as conn:
        transaction = transactions.find(conn, None, public_id)
        if transaction is None:
            raise NotFoundError("there is no such transaction")
        steps = events.list_of_transaction(conn, transaction.row)
        inbox = callbacks.list_of_transaction(conn, transaction.row)
        webhooks = delivery_listing.list_of_transaction(conn, transaction.row)
        attempts = delivery_listing.list_attempts(conn, transaction.row)
        reveals = callbacks.list_reveals(conn, [it.id for it in inbox])
    view["deliveries"] = [reading.delivery_view(it, attempts) for it in webhooks]
    view["events"] = [_event_view(it) for it in steps]
    view["timeline"] = [_moment_view(it) for it in merge(steps, inbox, webhooks, attempts, reveals)]
    return view


def merge(
    steps: list[Event],
    inbox: list[CallbackRow],
    webhooks: list[DeliveryRow],
    attempts: list[AttemptRow],
    reveals: Sequence[Reveal] = (),
) -> list[Moment]:
    """All of it, oldest first."""
    by_id = {delivery.id: delivery for delivery in webhooks}
    moments = [
        *(moment for it in reversed(inbox) for moment in _of_callback(it)),
        *(Moment(it.at, 1, it.source, it.kind, it.detail) for it in steps),
        *(_of_delivery(it) for it in webhooks),
        *(_of_attempt(it, by_id[it.delivery_id]) for it in attempts),
        *(_of_reveal(it) for it in reveals),
    ]
    return sorted(moments, key=lambda it: (it.at, it.rank))


def _of_callback(row: CallbackRow) -> Iterator[Moment]:
    path = "token" if row.by_token else "plain"
    detail = {
        "callback": row.id,
        "path": path,
        "from": row.source,
        "state": row.state,
        "outcome": row.outcome,
        "requeued_by": row.requeued_by,
    }
    yield Moment(row.received_at, 0, "callback", "received", _known(detail))
    if row.copies > 1:
        again = {"callback": row.id, "copies": row.copies}
        yield Moment(row.last_received_at, 0, "callback", "received_again", again)


def _of_delivery(row: DeliveryRow) -> Moment:
    detail = {"webhook": row.webhook_id, "type": row.type, "state": row.state}
    return Moment(row.created_at, 2, "gateway", "webhook_written", detail)


def _of_attempt(row: AttemptRow, delivery: DeliveryRow) -> Moment:
    """An endpoint said something only where a status came back."""
    who = "gateway" if row.response_status_code is None else "endpoint"
    detail = {
        "webhook": delivery.webhook_id,
        "type": delivery.type,
        "attempt": row.attempt_number,
        "outcome": row.outcome,
        "status": row.response_status_code,
        "ms": row.response_time_ms,
        "error": row.error_message,
    }
    return Moment(row.attempted_at, 3, who, "webhook_tried", _known(detail))


def _of_reveal(row: Reveal) -> Moment:
    detail = {"callback": row.callback_id, "by": row.by}
    return Moment(row.at, 4, "person", "callback_revealed", detail)


def _known(detail: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in detail.items() if value is not None}


def _event_view(event: Event) -> dict[str, Any]:
    return {
        "at": time_text(event.at),
        "source": event.source,
        "kind": event.kind,
        "detail": event.detail,
    }


def _moment_view(moment: Moment) -> dict[str, Any]:
    return {
        "at": time_text(moment.at),
        "who": moment.who,
        "what": moment.what,
        "detail": moment.detail,
    }
