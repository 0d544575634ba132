"""Secrets are watched where that is allowed, and polled where it is not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from apiserver.conftest import Starter
from harness.apiserver import ApiServer
from harness.merchantconfigs import Operator, Shops
from harness.waiting import wait_for

WATCHED = "Secrets are watched"
POLLED = "Secrets cannot be watched, so they are polled"
MANY = 10


def passkey_is(shops: Shops, value: str) -> bool:
    file = shops.file()
    return file is not None and bool(file["credentials"]["passkey"] == value)


def wait_for_passkey(shops: Shops, value: str, timeout_s: float) -> None:
    wait_for(partial(passkey_is, shops, value), timeout_s=timeout_s, what=f"passkey {value}")


def says(operator: Operator, sentence: str, times: int = 1) -> bool:
    return operator.log.read_text().count(sentence) >= times


def wait_for_words(operator: Operator, sentence: str, times: int = 1) -> None:
    wait_for(partial(says, operator, sentence, times), timeout_s=90, what=sentence)


@pytest.fixture
def watching(start_operator: Starter, shops: Shops) -> Operator:
    """An operator that would see by its watch alone: it polls once an hour."""
    operator = start_operator(shops.namespace, secret_watch=True, MPESA_OPERATOR_RESYNC="1h")
    wait_for_words(operator, WATCHED)
    return operator


@pytest.mark.usefixtures("watching")
def test_a_generated_secret_that_changes_is_looked_at_at_once(shops: Shops) -> None:
    """A key that leaked ends as soon as it is taken out, however seldom Secrets are read."""
    shops.add()
    shops.wait("Ready", "True")
    path = shops.secret_path("duka-mpesa-gateway")
    old = shops.generated()["api-key"]
    shops.kube.delete(path)
    wait_for(lambda: shops.kube.find(path), timeout_s=20, what="a new Secret")
    assert shops.generated()["api-key"] != old


def test_an_api_server_that_restarts_ends_no_watch(
    server: ApiServer, watching: Operator, shops: Shops
) -> None:
    """Its watch cache is empty then: versions of before are gone (410), or go on."""
    shops.add()
    shops.wait("Ready", "True")
    server.stop_server()
    wait_for_words(watching, POLLED)
    server.start_server()
    wait_for_words(watching, WATCHED, times=2)
    shops.change_secret(passkey="canary-passkey-two")
    wait_for_passkey(shops, "canary-passkey-two", timeout_s=20)


def test_without_the_right_it_polls_and_with_it_it_watches(
    start_operator: Starter, shops: Shops
) -> None:
    operator = start_operator(
        shops.namespace, secret_watch=True, values={"secretWatch": {"enabled": False}}
    )
    shops.add()
    shops.wait("Ready", "True")
    wait_for_words(operator, POLLED)
    shops.change_secret(passkey="canary-passkey-two")
    wait_for_passkey(shops, "canary-passkey-two", timeout_s=20)
    assert not says(operator, WATCHED)
    operator.values = {"secretWatch": {"enabled": True}}
    operator.install_rbac()
    wait_for_words(operator, WATCHED)
    shops.change_secret(passkey="canary-passkey-three")
    wait_for_passkey(shops, "canary-passkey-three", timeout_s=20)
    assert operator.process is not None
    assert operator.process.is_running()


@pytest.mark.parametrize("secret_watch", [False, True], ids=["polled", "watched"])
def test_what_idle_merchants_cost(
    server: ApiServer,
    start_operator: Starter,
    shops: Shops,
    record_property: Callable[[str, object], None],
    secret_watch: bool,
) -> None:
    """Calls about Secrets, as the API server counts them; docs/merchants.md has the figure."""
    operator = start_operator(
        shops.namespace, secret_watch=secret_watch, MPESA_OPERATOR_RESYNC="3s"
    )
    for number in range(MANY):
        shops.add(f"duka-{number}", shortCode=str(600100 + number))
    for number in range(MANY):
        shops.wait("Ready", "True", name=f"duka-{number}", timeout_s=60)
    if secret_watch:
        wait_for_words(operator, WATCHED)
    wait_for(partial(swept_since, operator, time.time()), timeout_s=60, what="a sweep")
    before, begun = Counter(server.secret_calls(shops.namespace)), time.time()
    for _ in range(3):
        wait_for(partial(swept_since, operator, time.time()), timeout_s=60, what="a sweep")
    resyncs = (time.time() - begun) / 3
    calls = Counter(server.secret_calls(shops.namespace)) - before
    each = calls.total() / MANY / resyncs
    record_property("calls_per_merchant_and_resync", round(each, 2))
    # Two Secrets a merchant: its credentials, and what was generated for it.
    most = 2 / 8 + 2 / resyncs if secret_watch else 2 / 0.8 + 2 / resyncs
    assert each <= most, calls


def swept_since(operator: Operator, moment: float) -> bool:
    """Whether the operator has looked at everything since then."""
    name = "mpesa_operator_last_sweep_timestamp_seconds "
    line = next(it for it in operator.metrics().splitlines() if it.startswith(name))
    return float(line.split()[1]) > moment
