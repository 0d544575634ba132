"""Sends a merchant's webhooks again, as many as there are: an order in Postgres, in small batches.

A batch, its events and the order's progress are one commit, so a worker that dies in the middle
costs nothing but time. The webhooks themselves are ordinary deliveries that have come due.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mpesa_gateway.domain.delivery import DeliveryState
from mpesa_gateway.domain.representation import time_text
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.store import endpoints, transactions
from mpesa_gateway.store import redeliveries as store
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.store.redeliveries import NewRedelivery, Redelivery
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

NOT_DELIVERED = (DeliveryState.PENDING, DeliveryState.EXHAUSTED, DeliveryState.GONE)
# Deliveries of anybody that one commit looks at.
WINDOW = 500
# Windows of one turn, so that a rare merchant among millions is found within minutes.
WINDOWS_OF_A_TURN = 50
# No more are offered while so many are due: fresh webhooks do not queue behind a backlog.
MOST_DUE = 2000
# Ids are given in about the order of time: a slow commit or a clock may be off by this at most.
SLACK = timedelta(minutes=10)


@dataclass(frozen=True)
class Redeliveries:
    """The collaborators that working off an order needs."""

    pool: Pool
    clock: Callable[[], datetime]

    def advance(self, redelivery_id: int) -> list[Work]:
        """One turn of an order, if it is due. More work means another turn at once."""
        chosen = 0
        for _ in range(WINDOWS_OF_A_TURN):
            more = self._look_at_window(redelivery_id)
            if more is None:
                return []
            chosen += more
            if chosen >= WINDOW:
                break
        return [Work(WorkKind.REDELIVERY, redelivery_id)]

    def _look_at_window(self, redelivery_id: int) -> int | None:
        """How many deliveries of the next window were chosen, None when the turn is over."""
        now = self.clock()
        with self.pool.transaction("redelivery.advance") as conn:
            order = store.lock_due(conn, redelivery_id, now)
            if order is None or store.count_due(conn, order.merchant, now, MOST_DUE) >= MOST_DUE:
                return None
            end = store.find_window_end(conn, order, WINDOW)
            if end is None:
                store.finish(conn, order.id, now)
            else:
                chosen = store.offer_window(conn, order, end, now)
                store.save_progress(conn, order.id, end, chosen)
        if end is None:
            LOGGER.info("redelivery offered", redelivery=order.id, chosen=order.chosen)
            return None
        return chosen


def order_redelivery(pool: Pool, order: NewRedelivery, now: datetime) -> Redelivery:
    """Write the order down. A parked endpoint of the merchant is tried once, at once.

    Raises NotFoundError for a merchant that never asked for a payment: a slip of the fingers, most
    likely, and nobody would notice that nothing is sent.
    """
    with pool.connection("redelivery.bounds") as conn:
        if not transactions.has_any(conn, order.merchant):
            raise NotFoundError(f"the merchant {order.merchant!r} has no payment here")
        first_id = _first_id_at(conn, order.since - SLACK) - 1
        last_id = _first_id_at(conn, order.until + SLACK) - 1
    with pool.transaction("redelivery.order") as conn:
        endpoints.probe_now(conn, order.merchant, now)
        return store.insert(conn, order, first_id=first_id, last_id=last_id, now=now)


def _first_id_at(conn: Connection, at: datetime) -> int:
    """The lowest delivery id written at that time or later, by halving: no index on time needed."""
    low, high = 1, store.newest_delivery(conn) + 1
    while low < high:
        middle = (low + high) // 2
        found = store.find_from(conn, middle)
        if found is None or found[1] >= at:
            high = middle
        else:
            low = found[0] + 1
    return low


def read_redelivery(pool: Pool, redelivery_id: int) -> dict[str, Any]:
    """One order as JSON. Raises NotFoundError."""
    with pool.connection("read.redelivery") as conn:
        order = store.find(conn, redelivery_id)
        if order is None:
            raise NotFoundError(f"there is no redelivery {redelivery_id}")
        counted = store.count_states(conn, [order.id])
    return redelivery_view(order, counted[order.id])


def list_redeliveries(pool: Pool, limit: int) -> dict[str, Any]:
    """Orders, newest first."""
    with pool.connection("read.redeliveries") as conn:
        found = store.list_newest(conn, limit)
        counted = store.count_states(conn, [order.id for order in found])
    return {"items": [redelivery_view(order, counted[order.id]) for order in found]}


def redelivery_view(order: Redelivery, states: dict[str, int]) -> dict[str, Any]:
    """An order as JSON: `looked_at` is its part that was looked at, 0 to 1."""
    whole, done = order.last_id - order.first_id, order.position - order.first_id
    open_now = states.get(DeliveryState.PENDING, 0)
    return {
        "id": order.id,
        "merchant": order.merchant,
        "since": time_text(order.since),
        "until": time_text(order.until),
        "states": order.states,
        "requested_by": order.requested_by,
        "requested_at": time_text(order.requested_at),
        "looked_at": 1.0 if order.finished_at or whole <= 0 else round(done / whole, 4),
        "chosen": order.chosen,
        "now": {state.value: states.get(state, 0) for state in DeliveryState},
        "offered_at": time_text(order.finished_at),
        "done": order.finished_at is not None and open_now == 0,
    }
