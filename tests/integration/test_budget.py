"""Budgets: one for the whole cluster, counted in Redis, or per process when it is away."""

from __future__ import annotations

import threading

import pytest
import redis

from mpesa_gateway.clients.budget import KEY_PREFIX, Budgets, Grant
from mpesa_gateway.services import open_redis


@pytest.fixture(params=["redis", "no redis"])
def budgets(request: pytest.FixtureRequest, redis_url: str) -> Budgets:
    url = redis_url if request.param == "redis" else "redis://127.0.0.1:1/0"
    return Budgets(open_redis(url))


def test_no_limit_grants_everything(budgets: Budgets) -> None:
    assert all(budgets.take("free", 0).granted for _ in range(1000))


def test_so_many_may_go_at_once_and_the_next_one_waits(budgets: Budgets) -> None:
    grants = [budgets.take("push", 6) for _ in range(7)]

    assert [grant.granted for grant in grants] == [True] * 6 + [False]
    assert 9 < grants[6].wait_s <= 10
    assert [round(grant.left, 2) for grant in grants] == [0.83, 0.67, 0.5, 0.33, 0.17, 0, 0]


def test_a_burst_of_one_spaces_the_calls(budgets: Budgets) -> None:
    assert budgets.take("query", 5, burst=1).granted
    second = budgets.take("query", 5, burst=1)

    assert not second.granted
    assert 11 < second.wait_s <= 12


def test_what_was_refused_does_not_make_the_others_wait_longer(budgets: Budgets) -> None:
    budgets.take("query", 5, burst=1)
    waits = [budgets.take("query", 5, burst=1).wait_s for _ in range(20)]

    assert max(waits) <= 12


def test_a_budget_refills(budgets: Budgets) -> None:
    assert budgets.take("fast", 6000, burst=1).granted
    while not (grant := budgets.take("fast", 6000, burst=1)).granted:
        assert grant.wait_s <= 0.01


def test_budgets_have_names(budgets: Budgets) -> None:
    assert budgets.take("query:one", 5, burst=1).granted
    assert budgets.take("query:two", 5, burst=1).granted


def test_many_processes_share_one_budget(redis_url: str) -> None:
    grants: list[Grant] = []

    def take() -> None:
        mine = Budgets(open_redis(redis_url))
        grants.extend(mine.take("shared", 10) for _ in range(5))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(grant.granted for grant in grants) == 10


def test_a_bucket_does_not_stay_in_redis_for_ever(redis_url: str) -> None:
    Budgets(open_redis(redis_url)).take("short", 600)
    with redis.Redis.from_url(redis_url) as client:
        life_ms = client.pttl(f"{KEY_PREFIX}short")

    assert 0 < life_ms <= 1200
