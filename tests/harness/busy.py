"""Everything that can happen to a gateway, within a minute: so that every series has something."""

from __future__ import annotations

import contextlib
import itertools
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import requests

from daraja_simulator.outcomes import OUTCOMES
from harness.prometheus import Prometheus
from harness.settings import API_KEY
from harness.stage import MERCHANT_NAMES, Stage, stage
from harness.waiting import wait_for
from mpesa_devkit.processes import free_port
from mpesa_gateway.work_queue import QUEUE_NAME

PAYERS = 3
# Between two payments of one payer.
PAUSE_S = 0.25
CALM_S = 8.0
OUTAGE_S = 2.0
# Longer than the lease, so that the other worker takes over what a frozen one holds.
FROZEN_S = 15.0
# In one go, more than a minute's budget has left.
BURST = 60
TIMEOUT_S = 40.0
PAID_DIGITS = "0000"
# The queries say cancelled, a later callback says paid.
CONTRADICTED_DIGITS = "7002"
# Payments to the slow endpoint before a worker is frozen, and how many it must be busy with.
SLOW_WEBHOOKS, SLOW_SEEN = 16, 8


@dataclass(frozen=True)
class Run:
    """The Prometheus that watched, and from when to when."""

    prometheus: Prometheus
    start: float
    end: float


@contextlib.contextmanager
def busy_run() -> Iterator[Run]:
    """A gateway that has seen everything; it still runs, and so does its Prometheus."""
    with (
        # Short, because of Postgres's socket.
        tempfile.TemporaryDirectory(prefix="mpesa-test-") as directory,
        stage(Path(directory)) as opened,
    ):
        start = time.time()
        Busy(opened).run()
        yield Run(opened.prometheus, start, time.time())


class Busy:
    """Payments of every outcome go on and on, while one thing after the other goes wrong."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        closed = f"http://127.0.0.1:{free_port()}/hook"
        ends = stage.endpoints
        self._webhooks = itertools.cycle(
            [*[ends.good.url] * 4, ends.failing.url, ends.flaky.url, ends.gone.url, closed]
        )
        self._keys = itertools.cycle([API_KEY, *(stage.key_of(it) for it in MERCHANT_NAMES)])
        # Half of the payments are paid, as on a good day.
        self._digits = itertools.cycle(
            digits for it in OUTCOMES for digits in (it.digits, PAID_DIGITS)
        )

    def run(self) -> None:
        """All of it, in an order in which each trouble shows."""
        self._begin()
        with self._payers():
            self._go_on(CALM_S)
            self._disturb_callbacks()
            self._disturb_queue()
            self._without_redis()
            self._go_on(CALM_S)
            self._change_merchants()
            self._without_postgres()
            self._freeze_a_worker()
            self._burst()
            self._go_on(CALM_S)

    def _begin(self) -> None:
        """What takes its time: contradictions, and an endpoint that never answers well."""
        for _ in range(2):
            self._pay(CONTRADICTED_DIGITS, key=API_KEY)
            self._pay(PAID_DIGITS, key=API_KEY, url=self._stage.endpoints.dead.url)

    @contextlib.contextmanager
    def _payers(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._pay_on) for _ in range(PAYERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _go_on(self, seconds: float) -> None:
        time.sleep(seconds)

    def _pay_on(self) -> None:
        while not self._stopping.wait(PAUSE_S):
            self._pay()

    def _pay(
        self, digits: str | None = None, *, key: str | None = None, url: str | None = None
    ) -> None:
        """Whatever comes of it: a client would ask again, and this load is in no need to."""
        body = {
            "amount": str(100 + next(self._numbers) % 900),
            "phone": f"2547{next(self._numbers) % 10_000:04d}{digits or next(self._digits)}",
            "webhook_url": url or next(self._webhooks),
            "idempotency_key": str(uuid.uuid4()),
        }
        self._post("/initiate", json=body, headers={"X-Internal-Secret": key or next(self._keys)})

    def _post(self, path: str, **content: Any) -> None:
        url = f"http://127.0.0.1:{self._stage.port}{path}"
        with contextlib.suppress(requests.RequestException):
            requests.post(url, timeout=TIMEOUT_S, **content)

    def _disturb_callbacks(self) -> None:
        """Bodies that nobody can read, unknown paths, and one that is too large."""
        for _ in range(5):
            self._post("/callback", data=b"not JSON")
            self._post(f"/callback/{uuid.uuid4().hex * 2}", data=b"{}")
            self._post("/callback", data=b" " * 2_000_000)

    def _disturb_queue(self) -> None:
        """Somebody else's messages; tokens that another program took away; a lost Redis."""
        with redis.Redis.from_url(self._stage.redis.url()) as client:
            for key in client.scan_iter(f"*{QUEUE_NAME}*") or [f"huey.redis.{QUEUE_NAME}"]:
                with contextlib.suppress(redis.ResponseError):
                    client.lpush(key, "not ours")
            client.lpush(f"huey.redis.{QUEUE_NAME}", *["not ours"] * 5)
        requests.post(f"{self._stage.simulator.url}/expire-tokens", timeout=TIMEOUT_S)

    def _without_redis(self) -> None:
        self._stage.redis.stop()
        self._go_on(OUTAGE_S)
        self._stage.redis.start()

    def _without_postgres(self) -> None:
        """Callbacks that come in the meantime are answered 503."""
        self._stage.postgres.stop()
        with ThreadPoolExecutor(4) as pool:
            for _ in range(8):
                pool.submit(self._post, "/callback", data=b"{}")
        self._stage.postgres.start()

    def _change_merchants(self) -> None:
        """One edit that the pods must load, and one file that they cannot use."""
        self._stage.change_merchant(MERCHANT_NAMES[0], limits={"maxAmount": 70000})
        self._stage.change_credentials(consumerSecret="another-consumer-secret")
        broken = self._stage.merchants_dir / "shops.broken.json"
        broken.write_text("{")
        self._wait("mpesa_merchant_config_errors > 0")
        broken.unlink()
        self._wait("mpesa_merchant_config_errors == 0")

    def _wait(self, expr: str) -> None:
        self._until(lambda: bool(self._stage.prometheus.query(expr)), expr)

    def _until(self, look: Callable[[], bool], what: str) -> None:
        wait_for(look, timeout_s=TIMEOUT_S, what=what)

    def _freeze_a_worker(self) -> None:
        """While it holds deliveries: the other one takes them over when their leases end."""
        slow = self._stage.endpoints.slow
        with ThreadPoolExecutor(SLOW_WEBHOOKS) as pool:
            for _ in range(SLOW_WEBHOOKS):
                pool.submit(self._pay, PAID_DIGITS, key=API_KEY, url=slow.url)
        self._until(lambda: len(slow.requests) >= SLOW_SEEN, "webhooks at the slow endpoint")
        frozen = self._stage.workers[0]
        frozen.send(signal.SIGSTOP)
        try:
            self._go_on(FROZEN_S)
        finally:
            frozen.send(signal.SIGCONT)

    def _burst(self) -> None:
        with ThreadPoolExecutor(BURST // 4) as pool:
            for _ in range(BURST):
                pool.submit(self._pay, PAID_DIGITS)
