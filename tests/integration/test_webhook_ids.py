"""One id for each distinct webhook, the same when a restored database makes it be written anew."""

from __future__ import annotations

from harness.bodies import callback_body
from harness.callbacks import paid_silently
from harness.gateway import Gateway

PHONE = "254712344042"


def end(gateway: Gateway, path: str, *bodies: bytes) -> list[tuple[str, str]]:
    """Apply callbacks one after the other; type and id of each webhook that follows."""
    for body in bodies:
        assert gateway.post(path, body).ok
        gateway.work()
    rows = gateway.rows("SELECT type, webhook_id FROM deliveries ORDER BY id")
    return [(row["type"], row["webhook_id"]) for row in rows]


def forget_the_end(gateway: Gateway) -> None:
    """What a restore to the moment after the push leaves of a payment: a pending row."""
    tables = ("webhook_attempts", "deliveries", "conflicts", "callbacks")
    gateway.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
    gateway.execute("ALTER TABLE transactions DISABLE TRIGGER guard_transaction")
    gateway.execute(
        "UPDATE transactions SET status = 'PENDING', finished_at = NULL, settled_by = NULL,"
        " result_code = NULL, result_desc = NULL, receipt = NULL, metadata = NULL,"
        " failure_reason = NULL"
    )
    gateway.execute("ALTER TABLE transactions ENABLE TRIGGER guard_transaction")


def test_a_payment_that_ends_again_after_a_restore_has_the_webhook_id_it_had(
    gateway: Gateway,
) -> None:
    _, path = paid_silently(gateway, PHONE)
    checkout = gateway.checkout_request_id(PHONE)
    paid, again = (callback_body(checkout, receipt=it) for it in ("UJ22T8IYOU", "UJ22T8IYOV"))

    before = end(gateway, path, paid, again)
    forget_the_end(gateway)
    after = end(gateway, path, paid, again)

    assert [kind for kind, _ in before] == ["transaction.completed", "transaction.conflict"]
    assert after == before


def test_another_end_and_each_conflict_has_another_id(gateway: Gateway) -> None:
    _, path = paid_silently(gateway, PHONE)
    checkout = gateway.checkout_request_id(PHONE)
    first = end(gateway, path, callback_body(checkout))
    forget_the_end(gateway)
    failed = end(
        gateway,
        path,
        callback_body(checkout, code=1032),
        callback_body(checkout, receipt="UJ22T8IYO1"),
        callback_body(checkout, receipt="UJ22T8IYO2"),
    )

    assert [kind for kind, _ in failed] == [
        "transaction.failed",
        "transaction.conflict",
        "transaction.conflict",
    ]
    assert len({made for _, made in first + failed}) == 4
