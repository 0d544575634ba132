"""From POST /initiate to the webhook, step by step."""

from __future__ import annotations

from harness.callbacks import applied
from harness.gateway import Gateway
from harness.settings import API_KEY


def test_a_paid_prompt_ends_completed_with_one_signed_webhook(gateway: Gateway) -> None:
    transaction_id = gateway.pay("254712340000")
    applied(gateway, transaction_id)

    view = gateway.transaction(transaction_id)
    assert view["status"] == "COMPLETED"
    assert view["receipt"] == gateway.simulator.ledger()["debits"][0]["receipt"]
    assert view["result"]["code"] == "0"
    (webhook,) = gateway.receiver.requests
    told = webhook.verify(API_KEY)
    assert told["type"] == "transaction.completed"
    assert told["transaction_id"] == transaction_id
    assert told["metadata"]["MpesaReceiptNumber"] == view["receipt"]
