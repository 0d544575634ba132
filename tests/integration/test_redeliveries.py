"""Orders to send many webhooks again: what they choose, in which batches, and how they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from harness.gateway import Gateway
from harness.history import write_history
from mpesa_gateway import failpoint
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.store.redeliveries import NewRedelivery
from mpesa_gateway.usecases import redeliveries
from mpesa_gateway.usecases.redeliveries import (
    MOST_DUE,
    NOT_DELIVERED,
    WINDOW,
    list_redeliveries,
    order_redelivery,
    read_redelivery,
)

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def order(gateway: Gateway, **changes: object) -> int:
    values = {
        "merchant": "default",
        "since": NOON - timedelta(minutes=1),
        "until": NOON + timedelta(hours=3),
        "states": NOT_DELIVERED,
        "requested_by": "wanjiru",
        **changes,
    }
    wanted = NewRedelivery(**values)  # type: ignore[arg-type]
    return order_redelivery(gateway.pool, wanted, gateway.clock()).id


def turn(gateway: Gateway, redelivery_id: int) -> None:
    """All turns of it, as long as it asks for another."""
    while gateway.services.redeliveries.advance(redelivery_id):
        pass


def states(gateway: Gateway, merchant: str = "default") -> dict[str, int]:
    found = gateway.rows(
        "SELECT state, count(*) AS n FROM deliveries WHERE merchant = %s GROUP BY 1", merchant
    )
    return {row["state"]: row["n"] for row in found}


def test_everything_that_is_not_delivered_is_chosen_and_nothing_else(gateway: Gateway) -> None:
    for number, (state, merchant) in enumerate(
        [
            ("EXHAUSTED", "default"),
            ("GONE", "default"),
            ("PENDING", "default"),
            ("DELIVERED", "default"),
            ("EXHAUSTED", "shops/other"),
        ]
    ):
        write_history(
            gateway.database_url, 3, first=1 + 10 * number, at=f"2026-01-31 12:0{number}:00+00",
            state=state, merchant=merchant, attempts=0 if state == "PENDING" else 1,
        )  # fmt: skip
    redelivery = order(gateway)
    turn(gateway, redelivery)
    view = read_redelivery(gateway.pool, redelivery)

    assert (view["chosen"], view["looked_at"], view["done"]) == (9, 1.0, False)
    assert states(gateway) == {"PENDING": 9, "DELIVERED": 3}
    assert states(gateway, "shops/other") == {"EXHAUSTED": 3}
    due = gateway.rows(
        "SELECT count(*) AS n FROM deliveries WHERE next_attempt_at <= %s", gateway.clock()
    )
    assert due == [{"n": 9}], "what was never tried is due too"
    events = gateway.rows("SELECT source, detail FROM transaction_events WHERE kind = 'redelivery'")
    assert len(events) == 9
    assert events[0] == {
        "source": "person",
        "detail": {"redelivery": redelivery, "by": "wanjiru"},
    }
    assert list_redeliveries(gateway.pool, 5)["items"] == [view]


def test_time_and_state_narrow_the_choice(gateway: Gateway) -> None:
    for hour in range(4):
        write_history(
            gateway.database_url, 2, first=1 + 10 * hour, at=f"2026-01-31 1{hour}:00:00+00"
        )
    since = NOON - timedelta(hours=1)
    delivered = order(
        gateway, since=since, until=NOON + timedelta(minutes=30), states=("DELIVERED",)
    )
    turn(gateway, delivered)

    assert read_redelivery(gateway.pool, delivered)["chosen"] == 4
    assert states(gateway) == {"PENDING": 4, "DELIVERED": 4}


def test_there_is_no_cap_and_no_flood(gateway: Gateway) -> None:
    """A batch is bounded, and none is offered while many are due already."""
    many = MOST_DUE + 3 * WINDOW
    write_history(gateway.database_url, many, state="EXHAUSTED")
    redelivery = order(gateway)
    turn(gateway, redelivery)
    assert states(gateway)["PENDING"] == MOST_DUE
    assert 0 < read_redelivery(gateway.pool, redelivery)["looked_at"] < 1
    gateway.execute(
        "UPDATE deliveries SET state = 'DELIVERED', next_attempt_at = NULL, finished_at = now()"
        " WHERE state = 'PENDING'"
    )
    turn(gateway, redelivery)

    assert read_redelivery(gateway.pool, redelivery)["chosen"] == many
    assert states(gateway) == {"PENDING": 3 * WINDOW, "DELIVERED": MOST_DUE}


def test_one_that_is_being_tried_is_left_to_its_try(gateway: Gateway) -> None:
    write_history(gateway.database_url, 1, state="PENDING", attempts=1)
    gateway.execute(
        "UPDATE deliveries SET lease_until = %s", gateway.clock() + timedelta(seconds=10)
    )
    redelivery = order(gateway)
    turn(gateway, redelivery)

    assert read_redelivery(gateway.pool, redelivery)["chosen"] == 1
    (row,) = gateway.rows("SELECT failures, next_attempt_at > now() AS later FROM deliveries")
    assert row == {"failures": 1, "later": True}


def test_the_sweeper_finds_an_order_and_the_webhooks_arrive(gateway: Gateway) -> None:
    write_history(gateway.database_url, 5, state="EXHAUSTED", webhook_url=gateway.receiver.url)
    redelivery = order(gateway)
    gateway.sweep()
    gateway.clock.advance(seconds=2)
    gateway.sweep()

    view = read_redelivery(gateway.pool, redelivery)
    assert (view["done"], view["now"]["DELIVERED"]) == (True, 5)
    assert len({it.webhook_id for it in gateway.receiver.requests}) == 5
    numbers = gateway.rows("SELECT max(attempt_number) AS n FROM webhook_attempts")
    assert numbers == [{"n": 2}], "the numbers of the tries go on"


def test_a_parked_endpoint_is_felt_at_once(gateway: Gateway) -> None:
    write_history(gateway.database_url, 3, state="EXHAUSTED", webhook_url=gateway.receiver.url)
    gateway.execute(
        "INSERT INTO failing_endpoints SELECT DISTINCT merchant, origin, 12, now(), %s::timestamptz"
        " FROM deliveries",
        gateway.clock() + timedelta(minutes=15),
    )
    redelivery = order(gateway)
    gateway.clock.advance(seconds=2)
    for _ in range(3):
        gateway.sweep()

    assert read_redelivery(gateway.pool, redelivery)["now"]["DELIVERED"] == 3
    assert gateway.rows("SELECT FROM failing_endpoints") == []


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_a_death_around_a_commit_costs_time_only(gateway: Gateway, point: str) -> None:
    write_history(gateway.database_url, 2 * WINDOW, state="EXHAUSTED")
    redelivery = order(gateway)

    def die(name: str) -> None:
        if name == f"redelivery.advance.{point}":
            raise KeyboardInterrupt

    failpoint.arm(die)
    try:
        with pytest.raises(KeyboardInterrupt):
            gateway.services.redeliveries.advance(redelivery)
    finally:
        failpoint.arm(None)
    assert states(gateway).get("PENDING", 0) == (0 if point == "before_commit" else WINDOW)
    turn(gateway, redelivery)

    assert read_redelivery(gateway.pool, redelivery)["chosen"] == 2 * WINDOW
    events = gateway.rows("SELECT count(*) AS n FROM transaction_events WHERE kind = 'redelivery'")
    assert events == [{"n": 2 * WINDOW}]


def test_an_order_of_nothing_is_done_at_once(gateway: Gateway) -> None:
    gateway.pay()
    redelivery = order(gateway)
    assert gateway.services.redeliveries.advance(redelivery) == []
    assert read_redelivery(gateway.pool, redelivery)["done"]
    assert gateway.services.redeliveries.advance(redelivery) == []
    with pytest.raises(NotFoundError):
        read_redelivery(gateway.pool, redelivery + 1)


def test_a_rare_merchant_is_found_among_many_in_few_turns(gateway: Gateway) -> None:
    write_history(gateway.database_url, 4 * WINDOW)
    write_history(
        gateway.database_url, 2, first=900_001, at="2026-01-31 13:00:00+00", merchant="shops/rare",
        state="EXHAUSTED",
    )  # fmt: skip
    redelivery = order(gateway, merchant="shops/rare")

    assert gateway.services.redeliveries.advance(redelivery) == []
    assert read_redelivery(gateway.pool, redelivery)["chosen"] == 2
    assert redeliveries.WINDOWS_OF_A_TURN > 4


def test_another_turn_is_work_for_anybody(gateway: Gateway) -> None:
    write_history(gateway.database_url, 2 * WINDOW, state="EXHAUSTED")
    redelivery = order(gateway)

    assert gateway.services.redeliveries.advance(redelivery) == [
        Work(WorkKind.REDELIVERY, redelivery)
    ]
