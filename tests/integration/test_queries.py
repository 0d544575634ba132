"""Asking Safaricom after silent transactions: when, how often, and what is believed."""

from __future__ import annotations

import json
from datetime import timedelta

from daraja_simulator.server import RunningSimulator
from harness.bodies import callback_body
from harness.gateway import Gateway, open_gateway
from harness.receiver import Receiver

PAID = "254712344040"
CANCELLED = "254712344041"
SILENT = "254712344042"
EVENTS = (
    "SELECT source, kind FROM transaction_events e JOIN transactions t ON t.id = e.transaction_id"
    " WHERE t.internal_transaction_id = %s ORDER BY e.id"
)


def queries(gateway: Gateway) -> int:
    return len(gateway.simulator.ledger()["queries"])


def wait_and_sweep(gateway: Gateway, **duration: float) -> None:
    gateway.clock.advance(**duration)
    gateway.sweep()


def test_nobody_asks_before_a_minute_of_silence(gateway: Gateway) -> None:
    gateway.pay(PAID)
    wait_and_sweep(gateway, seconds=59)

    assert queries(gateway) == 0


def test_a_success_is_believed_at_once_when_the_prompt_is_over(gateway: Gateway) -> None:
    transaction_id = gateway.pay(PAID)
    wait_and_sweep(gateway, seconds=91)

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert view["settled_by"] == "query"
    assert view["receipt"] is None
    assert view["metadata"] is None
    (webhook,) = gateway.receiver.requests
    assert json.loads(webhook.body)["type"] == "transaction.completed"


def test_a_failure_is_believed_when_a_later_answer_is_equal(gateway: Gateway) -> None:
    transaction_id = gateway.pay(CANCELLED)
    wait_and_sweep(gateway, seconds=61)
    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    wait_and_sweep(gateway, seconds=60)
    assert queries(gateway) == 1  # the schedule's second wait is two minutes
    wait_and_sweep(gateway, seconds=61)

    view = gateway.transaction(transaction_id)
    assert queries(gateway) == 2
    assert view["status"] == "FAILED"
    assert view["failure"] == {"code": "1032", "reason": "cancelled"}
    assert view["settled_by"] == "query"
    # What Safaricom said and what it ended are told apart: a payment has one end.
    steps = [(it["source"], it["kind"]) for it in gateway.rows(EVENTS, transaction_id)]
    assert steps == [
        ("caller", "requested"),
        ("push", "accepted"),
        ("query", "said_failed"),
        ("query", "said_failed"),
        ("query", "failed"),
    ]


def test_still_processing_takes_a_failure_back(gateway: Gateway) -> None:
    transaction_id = gateway.pay(CANCELLED)
    wait_and_sweep(gateway, seconds=61)
    gateway.next_query(
        status=200,
        body={"ResponseCode": "0", "ResultCode": "4999", "ResultDesc": "still under processing"},
    )
    wait_and_sweep(gateway, minutes=3)
    wait_and_sweep(gateway, minutes=5)
    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    wait_and_sweep(gateway, minutes=9)

    assert gateway.transaction(transaction_id)["status"] == "FAILED"


def test_a_callback_overrules_a_failure_that_one_query_reported(gateway: Gateway) -> None:
    transaction_id = gateway.pay(CANCELLED)
    wait_and_sweep(gateway, seconds=61)
    body = callback_body(gateway.checkout_request_id(CANCELLED))
    gateway.post(gateway.callback_path(CANCELLED), body)
    gateway.work()

    assert gateway.transaction(transaction_id)["status"] == "COMPLETED"


def test_the_schedule_is_followed_to_its_end_and_then_a_person_is_asked(gateway: Gateway) -> None:
    transaction_id = gateway.pay(SILENT)
    started = gateway.clock()
    waits: list[int] = []
    while (due := gateway.rows("SELECT next_query_at FROM transactions")[0]["next_query_at"]) and (
        len(waits) < 100
    ):
        before, asked = gateway.clock(), queries(gateway)
        wait_and_sweep(gateway, seconds=(due - before).total_seconds() + 0.1)
        assert queries(gateway) == asked + 1
        waits.append(round((due - before).total_seconds() / 60))

    assert waits[:7] == [1, 2, 4, 8, 15, 30, 60]
    assert set(waits[7:]) == {60}
    assert timedelta(hours=23) < gateway.clock() - started <= timedelta(hours=24, minutes=1)
    view = gateway.transaction(transaction_id)
    assert view["status"] == "PENDING"
    assert "24 hours" in view["attention"]
    assert view["next_step"] == {"action": "person", "at": None}


def test_a_push_that_was_never_answered_asks_for_a_person_after_five_minutes(
    gateway: Gateway,
) -> None:
    gateway.next_push(outcome="no_callback_unknown", answer={"status": 200, "body": "nonsense"})
    transaction_id = gateway.pay("254712345555")
    view = gateway.transaction(transaction_id)
    assert view["push"] == "UNKNOWN"
    assert view["next_step"]["action"] == "query"
    wait_and_sweep(gateway, minutes=4)
    assert gateway.transaction(transaction_id)["attention"] is None
    wait_and_sweep(gateway, minutes=2)

    assert "never answered" in gateway.transaction(transaction_id)["attention"]
    assert queries(gateway) == 0


def test_no_query_is_made_while_a_callback_waits_to_be_applied(gateway: Gateway) -> None:
    gateway.pay(SILENT)
    body = callback_body(gateway.checkout_request_id(SILENT))
    gateway.post(gateway.callback_path(SILENT), body)
    (work,) = gateway.rows("SELECT id FROM transactions")
    gateway.clock.advance(seconds=61)
    effects = gateway.services.queries.ask(work["id"])

    assert effects.work == []
    assert queries(gateway) == 0


def test_slow_down_is_obeyed_without_using_up_the_schedule(gateway: Gateway) -> None:
    transaction_id = gateway.pay(PAID)
    gateway.next_query(status=429, body={"fault": {"faultstring": "Spike arrest violation"}})
    wait_and_sweep(gateway, seconds=61)
    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    wait_and_sweep(gateway, seconds=59)
    assert queries(gateway) == 1
    wait_and_sweep(gateway, seconds=2)

    assert gateway.transaction(transaction_id)["status"] == "COMPLETED"
    (row,) = gateway.rows("SELECT queries_made FROM transactions")
    assert row["queries_made"] == 0


def test_a_refused_token_is_renewed_once_and_the_query_repeated(gateway: Gateway) -> None:
    transaction_id = gateway.pay(PAID)
    gateway.session.post(f"{gateway.simulator.url}/expire-tokens", timeout=10)
    wait_and_sweep(gateway, seconds=91)

    assert gateway.transaction(transaction_id)["status"] == "COMPLETED"
    assert len(gateway.simulator.ledger()["tokens"]) == 2


def test_the_budget_is_one_for_all_and_what_waits_is_asked_later(
    database_url: str, redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    with open_gateway(
        database_url, redis_url, simulator, receiver, safaricom_query_per_minute="5"
    ) as gateway:
        for number in range(4):
            gateway.pay(f"2547123{number}4040")
        wait_and_sweep(gateway, seconds=91)

        # One call may go at once; the next one twelve seconds later.
        assert queries(gateway) == 1
        statuses = gateway.rows("SELECT status, count(*) FROM transactions GROUP BY status")
        assert {row["status"]: row["count"] for row in statuses} == {"COMPLETED": 1, "PENDING": 3}
        due = gateway.rows("SELECT next_query_at FROM transactions WHERE status = 'PENDING'")
        assert all(row["next_query_at"] > gateway.clock() for row in due)


def test_a_claim_that_ran_out_does_not_settle(gateway: Gateway) -> None:
    """Two workers ask; the slower one finds that its claim has passed to the other."""
    transaction_id = gateway.pay(CANCELLED)
    gateway.clock.advance(seconds=61)
    (row,) = gateway.rows("SELECT id FROM transactions")
    asking = gateway.services.queries
    slow = asking._claim(row["id"])
    assert slow is not None
    gateway.clock.advance(seconds=16)
    assert asking._claim(row["id"]) is not None
    outcome = asking._query(gateway.services.merchants.current().by_name["default"], slow.asked)
    asking._record(slow, outcome)

    assert gateway.transaction(transaction_id)["status"] == "PENDING"
    (after,) = gateway.rows("SELECT queries_made, provisional_code FROM transactions")
    assert after == {"queries_made": 0, "provisional_code": None}


def test_a_transaction_of_a_merchant_that_is_away_waits(gateway: Gateway) -> None:
    gateway.pay(PAID)
    gateway.execute("ALTER TABLE transactions DISABLE TRIGGER guard_transaction")
    gateway.execute("UPDATE transactions SET merchant = 'shop/gone'")
    wait_and_sweep(gateway, seconds=61)

    assert queries(gateway) == 0
    (row,) = gateway.rows("SELECT status, next_query_at FROM transactions")
    assert row["status"] == "PENDING"
    assert row["next_query_at"] > gateway.clock()


def test_two_failures_against_an_unproven_success_ask_for_a_person(gateway: Gateway) -> None:
    transaction_id = gateway.pay(CANCELLED)
    body = callback_body(gateway.checkout_request_id(CANCELLED), amount=None)
    gateway.post(gateway.callback_path(CANCELLED), body)
    gateway.work()
    for _ in range(3):
        wait_and_sweep(gateway, minutes=5)

    view = gateway.transaction(transaction_id)
    assert view["status"] == "PENDING"
    assert "later as failed" in view["attention"]
    assert gateway.rows("SELECT query_lease_until AS lease FROM transactions") == [{"lease": None}]


def test_a_callback_that_casts_doubt_while_safaricom_is_asked_has_the_last_word(
    gateway: Gateway,
) -> None:
    transaction_id = gateway.pay(PAID)
    gateway.clock.advance(seconds=61)
    (row,) = gateway.rows("SELECT id FROM transactions")
    asking = gateway.services.queries
    claimed = asking._claim(row["id"])
    assert claimed is not None
    body = callback_body(gateway.checkout_request_id(PAID), amount=11)
    gateway.post(gateway.callback_path(PAID), body)
    gateway.work()
    merchant = gateway.services.merchants.current().by_name["default"]
    asking._record(claimed, asking._query(merchant, claimed.asked))

    view = gateway.transaction(transaction_id)
    assert view["status"] == "PENDING"
    assert "another amount" in view["attention"]
    assert gateway.rows("SELECT query_lease_until AS lease FROM transactions") == [{"lease": None}]
