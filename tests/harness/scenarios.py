"""What one payment goes through while a process dies: eight stories, each on a phone of its own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests

from harness.crash import SHOP, Asked, CrashStack
from harness.waiting import wait_for
from mpesa_gateway.domain.merchant import DEFAULT_MERCHANT

Tell = Callable[[CrashStack, Asked], None]
SAFARICOM_TIMEOUT_S = 5.0
CALLBACK_WAIT_S = 6.0


@dataclass(frozen=True)
class Scenario:
    """`digits` choose the simulator's outcome; `webhooks` is how many a fault-free run sends."""

    name: str
    digits: str
    tell: Tell
    merchant: str = DEFAULT_MERCHANT
    flaky: bool = False
    webhooks: int = 1

    def begin(self, case: str, number: int) -> Asked:
        """A payment that no other case knows."""
        phone = f"2547{number:04d}{self.digits}"
        where = "flaky" if self.flaky else "hook"
        owner = self.merchant.replace("/", "-")
        return Asked(
            case=case,
            merchant=self.merchant,
            phone=phone,
            key=str(uuid.uuid4()),
            amount=str(10 + number % 90),
            path=f"/{where}/{owner}/{number}",
        )


def once(stack: CrashStack, asked: Asked) -> None:
    """The client asks until it is answered."""
    stack.ask(asked)


def three_at_once(stack: CrashStack, asked: Asked) -> None:
    """The client's retries overlap."""
    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(stack.ask, asked) for _ in range(3)]:
            future.result()


def while_the_secret_changes(stack: CrashStack, asked: Asked) -> None:
    """The merchant's webhook secret is replaced between the payment and its webhook."""
    rotation = threading.Thread(target=stack.rotate_shop_secret)
    rotation.start()
    stack.ask(asked)
    rotation.join()
    stack.rotate_shop_secret()


def callback_again(stack: CrashStack, asked: Asked) -> None:
    """Safaricom's five copies, and another one after them all."""
    stack.ask(asked)

    def came() -> list[dict[str, Any]]:
        return stack.simulator.ledger(phone=asked.phone)["callbacks"]

    if not stack.simulator.ledger(phone=asked.phone)["pushes"]:
        return
    wait_for(came, timeout_s=CALLBACK_WAIT_S, what="a callback")
    entry = came()[-1]
    try:
        status: int | None = requests.post(
            entry["callback_url"],
            data=entry["body"].encode(),
            headers={"Content-Type": "application/json"},
            timeout=SAFARICOM_TIMEOUT_S,
        ).status_code
    except requests.RequestException:
        status = None
    stack.posted.append({"phone": asked.phone, "body": entry["body"], "status": status})


PAID = Scenario("paid", "0000", once)
SCENARIOS = (
    PAID,
    Scenario("cancelled", "1032", once),
    Scenario("callback five times", "2003", callback_again),
    Scenario("callback before the answer", "3131", once),
    Scenario("no callback", "4040", once),
    Scenario("endpoint 500 then 200", "0000", once, flaky=True, webhooks=2),
    Scenario("key retried by three", "0000", three_at_once),
    Scenario("secret rotation", "0000", while_the_secret_changes, merchant=SHOP),
)
