"""One gateway, its Safaricom and its merchants' endpoint, in virtual time and with a bad queue.

The API, the use cases, the SQL, Postgres and Redis are real. What is simulated is time, the queue,
and death: an exception at a failpoint, after which the transaction is rolled back and what the
process kept in memory is forgotten.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import requests

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.bodies import callback_body
from harness.clock import NOON
from harness.gateway import Gateway, open_gateway
from harness.merchants import write_merchant
from harness.receiver import Answer, Receiver
from harness.settings import API_KEY
from mpesa_gateway import failpoint
from mpesa_gateway.domain.work import Work
from mpesa_gateway.worker.sweeper import Sweeper
from simulation.safaricom import Fate, Prompt, ScriptedSafaricom, Truth

SHOP = "shops/duka"
SHOP_KEY = "key-of-duka-0123456789-0123456789"
SETTINGS = {
    "query_schedule": "1m,2m,4m,8m",
    "webhook_retry_schedule": "1m,5m,15m,1h",
    "callback_token_required": "false",
}
# Of a client: a 409 says that the first request still runs, here because its process died.
CLIENT_TRIES = 40
API_THREADS = ("push", "read")
MAIN = threading.main_thread()


class DeathError(BaseException):
    """The process ends here. No `except Exception` of the product may see it."""


@dataclass
class Death:
    """Armed for one thread's name: the failpoint at which it dies, counted from now."""

    after: int
    in_api: bool
    died_at: str | None = None

    def __call__(self, name: str) -> None:
        if self.died_at is not None:
            return
        # Threads that serve requests, or the one that plays the worker. The flusher lives as long
        # as its process: when that dies there is layer A.
        where = threading.current_thread()
        is_there = where.name.startswith(API_THREADS) if self.in_api else where is MAIN
        if not is_there:
            return
        if self.after == 0:
            self.died_at = name
            raise DeathError(name)
        self.after -= 1


class InThisThread(Executor):
    """Does what is submitted at once, so that a run can be repeated and can die in it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return when it is done."""
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@dataclass
class Payment:
    """What one client knows: what it asked for and every answer that it got."""

    number: int
    merchant: str
    phone: str
    amount: int
    key: str
    fate: Fate
    final: requests.Response | None = None
    last_status: str = "PENDING"


@dataclass
class Posted:
    """A callback that was answered 200."""

    phone: str
    sha256: bytes


@dataclass
class World:
    """Everything that one run of the machine works on."""

    gateway: Gateway
    safaricom: ScriptedSafaricom
    receiver: Receiver
    redis_url: str
    merchants: Path
    payments: list[Payment] = field(default_factory=list)
    queue: list[Work] = field(default_factory=list)
    posted: list[Posted] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)

    # --- clients ---------------------------------------------------------------------------------

    def begin(self, amount: int, fate: Fate, merchant: str) -> Payment:
        number = len(self.payments)
        key = str(uuid.UUID(int=number + 1, version=4))
        payment = Payment(number, merchant, f"2547000{number:05}", amount, key, fate)
        self.payments.append(payment)
        return payment

    def ask(self, payment: Payment, **other: Any) -> requests.Response:
        """One POST /initiate of that payment."""
        self.safaricom.fate = payment.fate
        body = {
            "amount": str(payment.amount),
            "phone": payment.phone,
            "webhook_url": f"{self.receiver.url}/{payment.number}",
            "idempotency_key": payment.key,
            **other,
        }
        key = SHOP_KEY if payment.merchant == SHOP else API_KEY
        response = requests.post(
            f"{self.gateway.url}/initiate",
            json=body,
            headers={"X-Internal-Secret": key},
            timeout=30,
        )
        self.hear()
        return response

    def ask_until_answered(self, payment: Payment) -> requests.Response:
        """As a careful client: the same key again, until the answer is one for good."""
        for _ in range(CLIENT_TRIES):
            response = self.ask(payment)
            if response.status_code in (201, 502):
                break
            if response.status_code == 503 and "transaction_id" in response.json():
                break
            self.gateway.clock.advance(seconds=2)
            self.sweep()
        payment.final = payment.final or response
        return response

    # --- Safaricom -------------------------------------------------------------------------------

    def call_back(self, prompt: Prompt, *, path: str | None = None, **other: Any) -> int:
        """Post what is true of that push, or `other`. The status; 200 is remembered."""
        code = 0 if prompt.truth is Truth.PAID else 1032
        fields = {"code": code, "amount": prompt.amount, "receipt": prompt.receipt, **other}
        checkout = fields.pop("checkout_request_id", prompt.checkout_request_id)
        claimed = fields.pop("under_code", None)
        body = callback_body(checkout, **fields)
        if claimed is not None:
            # All that a success has, under another code.
            said = json.loads(body)
            said["Body"]["stkCallback"]["ResultCode"] = claimed
            body = json.dumps(said).encode()
        status = self.gateway.post(path or prompt.callback_path, body).status_code
        if status == 200:
            self.posted.append(Posted(prompt.phone, hashlib.sha256(body).digest()))
        self.hear()
        return status

    # --- the worker ------------------------------------------------------------------------------

    def hear(self) -> None:
        """What workers were notified of goes into the queue."""
        self.queue += self.gateway.notifier.take()

    def work(self, work: Work) -> None:
        self.gateway.dispatcher.run(work)
        self.hear()

    def sweep(self) -> None:
        """One round of a sweeper without threads; its wake-ups are queued."""
        sweeper = Sweeper(
            self.gateway.pool,
            self.gateway.dispatcher.run,
            clock=self.gateway.clock,
            interval=self.gateway.services.config.sweep_interval,
            threads=1,
        )
        sweeper.wait()
        sweeper._inner = InThisThread()  # type: ignore[assignment]
        sweeper._executors.clear()
        sweeper.sweep()
        self.hear()

    def forget(self) -> None:
        """What a process keeps in memory only."""
        self.gateway.services.tokens._local.clear()
        self.queue.clear()

    def flush_redis(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()

    def rotate_secret(self) -> None:
        """A new webhook secret for the shop; the one before stays good."""
        self.secrets.append(f"duka-webhook-secret-{len(self.secrets):06d}")
        write_merchant(self.merchants, key=SHOP_KEY, webhook={"secrets": self.secrets[-1:-3:-1]})
        self.gateway.services.merchants.refresh()

    def open_work(self) -> list[dict[str, Any]]:
        """What the worker still has to do."""
        return self.gateway.rows(
            "SELECT 'transaction' AS what, push_state AS state FROM transactions"
            " WHERE status = 'PENDING' AND attention IS NULL"
            " UNION ALL SELECT 'delivery', state FROM deliveries WHERE state = 'PENDING'"
            " UNION ALL SELECT 'callback', state FROM callbacks WHERE state = 'RECEIVED'"
        )

    def known_checkout_request_ids(self) -> set[str]:
        rows = self.gateway.rows("SELECT checkout_request_id AS id FROM transactions")
        return {row["id"] for row in rows if row["id"]}

    def is_quiet(self) -> bool:
        return not self.open_work()

    def set_endpoint(self, status: int) -> None:
        headers = {"Retry-After": "120"} if status == 429 else {}
        self.receiver.default = Answer(status, headers=headers)


def open_world(stack: ExitStack, database_url: str, redis_url: str, directory: Path) -> World:
    """A fresh one. `stack` closes it."""
    safaricom = stack.enter_context(ScriptedSafaricom())
    receiver = stack.enter_context(Receiver())
    simulator = stack.enter_context(RunningSimulator(Settings()))
    write_merchant(directory, key=SHOP_KEY, webhook={"secrets": ["duka-webhook-secret"]})
    gateway = stack.enter_context(
        open_gateway(
            database_url,
            redis_url,
            simulator,
            receiver,
            safaricom_base_url=f"http://127.0.0.1:{safaricom.port}",
            guard=None,
            merchants_dir=str(directory),
            **SETTINGS,
        )
    )
    gateway.clock.stop_at(NOON)
    stack.callback(failpoint.arm, None)
    world = World(gateway, safaricom, receiver, redis_url, directory)
    world.secrets.append("duka-webhook-secret")
    world.flush_redis()
    return world
