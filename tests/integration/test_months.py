"""Each month's rows have partitions of their own, which are made ahead."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.settling import SILENT
from mpesa_gateway.domain.months import Month, month_of, month_of_row, parse_month
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.exporters.backlog import BacklogExporter
from mpesa_gateway.store import months
from mpesa_gateway.usecases.months import AHEAD, Months

PARTITIONED = [it.name for it in months.TABLES]
NOON = datetime(2030, 5, 31, 12, tzinfo=UTC)
MAY, JUNE = parse_month("2030-05"), parse_month("2030-06")


class Calendar:
    """A clock that stands where the test puts it."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def calendar() -> Calendar:
    return Calendar(NOON)


@pytest.fixture
def keeper(gateway: Gateway, calendar: Calendar) -> Months:
    return Months(gateway.pool, calendar, "worker 1")


def pay(gateway: Gateway, phone: str = SILENT) -> int:
    """The row of a payment that has ended."""
    gateway.pay(phone)
    body = callback_body(gateway.checkout_request_id(phone), code=1032)
    gateway.post(gateway.callback_path(phone), body)
    gateway.work()
    row: int = gateway.rows("SELECT max(id) AS id FROM transactions")[0]["id"]
    return row


def homes(gateway: Gateway, row: int) -> set[str]:
    """The tables that hold the rows of a payment in the partitioned tables."""
    return {
        found["home"]
        for name in PARTITIONED
        for found in gateway.rows(
            f"SELECT tableoid::regclass::text AS home FROM {name} WHERE transaction_id = %s", row
        )
    }


def attached(gateway: Gateway) -> list[Month]:
    with gateway.pool.connection("test") as conn:
        return months.list_months(conn)


def test_before_months_are_counted_all_rows_are_in_the_first_partition(gateway: Gateway) -> None:
    assert homes(gateway, pay(gateway)) == {f"{name}_first" for name in PARTITIONED}


def test_a_month_has_its_partitions_and_its_numbers(gateway: Gateway, keeper: Months) -> None:
    keeper.keep_up()
    assert set(attached(gateway)) >= set(MAY.next(1 + AHEAD))

    row = pay(gateway)
    assert row == MAY.begins
    assert homes(gateway, row) == {f"{name}_2030_05" for name in PARTITIONED}


def test_the_next_month_begins_when_somebody_looks(
    gateway: Gateway, keeper: Months, calendar: Calendar
) -> None:
    keeper.keep_up()
    first = pay(gateway)
    calendar.at = NOON + timedelta(hours=12)
    late = pay(gateway)
    keeper.keep_up()
    next_ = pay(gateway)
    keeper.keep_up()

    assert [month_of_row(it) for it in (first, late, next_)] == [MAY, MAY, JUNE]
    assert pay(gateway) == next_ + 1, "a look changes nothing where nothing is to be done"


def test_a_clock_that_goes_back_gives_no_number_twice(
    gateway: Gateway, keeper: Months, calendar: Calendar
) -> None:
    calendar.at = NOON + timedelta(days=1)
    keeper.keep_up()
    row = pay(gateway)
    calendar.at = NOON
    keeper.keep_up()

    assert pay(gateway) == row + 1


def test_workers_that_look_at_once_give_no_number_twice(
    gateway: Gateway, calendar: Calendar
) -> None:
    """While payments start: each has a number of its own, or it could not be written.

    Time flies, so that each of them is elected again and again, in the middle of another's work.
    """
    stopping, failed = threading.Event(), list[BaseException]()

    def look(number: int) -> None:
        keeper = Months(gateway.pool, calendar, f"worker {number}")
        try:
            while not stopping.is_set():
                with contextlib.suppress(UnavailableError):
                    keeper.keep_up()
                calendar.at += timedelta(minutes=2)
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=look, args=[it]) for it in range(4)]
    for thread in threads:
        thread.start()
    answers = [gateway.initiate(f"2547{it:08d}").status_code for it in range(60)]
    stopping.set()
    for thread in threads:
        thread.join()

    assert failed == []
    assert set(answers) == {201}


def test_what_dies_between_two_steps_is_taken_up_again(gateway: Gateway, keeper: Months) -> None:
    table = months.TABLES[0]
    with gateway.pool.transaction("test") as conn:
        months.create(conn, table, MAY)
    assert MAY not in attached(gateway)
    keeper.keep_up()

    assert MAY in attached(gateway)


def test_while_a_month_cannot_be_made_payments_go_on_in_the_one_before(
    gateway: Gateway, keeper: Months
) -> None:
    """Somebody reads the default partition for long, which attaching must wait for."""
    with psycopg.connect(gateway.database_url) as reader:
        reader.execute(f"SELECT count(*) FROM {PARTITIONED[0]}_default".encode())
        with pytest.raises(UnavailableError):
            keeper.keep_up()
        keeper.refresh()
        assert homes(gateway, pay(gateway)) == {f"{name}_first" for name in PARTITIONED}
    keeper.keep_up()

    assert month_of_row(pay(gateway)) == MAY


def test_a_number_of_no_month_is_taken_by_the_default_partition(gateway: Gateway) -> None:
    far = Month(5000)
    with gateway.pool.connection("test") as conn:
        months.count_from(conn, far)

    assert homes(gateway, pay(gateway)) == {f"{name}_default" for name in PARTITIONED}


def test_every_partition_has_the_walls_of_its_table(gateway: Gateway, keeper: Months) -> None:
    keeper.keep_up()
    found = gateway.rows(
        "SELECT c.relname AS name,"
        " (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f'"
        "   AND k.convalidated) AS foreign_keys,"
        " (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'"
        "   AND k.convalidated AND k.coninhcount > 0) AS checks,"
        " (SELECT count(*) FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal"
        "   AND g.tgenabled = 'O') AS triggers"
        " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'transaction_events'::regclass"
    )

    assert len(found) >= 3 + AHEAD
    assert {(it["foreign_keys"], it["checks"], it["triggers"]) for it in found} == {(1, 1, 1)}


@pytest.mark.parametrize(
    "statement", ["UPDATE {table} SET kind = 'x'", "DELETE FROM {table}"], ids=["update", "delete"]
)
@pytest.mark.parametrize("table", ["transaction_events", "transaction_events_2030_05"])
def test_events_of_a_month_are_append_only(
    gateway: Gateway, keeper: Months, table: str, statement: str
) -> None:
    keeper.keep_up()
    pay(gateway)

    with pytest.raises(psycopg.DatabaseError, match="append-only"):
        gateway.execute(statement.format(table=table))


def test_an_event_of_nobody_cannot_be_written(gateway: Gateway, keeper: Months) -> None:
    keeper.keep_up()

    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        gateway.execute(
            "INSERT INTO transaction_events (transaction_id, at, source, kind)"
            " VALUES (%s, now(), 'push', 'x')",
            MAY.begins + 7,
        )


def test_how_many_months_are_ready_is_exported(
    gateway: Gateway, keeper: Months, calendar: Calendar
) -> None:
    exporter = BacklogExporter(gateway.pool, calendar)

    def exported() -> float:
        exporter.refresh()
        metrics = {it.name: it.samples[0].value for it in exporter.collect()}
        return metrics["mpesa_partition_months"]

    assert exported() == 0
    keeper.keep_up()
    assert exported() == 1 + AHEAD
    calendar.at += timedelta(days=92)
    assert exported() == 1
    calendar.at += timedelta(days=31)
    assert exported() == 0


def test_before_2026_nothing_is_counted(gateway: Gateway) -> None:
    before = attached(gateway)
    Months(gateway.pool, lambda: datetime(2025, 12, 31, tzinfo=UTC), "worker").keep_up()

    assert attached(gateway) == before
    assert month_of(datetime(2025, 12, 31, tzinfo=UTC)) == Month(0)


def test_who_is_not_elected_leaves_the_work_to_who_is(gateway: Gateway, keeper: Months) -> None:
    keeper.keep_up()
    other = replace(keeper, holder="worker 2", clock=lambda: NOON + timedelta(seconds=10))
    with gateway.pool.transaction("test") as conn:
        conn.execute("ALTER TABLE transaction_events DETACH PARTITION transaction_events_2030_08")
    other.keep_up()
    assert attached(gateway)[-1] == JUNE.next(2)[1]
    replace(other, clock=lambda: NOON + timedelta(seconds=70)).keep_up()

    assert attached(gateway)[-1] == JUNE.next(3)[2]
