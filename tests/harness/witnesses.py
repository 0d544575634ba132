"""What outside parties saw of many payments."""

from __future__ import annotations

import collections
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from psycopg.rows import dict_row

from daraja_simulator.server import RunningSimulator
from harness.processes import Processes
from harness.receiver import Receiver
from harness.settings import API_KEY


class Witnesses:
    """What three parties saw that the gateway cannot touch, held against its database."""

    def __init__(self, database_url: str, simulator: RunningSimulator, receiver: Receiver) -> None:
        self.database_url = database_url
        self.simulator = simulator
        self.receiver = receiver

    def rows(self, query: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as conn:
            return conn.execute(query.encode()).fetchall()

    def all_told(self) -> bool:
        """Whether everything has ended: no pending payment, no waiting webhook or callback."""
        (row,) = self.rows(
            "SELECT (SELECT count(*) FROM transactions WHERE status = 'PENDING')"
            " + (SELECT count(*) FROM deliveries WHERE state = 'PENDING')"
            " + (SELECT count(*) FROM callbacks WHERE state = 'RECEIVED') AS open"
        )
        return bool(row["open"] == 0)

    def check(self, *, payments: int, repeats_allowed: bool) -> None:
        """The promises: lost = 0, doubled = 0, one end, one delivery, told to the merchant."""
        ledger = self.simulator.ledger()
        debits = collections.Counter(it["checkout_request_id"] for it in ledger["debits"])
        assert set(debits.values()) <= {1}, "charged twice"
        ends = self.rows("SELECT * FROM transactions ORDER BY id")
        assert len(ends) == payments
        completed = {it["checkout_request_id"] for it in ends if it["status"] == "COMPLETED"}
        assert completed == set(debits), "a debit without its payment, or the reverse"
        finals = self.rows(
            "SELECT transaction_id, count(*) FROM transaction_events"
            " WHERE kind IN ('completed', 'failed') GROUP BY transaction_id"
        )
        assert [it["count"] for it in finals] == [1] * payments, "more or less than one end"
        self._check_webhooks(payments, repeats_allowed=repeats_allowed)

    def _check_webhooks(self, payments: int, *, repeats_allowed: bool) -> None:
        told: dict[str, set[tuple[str, bytes]]] = collections.defaultdict(set)
        for request in self.receiver.requests:
            body = request.verify(API_KEY)
            told[body["transaction_id"]].add((request.webhook_id, request.body))
        assert len(told) == payments, "a merchant was not told"
        assert all(len(forms) == 1 for forms in told.values()), "two forms of one webhook"
        if not repeats_allowed:
            assert len(self.receiver.requests) == payments
        attempts = self.rows("SELECT count(*) FROM webhook_attempts")[0]["count"]
        assert attempts >= len(self.receiver.requests), "a request without its attempt row"


def pay_many(
    gateway: Processes, ports: list[int], receiver: Receiver, count: int, *, threads: int = 16
) -> list[str]:
    """Start payments, some of which will be cancelled, from several clients at once."""

    def pay(number: int) -> str:
        digits = "1032" if number % 5 == 0 else "0000"
        response = gateway.initiate(
            ports[number % len(ports)],
            amount="10",
            phone=f"2547{number:04d}{digits}",
            webhook_url=receiver.url,
            idempotency_key=str(uuid.uuid4()),
        )
        assert response.status_code == 201, response.text
        transaction_id: str = response.json()["transaction_id"]
        return transaction_id

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(pay, range(count)))
