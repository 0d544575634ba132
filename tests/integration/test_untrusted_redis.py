"""Whatever is written to Redis, under any key that the gateway reads: payments go on."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import redis

from harness.gateway import Gateway, Gateways
from mpesa_gateway.clients.budget import Budgets
from mpesa_gateway.clients.redis_keys import PATTERNS, budget_key, lock_key, token_key, worked_key
from mpesa_gateway.clients.sealed import app_id, seal
from mpesa_gateway.clients.token import LOCK_MS
from mpesa_gateway.domain.merchant import Credentials, Merchant
from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.work_queue import Notifier, WorkQueue

NUMBERS = itertools.count(710_00)
# The year 2096.
FAR = 4_000_000_000
TEXTS = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\x80\x04pickle",
    "\u20ac".encode(),
    b"null",
    b"[]",
    b"[1,2,3,4]",
    b"[" * 100_000,
    b'["",0.0,"x"]',
    b'["",%d,"refused for good"]' % FAR,
    b'["forged",%d,""]' % FAR,
    b'["forged",1e400,""]',
    b'["forged",Infinity,""]',
    b'["forged",NaN,""]',
    b'["forged",1%s,""]' % (b"0" * 400),
    '["\u20ac",4e9,""]'.encode(),
    b'["a\\r\\nX: b",4e9,""]',
    b"inf",
    b"-inf",
    b"nan",
    b"0x7fffffffffff",
    b"1e308",
    b"-1",
    b"%d" % FAR,
    b"9" * 5000,
    b"x" * 1_000_000,
)
# A payment's usual time is some 20 ms; a busy machine and one wait for a lock are no failure.
SLOWER_S = 10.0


@pytest.fixture(scope="module")
def running(gateways: Gateways) -> Iterator[Gateway]:
    with gateways.start(safaricom_push_per_minute="6000") as gateway:
        yield gateway


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def merchant_of(gateway: Gateway) -> Merchant:
    merchant = gateway.services.merchants.current().find("default")
    assert merchant is not None
    return merchant


def keys_of(gateway: Gateway) -> dict[str, list[str]]:
    """Every key of one merchant's payment, by its pattern."""
    app = app_id(merchant_of(gateway))
    return {
        "token": [token_key(app)],
        "lock": [lock_key(app)],
        "worked": [worked_key(app)],
        "budget": [budget_key(it) for it in (f"push:{app}", f"query:{app}", "initiate:default")],
        "queue": [WorkQueue("redis://127.0.0.1:1/0").storage.queue_key],
    }


def test_the_list_of_keys_is_whole(running: Gateway, client: redis.Redis) -> None:
    """What a payment, a query and a wake-up leave in Redis is on the list, and attacked below."""
    running.pay("254712340000")
    Budgets(client).take("query:x", 5, burst=1)
    found = {it.decode() if isinstance(it, bytes) else it for it in client.keys("*")}

    assert found
    for key in found:
        assert any(re.fullmatch(it, key) for it in PATTERNS.values()), key
    assert set(keys_of(running)) == set(PATTERNS)
    for name, keys in keys_of(running).items():
        assert all(re.fullmatch(PATTERNS[name], key) for key in keys)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_payment_goes_on_whatever_stands_under_the_key(
    running: Gateway, client: redis.Redis, name: str
) -> None:
    attacks: list[Callable[[str], object]] = [partial(client.set, value=it) for it in TEXTS]
    attacks += [
        partial(client.set, value=b"x", px=10**12),
        lambda key: client.rpush(key, "x"),
        lambda key: client.hset(key, "x", "y"),
        lambda key: client.sadd(key, "x"),
        lambda key: client.zadd(key, {"x": 1}),
    ]
    misses = []
    for number, attack in enumerate(attacks):
        for has_token in (True, False):
            client.flushall()
            if not has_token:
                running.services.tokens._local.clear()
            for key in keys_of(running)[name]:
                attack(key)
            started = time.monotonic()
            answer = running.initiate(f"254{next(NUMBERS)}4042")
            took_s = time.monotonic() - started
            if answer.status_code != 201 or took_s > SLOWER_S:
                misses.append((number, has_token, answer.text, took_s))

    assert misses == []


def test_a_lock_that_is_written_again_and_again_costs_a_bounded_time(
    running: Gateway, client: redis.Redis
) -> None:
    lock, stopping = lock_key(app_id(merchant_of(running))), threading.Event()

    def hold() -> None:
        while not stopping.wait(0.02):
            client.set(lock, "somebody", px=LOCK_MS)

    running.services.tokens._local.clear()
    client.set(lock, "somebody", px=LOCK_MS)
    holder = threading.Thread(target=hold)
    holder.start()
    try:
        slow = running.initiate(f"254{next(NUMBERS)}4042")
        started = time.monotonic()
        fast = running.initiate(f"254{next(NUMBERS)}4042")
        took_s = time.monotonic() - started
    finally:
        stopping.set()
        holder.join()

    assert (slow.status_code, fast.status_code) == (201, 201)
    assert took_s < SLOWER_S / 2


def test_neither_a_token_nor_a_refusal_can_be_forged_or_moved(
    running: Gateway, client: redis.Redis
) -> None:
    merchant, tokens = merchant_of(running), running.services.tokens
    other = replace(merchant, credentials=Credentials("other", "its-own-secret", "p"))
    good = tokens.get(merchant)
    key, until = token_key(app_id(merchant)), time.time() + 1000
    for value in (["stolen", until, ""], ["", time.time() + 0.9, "no"]):
        for sealed in (
            seal(other, key, json.dumps(value)),
            seal(merchant, token_key(app_id(other)), json.dumps(value)),
            "0" * 64 + json.dumps(value),
        ):
            client.set(key, sealed)
            assert tokens.get(merchant) == good


@pytest.mark.parametrize(
    "value",
    [
        ["stolen", "soon", ""],
        ["stolen", 10**400, ""],
        ["stolen", float("inf"), ""],
        ["stolen", float("nan"), ""],
        ["stolen", True, ""],
        ["stolen", 0, ""],
        ["a b", "later", ""],
        [7, "later", ""],
        ["", "later", "refused for long"],
        ["stolen", "later", 7],
        ["stolen", "10 days", ""],
        ["stolen"],
        {},
        7,
    ],
    ids=repr,
)
def test_even_what_is_sealed_must_make_sense(
    running: Gateway, client: redis.Redis, value: object
) -> None:
    merchant, tokens = merchant_of(running), running.services.tokens
    good = tokens.get(merchant)
    key = token_key(app_id(merchant))
    if isinstance(value, list) and len(value) == 3:
        seconds = {"later": 1000, "10 days": 864_000}.get(str(value[1]))
        value = [value[0], value[1] if seconds is None else time.time() + seconds, value[2]]
    client.set(key, seal(merchant, key, json.dumps(value)))

    assert tokens.get(merchant) == good


def test_dead_tokens_that_come_back_by_turns_are_known_as_dead(
    running: Gateway, client: redis.Redis
) -> None:
    """Who reads Redis may write again what stood there before."""
    merchant, tokens = merchant_of(running), running.services.tokens
    key = token_key(app_id(merchant))
    recorded = []
    for _ in range(5):
        token = tokens.get(merchant)
        recorded.append(client.get(key))
        tokens.reject(merchant, token)
    good = tokens.get(merchant)
    for raw in recorded:
        assert raw is not None
        client.set(key, raw)
        assert tokens.get(merchant) == good


@pytest.mark.parametrize("value", TEXTS, ids=lambda it: repr(it[:30]))
def test_nobody_else_says_that_credentials_worked(
    running: Gateway, client: redis.Redis, value: bytes
) -> None:
    merchant, tokens = merchant_of(running), running.services.tokens
    key = worked_key(app_id(merchant))
    texts = ("null", "true", '"x"', "1e400", "NaN", str(10**400), "[" * 9000, f"{FAR}.0", "1.0")
    sealed = [seal(merchant, key, it).encode() for it in texts]
    for raw in (value, *sealed):
        tokens._local.clear()
        client.set(key, raw)
        assert not tokens.has_worked_lately(merchant)
    tokens.note_worked(merchant)
    tokens._local.clear()
    assert tokens.has_worked_lately(merchant)


@pytest.mark.parametrize("value", [b"inf", b"nan", b"%d" % FAR, b"1e308", b"x", b"-5", b""])
def test_no_number_in_a_bucket_shuts_it(client: redis.Redis, value: bytes) -> None:
    budgets = Budgets(client)
    client.set(budget_key("push"), value)

    assert budgets.take("push", 6).granted
    assert [budgets.take("push", 6).granted for _ in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize("kind", ["text", "set"])
def test_a_queue_that_is_no_list_costs_wake_ups_only(
    client: redis.Redis, redis_url: str, kind: str
) -> None:
    work_queue = WorkQueue(redis_url)
    if kind == "text":
        client.set(work_queue.storage.queue_key, "x")
    else:
        client.sadd(work_queue.storage.queue_key, "x")
    notifier = Notifier(work_queue)
    notifier.start()
    before = metrics.wakeups_dropped_total._value.get()
    notifier.notify([Work(WorkKind.CALLBACK, 1)])
    notifier.stop()

    assert metrics.wakeups_dropped_total._value.get() == before + 1
