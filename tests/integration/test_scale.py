"""No step of a payment reads a whole table, however long the history before it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.history import write_history
from harness.settings import API_KEY
from harness.settling import SILENT, settle
from harness.waiting import wait_for
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.exporters.backlog import BacklogExporter
from mpesa_gateway.store import callbacks, deliveries, pages, stats, status_queries
from mpesa_gateway.store.pool import Connection
from mpesa_gateway.store.transaction_listing import Filter, list_newest

TABLES = (
    "callbacks",
    "conflicts",
    "deliveries",
    "transaction_events_first",
    "transactions",
    "webhook_attempts",
)
OTHER, THIRD, FOURTH = "254712354042", "254712364042", "254712374042"
# So many that a sequential scan of the table is never the cheapest plan.
HISTORY = 5_000


def whole_reads(gateway: Gateway) -> dict[str, int]:
    """How often each table was read from end to end."""
    wait_for_counts(gateway)
    rows = gateway.rows(
        "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname = ANY(%s)", list(TABLES)
    )
    return {row["relname"]: row["seq_scan"] for row in rows}


def wait_for_counts(gateway: Gateway, *, also: str = "") -> None:
    """Postgres counts what a connection did when it ends, a moment after it was closed."""
    wait_for(
        lambda: (
            not gateway.rows(
                "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                f" AND (application_name NOT LIKE 'mpesa-gateway%%' {also})"
            )
        )
    )


def close_pools(gateway: Gateway) -> None:
    """So that what they did is counted."""
    gateway.services.pool.close()
    gateway.services.reserved_pool.close()
    wait_for_counts(gateway, also="OR TRUE")


def live(gateway: Gateway) -> None:
    """Every way that a payment takes to its end, and what looks after it meanwhile."""
    end(gateway, SILENT)
    end(gateway, OTHER, code=1032)
    # A success that proves nothing is held until a query has confirmed it.
    end(gateway, THIRD, receipt=None)
    transaction_id = gateway.pay(FOURTH, order_id="INV-1")
    for phone in (FOURTH, SILENT):
        assert gateway.initiate(phone, order_id="INV-1").status_code == 409
    for _ in range(3):
        gateway.clock.advance(seconds=300)
        gateway.sweep()
    path = f"{gateway.url}/transactions/{transaction_id}/redeliver"
    gateway.session.post(path, headers={"X-Internal-Secret": API_KEY}, timeout=10)
    gateway.work()
    gateway.get("/transactions", phone=FOURTH)
    gateway.get("/transactions", order_id="INV-1")
    gateway.get(f"/transactions/{transaction_id}/deliveries")
    BacklogExporter(gateway.pool, gateway.clock).refresh()


def end(gateway: Gateway, phone: str, **said: Any) -> None:
    """A payment whose callback says so."""
    gateway.pay(phone)
    body = callback_body(gateway.checkout_request_id(phone), **said)
    settle(gateway, body, path=gateway.callback_path(phone))


def test_no_step_of_a_payment_reads_a_whole_table(gateway: Gateway) -> None:
    write_history(gateway.database_url, HISTORY, at=str(gateway.clock() - timedelta(days=1)))
    gateway.execute("ANALYZE")
    before = whole_reads(gateway)
    live(gateway)
    close_pools(gateway)

    # An empty table has no plan but this one.
    again = {name: count - before[name] for name, count in whole_reads(gateway).items()}
    assert {name: count for name, count in again.items() if name != "conflicts" and count} == {}


BACKLOG = 2_000
# As long after an outage: nothing of it was there when Postgres looked last.
LEFT_BY_AN_OUTAGE = (
    (
        "INSERT INTO callbacks (transaction_id, by_token, body, body_sha256, received_at,"
        " last_received_at, next_attempt_at) SELECT id, TRUE, 'x', sha256('x'), now(), now(), now()"
        " FROM transactions ORDER BY id LIMIT %s"
    ),
    (
        "INSERT INTO deliveries (webhook_id, transaction_id, merchant, type, url, origin, body,"
        " next_attempt_at, created_at) SELECT 'msg_b' || id, id, merchant, 'transaction.updated',"
        " webhook_url, 'https://shop.example', 'x', now(), now() FROM transactions"
        " ORDER BY id LIMIT %s"
    ),
    (
        "UPDATE transactions SET status = 'PENDING', finished_at = NULL, settled_by = NULL,"
        " result_code = NULL, receipt = NULL, next_query_at = now() WHERE id IN"
        " (SELECT id FROM transactions ORDER BY id LIMIT %s)"
    ),
)


def test_what_is_done_by_id_does_not_read_what_waits_beside_it(gateway: Gateway) -> None:
    write_history(gateway.database_url, HISTORY, at=str(gateway.clock() - timedelta(days=1)))
    gateway.execute("ANALYZE")
    with psycopg.connect(gateway.database_url) as conn:
        conn.execute("SET session_replication_role = replica")  # a final row is pending again
        for statement in LEFT_BY_AN_OUTAGE:
            conn.execute(statement.encode(), [BACKLOG])
    before = rows_fetched(gateway, "callbacks", "deliveries", "transactions")
    end(gateway, SILENT)
    end(gateway, OTHER, code=1032)
    gateway.pay(THIRD)
    gateway.clock.advance(seconds=100)
    (row,) = gateway.rows("SELECT max(id) AS id FROM transactions")
    gateway.dispatcher.run(Work(WorkKind.QUERY, row["id"]))
    close_pools(gateway)

    after = rows_fetched(gateway, "callbacks", "deliveries", "transactions")
    assert after - before < BACKLOG / 4


LOOKS: dict[str, Callable[[Connection, datetime], list[Any]]] = {
    "callbacks": lambda conn, now: callbacks.list_due(conn, now, 200),
    "deliveries": lambda conn, now: deliveries.list_due(conn, now, fresh_before=now, limit=200),
    "transactions": lambda conn, now: status_queries.list_due(conn, now, 200),
}

OPEN = {
    "callbacks": ("next_attempt_at", "state = 'RECEIVED'"),
    "deliveries": ("next_attempt_at", "state = 'PENDING'"),
    "transactions": ("next_query_at", "status = 'PENDING'"),
}


@pytest.mark.parametrize(("number", "table"), list(enumerate(LOOKS)), ids=LOOKS)
def test_who_asks_what_is_due_does_not_read_all_that_is_open(
    gateway: Gateway, number: int, table: str
) -> None:
    """Nothing was open when Postgres looked last: to it, reading all that is costs one row."""
    write_history(gateway.database_url, HISTORY, at=str(gateway.clock() - timedelta(days=1)))
    gateway.execute("ANALYZE")
    due, is_open = OPEN[table]
    with psycopg.connect(gateway.database_url) as conn:
        conn.execute("SET session_replication_role = replica")  # a final row is pending again
        conn.execute(LEFT_BY_AN_OUTAGE[number].encode(), [BACKLOG])
        conn.execute(
            f"UPDATE {table} SET {due} = now() + interval '1 day' WHERE {is_open} AND id >"
            f" (SELECT min(id) + 19 FROM {table} WHERE {is_open})".encode()
        )
    before = rows_fetched(gateway, table)
    with gateway.pool.connection("test") as conn:
        # Often enough for a plan that is made once.
        found = [LOOKS[table](conn, datetime.now(UTC)) for _ in range(8)]
    close_pools(gateway)

    assert [len(rows) for rows in found] == [20] * 8
    assert rows_fetched(gateway, table) - before < BACKLOG


TURNS: dict[str, Callable[[Connection, datetime], list[int]]] = {
    "deliveries": lambda conn, now: [
        it.id for it in pages.list_deliveries(conn, now, fresh_before=now, limit=200)
    ],
    "transactions": lambda conn, now: pages.list_queries(conn, now, 200),
}


@pytest.mark.parametrize(("number", "table"), [(1, "deliveries"), (2, "transactions")])
def test_the_backlog_of_one_merchant_is_not_read_to_find_another_s(
    gateway: Gateway, number: int, table: str
) -> None:
    """It is older than theirs, and to Postgres nothing was open when it looked last."""
    at, url = gateway.clock() - timedelta(days=1), gateway.database_url
    write_history(url, HISTORY, at=str(at))
    others = [f"shops/{it}" for it in range(5)]
    for it, merchant in enumerate(others, start=1):
        later = str(at + timedelta(minutes=it))
        write_history(url, 3, first=100_000 + 10 * it, at=later, merchant=merchant)
    gateway.execute("ANALYZE")
    due, is_open = OPEN[table]
    with psycopg.connect(gateway.database_url) as conn:
        conn.execute("SET session_replication_role = replica")  # a final row is pending again
        conn.execute(LEFT_BY_AN_OUTAGE[number].encode(), [HISTORY + 15])
        conn.execute(
            f"UPDATE {table} SET {due} = now() - interval '1 hour'"
            f" WHERE {is_open} AND merchant = 'default'".encode()
        )
    before = rows_fetched(gateway, table)
    with gateway.pool.connection("test") as conn:
        found = [TURNS[table](conn, datetime.now(UTC)) for _ in range(8)]
        oldest = LOOKS[table](conn, datetime.now(UTC))
        # Until it has analysed the table again, Postgres before 18 finds the oldest by reading all
        # that is due (docs/postgres.md).
        once = 0 if conn.info.server_version >= 180_000 else 3 * HISTORY
    close_pools(gateway)

    assert {len(rows) for rows in found} == {pages.TURNS + 3 * len(others)}
    owners = {
        row["id"]: row["merchant"]
        for row in gateway.rows(
            f"SELECT id, merchant FROM {table} WHERE id = ANY(%s)",
            [*found[0], *(getattr(it, "id", it) for it in oldest)],
        )
    }
    assert sorted(owners[it] for it in found[0][:6]) == ["default", *others]
    assert {owners[getattr(it, "id", it)] for it in oldest} == {"default"}, "as it was"
    assert rows_fetched(gateway, table) - before < HISTORY + once


def test_a_page_of_long_ago_is_not_looked_for_from_today_on(gateway: Gateway) -> None:
    days = [gateway.clock() - timedelta(days=it) for it in range(10, 0, -1)]
    for number, day in enumerate(days):
        write_history(gateway.database_url, HISTORY // 10, first=1 + 1000 * number, at=str(day))
    gateway.execute("ANALYZE")
    hour = timedelta(hours=1)
    of_day = Filter(
        merchant="default", created_before=days[1] + hour, created_after=days[1] - hour, limit=20
    )
    before = rows_fetched(gateway, "transactions")
    with gateway.pool.connection("test") as conn:
        found = list_newest(conn, of_day)
        nobody = list_newest(conn, replace(of_day, phone="254700000000"))
    close_pools(gateway)

    assert [it.created_at for it in found] == [days[1]] * 20
    assert nobody == []
    # The day has a tenth of them, the ways there are a few more.
    assert rows_fetched(gateway, "transactions") - before < HISTORY // 10 + 100


def test_the_last_hours_counts_read_the_last_hour(gateway: Gateway) -> None:
    """Whatever else lies on its pages: new payments go where vacuum has made room."""
    now = gateway.clock()
    for number in range(10):
        old, new = now - timedelta(days=30 + number), now - timedelta(minutes=30 + number)
        first = 1 + 1000 * number
        write_history(gateway.database_url, HISTORY // 10, first=first, at=str(old))
        write_history(gateway.database_url, 10, first=100_000 + first, at=str(new))
    gateway.execute("VACUUM ANALYZE transactions")
    before = rows_fetched(gateway, "transactions")
    with gateway.pool.connection("test") as conn:
        counts = stats.count_created_since(conn, now - timedelta(hours=1))
    close_pools(gateway)

    assert [(it.status, it.count) for it in counts] == [("COMPLETED", 100)]
    assert rows_fetched(gateway, "transactions") - before < 200


def test_the_last_hour_begins_where_it_says(gateway: Gateway) -> None:
    """By the time that a row tells, not by its id, which another pod's clock may have made."""
    now = gateway.clock()
    for number, minutes in enumerate((61, 60, 59)):
        at = str(now - timedelta(minutes=minutes))
        write_history(gateway.database_url, 1, first=1 + number, at=at)
    with gateway.pool.connection("test") as conn:
        (count,) = stats.count_created_since(conn, now - timedelta(hours=1))

    assert count.count == 2


def rows_fetched(gateway: Gateway, *tables: str) -> int:
    """How many rows of these tables were looked at."""
    wait_for_counts(gateway)
    (row,) = gateway.rows(
        "SELECT sum(idx_tup_fetch + seq_tup_read)::bigint AS rows FROM pg_stat_user_tables"
        " WHERE relname = ANY(%s)",
        list(tables),
    )
    fetched: int = row["rows"]
    return fetched


def test_rows_that_came_out_of_order_are_in_the_page_that_their_time_says(gateway: Gateway) -> None:
    noon = gateway.clock() - timedelta(days=1)
    for number, minutes in enumerate((0, 4, 2, 9, 5)):
        at = str(noon + timedelta(minutes=minutes))
        write_history(gateway.database_url, 1, first=1 + number, at=at)
    wanted = Filter(created_after=noon, created_before=noon + timedelta(minutes=6))
    with gateway.pool.connection("test") as conn:
        found = list_newest(conn, wanted)

    assert [(it.created_at - noon).seconds // 60 for it in found] == [5, 2, 4]


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_a_time_that_no_id_can_tell_is_no_bound(gateway: Gateway, year: int) -> None:
    write_history(gateway.database_url, 1, at=str(gateway.clock()))
    at = datetime(year, 12, 31, tzinfo=UTC)
    with gateway.pool.connection("test") as conn:
        before = list_newest(conn, Filter(created_before=at))
        after = list_newest(conn, Filter(created_after=at))

    assert (len(before), len(after)) == ((1, 0) if year == 9999 else (0, 1))


def test_a_whole_read_is_counted(gateway: Gateway) -> None:
    write_history(gateway.database_url, HISTORY, at=str(gateway.clock() - timedelta(days=1)))
    gateway.execute("ANALYZE")
    before = whole_reads(gateway)
    with gateway.pool.connection("test") as conn:
        conn.execute("SELECT FROM callbacks WHERE attempts = 7")
    close_pools(gateway)

    assert whole_reads(gateway)["callbacks"] == before["callbacks"] + 1
