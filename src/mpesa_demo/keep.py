"""`--keep`: where everything is, what to paste, and the webhooks as they come."""

from __future__ import annotations

import json
import secrets
import string
import time
import uuid
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from daraja_simulator.outcomes import OUTCOMES
from mpesa_demo.client import Merchant
from mpesa_demo.payments import Payments
from mpesa_demo.receiver import Receiver
from mpesa_demo.show import RIGHT, WRONG
from mpesa_demo.stack import Stack
from mpesa_demo.summary import program_name
from mpesa_gateway.clients.daraja import eat_timestamp
from mpesa_gateway.clock import utc_now

LOOK_EVERY_S = 0.5
# Phones that the demo's own payments do not use.
FREE_PHONE_PREFIX = "25473334"
RECEIPT_LENGTH = 10


def print_addresses(console: Console, stack: Stack, merchant: Merchant, payments: Payments) -> None:
    """Everything that a person needs to go on by hand. The key works for this run only."""
    _heading(console, "It stays up until Ctrl-C")
    rows = [
        ("API", stack.api_url),
        ("its key", f"{merchant.key}   (of this run only)"),
        ("its description", f"{stack.api_url}/openapi.json"),
        ("simulator", f"{stack.simulator_url}   /ledger shows what it charged"),
        ("webhook receiver", merchant.webhook_url),
        ("Postgres", stack.database_url),
        ("Redis", stack.redis_url),
        *((f"metrics of {name}", url) for name, url in stack.metrics_urls.items()),
        *((f"log of {name}", str(log)) for name, log in stack.logs.items()),
    ]
    for name, value in rows:
        _print(console, f"  {name:<20}{value}")
    _print_phones(console)
    _heading(console, "A payment of your own (paste it twice: nothing is charged twice)")
    _print(console, _initiate_command(stack, merchant))
    _print_callback(console, stack, payments)
    _heading(console, "What a person on call sees")
    _print(console, f"export MPESA_DATABASE_URL={stack.database_url}")
    _print(console, f"{program_name()} transactions list --stuck")
    _print(console, f"{program_name()} callbacks list --quarantined")
    _heading(console, "Webhooks from here on")


def keep_running(console: Console, stack: Stack, receiver: Receiver) -> None:
    """Show webhooks until a signal comes, as EndedError. Raises StackError."""
    shown = receiver.count
    while True:
        stack.check()
        new = receiver.since(shown)
        shown += len(new)
        for webhook in new:
            console.print(
                Text.assemble(
                    "  ",
                    RIGHT if webhook.verified else WRONG,
                    f" {webhook.type:<24}{webhook.transaction_id}  ",
                    (webhook.problem or "both signatures verified", "dim"),
                ),
                soft_wrap=True,
            )
        time.sleep(LOOK_EVERY_S)


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, "bold"))


def _print(console: Console, text: str) -> None:
    """As it is: to be copied, so never wrapped."""
    console.print(text, markup=False, soft_wrap=True)


def _print_phones(console: Console) -> None:
    _heading(console, f"Phones ({FREE_PHONE_PREFIX} and four digits; others pay)")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for outcome in OUTCOMES:
        phone = FREE_PHONE_PREFIX + outcome.digits
        table.add_row(f"  {phone}", outcome.name, Text(outcome.what, "dim"))
    console.print(table)


def _initiate_command(stack: Stack, merchant: Merchant) -> str:
    body = {
        "amount": "10",
        "phone": f"{FREE_PHONE_PREFIX}0000",
        "webhook_url": merchant.webhook_url,
        "idempotency_key": str(uuid.uuid4()),
    }
    return (
        f"curl -i {stack.api_url}/initiate -H 'X-Internal-Secret: {merchant.key}' \\\n"
        f"  -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )


def _print_callback(console: Console, stack: Stack, payments: Payments) -> None:
    """A callback by hand, for the payment that nobody knows the end of."""
    view = next(
        it.observed.view for it in payments.all if it.scenario.name == "no_callback_unknown"
    )
    if view is None or view["status"] != "PENDING" or view["checkout_request_id"] is None:
        return
    _heading(console, "Play Safaricom: the callback that no_callback_unknown still waits for")
    body = json.dumps(_callback_body(view))
    _print(console, f"curl -i {stack.api_url}/callback -H 'Content-Type: application/json' \\")
    _print(console, f"  -d '{body}'")
    _print(console, f"curl {stack.api_url}/transactions/{view['transaction_id']} \\")
    _print(console, f"  -H 'X-Internal-Secret: {stack.keys.api_key}'")


def _callback_body(view: Mapping[str, Any]) -> dict[str, Any]:
    alphabet = string.ascii_uppercase + string.digits
    receipt = "".join(secrets.choice(alphabet) for _ in range(RECEIPT_LENGTH))
    items = {
        "Amount": int(view["amount"]),
        "MpesaReceiptNumber": receipt,
        "TransactionDate": int(eat_timestamp(utc_now())),
        "PhoneNumber": int(view["phone"]),
    }
    callback = {
        "MerchantRequestID": "by-hand",
        "CheckoutRequestID": view["checkout_request_id"],
        "ResultCode": 0,
        "ResultDesc": "The service request is processed successfully.",
        "CallbackMetadata": {
            "Item": [{"Name": name, "Value": value} for name, value in items.items()]
        },
    }
    return {"Body": {"stkCallback": callback}}
