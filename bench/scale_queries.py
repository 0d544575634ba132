"""The hot queries, each by the product's own function, against a long history and against none.

What the product asks for is nearly always new: a callback comes seconds after its push. Such
questions have the goal; the same for any payment of the history has none, and is shown beside it.
"""

from __future__ import annotations

import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle

from psycopg.rows import tuple_row

from bench import data
from bench.figures import Figure, at_most
from bench.scale_build import FRESH, FULL, OPEN, RECENT, Built, Say, ScaleRig
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.transaction import PaymentRequest, Status
from mpesa_gateway.store import (
    backlog,
    callbacks,
    deliveries,
    delivery_listing,
    events,
    inbox,
    pages,
    payment_keys,
    redeliveries,
    stats,
    status_queries,
)
from mpesa_gateway.store import transactions as store
from mpesa_gateway.store.inbox import NewCallback
from mpesa_gateway.store.pool import Connection, Pool
from mpesa_gateway.store.transaction_listing import Filter, list_newest
from mpesa_gateway.store.transactions import Intent
from mpesa_gateway.usecases.finalize import new_id

REPEATS = 30
# A slow one is not asked so often.
LONGEST_S = 2.0
PAGE = 200
LEASE = timedelta(seconds=15)
DEFAULT = Filter(merchant="default")


@dataclass(frozen=True)
class Payment:
    """What one may be asked by."""

    row: int
    id: uuid.UUID
    key: uuid.UUID
    checkout_request_id: str
    phone: str


@dataclass
class Asked:
    """One database and what to ask it about; each question takes the next."""

    conn: Connection
    recent: Iterator[Payment]
    any: Iterator[Payment]
    open: Iterator[int]
    received: Iterator[int]
    due: Iterator[int]
    now: datetime
    long_ago: datetime
    middle_row: int
    made: Iterator[int] = field(default_factory=lambda: iter(range(1, 10**9)))


@dataclass(frozen=True)
class Query:
    """One question. `judged`: whether the goal is meant for it."""

    name: str
    ask: Callable[[Asked], object]
    judged: bool = True


def _rolled_back(ask: Callable[[Asked], object]) -> Callable[[Asked], object]:
    """In a transaction that leaves nothing, so that it can be asked again."""

    def run(it: Asked) -> object:
        with it.conn.transaction(force_rollback=True):
            return ask(it)

    return run


def _claim_delivery(it: Asked) -> int:
    delivery = deliveries.lock_due(it.conn, next(it.due), it.now)
    assert delivery is not None
    return deliveries.start_attempt(
        it.conn, delivery, failures=1, lease_until=it.now + LEASE, now=it.now
    )


def _intend(it: Asked) -> object:
    """What POST /initiate writes before its push, and commits."""
    number = next(it.made)
    request = PaymentRequest(
        amount=Decimal(10),
        phone=f"2540{number:08d}",
        idempotency_key=uuid.uuid4(),
        webhook_url=None,
        account_reference="payment",
        description="payment",
    )
    intent = Intent(
        id=new_id(it.now),
        merchant="default",
        request=request,
        short_code="174379",
        webhook_url="http://127.0.0.1:1024/webhooks",
        callback_secret_sha256=bytes(32),
        push_lease_until=it.now + timedelta(days=1),
        prompt_until=it.now,
    )
    assert store.find_by_key(it.conn, "default", request.idempotency_key) is None
    with it.conn.transaction():
        store.lock_phone(it.conn, "174379", request.phone)
        store.find_open_prompt(it.conn, "174379", request.phone, it.now)
        created = store.insert_intent(it.conn, intent, it.now)
        assert created is not None
        events.append(it.conn, created.row, "caller", "requested", it.now)
    return created


def _list(wanted: Filter, **latest: Callable[[Asked], object]) -> Callable[[Asked], object]:
    """`latest` gives what only the database in question can tell."""

    def run(it: Asked) -> object:
        values = {name: value(it) for name, value in latest.items()}
        return list_newest(it.conn, replace(wanted, **values))  # type: ignore[arg-type]

    return run


def _hour_ago(it: Asked) -> datetime:
    return it.now - timedelta(minutes=90)


def _long_ago(it: Asked) -> datetime:
    return it.long_ago


def _week_after(it: Asked) -> datetime:
    return it.long_ago - timedelta(days=7)


SWEEP = [
    Query("sweep: callbacks due", lambda it: callbacks.list_due(it.conn, it.now, PAGE)),
    Query(
        "sweep: webhooks due",
        lambda it: deliveries.list_due(it.conn, it.now, fresh_before=it.now, limit=PAGE),
    ),
    Query(
        "sweep: webhooks due, each merchant's in turn",
        lambda it: pages.list_deliveries(it.conn, it.now, fresh_before=it.now, limit=PAGE),
    ),
    Query(
        "sweep: payments to query, each merchant's in turn",
        lambda it: pages.list_queries(it.conn, it.now, PAGE),
    ),
    Query("sweep: payments to query", lambda it: status_queries.list_due(it.conn, it.now, PAGE)),
    Query(
        "sweep: dead pushes", lambda it: status_queries.list_expired_pushes(it.conn, it.now, PAGE)
    ),
    Query("sweep: redeliveries", lambda it: redeliveries.list_due(it.conn, it.now, PAGE)),
    Query("ages exporter", lambda it: backlog.measure(it.conn, it.now)),
]
CLAIMS = [
    Query(
        "claim a callback",
        _rolled_back(lambda it: callbacks.lock_received(it.conn, next(it.received))),
    ),
    Query("claim a webhook, write its try", _rolled_back(_claim_delivery)),
    Query(
        "claim a query",
        _rolled_back(
            lambda it: status_queries.claim(
                it.conn, next(it.open), lease_until=it.now + LEASE, now=it.now + timedelta(days=2)
            )
        ),
    ),
    Query("initiate: look for the key, write the intent", _intend),
]
LOOKUPS = [
    Query(
        "by idempotency key",
        lambda it: store.find_by_key(it.conn, "default", next(it.recent).key),
    ),
    Query(
        "by CheckoutRequestID",
        lambda it: store.find_row_by_checkout_request_id(
            it.conn, next(it.recent).checkout_request_id
        ),
    ),
    Query(
        # With wrong secrets, so that it keeps nothing.
        "judge 32 callbacks by their tokens",
        lambda it: inbox.keep(it.conn, [_forged(next(it.recent), it.now) for _ in range(32)]),
    ),
    Query("by public id", lambda it: store.find(it.conn, "default", next(it.recent).id)),
    Query(
        "receipt that is new",
        lambda it: payment_keys.find_receipt_owner(it.conn, f"UL{next(it.made)}"),
    ),
    Query(
        "webhooks and tries of a payment",
        lambda it: (
            delivery_listing.list_of_transaction(it.conn, row := next(it.recent).row),
            delivery_listing.list_attempts(it.conn, row),
        ),
    ),
]
ANY = [
    Query(
        "by idempotency key, any payment",
        lambda it: store.find_by_key(it.conn, "default", next(it.any).key),
        judged=False,
    ),
    Query(
        "by CheckoutRequestID, any payment",
        lambda it: store.find_row_by_checkout_request_id(it.conn, next(it.any).checkout_request_id),
        judged=False,
    ),
    Query(
        "by public id, any payment",
        lambda it: store.find(it.conn, None, next(it.any).id),
        judged=False,
    ),
]
LISTS = [
    Query("list", _list(DEFAULT)),
    Query("list: status PENDING", _list(replace(DEFAULT, status=Status.PENDING))),
    Query("list: status COMPLETED", _list(replace(DEFAULT, status=Status.COMPLETED))),
    Query("list: phone", _list(DEFAULT, phone=lambda it: next(it.recent).phone)),
    Query("list: created_after 90 min ago", _list(DEFAULT, created_after=_hour_ago)),
    Query("list: created_before half the history", _list(DEFAULT, created_before=_long_ago)),
    Query(
        "list: a week within the history",
        _list(DEFAULT, created_before=_long_ago, created_after=_week_after),
    ),
    Query("list: cursor in the middle", _list(DEFAULT, before_row=lambda it: it.middle_row)),
    Query(
        "list: PENDING of a merchant that has none",
        _list(Filter(merchant="shop-7", status=Status.PENDING)),
    ),
    Query("list: all merchants", _list(Filter())),
    Query(
        "list: all merchants, before half the history", _list(Filter(), created_before=_long_ago)
    ),
    Query("list: what needs a person", _list(Filter(needs_person=True))),
    Query(
        "list: callbacks in quarantine",
        lambda it: callbacks.list_newest(it.conn, state="QUARANTINED", limit=50),
    ),
    Query(
        "list: webhooks given up",
        lambda it: delivery_listing.list_newest(
            it.conn, state="EXHAUSTED", merchant=None, limit=50
        ),
    ),
    Query("stats: what waits", lambda it: stats.measure(it.conn, it.now)),
    Query(
        "stats: the last hour",
        lambda it: stats.count_created_since(it.conn, it.now - timedelta(hours=1)),
    ),
]
QUERIES = [*SWEEP, *CLAIMS, *LOOKUPS, *ANY, *LISTS]


@dataclass
class Timed:
    """A query's medians in seconds, a round each."""

    query: Query
    fresh: list[float] = field(default_factory=list)
    full: list[float] = field(default_factory=list)

    def figure(self, size: str) -> Figure:
        """The ratio of each round."""
        ratios = [full / fresh for full, fresh in zip(self.full, self.fresh, strict=True)]
        goal = at_most(2, 1.1) if self.query.judged else None
        return Figure(f"{self.query.name}: {size} ÷ none", ratios, goal)


def table(timed: list[Timed], size: str) -> list[str]:
    """In Markdown, with the medians in milliseconds."""
    lines = [
        f"| query | no history, ms | {size}, ms | ratio (min to max) | |",
        "|---|---|---|---|---|",
    ]
    for each in timed:
        ratio = each.figure(size)
        fresh, full = (1000 * statistics.median(it) for it in (each.fresh, each.full))
        lines.append(
            f"| {each.query.name} | {fresh:.2f} | {full:.2f} | **{ratio.median:.2f}**"
            f" ({min(ratio.values):.2f} to {max(ratio.values):.2f}) | {ratio.verdict} |"
        )
    return lines


def measure(rig: ScaleRig, built: Built, rounds: int, say: Say) -> list[Timed]:
    """Every query in every round, on one database and then on the other."""
    pools = {name: Pool(rig.postgres.url(name), size=1, name=name) for name in (FULL, FRESH)}
    timed = [Timed(query) for query in QUERIES]
    try:
        for pool in pools.values():
            pool.open()
        with pools[FULL].connection("bench") as full, pools[FRESH].connection("bench") as fresh:
            asked = {FULL: _asked(full, built.rows), FRESH: _asked(fresh, 0)}
            for number in range(rounds + 1):
                for each in timed:
                    order = (FULL, FRESH) if number % 2 else (FRESH, FULL)
                    found = {name: _median(each.query, asked[name]) for name in order}
                    # The first round warms up what is always warm.
                    if number:
                        each.full.append(found[FULL])
                        each.fresh.append(found[FRESH])
                say(f"  queries: round {number} of {rounds}")
    finally:
        for pool in pools.values():
            pool.close()
    return timed


def _median(query: Query, asked: Asked) -> float:
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < REPEATS and (
        len(seconds) < 3 or seconds[-1] + time.perf_counter() - begun < LONGEST_S
    ):
        asked.now = datetime.now(UTC)
        started = time.perf_counter()
        query.ask(asked)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _forged(payment: Payment, now: datetime) -> NewCallback:
    token = CallbackToken(payment.id, bytes(16))
    return NewCallback(token, b"{}", bytes(32), {}, data.SAFARICOM, now)


def _asked(conn: Connection, rows: int) -> Asked:
    """`rows` of history come before the last hour's payments."""
    recent = _payments(conn, range(rows + RECENT // 2, rows + RECENT))
    sample = random.Random(7).sample(range(1, rows), min(rows - 1, 5_000)) if rows else []  # noqa: S311 - a sample
    first_open = rows + RECENT + 1
    opened = range(first_open, first_open + OPEN)
    now = datetime.now(UTC)
    middle = _payments(conn, [rows // 2])[0].row if rows else RECENT // 2
    at = conn.execute("SELECT created_at FROM transactions WHERE id = %s", [middle]).fetchone()
    assert at is not None
    return Asked(
        conn=conn,
        recent=cycle(recent),
        any=cycle(_payments(conn, sample) if rows else recent),
        open=cycle(opened),
        received=cycle(_ids(conn, "SELECT id FROM callbacks WHERE state = 'RECEIVED'")),
        due=cycle(
            _ids(
                conn,
                "SELECT id FROM deliveries WHERE state = 'PENDING' AND next_attempt_at < now()",
            )
        ),
        now=now,
        long_ago=at[0],
        middle_row=middle,
    )


def _payments(conn: Connection, rows: range | list[int]) -> list[Payment]:
    cursor = conn.cursor(row_factory=tuple_row)
    cursor.execute(
        "SELECT id, internal_transaction_id, idempotency_key, checkout_request_id, phone"
        " FROM transactions WHERE id = ANY(%s)",
        [list(rows)],
    )
    found = [Payment(*row) for row in cursor]
    random.Random(7).shuffle(found)  # noqa: S311 - an order
    return found


def _ids(conn: Connection, query: str) -> list[int]:
    return [row[0] for row in conn.execute(query.encode())]
