"""A fail-over: the server that we are connected to lives on, and takes no writes any more."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg

from harness.gateway import Gateway
from harness.waiting import wait_for
from mpesa_gateway.usecases.callbacks import POISON_AFTER

PHONE, ANOTHER = "254712340000", "254712350000"
END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def turn(gateway: Gateway, setting: str) -> None:
    """What connects from now on finds the database like this."""
    name = urlsplit(gateway.database_url).path.lstrip("/")
    with psycopg.connect(
        gateway.database_url, options="-c default_transaction_read_only=off"
    ) as conn:
        conn.execute(f"ALTER DATABASE {name} {setting}".encode())


def test_a_server_that_takes_no_writes_is_an_outage(gateway: Gateway) -> None:
    transaction = gateway.pay(PHONE)
    (work,) = wait_for(gateway.notifier.take, what="the callback's wake-up")
    turn(gateway, "SET default_transaction_read_only = on")
    gateway.execute(END_SESSIONS)
    for _ in range(POISON_AFTER + 1):
        gateway.dispatcher.run(work)

    assert gateway.rows("SELECT state, attempts FROM callbacks") == [
        {"state": "RECEIVED", "attempts": 0}
    ]
    assert gateway.initiate(ANOTHER).status_code == 503

    # Sessions stay as they are: only who connects anew finds the server that takes writes.
    turn(gateway, "RESET default_transaction_read_only")

    def done() -> bool:
        gateway.dispatcher.run(work)
        return bool(gateway.transaction(transaction)["status"] == "COMPLETED")

    wait_for(done, what="the payment's end")
    # Each connection that is left over costs one call.
    wait_for(lambda: gateway.initiate(ANOTHER).status_code == 201, what="a payment")
