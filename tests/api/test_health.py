"""GET /health, /livez and /readyz: what each says while something is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from prometheus_client import REGISTRY

from daraja_simulator.server import RunningSimulator
from harness.callbacks import post
from harness.collecting import every_case
from harness.databases import takes_no_writes
from harness.gateway import Gateway, open_gateway
from harness.hanging import hung
from harness.merchants import write_merchant
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.settings import API_KEY, environment
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_devkit.processes import free_port
from mpesa_gateway.api.app import create_app
from mpesa_gateway.api.callbacks import inbox
from mpesa_gateway.config import Config
from mpesa_gateway.services import open_services
from mpesa_gateway.usecases import database_watch

UP = (200, {"status": "ok", "database": "up"})
DOWN = (503, {"status": "unavailable", "database": "down"})
BEHIND = (503, {"status": "unavailable", "database": "up", "schema": "behind"})
READ_ONLY = (503, {"status": "unavailable", "database": "read-only"})
# A probe that waits longer is a probe that failed.
PROMPTLY_S = 4.0


def ask(gateway: Gateway, path: str) -> tuple[int, Any]:
    """Status and body, without a key and without a session: threads may use it."""
    response = requests.get(gateway.url + path, timeout=20)
    assert response.headers["Content-Type"] == "application/json"
    return response.status_code, response.json()


def checks(**wrong: bool) -> dict[str, bool]:
    return {"database": True, "schema": True, "merchants": True, "running": True, **wrong}


def test_everything_is_up(shared: Gateway) -> None:
    wait_for(lambda: ask(shared, "/health") == UP, what="the pool")
    assert ask(shared, "/readyz") == (200, {"status": "ready", "checks": checks()})
    assert ask(shared, "/livez") == (200, {"status": "ok"})


@every_case("path", ["/health", "/livez", "/readyz"])
@every_case("method", ["POST", "PUT", "DELETE"])
def test_another_method_is_not_allowed(shared: Gateway, method: str, path: str) -> None:
    response = shared.session.request(method, shared.url + path, timeout=5)

    assert_problem(response, 405, "method-not-allowed")
    assert "GET" in response.headers["Allow"]


@pytest.fixture
def mortal(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> Iterator[Gateway]:
    """A gateway whose Postgres may be taken away."""
    assert own_postgres.process.is_running()
    with open_gateway(own_database_url, redis_url, simulator, receiver) as gateway:
        wait_for(lambda: ask(gateway, "/health") == UP, what="the pool")
        yield gateway


def assert_down(gateway: Gateway) -> None:
    """Many probes at once: all hear the same, and none waits for ever."""
    started = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: ask(gateway, "/health"), range(20)))
        ready = list(threads.map(lambda _: ask(gateway, "/readyz"), range(5)))
    assert answers == [DOWN] * 20
    unready = {"status": "not ready", "checks": checks(database=False, schema=False)}
    assert ready == [(503, unready)] * 5
    assert time.monotonic() - started < 2 * PROMPTLY_S
    started = time.monotonic()
    assert ask(gateway, "/livez") == (200, {"status": "ok"})
    assert time.monotonic() - started < PROMPTLY_S


def test_a_stopped_postgres_is_down_and_comes_up_again(
    mortal: Gateway, own_postgres: EmbeddedPostgres
) -> None:
    own_postgres.stop()

    assert_down(mortal)

    own_postgres.start()
    wait_for(lambda: ask(mortal, "/health") == UP, what="Postgres to be back")
    assert ask(mortal, "/readyz")[0] == 200


def test_a_hung_postgres_is_down_and_comes_up_again(
    mortal: Gateway, own_postgres: EmbeddedPostgres
) -> None:
    with hung(own_postgres.process.pid):
        assert_down(mortal)

    wait_for(lambda: ask(mortal, "/health") == UP, what="Postgres to be back")
    assert ask(mortal, "/readyz")[0] == 200


def test_without_any_database_the_process_lives(
    redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/nothing"
    with open_gateway(nowhere, redis_url, simulator, receiver) as gateway:
        assert ask(gateway, "/livez") == (200, {"status": "ok"})
        assert ask(gateway, "/health") == DOWN
        assert ask(gateway, "/readyz")[0] == 503


def test_an_empty_database_is_up_but_its_schema_is_behind(
    empty_database_url: str, redis_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    with open_gateway(empty_database_url, redis_url, simulator, receiver) as gateway:
        wait_for(lambda: ask(gateway, "/health") == BEHIND, what="the pool")

        status, answer = ask(gateway, "/readyz")

        assert status == 503
        assert answer == {"status": "not ready", "checks": checks(schema=False)}


def test_an_older_schema_is_not_ready_and_a_newer_one_is(gateway: Gateway) -> None:
    wait_for(lambda: ask(gateway, "/readyz")[0] == 200, what="the pool")
    newer = (
        "INSERT INTO schema_migrations (version, name, checksum)"
        " SELECT max(version) + 1, 'next', 'x' FROM schema_migrations RETURNING version"
    )
    assert gateway.rows(newer)
    assert ask(gateway, "/readyz")[0] == 200

    assert gateway.rows("DELETE FROM schema_migrations WHERE version >= %s RETURNING 1 AS gone", 1)
    assert ask(gateway, "/readyz") == (503, {"status": "not ready", "checks": checks(schema=False)})


def test_without_redis_and_without_safaricom_it_is_ready(
    database_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    with open_gateway(
        database_url,
        f"redis://127.0.0.1:{free_port()}/0",
        simulator,
        receiver,
        safaricom_base_url=f"http://127.0.0.1:{free_port()}",
    ) as gateway:
        wait_for(lambda: ask(gateway, "/readyz")[0] == 200, what="the pool")


def test_it_is_ready_once_the_merchants_were_read(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    directory = tmp_path / "mounted-later"
    with open_gateway(
        database_url, redis_url, simulator, receiver, merchants_dir=str(directory)
    ) as gateway:
        wait_for(lambda: ask(gateway, "/health") == UP, what="the pool")
        unready = {"status": "not ready", "checks": checks(merchants=False)}
        assert ask(gateway, "/readyz") == (503, unready)

        directory.mkdir()
        write_merchant(directory, key="key-of-duka")

        wait_for(lambda: ask(gateway, "/readyz")[0] == 200, what="the merchants")
        assert gateway.get("/transactions", key="key-of-duka").status_code == 200
        # Gone again: what is known stays in use, and the process stays ready.
        (directory / "duka.json").unlink()
        directory.rmdir()
        assert ask(gateway, "/readyz")[0] == 200
        assert gateway.get("/transactions", key=API_KEY).status_code == 200


async def call(app: Any, path: str) -> tuple[int, Any]:
    """One GET on an application that no server has started."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    body = b"".join(event.get("body", b"") for event in sent[1:])
    return sent[0]["status"], json.loads(body)


def answers_of(
    database_url: str, redis_url: str, paths: list[str], is_stopping: Callable[[], bool]
) -> list[tuple[int, Any]]:
    """What an application answers whose inbox was never started."""
    env = environment(
        database_url=database_url,
        redis_url=redis_url,
        base_url="http://127.0.0.1:1",
        callback_url="http://127.0.0.1:1/callback",
    )
    with open_services(Config.from_env(env)) as services:
        app = create_app(services, notify=lambda _: None, is_stopping=is_stopping)

        async def run() -> list[tuple[int, Any]]:
            return [await call(app, path) for path in paths]

        return asyncio.run(run())


def test_a_stopping_process_is_not_ready_but_serves(database_url: str, redis_url: str) -> None:
    ready, health = answers_of(database_url, redis_url, ["/readyz", "/health"], lambda: True)

    assert ready == (503, {"status": "not ready", "checks": checks(running=False)})
    assert health == UP


def test_a_process_whose_inbox_is_dead_should_be_restarted(
    database_url: str, redis_url: str
) -> None:
    (live,) = answers_of(database_url, redis_url, ["/livez"], lambda: False)

    assert live == (503, {"status": "dead"})


def test_a_database_that_takes_no_writes_is_read_only(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads go on, so that no pod leaves: `/readyz` stays 200."""
    monkeypatch.setattr(database_watch, "BEAT_S", 0.1)
    monkeypatch.setattr(database_watch, "SILENT_S", 1.0)
    gateway.services.watch.start()
    try:
        wait_for(lambda: ask(gateway, "/health") == UP, what="the pool")
        with takes_no_writes(gateway.database_url):
            wait_for(lambda: ask(gateway, "/health") == READ_ONLY, what="the heartbeat to fail")
            assert ask(gateway, "/readyz")[0] == 200
            assert REGISTRY.get_sample_value("mpesa_database_writable") == 0
        wait_for(lambda: ask(gateway, "/health") == UP, what="writes")
        assert REGISTRY.get_sample_value("mpesa_database_writable") == 1
    finally:
        gateway.services.watch.stop()


def test_a_flush_that_has_lost_its_way_ends_the_process(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "STUCK_S", 0.5)
    wait_for(lambda: ask(gateway, "/health") == UP, what="the pool")
    with psycopg.connect(gateway.database_url) as conn, ThreadPoolExecutor(1) as threads:
        conn.execute("LOCK TABLE callbacks IN ACCESS EXCLUSIVE MODE")
        posted = threads.submit(post, gateway, "/callback", b"{}")
        wait_for(lambda: ask(gateway, "/livez") == (503, {"status": "dead"}), what="the probe")
        conn.rollback()
        posted.result()
    wait_for(lambda: ask(gateway, "/livez") == (200, {"status": "ok"}), what="the flush to end")
