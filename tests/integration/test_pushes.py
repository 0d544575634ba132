"""What a crash leaves of a push: certainly not sent, or unknown; never sent a second time."""

from __future__ import annotations

import time
import uuid
from decimal import Decimal
from typing import Any

import pytest

from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.settings import API_KEY
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.push import PushClass, PushOutcome
from mpesa_gateway.domain.transaction import PaymentRequest, Transaction
from mpesa_gateway.store import transactions
from mpesa_gateway.usecases.finalize import new_id
from mpesa_gateway.usecases.push_leases import INTENT_LEASE, SENDING_LEASE
from mpesa_gateway.usecases.pushes import record_outcome

PHONE = "254712344042"


def start(gateway: Gateway, *, sending: bool) -> tuple[Transaction, PaymentRequest, CallbackToken]:
    """A payment as a process leaves it that dies before, or after, the step into SENDING."""
    payments = gateway.services.payments
    merchant = gateway.services.merchants.current().by_name["default"]
    request = PaymentRequest(
        amount=Decimal(10),
        phone=PHONE,
        idempotency_key=uuid.uuid4(),
        webhook_url=gateway.receiver.url,
    )
    token = CallbackToken(new_id(gateway.clock()), b"0123456789abcdef")
    intent, transaction = payments._commit_intent(merchant, request, gateway.receiver.url, token)
    assert intent is not None
    if sending:
        assert payments._mark_sending(transaction)
    return transaction, request, token


def ask_again(gateway: Gateway, request: PaymentRequest) -> Any:
    """The same request once more, as its caller would send it."""
    return gateway.session.post(
        f"{gateway.url}/initiate",
        json={
            "amount": "10",
            "phone": request.phone,
            "webhook_url": request.webhook_url,
            "idempotency_key": str(request.idempotency_key),
        },
        headers={"X-Internal-Secret": API_KEY},
        timeout=10,
    )


def test_a_process_that_dies_before_sending_leaves_a_payment_that_fails_as_not_sent(
    gateway: Gateway,
) -> None:
    transaction, request, _ = start(gateway, sending=False)
    assert ask_again(gateway, request).status_code == 409
    gateway.clock.advance(seconds=INTENT_LEASE.total_seconds() - 1)
    gateway.sweep()
    assert gateway.transaction(str(transaction.id))["status"] == "PENDING"
    gateway.clock.advance(seconds=2)
    gateway.sweep()

    view = gateway.transaction(str(transaction.id))
    assert view["status"] == "FAILED"
    assert view["failure"]["reason"] == "not_sent"
    answer = ask_again(gateway, request)
    assert answer.status_code == 503
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert answer.json()["transaction_id"] == str(transaction.id)
    assert [it.verify(API_KEY)["status"] for it in gateway.receiver.requests] == ["FAILED"]
    assert gateway.simulator.ledger()["pushes"] == []


def test_a_process_that_dies_while_sending_leaves_a_payment_that_is_unknown(
    gateway: Gateway,
) -> None:
    transaction, request, _ = start(gateway, sending=True)
    gateway.clock.advance(seconds=SENDING_LEASE.total_seconds() + 1)
    gateway.sweep()

    view = gateway.transaction(str(transaction.id))
    assert (view["status"], view["push"]) == ("PENDING", "UNKNOWN")
    answer = ask_again(gateway, request)
    assert answer.status_code == 201
    assert answer.json() == {"transaction_id": str(transaction.id), "status": "PENDING"}
    assert gateway.simulator.ledger()["pushes"] == []


def test_an_unknown_push_is_settled_by_the_token_of_its_callback(gateway: Gateway) -> None:
    transaction, _, token = start(gateway, sending=True)
    gateway.clock.advance(seconds=SENDING_LEASE.total_seconds() + 1)
    gateway.sweep()
    body = callback_body("ws_CO_never_learned_before")
    assert gateway.post(f"/callback/{token.text}", body).status_code == 200
    gateway.work()

    view = gateway.transaction(str(transaction.id))
    assert view["status"] == "COMPLETED"
    assert view["checkout_request_id"] == "ws_CO_never_learned_before"


def test_a_process_that_was_paused_does_not_push_what_was_given_up(gateway: Gateway) -> None:
    transaction, _, token = start(gateway, sending=False)
    gateway.clock.advance(seconds=INTENT_LEASE.total_seconds() + 1)
    gateway.sweep()
    merchant = gateway.services.merchants.current().by_name["default"]
    outcome = gateway.services.payments._push(merchant, transaction, token)
    answer, _ = gateway.services.payments._save_outcome(transaction, outcome)

    assert outcome.kind is PushClass.NOT_SENT
    assert answer.status == 503
    assert gateway.simulator.ledger()["pushes"] == []


def test_an_answer_that_comes_after_the_sweeper_gave_up_is_still_used(gateway: Gateway) -> None:
    transaction, _, _ = start(gateway, sending=True)
    gateway.clock.advance(seconds=SENDING_LEASE.total_seconds() + 1)
    gateway.sweep()
    accepted = PushOutcome(PushClass.ACCEPTED, checkout_request_id="ws_CO_late")
    wait = gateway.services.payments.first_query_after
    record_outcome(gateway.pool, transaction.id, accepted, wait, gateway.clock())

    view = gateway.transaction(str(transaction.id))
    assert view["push"] == "ACCEPTED"
    assert view["checkout_request_id"] == "ws_CO_late"


@pytest.mark.parametrize("kind", [PushClass.REFUSED, PushClass.NOT_SENT])
def test_a_refusal_that_comes_after_the_callback_moves_nothing(
    gateway: Gateway, kind: PushClass
) -> None:
    transaction, _, token = start(gateway, sending=True)
    gateway.post(f"/callback/{token.text}", callback_body("ws_CO_early"))
    gateway.work()
    refused = PushOutcome(kind, kind.lower(), "400.002.02", "Bad Request")
    wait = gateway.services.payments.first_query_after
    answer, _ = record_outcome(gateway.pool, transaction.id, refused, wait, gateway.clock())

    assert answer.status == 201
    assert gateway.transaction(str(transaction.id))["status"] == "COMPLETED"
    events = gateway.rows("SELECT kind FROM transaction_events ORDER BY id")
    assert events[-1]["kind"] == "contradicts"


def test_recording_an_outcome_twice_is_recording_it_once(gateway: Gateway) -> None:
    transaction, _, _ = start(gateway, sending=True)
    refused = PushOutcome(PushClass.REFUSED, "refused", "400.002.02", "Bad Request")
    wait = gateway.services.payments.first_query_after
    first, _ = record_outcome(gateway.pool, transaction.id, refused, wait, gateway.clock())
    second, _ = record_outcome(gateway.pool, transaction.id, refused, wait, gateway.clock())

    assert first == second
    assert len(gateway.rows("SELECT * FROM deliveries")) == 1


def test_an_id_that_belongs_to_another_transaction_is_not_adopted(gateway: Gateway) -> None:
    gateway.pay("254799994042")
    taken = gateway.checkout_request_id("254799994042")
    transaction, _, _ = start(gateway, sending=True)
    accepted = PushOutcome(PushClass.ACCEPTED, checkout_request_id=taken)
    wait = gateway.services.payments.first_query_after
    record_outcome(gateway.pool, transaction.id, accepted, wait, gateway.clock())

    view = gateway.transaction(str(transaction.id))
    assert view["status"] == "PENDING"
    assert view["checkout_request_id"] is None


def test_a_lease_that_has_not_run_out_is_left_alone(gateway: Gateway) -> None:
    transaction, _, _ = start(gateway, sending=True)
    with gateway.pool.connection("test") as conn:
        assert transactions.lock(conn, transaction.row).push_lease_until is not None
    gateway.sweep()

    assert gateway.transaction(str(transaction.id))["push"] == "SENDING"


# --- leases are renewed while their process lives ------------------------------------------------

LATER_S = SENDING_LEASE.total_seconds() - 1


def lease_of(gateway: Gateway, transaction: Transaction) -> Any:
    """By when its process is taken for dead; None when the push has ended."""
    (row,) = gateway.rows(
        "SELECT push_lease_until FROM transactions WHERE id = %s", transaction.row
    )
    return row["push_lease_until"]


def test_a_push_under_way_keeps_its_lease_for_as_long_as_its_process_renews_it(
    gateway: Gateway,
) -> None:
    transaction, _, _ = start(gateway, sending=True)
    leases, moment = gateway.services.push_leases, time.monotonic()
    with leases.kept(transaction.row):
        assert leases.renew(moment) == 0, "a new lease needs no renewal"
        for number in range(1, 5):
            gateway.clock.advance(seconds=LATER_S)
            assert leases.renew(moment + number * LATER_S) == 1
            gateway.sweep()
    assert gateway.transaction(str(transaction.id))["push"] == "SENDING"

    gateway.clock.advance(seconds=SENDING_LEASE.total_seconds() + 1)
    assert leases.renew(moment + 100) == 0, "nobody is at it any more"
    gateway.sweep()
    assert gateway.transaction(str(transaction.id))["push"] == "UNKNOWN"


def test_a_renewal_never_shortens_a_lease(gateway: Gateway) -> None:
    transaction, _, _ = start(gateway, sending=False)
    until = lease_of(gateway, transaction)
    with gateway.services.push_leases.kept(transaction.row):
        assert gateway.services.push_leases.renew(time.monotonic() + LATER_S) == 1

    assert lease_of(gateway, transaction) == until


def test_a_push_that_has_ended_gets_no_lease_again(gateway: Gateway) -> None:
    transaction, _, _ = start(gateway, sending=True)
    accepted = PushOutcome(PushClass.ACCEPTED, checkout_request_id="ws_CO_ended")
    wait = gateway.services.payments.first_query_after
    with gateway.services.push_leases.kept(transaction.row):
        record_outcome(gateway.pool, transaction.id, accepted, wait, gateway.clock())
        assert gateway.services.push_leases.renew(time.monotonic() + LATER_S) == 0

    assert lease_of(gateway, transaction) is None


def test_a_row_that_somebody_has_locked_holds_no_renewal_up(gateway: Gateway) -> None:
    first, _, _ = start(gateway, sending=True)
    leases = gateway.services.push_leases
    with leases.kept(first.row), gateway.pool.transaction("test") as conn:
        transactions.lock(conn, first.row)
        assert leases.renew(time.monotonic() + LATER_S) == 0


def test_an_answer_after_the_sweeper_gave_up_brings_the_first_question_forward(
    gateway: Gateway,
) -> None:
    transaction, _, _ = start(gateway, sending=True)
    gateway.clock.advance(seconds=SENDING_LEASE.total_seconds() + 1)
    gateway.sweep()
    accepted = PushOutcome(PushClass.ACCEPTED, checkout_request_id="ws_CO_late")
    wait = gateway.services.payments.first_query_after
    record_outcome(gateway.pool, transaction.id, accepted, wait, gateway.clock())

    (row,) = gateway.rows("SELECT next_query_at FROM transactions WHERE id = %s", transaction.row)
    assert row["next_query_at"] <= gateway.clock() + wait
