"""What a hostile merchant costs another: 200 endpoints that never answer, and 200 open pushes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import uvloop

from bench import data
from bench.endpoint import Endpoint
from bench.figures import Figure, Plan, at_most
from bench.load import quantile
from bench.rig import Rig, Running, wait_for
from bench.webhooks import ENDPOINTS, Lags, give_up, make_deliveries, make_due, run_lags

HOSTILE = "shops/hostile"
KEY = "key-of-the-hostile-merchant"
BLACK_HOLES = 200
PUSHES = 200
# Longer than a run, so that the pushes are open all the time.
PUSH_S = 25.0
CONCURRENCIES = (4, 10)
# Its share of MPESA_PUSHES_IN_FLIGHT; the others are answered 503 before anything is measured.
OPEN = 64
_OPEN = (
    b"SELECT count(*) FROM transactions WHERE push_state = 'SENDING' AND merchant = %s AND id > %s"
)


def write_hostile(directory: Path, base_url: str) -> None:
    """A merchant file beside the merchant `default` of the environment."""
    content = {
        "version": 1,
        "name": HOSTILE,
        "environment": "sandbox",
        "baseUrl": base_url,
        "shortCode": "600100",
        "transactionType": "CustomerPayBillOnline",
        "credentials": {
            "consumerKey": "hostile-key",
            "consumerSecret": "hostile-secret",
            "passkey": "hostile-passkey-0123456789",
        },
        "apiKeySHA256": [hashlib.sha256(KEY.encode()).hexdigest()],
        "webhook": {"secrets": ["hostile-webhook-secret"]},
    }
    directory.mkdir()
    (directory / "hostile.json").write_text(json.dumps(content))


def measure(rig: Rig, plan: Plan, notes: list[str]) -> list[Figure]:
    """The p99 of a merchant's webhooks at 100 callbacks a second, with and without the other."""
    simulator = rig.simulator(push_delay=f"{PUSH_S:g}s", callback_delay="3600s")
    directory = rig.directory / "shares"
    write_hostile(directory, f"http://127.0.0.1:{simulator.port}")
    figures = []
    for concurrency in CONCURRENCIES:
        merchants = str(directory)
        api = rig.api(merchants_dir=merchants)
        worker = rig.worker(merchants_dir=merchants, worker_concurrency=str(concurrency))
        ratios = _ratios(rig, api, plan, notes, first=70_000_000 + 1_000_000 * concurrency)
        name = f"{BLACK_HOLES} black holes, {PUSHES} open pushes, {concurrency} threads"
        figures.append(Figure(f"{name}: another's webhook p99 ÷ without", ratios, at_most(1.5)))
        rig.end(api)
        rig.end(worker)
    rig.end(simulator)
    return figures


def _ratios(rig: Rig, api: Running, plan: Plan, notes: list[str], *, first: int) -> list[float]:
    seconds, ratios = 3.0 if plan.short else 10.0, []
    with rig.connect() as conn, Endpoint() as endpoint:
        payments = data.Payments(conn, made=first)
        hostile = data.Payments(conn, made=first + 500_000, merchant=HOSTILE)

        def run() -> Lags:
            urls = endpoint.urls(ENDPOINTS)
            found = run_lags(conn, api, endpoint, payments, seconds=seconds, urls=urls)
            if found.lost:
                notes.append(f"{found.lost} callbacks beside the hostile were not answered 200")
            return found

        run()
        for _ in range(1 if plan.short else 3):
            plain = run()
            with _attack(conn, api, endpoint, hostile):
                attacked = run()
            give_up(conn)
            ratios.append(quantile(attacked.lags, 0.99) / quantile(plain.lags, 0.99))
    return ratios


@contextmanager
def _attack(
    conn: psycopg.Connection, api: Running, endpoint: Endpoint, hostile: data.Payments
) -> Iterator[None]:
    """Webhooks to many black holes are due, and pushes wait for Safaricom."""
    conn.execute("DELETE FROM failing_endpoints")
    urls = endpoint.black_holes(BLACK_HOLES)
    make_due(conn, make_deliveries(conn, hostile, BLACK_HOLES, urls))
    newest, stop = hostile.newest(), threading.Event()
    thread = threading.Thread(target=lambda: uvloop.run(_hold_pushes(api.port, newest, stop)))
    thread.start()
    try:
        wait_for(
            lambda: conn.execute(_OPEN, [HOSTILE, newest]).fetchone() == (OPEN,),
            timeout_s=PUSH_S / 2,
            what="the hostile's share of pushes to be open",
        )
        yield
    finally:
        stop.set()
        thread.join()


async def _hold_pushes(port: int, first: int, stop: threading.Event) -> None:
    """Each on a connection of its own, until the end of the run or its answer."""
    held = [asyncio.create_task(_push(port, first + it)) for it in range(PUSHES)]
    await asyncio.to_thread(stop.wait)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)


async def _push(port: int, number: int) -> None:
    body = json.dumps(
        {
            "amount": "1",
            "phone": f"2547{number % 10_000:04d}4042",
            "webhook_url": "http://127.0.0.1:1024/webhooks",
            "idempotency_key": str(uuid.uuid4()),
        }
    ).encode()
    head = (
        f"POST /initiate HTTP/1.1\r\nHost: pay\r\nContent-Type: application/json\r\n"
        f"X-Internal-Secret: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        await reader.read()
    finally:
        writer.close()
