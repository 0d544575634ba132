"""A gateway in this process, driven step by step: real Postgres, Redis and HTTP, no worker thread.

Work that workers are notified of is collected; `work()` does it, with all that follows.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
import redis
import requests
from psycopg.rows import dict_row

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.clock import Clock
from harness.databases import Databases
from harness.receiver import Answer, Receiver
from harness.serving import bound_socket, serve
from harness.settings import API_KEY, environment
from mpesa_gateway.clients.egress import Guard
from mpesa_gateway.clients.high_water import KEY_PREFIX
from mpesa_gateway.config import Config
from mpesa_gateway.domain.work import Work
from mpesa_gateway.services import Services, open_services
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.worker.dispatcher import Dispatcher
from mpesa_gateway.worker.sweeper import Sweeper


class CollectingNotifier:
    """Collects the wake-ups, in the place of Redis."""

    def __init__(self) -> None:
        self._work: list[Work] = []
        self._lock = threading.Lock()

    def notify(self, work: list[Work]) -> None:
        with self._lock:
            self._work += work

    def take(self) -> list[Work]:
        with self._lock:
            taken, self._work = self._work, []
            return taken


@dataclass
class Gateway:
    """A running API and the work behind it."""

    url: str
    services: Services
    dispatcher: Dispatcher
    notifier: CollectingNotifier
    clock: Clock
    simulator: RunningSimulator
    receiver: Receiver
    database_url: str
    session: requests.Session = field(default_factory=requests.Session)
    _observer: psycopg.Connection[dict[str, Any]] | None = None

    @property
    def pool(self) -> Pool:
        return self.services.pool

    def body(self, phone: str = "254712340000", **fields: Any) -> dict[str, Any]:
        """A good body for /initiate; a field that is `...` is left out."""
        body = {
            "amount": "10",
            "phone": phone,
            "webhook_url": self.receiver.url,
            "idempotency_key": str(uuid.uuid4()),
            **fields,
        }
        return {name: value for name, value in body.items() if value is not ...}

    def initiate(
        self, phone: str = "254712340000", *, key: str = API_KEY, **fields: Any
    ) -> requests.Response:
        return self.session.post(
            f"{self.url}/initiate",
            json=self.body(phone, **fields),
            headers={"X-Internal-Secret": key},
            timeout=30,
        )

    def pay(self, phone: str = "254712340000", **fields: Any) -> str:
        """The id of a transaction that was accepted."""
        response = self.initiate(phone, **fields)
        assert response.status_code == 201, response.text
        transaction_id: str = response.json()["transaction_id"]
        return transaction_id

    def get(self, path: str, *, key: str = API_KEY, **params: Any) -> requests.Response:
        return self.session.get(
            self.url + path, params=params, headers={"X-Internal-Secret": key}, timeout=30
        )

    def transaction(self, transaction_id: str) -> dict[str, Any]:
        response = self.get(f"/transactions/{transaction_id}")
        assert response.status_code == 200, response.text
        view: dict[str, Any] = response.json()
        return view

    def callback_path(self, phone: str) -> str:
        """The path of the last push to that phone, token included."""
        pushes = self.simulator.ledger(phone=phone)["pushes"]
        return str(urlsplit(pushes[-1]["callback_url"]).path)

    def checkout_request_id(self, phone: str) -> str:
        """Safaricom's id of the last push to that phone."""
        found: str = self.simulator.ledger(phone=phone)["pushes"][-1]["checkout_request_id"]
        return found

    def next_push(self, **fields: Any) -> None:
        """What the simulator does with the next push only (its PUT /next)."""
        response = self.session.put(f"{self.simulator.url}/next", json=fields, timeout=10)
        assert response.ok, response.text

    def next_query(self, **fields: Any) -> None:
        """What the simulator answers to the next query only (its PUT /next-query)."""
        response = self.session.put(f"{self.simulator.url}/next-query", json=fields, timeout=10)
        assert response.ok, response.text

    def post(self, path: str, body: bytes, **headers: str) -> requests.Response:
        """POST as Safaricom does."""
        given = {"Content-Type": "application/json;charset=UTF-8", **headers}
        return self.session.post(self.url + path, data=body, headers=given, timeout=30)

    def work(self) -> None:
        """Do everything that workers were notified of, and all that follows from it."""
        while work := self.notifier.take():
            for it in work:
                self.dispatcher.run(it)

    def sweep(self) -> None:
        """One round of a sweeper, and all that follows."""
        sweeper = Sweeper(
            self.pool,
            self.dispatcher.run,
            clock=self.clock,
            interval=self.services.config.sweep_interval,
            threads=1,
        )
        sweeper.sweep()
        sweeper.wait()
        self.work()

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of the database, as an outside observer sees them."""
        return self._observing().execute(query.encode(), values).fetchall()

    def execute(self, statement: str, *values: Any) -> None:
        """Change the database behind the gateway's back."""
        self._observing().execute(statement.encode(), values)

    def _observing(self) -> psycopg.Connection[dict[str, Any]]:
        """A connection that is kept: a new one costs Postgres 10 ms. Tests also cut it."""
        if self._observer is not None:
            try:
                self._observer.execute("SELECT 1")
            except psycopg.OperationalError:
                self._observer.close()
                self._observer = None
        if self._observer is None:
            self._observer = psycopg.connect(
                self.database_url,
                row_factory=dict_row,
                autocommit=True,
                prepare_threshold=None,  # tests also change the schema
            )
        return self._observer

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Forget all earlier payments. The tables are to be emptied inside; Redis is empty already.

        Inside, nobody calls back, and nobody looks whether the old rows are still there: the
        gateway would take the emptied tables for a database that has lost them.
        """
        self.simulator.stop()
        self.work()
        self.notifier.take()
        self.services.tokens._local.clear()
        self.clock.restart()
        self.receiver.requests.clear()
        self.receiver.answers.clear()
        self.receiver.default = Answer()
        with self.services.recovery._looking:
            yield
            self.services.recovery._forget()
        self.simulator.start()

    def close(self) -> None:
        """End the observer's connection."""
        if self._observer is not None:
            self._observer.close()


@contextmanager
def open_gateway(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    *,
    guard: Guard | None = None,
    **settings: str,
) -> Iterator[Gateway]:
    """A gateway of its own; `settings` as in `harness.settings.environment`.

    With `redis_is_new`, nothing is looked for that an earlier database of that name left.
    """
    sock = bound_socket()
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    base_url = settings.pop("safaricom_base_url", simulator.url)
    callback_url = settings.pop("safaricom_callback_url", f"{url}/callback")
    config = Config.from_env(
        environment(
            database_url=database_url,
            redis_url=redis_url,
            base_url=base_url,
            callback_url=callback_url,
            **settings,
        )
    )
    if not settings.pop("redis_is_new", ""):
        _forget_databases_of_that_name(redis_url)
    notifier, clock = CollectingNotifier(), Clock()
    with open_services(config, clock=clock, guard=guard) as services:
        dispatcher = Dispatcher(services, notifier)  # type: ignore[arg-type]
        with serve(services, notifier.notify, sock) as served, requests.Session() as session:
            gateway = Gateway(
                served,
                services,
                dispatcher,
                notifier,
                clock,
                simulator,
                receiver,
                database_url,
                session,
            )
            with closing(gateway):
                yield gateway


def _forget_databases_of_that_name(redis_url: str) -> None:
    """Databases are emptied and used again: what one held before is not lost."""
    with redis.Redis.from_url(redis_url) as client, contextlib.suppress(redis.RedisError):
        for key in client.scan_iter(f"{KEY_PREFIX}*"):
            client.delete(key)


@dataclass(frozen=True)
class Gateways:
    """Starts gateways with all that belongs to one: database, Safaricom, merchant's endpoint."""

    databases: Databases
    redis_url: str

    @contextmanager
    def start(
        self, *, safaricom: Settings | None = None, port: int = 0, **settings: str
    ) -> Iterator[Gateway]:
        """One on an empty database. Callbacks come at once unless `safaricom` says otherwise.

        `port` is the simulator's, for one that is stopped and started again.
        """
        name = self.databases.take()
        with (
            RunningSimulator(safaricom or Settings(callback_delay=0.0), port=port) as simulator,
            Receiver() as receiver,
            open_gateway(
                self.databases.url(name),
                self.redis_url,
                simulator,
                receiver,
                guard=None,
                **settings,
            ) as gateway,
        ):
            yield gateway
        self.databases.give_back(name)
