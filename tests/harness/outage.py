"""Payments through an outage of Postgres: clients that repeat, probes, and the verdict."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import requests

from harness.processes import Processes
from harness.receiver import Receiver
from harness.settings import API_KEY
from harness.waiting import wait_for
from harness.witnesses import Witnesses
from mpesa_devkit.embedded import EmbeddedPostgres

# As the chart's readiness probe, which also keeps the pools busy.
PROBE_EVERY_S = 3.0
GIVE_UP_S = 150.0


@dataclass
class Load:
    """So many payments a second. Each client repeats its key until it has an answer that counts."""

    url: str
    webhook_url: str
    per_second: float
    # None: as Retry-After says.
    repeat_after_s: float | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    answers: list[int] = field(default_factory=list)

    def pay(self, number: int) -> None:
        """One payment. What certainly was not sent is over: its client would take a new key."""
        body = {
            "amount": "10",
            "phone": f"2547{number:04d}0000",
            "webhook_url": self.webhook_url,
            "idempotency_key": str(uuid.uuid4()),
        }
        over = time.monotonic() + GIVE_UP_S
        while time.monotonic() < over:
            try:
                answer = requests.post(
                    f"{self.url}/initiate",
                    json=body,
                    headers={"X-Internal-Secret": API_KEY},
                    timeout=30,
                )
            except requests.RequestException:
                time.sleep(1.0)
                continue
            if answer.status_code == 201 or "transaction_id" in answer.json():
                self.answers.append(answer.status_code)
                return
            wait_s = float(answer.headers.get("Retry-After", "1"))
            time.sleep(wait_s if self.repeat_after_s is None else self.repeat_after_s)
        self.answers.append(0)

    def run(self) -> None:
        """Start payments until it is told to end, then wait for all of them."""
        # As many as begin in half a minute: a crowd that only repeats would take the whole machine.
        with ThreadPoolExecutor(round(30 * self.per_second)) as threads:
            number = 0
            while not self.ended.wait(1 / self.per_second):
                threads.submit(self.pay, number)
                number += 1


@contextmanager
def paying(load: Load) -> Iterator[Load]:
    """Payments begin and go on for as long as the block runs; all have an answer after it."""
    thread = threading.Thread(target=load.run)
    thread.start()
    try:
        yield load
    finally:
        load.ended.set()
        thread.join()


@contextmanager
def probing(url: str, every_s: float = PROBE_EVERY_S) -> Iterator[None]:
    """The kubelet's readiness probe."""
    ended = threading.Event()

    def probe() -> None:
        while not ended.wait(every_s):
            try:
                requests.get(f"{url}/readyz", timeout=2)
            except requests.RequestException:
                continue

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@dataclass
class Return:
    """How long after Postgres' return the gateway worked again, in seconds.

    Postgres is back when a plain connection of the test is, which asks at the same time: so a slow
    machine delays both. The webhook's time includes the 1.3 s of the simulator's push and callback.
    """

    callback_s: float
    initiate_s: float
    webhook_s: float

    def __str__(self) -> str:
        return (
            f"callback 200 after {self.callback_s:.1f} s, initiate 201 after {self.initiate_s:.1f}"
            f" s, its webhook after {self.webhook_s:.1f} s"
        )


def measure_return(database_url: str, url: str, receiver: Receiver, *, within_s: float) -> Return:
    """Ask until the database, the API and the worker are back. Begin before the database is."""

    over = time.monotonic() + within_s

    def first(look: Callable[[], bool], what: str) -> float:
        while not look():
            assert time.monotonic() < over, f"not within {within_s} s: {what}"
            time.sleep(0.1)
        return time.monotonic()

    # One key: what an attempt that nobody heard of has started is replayed.
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(4) as threads:
        back = threads.submit(first, lambda: connects(database_url), "Postgres")
        callback = threads.submit(first, lambda: takes_callback(url), "callbacks answered 200")
        initiate = threads.submit(
            first, lambda: starts_payment(url, receiver.url, key), "payments answered 201"
        )
        webhook = threads.submit(first, lambda: is_told(receiver), "the webhook")
    began = back.result()
    seconds = (max(it.result() - began, 0.0) for it in (callback, initiate, webhook))
    return Return(*seconds)


def connects(database_url: str) -> bool:
    """Whether a new connection of nobody's pool is served."""
    try:
        with psycopg.connect(database_url, connect_timeout=2) as conn:
            return conn.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def takes_callback(url: str) -> bool:
    """Whether a callback is answered 200."""
    try:
        return requests.post(f"{url}/callback", data=b"{}", timeout=10).status_code == 200
    except requests.RequestException:
        return False


# No payment of a load has it.
OWN_PHONE = "254799990000"


def starts_payment(url: str, webhook_url: str, key: str) -> bool:
    """Whether a payment is answered 201."""
    body = {
        "amount": "10",
        "phone": OWN_PHONE,
        "webhook_url": webhook_url,
        "idempotency_key": key,
    }
    headers = {"X-Internal-Secret": API_KEY}
    try:
        started = requests.post(f"{url}/initiate", json=body, headers=headers, timeout=30)
    except requests.RequestException:
        return False
    return started.status_code == 201


def is_told(receiver: Receiver) -> bool:
    """Whether the end of that payment was told."""
    return any(OWN_PHONE.encode() in it.body for it in list(receiver.requests))


@contextmanager
def refusing(server: EmbeddedPostgres) -> Iterator[None]:
    """Takes no connection, as while it fails over."""
    server.stop()
    yield
    server.start()


@contextmanager
def used_up(server: EmbeddedPostgres) -> Iterator[None]:
    """Has no connection left, and has ended those of everybody else."""
    with ExitStack() as taken:
        control = taken.enter_context(psycopg.connect(server.url(), autocommit=True))
        control.execute("SET application_name = 'taker'")
        while end_others(control):
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(
                        psycopg.connect(server.url(), autocommit=True, application_name="taker")
                    )
        yield


def end_others(control: psycopg.Connection) -> int:
    """End all connections but the taker's. How many there were, or could still be."""
    row = control.execute(
        """
        SELECT count(CASE WHEN application_name <> 'taker' THEN pg_terminate_backend(pid, 5000) END)
               + current_setting('max_connections')::int - count(*)
          FROM pg_stat_activity
         WHERE backend_type = 'client backend'
        """
    ).fetchone()
    assert row is not None
    return int(row[0])


def assert_nothing_lost(witnesses: Witnesses, load: Load, gateway: Processes) -> None:
    """Every debit is a completed payment with its receipt; nothing is left to an operator."""
    wait_for(witnesses.all_told, timeout_s=60, what="every payment to end")
    assert 0 not in load.answers, "a client never got an answer"
    # A client may have given up on a request that the API is still working on.
    give_up = time.monotonic() + 60
    while (wrong := mismatches(witnesses)) and time.monotonic() < give_up:
        time.sleep(0.2)
    assert not wrong, f"{wrong}\n{gateway.logs()[-4000:]}"
    rows = witnesses.rows("SELECT receipt FROM transactions WHERE status = 'COMPLETED'")
    assert all(it["receipt"] for it in rows), gateway.logs()[-4000:]
    unknown = "SELECT count(*) FROM transactions WHERE push_state = 'UNKNOWN'"
    wait_for(lambda: witnesses.rows(unknown) == [{"count": 0}], what="every push's outcome")


def mismatches(witnesses: Witnesses) -> list[Any]:
    """The rows of debits without a completed payment, and of completed payments without a debit."""
    debited = {it["checkout_request_id"] for it in witnesses.simulator.ledger()["debits"]}
    rows = witnesses.rows("SELECT checkout_request_id, status, push_state FROM transactions")
    by_id = {it["checkout_request_id"]: it for it in rows}
    completed = {it["checkout_request_id"] for it in rows if it["status"] == "COMPLETED"}
    return [by_id.get(it, f"{it} has no row") for it in completed ^ debited]
