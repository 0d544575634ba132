"""A webhook that waits for an earlier one, or for its endpoint, is not due and not late.

Otherwise an endpoint that is down for a while would wake somebody: MpesaWebhookStuck,
MpesaWebhookSlow and MpesaWakeupsLost are about us, not about a merchant.
"""

from __future__ import annotations

from harness.bodies import callback_body
from harness.counters import Since
from harness.gateway import Gateway
from harness.receiver import Answer
from harness.settling import SILENT
from mpesa_gateway.domain.delivery import PARK_AFTER_FAILURES
from mpesa_gateway.store import backlog, deliveries
from mpesa_gateway.usecases.stats import read_stats

REFUSED = "4000"


def contradict(gateway: Gateway, phone: str = SILENT) -> None:
    """Two webhooks of one transaction: it failed, and then money was taken."""
    gateway.pay(phone)
    checkout, path = gateway.checkout_request_id(phone), gateway.callback_path(phone)
    for body in (callback_body(checkout, code=1032), callback_body(checkout)):
        gateway.post(path, body)
        gateway.work()


def test_a_webhook_behind_one_that_is_retried_is_neither_due_nor_rescued(gateway: Gateway) -> None:
    gateway.receiver.default = Answer(500)
    contradict(gateway)
    gateway.clock.advance(minutes=1, seconds=1)
    gateway.sweep()
    # The next try is in five minutes; the conflict's webhook is as old as the payment.
    gateway.clock.advance(minutes=4)
    since = Since()
    gateway.sweep()

    with gateway.pool.connection("test") as conn:
        measured = backlog.measure(conn, gateway.clock())
        listed = deliveries.list_due(conn, gateway.clock(), fresh_before=gateway.clock(), limit=10)
    assert measured["mpesa_webhook_oldest_due_age_seconds"] == 0
    assert measured["mpesa_webhooks_due"] == 0
    assert listed == []
    shown = read_stats(gateway.pool, gateway.clock())["deliveries"]
    assert (shown["due"], shown["due_oldest_s"], shown["retrying"]) == (0, None, 2)
    assert since.of("mpesa_sweeper_rescued_total") == 0

    gateway.receiver.default = Answer(200)
    gateway.clock.advance(minutes=2)
    gateway.sweep()
    states = gateway.rows("SELECT state, attempts_made AS tries FROM deliveries ORDER BY id")
    assert [(it["state"], it["tries"]) for it in states] == [("DELIVERED", 3), ("DELIVERED", 1)]
    assert since.of("mpesa_webhook_first_attempt_lag_seconds_count") == 0


def test_webhooks_that_waited_for_a_parked_endpoint_are_not_late(gateway: Gateway) -> None:
    gateway.receiver.default = Answer(500)
    for number in range(PARK_AFTER_FAILURES + 3):
        gateway.initiate(f"2547{number:04d}{REFUSED}")
    gateway.work()
    since = Since()
    gateway.receiver.default = Answer(200)
    gateway.clock.advance(minutes=2)
    gateway.sweep()

    assert gateway.rows("SELECT DISTINCT state FROM deliveries") == [{"state": "DELIVERED"}]
    assert since.of("mpesa_webhook_attempts_total", attempt="first", outcome="delivered") == 3
    assert since.of("mpesa_webhook_first_attempt_lag_seconds_count") == 0


def test_webhooks_that_wait_for_a_failing_endpoint_are_not_rescued(gateway: Gateway) -> None:
    """Nobody lost their wake-up: MpesaWakeupsLost would send a person to Redis."""
    gateway.receiver.default = Answer(500)
    for number in range(PARK_AFTER_FAILURES + 3):
        gateway.initiate(f"2547{number:04d}{REFUSED}")
    gateway.work()
    since = Since()
    for _ in range(3):
        gateway.clock.advance(minutes=5)
        gateway.sweep()

    untried = gateway.rows("SELECT id FROM deliveries WHERE attempts_made = 0")
    assert untried
    assert since.of("mpesa_webhook_attempts_total") > 0
    assert since.of("mpesa_sweeper_rescued_total") == 0


def test_many_that_wait_for_others_hide_nothing_that_is_due(gateway: Gateway) -> None:
    """The sweeper looks at a page, oldest first."""
    gateway.receiver.default = Answer(500)
    for number in range(3):
        contradict(gateway, f"25471{number}344042")
    gateway.clock.advance(minutes=1, seconds=1)
    with gateway.pool.connection("test") as conn:
        found = deliveries.list_due(conn, gateway.clock(), fresh_before=gateway.clock(), limit=3)
        first = conn.execute(
            "SELECT id FROM deliveries WHERE type = 'transaction.failed' ORDER BY id"
        ).fetchall()
    assert [it.id for it in found] == [row[0] for row in first]
