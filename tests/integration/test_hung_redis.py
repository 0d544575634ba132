"""A Redis that accepts and never answers costs its time-out once, not once for each who asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from harness.hanging import hung
from harness.waiting import wait_for
from mpesa_devkit.embedded import EmbeddedRedis
from mpesa_gateway.clients.circuit_breaker import CircuitBreakerRedis
from mpesa_gateway.services import open_redis

TIMEOUT_S = 0.3
CALLS = 200


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    running = EmbeddedRedis(tmp_path)
    running.start()
    yield running
    running.stop()


def fails(client: redis.Redis) -> bool:
    try:
        client.get("key")
    except redis.RedisError:
        return True
    return False


def test_one_at_a_time_asks_a_redis_that_hangs(server: EmbeddedRedis) -> None:
    with open_redis(server.url(), timeout_s=TIMEOUT_S) as client, ThreadPoolExecutor(5) as threads:
        assert isinstance(client, CircuitBreakerRedis)
        assert client.get("key") is None
        with hung(server.process.pid):
            began = time.monotonic()
            failed = list(threads.map(fails, [client] * CALLS))
            took_s = time.monotonic() - began
        assert failed == [True] * CALLS
        # One by one they would wait for CALLS / 5 time-outs, each twice.
        assert took_s < CALLS / 5 * TIMEOUT_S

        wait_for(lambda: not fails(client), what="Redis to be asked again")
        assert [fails(client) for _ in range(3)] == [False] * 3


def test_an_answer_that_is_an_error_is_an_answer(server: EmbeddedRedis) -> None:
    with open_redis(server.url()) as client:
        client.set("key", "no list")
        with pytest.raises(redis.ResponseError):
            client.lpush("key", "1")
        assert client.get("key") == b"no list"
