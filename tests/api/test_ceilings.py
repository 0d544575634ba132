"""The platform's ceilings: a merchant's own limits may only lower them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from harness.settings import API_KEY

DUKA = "key-of-duka"
SILENT = "254712344042"
REFUSED = "254712344000"


@contextmanager
def shop(
    gateways: Gateways, directory: Path, limits: dict[str, int], **settings: Any
) -> Iterator[Gateway]:
    """A gateway with the merchants `default` and `shops/duka`, which has `limits`."""
    write_merchant(directory, key=DUKA, limits=limits)
    with redis.Redis.from_url(gateways.redis_url) as client:
        client.flushdb()  # its budgets of an earlier case
    with gateways.start(merchants_dir=str(directory), **settings) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("ceiling", "own", "amount", "status"),
    [
        ("100", 1000, 100, 201),
        ("100", 1000, 101, 400),
        ("1000", 100, 101, 400),
        ("100", None, 101, 400),
        # What is above Safaricom's own limit is Safaricom's to refuse.
        ("1000000", None, 250_001, 502),
        ("1000000", 250_000, 250_001, 400),
    ],
)
def test_the_amount_is_bounded_by_the_lower_of_both(
    gateways: Gateways, tmp_path: Path, ceiling: str, own: int | None, amount: int, status: int
) -> None:
    limits = {} if own is None else {"maxAmount": own}
    with shop(gateways, tmp_path, limits, max_amount=ceiling) as gateway:
        answers = [gateway.initiate(key=DUKA, amount=amount)]
        if own is None:
            answers.append(gateway.initiate("254722340000", amount=amount))
        assert {it.status_code for it in answers} == {status}
        if status == 400:
            lower = min(int(ceiling), own or int(ceiling))
            assert f"to {lower} shillings" in answers[0].text


@pytest.mark.parametrize(
    ("ceiling", "own", "allowed"), [("2", 5, 2), ("5", 2, 2), ("2", 0, 2), ("0", 2, 2)]
)
def test_payments_a_minute_are_bounded_by_the_lower_of_both(
    gateways: Gateways, tmp_path: Path, ceiling: str, own: int, allowed: int
) -> None:
    limits = {"initiatePerMinute": own}
    with shop(gateways, tmp_path, limits, max_initiate_per_minute=ceiling) as gateway:
        answers = [gateway.initiate(f"2547{it:04d}0000", key=DUKA) for it in range(allowed + 1)]
        assert [it.status_code for it in answers] == [201] * allowed + [429]
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
        assert len(gateway.rows("SELECT FROM transactions")) == allowed


def again(gateway: Gateway, body: dict[str, Any], key: str) -> requests.Response:
    headers = {"X-Internal-Secret": key}
    return requests.post(f"{gateway.url}/initiate", json=body, headers=headers, timeout=30)


def test_prompts_of_a_phone_are_counted_over_all_merchants(
    gateways: Gateways, tmp_path: Path
) -> None:
    with shop(gateways, tmp_path, {}, prompts_per_phone_per_hour="3") as gateway:
        bodies = [gateway.body(SILENT, amount="1") for _ in range(3)]
        keys = [API_KEY, DUKA, API_KEY]
        for body, key in zip(bodies, keys, strict=True):
            assert again(gateway, body, key).status_code == 201
            gateway.clock.advance(minutes=10)
        limited = gateway.initiate(SILENT, key=DUKA)

        assert limited.status_code == 429
        assert limited.json()["type"].endswith("rate-limited")
        assert int(limited.headers["Retry-After"]) == 30 * 60
        assert len(gateway.rows("SELECT FROM transactions")) == 3
        # A replay is answered as ever, and another phone is not limited.
        assert again(gateway, bodies[0], API_KEY).headers["Idempotent-Replayed"] == "true"
        assert gateway.initiate("254722344042", key=DUKA).status_code == 201
        gateway.clock.advance(minutes=31)
        assert gateway.initiate(SILENT, key=DUKA).status_code == 201
        assert gateway.initiate(SILENT, key=DUKA).status_code == 429


def test_limits_are_told_before_an_open_prompt(gateways: Gateways, tmp_path: Path) -> None:
    with shop(gateways, tmp_path, {}, prompts_per_phone_per_hour="1") as gateway:
        gateway.pay(SILENT)
        assert gateway.initiate(SILENT).status_code == 429


def test_a_push_that_certainly_prompted_nobody_does_not_count(
    gateways: Gateways, tmp_path: Path
) -> None:
    with shop(gateways, tmp_path, {}, prompts_per_phone_per_hour="1") as gateway:
        for _ in range(3):
            assert gateway.initiate(REFUSED).status_code == 502
        assert gateway.rows("SELECT DISTINCT push_state FROM transactions") == [
            {"push_state": "REFUSED"}
        ]


def test_merchants_that_prompt_one_phone_at_once_share_its_last_prompt(
    gateways: Gateways, tmp_path: Path
) -> None:
    for number in range(4):
        write_merchant(
            tmp_path,
            f"m{number}.json",
            name=f"shops/m{number}",
            key=f"key-of-m{number}",
            shortCode=f"60010{number}",
        )
    with (
        gateways.start(merchants_dir=str(tmp_path), prompts_per_phone_per_hour="2") as gateway,
        ThreadPoolExecutor(4) as threads,
    ):
        bodies = [gateway.body(SILENT) for _ in range(4)]
        answers = threads.map(
            lambda number: again(gateway, bodies[number], f"key-of-m{number}").status_code, range(4)
        )
        assert Counter(answers) == {201: 2, 429: 2}
