"""The system as real processes that are told where to die, and are started again when they did."""

from __future__ import annotations

import collections
import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import redis
import requests
from psycopg.rows import dict_row

from daraja_simulator.server import RunningSimulator
from harness.merchants import write_merchant
from harness.processes import GATEWAY, Processes, processes
from harness.receiver import Answer, Receiver
from harness.settings import API_KEY
from harness.waiting import wait_for
from mpesa_devkit.processes import Process, free_port

# Quick ones, so that a case takes seconds: only what waits for a lease would take longer.
LEASE_S = 1.5
SETTINGS = {
    "lease": "1500ms",
    "sweep_interval": "200ms",
    "query_schedule": "1s,1s,1s,2s",
    "prompt_life": "1s",
    "webhook_retry_schedule": "200ms,500ms,1s,2s",
    "db_max_conns": "6",
    "worker_concurrency": "4",
}
WORKERS = 2
# What a customer needs for the PIN, at least: an API that died in the push is back by then.
PIN_TIME_S = 0.2
LONG_PIN_TIME_S = 3.0
CLIENT_TIMEOUT_S = 10.0
CLIENT_PATIENCE_S = 30.0
CLIENT_PAUSE_S = 0.1
FINAL_STATUSES = (201, 502)
SHOP = "shops/duka"
SHOP_KEY = "key-of-duka-0123456789-0123456789"

Row = dict[str, Any]


@dataclass
class Asked:
    """One payment as its client saw it: every answer in order, and what went wrong on the way."""

    case: str
    merchant: str
    phone: str
    key: str
    amount: str
    path: str
    asked_at: float = field(default_factory=time.monotonic)
    answers: list[tuple[int, Row]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


class FlakyReceiver(Receiver):
    """The merchants' endpoint. Paths under /flaky/ are answered 500 the first time."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = collections.Counter[str]()
        self.default = Answer(act=self._act)

    def _act(self, handler: Any) -> None:
        self._seen[handler.path] += 1
        fails = handler.path.startswith("/flaky/") and self._seen[handler.path] == 1
        handler.send_response(500 if fails else 200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


class CrashStack:
    """An API and two workers on one database. Who dies is replaced, as Kubernetes would."""

    def __init__(
        self,
        gateway: Processes,
        directory: Path,
        port: int,
        simulator: RunningSimulator,
        receiver: Receiver,
    ) -> None:
        self.simulator = simulator
        self.receiver = receiver
        self.database_url = gateway.settings["MPESA_DATABASE_URL"]
        self.redis_url = gateway.settings["MPESA_REDIS_URL"]
        self.port = port
        self.asked: list[Asked] = []
        self.posted: list[Row] = []
        self.shop_secrets: list[str] = []
        self.restarts = 0
        self._gateway = gateway
        self._failpoints = directory / "failpoints"
        self._merchants = directory / "merchants"
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor")
        self._workers: list[Process] = []
        self._metrics_ports: list[int] = []

    def start(self) -> None:
        """Return when everything is up."""
        self._metrics_ports = [free_port() for _ in range(1 + WORKERS)]
        first, *others = map(str, self._metrics_ports)
        self._gateway.api(self.port, metrics_port=first)
        self._workers = [self._gateway.worker(metrics_port=it) for it in others]
        self._supervisor.start()

    def stop(self) -> None:
        """No more replacements; the processes end with `processes`."""
        self._stopping.set()
        self._supervisor.join()

    def _supervise(self) -> None:
        """gunicorn replaces its own worker; this does for ours."""
        while not self._stopping.wait(0.02):
            for index, worker in enumerate(self._workers):
                if not worker.is_running():
                    self._workers[index] = self._gateway.start("worker")
                    self.restarts += 1

    # --- failpoints ------------------------------------------------------------------------------

    def arm(self, name: str) -> None:
        """The next process that comes there dies."""
        (self._failpoints / "died").unlink(missing_ok=True)
        order = self._failpoints / "order"
        order.write_text(name)
        order.rename(self._failpoints / "die")

    def disarm(self) -> bool:
        """Whether a process died of the order."""
        (self._failpoints / "die").unlink(missing_ok=True)
        return self.has_died()

    def has_died(self) -> bool:
        """Whether a process has died of the order."""
        return (self._failpoints / "died").exists()

    def hits(self) -> list[str]:
        """Every failpoint that was reached since the last call, in the order of the first time."""
        path = self._failpoints / "hits"
        names = path.read_text().split() if path.exists() else []
        path.write_text("")
        return list(dict.fromkeys(names))

    # --- what a client, Safaricom and a person do -------------------------------------------------

    def ask(self, asked: Asked) -> None:
        """POST /initiate with one key until it is answered for good, as a careful client does."""
        with self._lock:
            if asked not in self.asked:
                self.asked.append(asked)
        give_up = time.monotonic() + CLIENT_PATIENCE_S
        while time.monotonic() < give_up:
            try:
                response = self.post(asked)
            except requests.RequestException as error:
                asked.troubles.append(type(error).__name__)
            else:
                if response.status_code in FINAL_STATUSES:
                    asked.answers.append((response.status_code, response.json()))
                    return
                asked.troubles.append(f"{response.status_code} {response.text[:200]}")
                if response.status_code == 503 and "transaction_id" in response.json():
                    asked.answers.append((503, response.json()))
                    return
            time.sleep(CLIENT_PAUSE_S)

    def post(self, asked: Asked, **other: str) -> requests.Response:
        """One request; `other` are fields that differ."""
        body = {
            "amount": asked.amount,
            "phone": asked.phone,
            "webhook_url": f"http://127.0.0.1:{self.receiver.port}{asked.path}",
            "idempotency_key": asked.key,
            **other,
        }
        key = SHOP_KEY if asked.merchant == SHOP else API_KEY
        return requests.post(
            f"http://127.0.0.1:{self.port}/initiate",
            json=body,
            headers={"X-Internal-Secret": key},
            timeout=CLIENT_TIMEOUT_S,
        )

    def expire_tokens(self) -> None:
        """Safaricom forgets every OAuth token, and so does Redis: a new one must be fetched."""
        requests.post(f"{self.simulator.url}/expire-tokens", timeout=5).raise_for_status()

    def rotate_shop_secret(self) -> None:
        """A new webhook secret for the shop; the one before stays good for a while."""
        self.shop_secrets.append(f"duka-webhook-secret-{len(self.shop_secrets):06d}")
        newest_first = self.shop_secrets[-1:-3:-1]
        write_merchant(self._merchants, key=SHOP_KEY, webhook={"secrets": newest_first})

    def pause_workers(self) -> None:
        """They stand still, and hold what they hold."""
        for worker in self._workers:
            worker.send(signal.SIGSTOP)

    def resume_workers(self) -> None:
        """They go on as if no time had passed."""
        for worker in self._workers:
            worker.send(signal.SIGCONT)

    def empty_redis(self) -> None:
        """FLUSHALL."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()

    # --- looking ---------------------------------------------------------------------------------

    def rows(self, query: str, *values: Any) -> list[Row]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as conn:
            cursor = conn.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def is_quiet(self, phone: str = "2") -> bool:
        """Whether nothing is open any more for phones that begin so.

        A push whose outcome nobody knows may stay: it is shown as that, and a person is asked
        in minutes.
        """
        (row,) = self.rows(
            "WITH mine AS (SELECT * FROM transactions WHERE starts_with(phone, %s)),"
            " ids AS (SELECT id FROM mine)"
            " SELECT (SELECT count(*) FROM mine WHERE status = 'PENDING'"
            "    AND NOT (push_state = 'UNKNOWN' AND next_query_at > now() + interval '1 minute'))"
            " + (SELECT count(*) FROM deliveries WHERE state = 'PENDING'"
            "    AND transaction_id IN (SELECT id FROM ids))"
            " + (SELECT count(*) FROM callbacks WHERE state = 'RECEIVED'"
            "    AND transaction_id IN (SELECT id FROM ids)) AS open",
            phone,
        )
        return bool(row["open"] == 0)

    def wait_until_answering(self) -> None:
        """The API is up again."""

        def is_ready() -> bool:
            with contextlib.suppress(requests.RequestException):
                return self._gateway.is_ready(self.port)
            return False

        wait_for(is_ready, timeout_s=20)

    def wait_for_workers(self) -> None:
        """Each runs, and says that it has started."""

        def all_started() -> bool:
            return all(
                it.is_running() and "worker started" in it.log.read_text(errors="replace")
                for it in self._workers
            )

        wait_for(all_started, timeout_s=30)

    def counters(self) -> collections.Counter[str]:
        """What the processes counted together, by series. Only until the first of them dies."""
        counted = collections.Counter[str]()
        for port in self._metrics_ports:
            text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
            for line in text.splitlines():
                if line.startswith("mpesa_"):
                    series, value = line.rsplit(" ", 1)
                    counted[series] += float(value)  # type: ignore[assignment]
        return counted

    def logs(self) -> str:
        """What every process wrote."""
        return self._gateway.logs()


@contextmanager
def crash_stack(
    directory: Path,
    database_url: str,
    redis_url: str,
    *,
    program: Sequence[str] = GATEWAY,
    **settings: str,
) -> Iterator[CrashStack]:
    """Everything, started; ended at the end. `settings` go before our own."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    for name in ("failpoints", "merchants", "logs"):
        (directory / name).mkdir()
    port = free_port()
    with (
        RunningSimulator() as simulator,
        FlakyReceiver() as receiver,
        processes(
            directory / "logs",
            database_url=database_url,
            redis_url=redis_url,
            base_url=simulator.url,
            callback_port=port,
            program=program,
            failpoints=str(directory / "failpoints"),
            merchants_dir=str(directory / "merchants"),
            **{**SETTINGS, **settings},
        ) as gateway,
    ):
        simulator.change(callback_delay=PIN_TIME_S, subscriber_lock=False)
        stack = CrashStack(gateway, directory, port, simulator, receiver)
        stack.rotate_shop_secret()
        stack.start()
        try:
            yield stack
        finally:
            stack.stop()
