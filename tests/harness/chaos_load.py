"""Payments that are asked for whether or not the ones before are answered: an open model."""

from __future__ import annotations

import random
import threading
import time
import uuid
from dataclasses import dataclass

import requests

from daraja_simulator.outcomes import OUTCOMES, PAID
from harness.chaos_endpoints import STEADY_PATH, TROUBLED_PATH
from harness.chaos_stack import ChaosStack
from harness.crash import FINAL_STATUSES, SHOP, Asked
from mpesa_gateway.domain.merchant import DEFAULT_MERCHANT

# A careful client: the same key, a pause that grows, for as long as an outage may last.
PATIENCE_S = 180.0
FIRST_PAUSE_S = 0.3
LONGEST_PAUSE_S = 5.0
PAID_SHARE = 0.5
SHOP_SHARE = 0.2
TROUBLED_SHARE = 0.15
# Nobody ever learns how these end: one in a while is enough.
NEVER_TOLD = ("4042", "7008")
NEVER_TOLD_SHARE = 0.003
# Only their callback says how they ended. Where a fault drops it, they stay open for a day.
TOLD_ONCE = ("7006",)
NUMBERS = 10_000


@dataclass(frozen=True)
class PendingCallback:
    """A payment of the plan. `at_s` counts from the beginning of the load."""

    at_s: float
    phone: str
    key: str
    amount: str
    merchant: str
    steady: bool


def make_arrivals(seed: int, duration_s: float, per_s: float) -> list[PendingCallback]:
    """The same payments for the same seed; at random times, `per_s` of them in the mean."""
    chance = random.Random(f"{seed}-load")  # noqa: S311 - it is to be repeatable
    others = [it.digits for it in OUTCOMES if it.digits not in (PAID.digits, *NEVER_TOLD)]
    arrivals: list[PendingCallback] = []
    at_s = chance.expovariate(per_s)
    while at_s < duration_s:
        number = len(arrivals)
        digits = PAID.digits if chance.random() < PAID_SHARE else chance.choice(others)
        if chance.random() < NEVER_TOLD_SHARE:
            digits = chance.choice(NEVER_TOLD)
        arrivals.append(
            PendingCallback(
                at_s,
                f"254{number // NUMBERS}{number % NUMBERS:04d}{digits}",
                str(uuid.UUID(int=chance.getrandbits(128), version=4)),
                str(chance.randint(1, 500)),
                SHOP if chance.random() < SHOP_SHARE else DEFAULT_MERCHANT,
                chance.random() >= TROUBLED_SHARE,
            )
        )
        at_s += chance.expovariate(per_s)
    return arrivals


class Load:
    """Asks for the payments of a plan, each in a thread of its own."""

    def __init__(self, stack: ChaosStack, arrivals: list[PendingCallback]) -> None:
        self._stack = stack
        self._arrivals = arrivals
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.clients: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more payments, and nobody asks again."""
        self._stopping.set()

    def is_over(self) -> bool:
        """Whether all have been asked for, and each client has its answer or has given up."""
        return not self._thread.is_alive() and self.waiting() == 0

    def waiting(self) -> int:
        """Clients without an answer yet."""
        return sum(it.is_alive() for it in list(self.clients))

    def _run(self) -> None:
        began = time.monotonic()
        for number, arrival in enumerate(self._arrivals):
            if self._stopping.wait(max(0.0, arrival.at_s - (time.monotonic() - began))):
                return
            path = f"{STEADY_PATH if arrival.steady else TROUBLED_PATH}{number}"
            asked = Asked(
                str(number), arrival.merchant, arrival.phone, arrival.key, arrival.amount, path
            )
            self._stack.asked.append(asked)
            client = threading.Thread(target=self._pay, args=[asked], daemon=True)
            client.start()
            self.clients.append(client)

    def _pay(self, asked: Asked) -> None:
        """POST /initiate with one key until it is answered for good."""
        give_up, pause_s = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        while time.monotonic() < give_up and not self._stopping.is_set():
            try:
                response = self._stack.post(asked)
                body = response.json()
            except requests.RequestException as error:
                asked.troubles.append(type(error).__name__)
            else:
                status = response.status_code
                if status in FINAL_STATUSES or (status == 503 and "transaction_id" in body):
                    asked.answers.append((status, body))
                    return
                asked.troubles.append(f"{status} {body.get('type')}")
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
