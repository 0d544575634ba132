"""Old bodies and tries go in bounded batches, once their payment is over; nothing else goes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.history import write_history
from harness.settings import API_KEY
from mpesa_gateway import failpoint
from mpesa_gateway.store.retention import BATCH
from mpesa_gateway.usecases.retention import REST, Retention

SILENT = "254712344042"
NINETY_DAYS = timedelta(days=90)
WEBHOOK_WAITS = (
    "UPDATE deliveries SET state = 'PENDING', finished_at = NULL,"
    " next_attempt_at = now() + interval '100 years'"
)
CONFLICT_OPEN = (
    "INSERT INTO conflicts (transaction_id, kind, opened_at)"
    " SELECT id, 'paid_after_failed', now() FROM transactions"
)
QUARANTINED = "UPDATE callbacks SET state = 'QUARANTINED'"


@pytest.fixture
def retention(gateway: Gateway) -> Retention:
    """Ninety days of each."""
    return replace(gateway.services.retention, callback_bodies=NINETY_DAYS, attempts=NINETY_DAYS)


def run_pass(gateway: Gateway, retention: Retention) -> int:
    """Batches until one takes nothing; how many rows went."""
    total = 0
    while removed := retention.run():
        total += removed
        gateway.clock.advance(seconds=2)
    gateway.clock.advance(seconds=2)
    return total + retention.run()


def kept(gateway: Gateway) -> tuple[int, int]:
    """Bodies and tries that are still there."""
    (row,) = gateway.rows(
        "SELECT (SELECT count(*) FROM callbacks WHERE octet_length(body) > 0) AS bodies,"
        " (SELECT count(*) FROM webhook_attempts) AS attempts"
    )
    return row["bodies"], row["attempts"]


def fail_one(gateway: Gateway, phone: str = SILENT) -> bytes:
    gateway.pay(phone)
    body = callback_body(gateway.checkout_request_id(phone), code=1032)
    gateway.post(gateway.callback_path(phone), body)
    gateway.work()
    return body


def test_nothing_goes_unless_it_is_asked_for(gateway: Gateway) -> None:
    fail_one(gateway)
    gateway.clock.advance(days=4000)

    assert gateway.services.retention.run() == 0
    assert kept(gateway) == (1, 1)
    assert gateway.rows("SELECT FROM retention_passes") == []


def test_what_is_young_stays_and_what_is_old_goes(gateway: Gateway, retention: Retention) -> None:
    fail_one(gateway)
    gateway.clock.advance(days=89)
    assert run_pass(gateway, retention) == 0
    assert kept(gateway) == (1, 1)
    gateway.clock.advance(days=2)
    assert run_pass(gateway, retention) == 2
    assert kept(gateway) == (0, 0)
    (row,) = gateway.rows("SELECT body, headers, body_removed_at, state, outcome FROM callbacks")

    assert (row["body"], row["headers"], row["state"]) == (b"", {}, "APPLIED")
    assert row["body_removed_at"] is not None
    assert gateway.rows("SELECT status FROM transactions") == [{"status": "FAILED"}]
    assert gateway.rows("SELECT count(*) AS n FROM transaction_events")[0]["n"] >= 3


def test_a_copy_that_comes_after_its_body_went_is_still_a_copy(
    gateway: Gateway, retention: Retention
) -> None:
    body = fail_one(gateway)
    gateway.clock.advance(days=91)
    run_pass(gateway, retention)
    gateway.post(gateway.callback_path(SILENT), body)
    gateway.work()

    (row,) = gateway.rows("SELECT copies, body FROM callbacks")
    assert row == {"copies": 2, "body": b""}
    assert gateway.rows("SELECT FROM conflicts") == []


def test_a_webhook_sent_again_goes_on_counting_its_tries(
    gateway: Gateway, retention: Retention
) -> None:
    fail_one(gateway)
    gateway.clock.advance(days=91)
    run_pass(gateway, retention)
    (row,) = gateway.rows("SELECT internal_transaction_id AS id FROM transactions")
    gateway.session.post(
        f"{gateway.url}/transactions/{row['id']}/redeliver",
        headers={"X-Internal-Secret": API_KEY},
        timeout=10,
    ).raise_for_status()
    gateway.work()

    numbers = gateway.rows("SELECT attempt_number FROM webhook_attempts")
    assert numbers == [{"attempt_number": 2}]
    first, second = gateway.receiver.requests
    assert (first.webhook_id, first.body) == (second.webhook_id, second.body)


@pytest.mark.parametrize(
    ("hold", "bodies", "attempts"),
    [(WEBHOOK_WAITS, 1, 1), (CONFLICT_OPEN, 1, 0), (QUARANTINED, 1, 0)],
    ids=["webhook waits", "conflict open", "quarantined"],
)
def test_what_somebody_may_need_stays_until_a_later_pass(
    gateway: Gateway, retention: Retention, hold: str, bodies: int, attempts: int
) -> None:
    fail_one(gateway)
    gateway.execute(hold)
    gateway.clock.advance(days=91)
    run_pass(gateway, retention)
    assert kept(gateway) == (bodies, attempts)
    gateway.execute(
        "UPDATE deliveries SET state = 'DELIVERED', finished_at = now(), next_attempt_at = NULL"
    )
    gateway.execute("UPDATE conflicts SET closed_at = now(), closed_by = 'w', closing_note = 'x'")
    gateway.execute("UPDATE callbacks SET state = 'APPLIED'")
    gateway.clock.advance(seconds=REST.total_seconds())
    run_pass(gateway, retention)

    assert kept(gateway) == (0, 0)


def test_batches_are_bounded_and_two_workers_share_a_pass(
    gateway: Gateway, retention: Retention
) -> None:
    write_history(gateway.database_url, 2 * BATCH + 10)
    only_bodies = replace(retention, attempts=timedelta(0))
    other = replace(only_bodies)

    assert only_bodies.run() == BATCH
    assert other.run() == 0, "the pause between batches is the cluster's"
    gateway.clock.advance(seconds=2)
    assert other.run() == BATCH
    gateway.clock.advance(seconds=2)
    assert only_bodies.run() == 10
    assert run_pass(gateway, only_bodies) == 0
    (row,) = gateway.rows("SELECT position, next_at > %s AS rests FROM retention_passes",
                          gateway.clock())  # fmt: skip
    assert row == {"position": 0, "rests": True}
    assert kept(gateway) == (0, 2 * BATCH + 10)


def test_a_death_before_the_commit_costs_nothing(gateway: Gateway, retention: Retention) -> None:
    fail_one(gateway)
    gateway.clock.advance(days=91)

    def die(name: str) -> None:
        if name == "retention.batch.before_commit":
            raise KeyboardInterrupt

    failpoint.arm(die)
    try:
        with pytest.raises(KeyboardInterrupt):
            retention.run()
    finally:
        failpoint.arm(None)
    assert kept(gateway) == (1, 1)
    run_pass(gateway, retention)
    assert kept(gateway) == (0, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE callbacks SET body = 'another'",
        "UPDATE callbacks SET body = ''",
        "UPDATE callbacks SET body = 'another', body_removed_at = now()",
        "UPDATE callbacks SET body_sha256 = sha256('another')",
    ],
)
def test_a_body_cannot_change_in_another_way(gateway: Gateway, statement: str) -> None:
    fail_one(gateway)

    with pytest.raises(psycopg.DatabaseError, match="its body cannot change"):
        gateway.execute(statement)


def test_a_try_of_a_webhook_that_waits_cannot_be_deleted(gateway: Gateway) -> None:
    write_history(gateway.database_url, 1, state="PENDING", attempts=2)

    with pytest.raises(psycopg.DatabaseError, match="has not ended"):
        gateway.execute("DELETE FROM webhook_attempts")
