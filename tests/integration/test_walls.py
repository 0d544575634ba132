"""The database's own walls: what no code and no person can do to a payment."""

from __future__ import annotations

import psycopg
import pytest

from harness.bodies import callback_body
from harness.gateway import Gateway

SILENT = "254712344042"


@pytest.fixture
def completed(gateway: Gateway) -> Gateway:
    """A gateway with one completed transaction."""
    gateway.pay(SILENT)
    gateway.post(gateway.callback_path(SILENT), callback_body(gateway.checkout_request_id(SILENT)))
    gateway.work()
    assert gateway.rows("SELECT status FROM transactions") == [{"status": "COMPLETED"}]
    return gateway


@pytest.mark.parametrize(
    "change",
    [
        "status = 'FAILED', failure_reason = 'x'",
        "status = 'PENDING', finished_at = NULL, settled_by = NULL",
        "finished_at = now()",
        "result_code = '1032'",
        "settled_by = 'query'",
        "amount = 11",
        "phone = '254700000000'",
        "merchant = 'other'",
        "idempotency_key = gen_random_uuid()",
        "internal_transaction_id = gen_random_uuid()",
        "created_at = now()",
        "receipt = 'OTHER'",
        "receipt = NULL",
        "checkout_request_id = 'other'",
        "checkout_request_id = NULL",
    ],
)
def test_what_is_final_stays(completed: Gateway, change: str) -> None:
    with pytest.raises(psycopg.DatabaseError):
        completed.execute(f"UPDATE transactions SET {change}")


@pytest.mark.parametrize(
    "change",
    [
        "status = 'COMPLETED'",
        "status = 'FAILED', finished_at = now(), settled_by = 'callback'",
        "finished_at = now()",
        "receipt = 'ABC'",
        "status = 'DONE'",
        "amount = 0",
        "push_state = 'REFUSED', status = 'COMPLETED', finished_at = now(), settled_by = 'push'",
    ],
)
def test_no_half_end_is_possible(gateway: Gateway, change: str) -> None:
    gateway.pay(SILENT)

    with pytest.raises(psycopg.DatabaseError):
        gateway.execute(f"UPDATE transactions SET {change}")


def test_a_fraction_of_a_shilling_cannot_be_stored(gateway: Gateway) -> None:
    gateway.pay(SILENT)
    gateway.execute("ALTER TABLE transactions DISABLE TRIGGER guard_transaction")

    with pytest.raises(psycopg.errors.CheckViolation):
        gateway.execute("UPDATE transactions SET amount = 10.5")


@pytest.mark.parametrize(
    "statement",
    ["UPDATE transaction_events SET kind = 'x'", "DELETE FROM transaction_events"],
)
def test_events_are_append_only(completed: Gateway, statement: str) -> None:
    with pytest.raises(psycopg.DatabaseError, match="append-only"):
        completed.execute(statement)


def test_a_second_webhook_of_the_same_end_cannot_be_written(completed: Gateway) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        completed.execute(
            "INSERT INTO deliveries (webhook_id, transaction_id, merchant, type, url, origin,"
            " body, next_attempt_at, created_at) SELECT 'msg_other', transaction_id, merchant,"
            " 'transaction.failed', url, origin, body, now(), now() FROM deliveries"
        )
