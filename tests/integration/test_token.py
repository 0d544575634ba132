"""One OAuth token per app for the whole cluster, fetched by one process at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import redis
import requests

from daraja_simulator.server import RunningSimulator
from harness.factories import make_merchant
from harness.receiver import Answer, Receiver
from mpesa_gateway.clients import token as token_module
from mpesa_gateway.clients.daraja import Daraja
from mpesa_gateway.clients.egress import Guard, new_session
from mpesa_gateway.clients.token import (
    KEY_PREFIX,
    TokenCache,
    TokenRefusedError,
    TokenUnavailableError,
    app_id,
)
from mpesa_gateway.domain.merchant import Credentials, Merchant
from mpesa_gateway.services import open_redis


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with new_session(Guard(vet=False), user_agent="test") as opened:
        yield opened


@pytest.fixture
def merchant(simulator: RunningSimulator) -> Merchant:
    return make_merchant(base_url=simulator.url)


@pytest.fixture
def new_cache(redis_url: str, session: requests.Session) -> Iterator[Callable[..., TokenCache]]:
    """Makes the cache of one more process."""
    clients: list[redis.Redis] = []

    def make(url: str = redis_url, **options: Any) -> TokenCache:
        client = open_redis(url)
        clients.append(client)
        return TokenCache(client, Daraja(session, lambda: datetime.now(UTC)), **options)

    yield make
    for client in clients:
        client.close()


def fetched(simulator: RunningSimulator) -> int:
    return len(simulator.ledger()["tokens"])


def together(calls: list[Callable[[], str]]) -> list[str | Exception]:
    """The results of calls that begin at the same moment."""
    start = threading.Barrier(len(calls))
    results: list[str | Exception] = []

    def run(call: Callable[[], str]) -> None:
        start.wait()
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - a result like the others
            results.append(error)

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_many_threads_of_many_processes_fetch_one_token(
    simulator: RunningSimulator, merchant: Merchant, new_cache: Callable[..., TokenCache]
) -> None:
    caches = [new_cache() for _ in range(4)]
    results = together([partial(cache.get, merchant) for cache in caches * 5])

    assert len(results) == 20
    assert len(set(results)) == 1
    assert fetched(simulator) == 1


def test_a_token_is_renewed_before_it_ends(
    simulator: RunningSimulator, merchant: Merchant, new_cache: Callable[..., TokenCache]
) -> None:
    simulator.change(token_lifetime=3600)
    now = [1000.0]
    cache = new_cache(time_s=lambda: now[0])
    first = cache.get(merchant)
    now[0] += 3539
    assert cache.get(merchant) == first
    now[0] += 2

    assert cache.get(merchant) != first
    assert fetched(simulator) == 2


def test_a_refused_token_is_replaced_once_however_many_report_it(
    simulator: RunningSimulator, merchant: Merchant, new_cache: Callable[..., TokenCache]
) -> None:
    caches = [new_cache() for _ in range(8)]
    old = caches[0].get(merchant)

    def renew(cache: TokenCache) -> str:
        cache.reject(merchant, old)
        return cache.get(merchant)

    results = together([partial(renew, cache) for cache in caches])

    assert len(set(results)) == 1
    assert old not in results
    assert fetched(simulator) == 2


def test_a_late_report_does_not_throw_a_newer_token_away(
    merchant: Merchant, new_cache: Callable[..., TokenCache]
) -> None:
    cache = new_cache()
    old = cache.get(merchant)
    cache.reject(merchant, old)
    new = cache.get(merchant)
    cache.reject(merchant, old)

    assert cache.get(merchant) == new


def test_flushing_redis_ends_no_token(
    simulator: RunningSimulator,
    merchant: Merchant,
    new_cache: Callable[..., TokenCache],
    redis_url: str,
) -> None:
    one, other = new_cache(), new_cache()
    token = one.get(merchant)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()

    assert one.get(merchant) == token
    assert other.get(merchant) == token
    assert fetched(simulator) == 1


def test_a_refused_token_that_another_process_still_knows_is_not_used_again(
    simulator: RunningSimulator,
    merchant: Merchant,
    new_cache: Callable[..., TokenCache],
    redis_url: str,
) -> None:
    one, other = new_cache(), new_cache()
    old = one.get(merchant)
    assert other.get(merchant) == old
    one.reject(merchant, old)
    # Before the first has fetched a new one, the second shares what it knows.
    assert other.get(merchant) == old
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert other.get(merchant) == old
    new = one.get(merchant)

    assert new != old
    assert other.get(merchant) == new
    assert fetched(simulator) == 2


def test_an_app_whose_token_hangs_holds_up_no_other_app(
    merchant: Merchant, new_cache: Callable[..., TokenCache], receiver: Receiver
) -> None:
    released, asked = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        released.wait(timeout=10)
        handler.close_connection = True

    receiver.default = Answer(act=hang)
    slow = make_merchant(base_url=receiver.url.removesuffix("/hook"))
    for cache in (new_cache(), new_cache("redis://127.0.0.1:1/0")):
        asked.clear()
        with ThreadPoolExecutor() as threads:
            hanging = threads.submit(cache.get, slow)
            assert asked.wait(timeout=5)
            assert cache.get(merchant)
            assert not hanging.done()
            released.set()
            assert isinstance(hanging.exception(timeout=10), TokenUnavailableError)
        released.clear()


def test_without_redis_a_process_keeps_one_for_itself(
    simulator: RunningSimulator, merchant: Merchant, new_cache: Callable[..., TokenCache]
) -> None:
    cache = new_cache("redis://127.0.0.1:1/0")
    first = cache.get(merchant)
    assert cache.get(merchant) == first
    assert fetched(simulator) == 1
    cache.reject(merchant, first)

    assert cache.get(merchant) != first
    assert fetched(simulator) == 2


def test_two_apps_have_two_tokens(merchant: Merchant, new_cache: Callable[..., TokenCache]) -> None:
    other = replace(merchant, credentials=Credentials("other-key", "s", "p"))
    cache = new_cache()

    assert cache.get(merchant) != cache.get(other)
    assert app_id(merchant) != app_id(other)


def test_a_wrong_secret_beside_the_right_key_is_another_pair(
    simulator: RunningSimulator, merchant: Merchant, new_cache: Callable[..., TokenCache]
) -> None:
    right = merchant.credentials
    simulator.change(credentials={right.consumer_key: right.consumer_secret})
    wrong = replace(merchant, credentials=replace(right, consumer_secret="wrong"))
    elsewhere = replace(merchant, base_url=f"{merchant.base_url}/")
    cache, neighbour = new_cache(), new_cache()
    token = cache.get(merchant)

    for one in (cache, neighbour):
        with pytest.raises(TokenRefusedError):
            one.get(wrong)
        one.reject(wrong, token)
        assert one.get(merchant) == token
    assert fetched(simulator) == 1
    assert len({app_id(it) for it in (merchant, wrong, elsewhere)}) == 3
    assert right.consumer_secret not in app_id(merchant)


def test_a_token_that_oauth_gives_out_again_is_good_again(
    receiver: Receiver, new_cache: Callable[..., TokenCache]
) -> None:
    receiver.default = Answer(200, body=b'{"access_token": "abc", "expires_in": "3599"}')
    merchant = make_merchant(base_url=receiver.url.removesuffix("/hook"))
    cache = new_cache()
    cache.reject(merchant, cache.get(merchant))

    assert [cache.get(merchant) for _ in range(3)] == ["abc"] * 3
    assert len(receiver.requests) == 2


def test_refused_credentials_are_not_tried_again_by_everybody_who_waits(
    receiver: Receiver, new_cache: Callable[..., TokenCache]
) -> None:
    receiver.default = Answer(400)
    merchant = make_merchant(base_url=receiver.url.removesuffix("/hook"))
    caches = [new_cache() for _ in range(4)]
    results = together([partial(cache.get, merchant) for cache in caches])

    assert [type(result) for result in results] == [TokenRefusedError] * 4
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(503, body=b"<html>firewall</html>"),
        Answer(200, body=b"not json"),
        Answer(200, body=b'{"access_token": 12}'),
        Answer(302, {"Location": "https://elsewhere.example/"}),
    ],
    ids=["firewall", "no json", "no token", "redirect"],
)
def test_an_answer_that_is_neither_token_nor_refusal_means_later(
    receiver: Receiver, new_cache: Callable[..., TokenCache], answer: Answer
) -> None:
    receiver.default = answer
    merchant = make_merchant(base_url=receiver.url.removesuffix("/hook"))

    with pytest.raises(TokenUnavailableError):
        new_cache().get(merchant)


@pytest.mark.parametrize("life", [b'"3599"', b"3599", b'"soon"', b"null"])
def test_the_life_of_a_token_comes_in_many_forms(
    receiver: Receiver, new_cache: Callable[..., TokenCache], life: bytes
) -> None:
    receiver.default = Answer(200, body=b'{"access_token": "abc", "expires_in": %s}' % life)
    merchant = make_merchant(base_url=receiver.url.removesuffix("/hook"))

    assert new_cache().get(merchant) == "abc"


def test_a_holder_that_died_is_waited_for_only_as_long_as_its_lock(
    merchant: Merchant,
    new_cache: Callable[..., TokenCache],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_module, "WAIT_S", 0.2)
    lock = f"{KEY_PREFIX}{app_id(merchant)}:lock"
    with redis.Redis.from_url(redis_url) as client:
        client.set(lock, "a dead process", px=600)
        with pytest.raises(TokenUnavailableError):
            new_cache().get(merchant)
        monkeypatch.setattr(token_module, "WAIT_S", 5.0)

        assert new_cache().get(merchant)


def test_what_somebody_else_wrote_into_redis_is_passed_over(
    simulator: RunningSimulator,
    merchant: Merchant,
    new_cache: Callable[..., TokenCache],
    redis_url: str,
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(KEY_PREFIX + app_id(merchant), b"\x80\x04pickle")

    assert new_cache().get(merchant)
    assert fetched(simulator) == 1
