"""A month of payments goes for good; its keys are answered and its receipts are known for ever."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.history import write_history
from harness.settling import SILENT
from harness.waiting import wait_for
from mpesa_gateway import failpoint
from mpesa_gateway.domain.months import Month, parse_month
from mpesa_gateway.errors import RemovalRefusedError
from mpesa_gateway.store import months, removal
from mpesa_gateway.usecases.months import Months
from mpesa_gateway.usecases.removal import Order, remove_month

OTHER, THIRD = "254712354042", "254712364042"
JANUARY = parse_month("2030-01")
LATER = datetime(2030, 4, 10, tzinfo=UTC)
ORDER = Order(month=JANUARY, by="wanjiru", reason="seven years are over")
TABLES = (
    "transactions",
    "transaction_events",
    "callbacks",
    "conflicts",
    "deliveries",
    "webhook_attempts",
    "redelivery_items",
)


def begin_month(gateway: Gateway, at: datetime) -> None:
    Months(gateway.pool, lambda: at, f"worker {at}").keep_up()


@pytest.fixture
def old(gateway: Gateway) -> Gateway:
    """January 2030 holds a payment that was paid, one that failed; months later came another."""
    begin_month(gateway, datetime(2030, 1, 1, tzinfo=UTC))
    end(gateway, SILENT, receipt="UAV0000001")
    end(gateway, OTHER, code=1032)
    begin_month(gateway, LATER)
    end(gateway, THIRD, receipt="UDA0000001")
    return gateway


def end(gateway: Gateway, phone: str, *, order_id: str | None = None, **said: Any) -> str:
    key = str(uuid.uuid4())
    gateway.pay(phone, idempotency_key=key, order_id=order_id)
    body = callback_body(gateway.checkout_request_id(phone), **said)
    gateway.post(gateway.callback_path(phone), body)
    gateway.work()
    return key


def first_request(gateway: Gateway, phone: str = SILENT) -> dict[str, Any]:
    """The key of the phone's payment."""
    (row,) = gateway.rows(
        "SELECT idempotency_key::text FROM transactions WHERE phone = %s ORDER BY id LIMIT 1", phone
    )
    return row


def remove(gateway: Gateway, order: Order = ORDER) -> tuple[int, int]:
    removed = remove_month(gateway.pool, order, lambda: LATER, lambda _: None)
    return removed.payments, removed.left


def counts(gateway: Gateway, month: Month = JANUARY) -> dict[str, int]:
    """How many rows of the month's payments each table has."""
    named = dict.fromkeys(TABLES, "transaction_id") | {"transactions": "id"}
    del named["redelivery_items"]
    return {
        table: gateway.rows(
            f"SELECT count(*) AS n FROM {table} WHERE {column} >= %s AND {column} < %s",
            month.begins,
            month.ends,
        )[0]["n"]
        for table, column in named.items()
    }


def test_nothing_is_left_but_the_keys(old: Gateway) -> None:
    before = counts(old)
    assert before["transactions"] == 2
    assert remove(old) == (2, 0)

    assert set(counts(old).values()) == {0}
    kept = old.rows("SELECT status, amount, receipt FROM payment_keys ORDER BY receipt")
    assert kept == [
        {"status": "COMPLETED", "amount": 10, "receipt": "UAV0000001"},
        {"status": "FAILED", "amount": 10, "receipt": None},
    ]
    partitions = [it["name"] for it in old.rows("SELECT relname AS name FROM pg_class")]
    assert "transaction_events_2030_01" not in partitions
    (stored,) = old.rows("SELECT month, removed_by, reason, payments FROM removed_months")
    assert stored == {
        "month": "2030-01",
        "removed_by": "wanjiru",
        "reason": "seven years are over",
        "payments": 2,
    }


def test_what_is_of_another_month_stays(old: Gateway) -> None:
    april = parse_month("2030-04")
    before = counts(old, april)
    remove(old)

    assert counts(old, april) == before
    assert before["transaction_events"] == 3


def test_a_key_is_answered_as_before_and_never_pushed_again(old: Gateway) -> None:
    request = first_request(old)
    answer = old.initiate(SILENT, **request)
    assert answer.status_code == 201
    pushes = len(old.simulator.ledger(phone=SILENT)["pushes"])
    remove(old)
    again = old.initiate(SILENT, **request)
    other = old.initiate(SILENT, **request, amount="11")

    assert (again.status_code, again.content) == (answer.status_code, answer.content)
    assert again.headers.get("Idempotent-Replayed") == answer.headers.get("Idempotent-Replayed")
    assert (other.status_code, other.json()["type"].rpartition("/")[2]) == (422, "key-reused")
    assert len(old.simulator.ledger(phone=SILENT)["pushes"]) == pushes == 1
    assert old.rows("SELECT count(*) AS n FROM transactions")[0]["n"] == 1


def test_a_release_that_knows_no_kept_keys_cannot_push_again(old: Gateway) -> None:
    """The release before asks `transactions` only: the wall refuses its row, so nothing leaves."""
    (row,) = old.rows("SELECT * FROM transactions WHERE phone = %s", SILENT)
    remove(old)
    names = [it for it in row if it not in ("id", "metadata", "receipt")]
    columns, marks = ", ".join(names), ", ".join(["%s"] * len(names))
    row["internal_transaction_id"] = uuid.uuid4()
    insert = (
        f"INSERT INTO transactions ({columns}) VALUES ({marks})"
        " ON CONFLICT (merchant, idempotency_key) DO NOTHING"
    )
    with pytest.raises(psycopg.errors.UniqueViolation, match="made a payment before"):
        old.execute(insert, *[row[name] for name in names])
    row["idempotency_key"] = uuid.uuid4()
    row["checkout_request_id"] = "ws_CO_other"
    old.execute(insert, *[row[name] for name in names])
    with pytest.raises(psycopg.errors.UniqueViolation, match="receipt UAV0000001 is of another"):
        old.execute(
            "UPDATE transactions SET receipt = 'UAV0000001' WHERE idempotency_key = %s",
            row["idempotency_key"],
        )


def test_an_order_stays_paid_and_a_failed_one_free(gateway: Gateway) -> None:
    begin_month(gateway, datetime(2030, 1, 1, tzinfo=UTC))
    end(gateway, SILENT, order_id="paid", receipt="UAV0000001")
    end(gateway, OTHER, order_id="failed", code=1032)
    begin_month(gateway, LATER)
    end(gateway, THIRD, receipt="UDA0000001")
    (row,) = gateway.rows("SELECT * FROM transactions WHERE order_id = 'paid'")
    assert remove(gateway) == (2, 0)

    refused = gateway.initiate(SILENT, order_id="paid").json()
    assert refused["type"].rpartition("/")[2] == "order-paid"
    assert refused["transaction_id"] == str(row["internal_transaction_id"])
    assert refused["receipt"] == "UAV0000001"
    assert gateway.initiate(SILENT, order_id="failed").status_code == 201
    # Who looked before the rows went meets the wall.
    row["internal_transaction_id"], row["idempotency_key"] = uuid.uuid4(), uuid.uuid4()
    row["checkout_request_id"] = "ws_CO_other"
    names = [it for it in row if it not in ("id", "metadata", "receipt", "custom_data")]
    columns, marks = ", ".join(names), ", ".join(["%s"] * len(names))
    with pytest.raises(psycopg.errors.UniqueViolation, match="was paid before"):
        gateway.execute(
            f"INSERT INTO transactions ({columns}) VALUES ({marks})", *[row[it] for it in names]
        )


def test_a_receipt_is_never_counted_twice(old: Gateway) -> None:
    remove(old)
    fourth = "254712374042"
    old.pay(fourth)
    body = callback_body(old.checkout_request_id(fourth), receipt="UAV0000001")
    old.post(old.callback_path(fourth), body)
    old.work()

    (payment,) = old.rows("SELECT status, receipt FROM transactions WHERE phone = %s", fourth)
    assert payment == {"status": "PENDING", "receipt": None}
    (callback,) = old.rows("SELECT state, outcome FROM callbacks ORDER BY id DESC LIMIT 1")
    assert callback == {"state": "QUARANTINED", "outcome": "receipt_reused"}


def test_a_callback_of_a_removed_payment_is_kept_and_settles_nothing(old: Gateway) -> None:
    path = old.callback_path(SILENT)
    body = callback_body(old.checkout_request_id(SILENT), receipt="UAV0000001")
    remove(old)

    assert old.post(path, body).status_code == 200
    old.work()
    old.sweep()
    (callback,) = old.rows("SELECT state, outcome FROM callbacks ORDER BY id DESC LIMIT 1")
    assert callback == {"state": "QUARANTINED", "outcome": "orphan"}


OPEN: dict[str, tuple[str, str]] = {
    "payment": (
        (
            "ALTER TABLE transactions DISABLE TRIGGER guard_transaction; UPDATE transactions"
            " SET status = 'PENDING', finished_at = NULL, settled_by = NULL, receipt = NULL,"
            " metadata = NULL WHERE receipt = 'UAV0000001';"
            " ALTER TABLE transactions ENABLE TRIGGER guard_transaction"
        ),
        "1 payments are pending",
    ),
    "webhook": (
        (
            "UPDATE deliveries SET state = 'PENDING', finished_at = NULL, next_attempt_at = now()"
            " WHERE transaction_id = (SELECT min(id) FROM transactions)"
        ),
        "1 webhooks are pending",
    ),
    "webhook given up": (
        (
            "UPDATE deliveries SET state = 'EXHAUSTED'"
            " WHERE transaction_id = (SELECT min(id) FROM transactions)"
        ),
        "1 webhooks were given up",
    ),
    "callback in quarantine": (
        (
            "UPDATE callbacks SET state = 'QUARANTINED'"
            " WHERE transaction_id = (SELECT min(id) FROM transactions)"
        ),
        "1 callbacks are not applied or in quarantine",
    ),
    "callback not applied": (
        (
            "UPDATE callbacks SET state = 'RECEIVED', outcome = NULL, applied_at = NULL"
            " WHERE transaction_id = (SELECT min(id) FROM transactions)"
        ),
        "1 callbacks are not applied or in quarantine",
    ),
    "conflict": (
        (
            "INSERT INTO conflicts (transaction_id, kind, opened_at)"
            " SELECT min(id), 'paid_after_failed', now() FROM transactions"
        ),
        "1 conflicts are open",
    ),
    "newest payment": (
        (
            "ALTER TABLE transactions DISABLE TRIGGER refuse_to_forget;"
            " DELETE FROM webhook_attempts WHERE transaction_id >= 520000000000;"
            " DELETE FROM deliveries WHERE transaction_id >= 520000000000;"
            " DELETE FROM callbacks WHERE transaction_id >= 520000000000;"
            " ALTER TABLE transaction_events DISABLE TRIGGER append_only;"
            " DELETE FROM transaction_events WHERE transaction_id >= 520000000000;"
            " DELETE FROM transactions WHERE id >= 520000000000"
        ),
        "holds the newest payment",
    ),
}


@pytest.mark.parametrize(("statements", "sentence"), OPEN.values(), ids=OPEN)
def test_what_is_open_is_not_removed(old: Gateway, statements: str, sentence: str) -> None:
    for statement in statements.split("; "):
        old.execute(statement)
    before = counts(old)
    with pytest.raises(RemovalRefusedError, match=sentence):
        remove(old)

    assert counts(old) == before
    assert old.rows("SELECT FROM removed_months") == old.rows("SELECT FROM payment_keys") == []


@pytest.mark.parametrize("what", ["webhook", "conflict"])
def test_what_became_open_meanwhile_stays_until_it_is_closed(old: Gateway, what: str) -> None:
    """A late callback, a webhook that somebody orders again: after the look, before the batch."""

    def open_it(name: str) -> None:
        if name == "removal.begin.after_commit":
            for statement in OPEN[what][0].split("; "):
                old.execute(statement)

    failpoint.arm(open_it)
    try:
        assert remove(old) == (1, 1)
    finally:
        failpoint.arm(None)
    left = counts(old)
    assert (left["transactions"], left["callbacks"], left["deliveries"]) == (1, 1, 1)
    assert old.rows("SELECT finished_at FROM removed_months") == [{"finished_at": None}]
    assert [it["receipt"] for it in old.rows("SELECT receipt FROM payment_keys")] == [None]


def test_webhooks_that_were_given_up_may_go_when_the_operator_says_so(old: Gateway) -> None:
    old.execute(OPEN["webhook given up"][0])

    assert remove(old, replace(ORDER, despite_undelivered=True)) == (2, 0)


@pytest.mark.parametrize(
    ("step", "moment"),
    [
        ("removal.begin", "after_commit"),
        ("removal.step", "before_commit"),
        ("removal.step", "after_commit"),
        ("removal.finish", "before_commit"),
    ],
)
def test_a_removal_that_dies_goes_on_when_it_is_run_again(
    old: Gateway, step: str, moment: str
) -> None:
    def die(name: str) -> None:
        if name == f"{step}.{moment}":
            raise KeyboardInterrupt

    died = 0
    for _ in range(20):
        failpoint.arm(die if died < 4 else None)
        try:
            remove(old)
            break
        except KeyboardInterrupt:
            died += 1
        finally:
            failpoint.arm(None)
    assert counts(old)["transactions"] == 0
    assert old.rows("SELECT count(*) AS n FROM payment_keys")[0]["n"] == 2
    assert old.rows("SELECT payments FROM removed_months") == [{"payments": 2}]


def test_a_young_month_and_one_without_payments_are_refused(old: Gateway) -> None:
    young = old.clock() + timedelta(days=61)
    with pytest.raises(RemovalRefusedError, match="younger than 62 days"):
        remove_month(old.pool, ORDER, lambda: young, lambda _: None)
    with pytest.raises(RemovalRefusedError, match="holds no payments"):
        remove(old, replace(ORDER, month=parse_month("2029-01")))


def test_detached_partitions_may_be_kept(old: Gateway) -> None:
    remove(old, replace(ORDER, keep_tables=True))

    kept = old.rows("SELECT count(*) AS n FROM transaction_events_2030_01")
    assert kept[0]["n"] == 6
    with old.pool.connection("test") as conn:
        assert JANUARY not in months.list_months(conn)


def test_many_payments_go_in_batches(old: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "BATCH", 7)
    old.execute("SELECT setval('transactions_id_seq', %s)", JANUARY.begins + 100)
    write_history(old.database_url, 50, at="2030-01-31 12:00:00+00", state="DELIVERED")
    old.execute("SELECT setval('transactions_id_seq', %s)", parse_month("2030-04").begins + 100)
    end(old, "254712384042", receipt="UDA0000009")
    said: list[str] = []
    removed = remove_month(old.pool, ORDER, lambda: LATER, said.append)

    assert removed.payments == 52
    assert len(said) == 8
    assert set(counts(old).values()) == {0}


WALLS: dict[str, str] = {
    "a payment whose key is not kept": "DELETE FROM transactions",
    "a key": "DELETE FROM payment_keys",
    "its receipt": "UPDATE payment_keys SET receipt = 'OTHER'",
    "its answer": "UPDATE payment_keys SET response_body = 'OTHER'",
    "its merchant": "UPDATE payment_keys SET merchant = 'other'",
}


@pytest.mark.parametrize("statement", WALLS.values(), ids=WALLS)
def test_what_is_kept_cannot_be_changed(old: Gateway, statement: str) -> None:
    remove(old)

    with pytest.raises(psycopg.DatabaseError):
        old.execute(statement)


def test_who_waits_for_the_row_that_is_being_removed_finds_its_key(old: Gateway) -> None:
    """The unique index lets the second row in once the first is gone: the wall must see the key."""
    (row,) = old.rows("SELECT * FROM transactions WHERE phone = %s", SILENT)
    names = [it for it in row if it not in ("id", "metadata", "receipt", "checkout_request_id")]
    columns, marks = ", ".join(names), ", ".join(["%s"] * len(names))
    row["internal_transaction_id"] = uuid.uuid4()
    old.execute("ALTER TABLE transaction_events DETACH PARTITION transaction_events_2030_01")
    with old.pool.transaction("test") as conn:
        for table in months.TABLES:
            removal.free(conn, table, JANUARY)
    failed: list[Exception] = []

    def insert() -> None:
        with psycopg.connect(old.database_url) as other:
            try:
                other.execute(
                    f"INSERT INTO transactions ({columns}) VALUES ({marks})".encode(),
                    [row[name] for name in names],
                )
            except psycopg.Error as error:
                failed.append(error)

    thread = threading.Thread(target=insert)
    with old.pool.transaction("test") as conn:
        assert removal.remove_batch(conn, JANUARY, after=0, despite=False)[1] == 2
        thread.start()
        wait_for(
            lambda: bool(
                old.rows(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO transactions%%'"
                )
            )
        )
    thread.join()

    assert [type(it) for it in failed] == [psycopg.errors.UniqueViolation]
