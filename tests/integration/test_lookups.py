"""Names that hang: of one merchant they keep no other's webhook back, and nothing from Daraja."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from urllib3.connectionpool import HTTPConnectionPool

from daraja_simulator.server import RunningSimulator
from harness.bodies import callback_body
from harness.gateway import Gateway, open_gateway
from harness.receiver import Receiver
from harness.waiting import wait_for
from mpesa_gateway.api.requests import parse_payment_request
from mpesa_gateway.clients.caller import current_merchant, on_behalf_of
from mpesa_gateway.clients.connections import SharedPools
from mpesa_gateway.clients.daraja import Daraja
from mpesa_gateway.clients.egress import Guard, new_session, resolve_name
from mpesa_gateway.clients.lookups import Lookups
from mpesa_gateway.clients.token import TokenCache
from mpesa_gateway.clients.webhooks import WebhookClient
from mpesa_gateway.domain.merchant import Address
from mpesa_gateway.domain.work import Work, WorkKind

THREADS = 8


class Names:
    """A name server that is silent until it is told to go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()

    def hang(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        self.release.wait(60)
        return resolve_name("127.0.0.1", port)


@pytest.fixture
def silent() -> Iterator[Names]:
    names = Names()
    yield names
    names.release.set()


@contextmanager
def hanging(lookups: Lookups, names: Names, merchant: str, count: int) -> Iterator[None]:
    """So many callers of a merchant that wait for a name."""

    def find() -> None:
        with on_behalf_of(merchant):
            lookups.find(names.hang, "evil.example", 443, timeout_s=30)

    with ExitStack() as stack:
        for _ in range(count):
            thread = threading.Thread(target=find)
            thread.start()
            stack.callback(thread.join)
        stack.callback(names.release.set)
        yield


def test_a_merchant_s_hung_look_ups_leave_threads_to_another(silent: Names) -> None:
    lookups = Lookups("test", THREADS)
    with hanging(lookups, silent, "hostile", 2 * THREADS):
        wait_for(lambda: len(silent.asked) == THREADS // 2)
        with on_behalf_of("victim"):
            found = lookups.find(resolve_name, "localhost", 443, timeout_s=30)
        assert found
        with on_behalf_of("hostile"), pytest.raises(TimeoutError, match="others of the merchant"):
            lookups.find(resolve_name, "localhost", 443, timeout_s=0.01)
        assert len(silent.asked) == THREADS // 2
    wait_for(lambda: lookups._shares.held_by("hostile") == 0)


def test_a_look_up_that_hangs_holds_its_share_until_it_ends(silent: Names) -> None:
    lookups = Lookups("test", 1)
    with on_behalf_of("shop"):
        for message in ("took too long$", "others of the merchant"):
            with pytest.raises(TimeoutError, match=message):
                lookups.find(silent.hang, "evil.example", 443, timeout_s=0.05)
        silent.release.set()
        assert lookups.find(resolve_name, "localhost", 443, timeout_s=30)


def test_webhook_names_that_hang_keep_nobody_from_daraja(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    silent: Names,
) -> None:
    guard = Guard(allow_private=True, lookups=Lookups("webhook", 1))
    by_name = simulator.url.replace("127.0.0.1", "localhost")
    with (
        open_gateway(
            database_url, redis_url, simulator, receiver, guard=guard, safaricom_base_url=by_name
        ) as gateway,
        hanging(guard.lookups, silent, "default", 1),
    ):
        wait_for(lambda: silent.asked)
        gateway.pay("254712344042")
        gateway.clock.advance(minutes=2)
        row = gateway.rows("SELECT id FROM transactions")[0]["id"]
        gateway.dispatcher.run(Work(WorkKind.QUERY, row))
        said = gateway.rows("SELECT detail FROM transaction_events WHERE source = 'query'")
        assert "look-up" not in str(said)


class Owners:
    """Guards that note whose share each look-up takes."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def guard(self, name: str) -> Guard:
        lookups = Lookups(name)

        def resolve(_: str, port: int) -> list[Address]:
            self.seen.add((name, lookups._shares.held_by("default")))
            return resolve_name("127.0.0.1", port)

        return Guard(vet=name != "daraja", allow_private=True, resolve=resolve, lookups=lookups)


def test_every_call_out_takes_a_share_of_its_merchant(gateway: Gateway) -> None:
    owners, services = Owners(), gateway.services

    def new_daraja() -> Daraja:
        """Without a connection from earlier, so that it looks the name up."""
        return Daraja(new_session(owners.guard("daraja"), user_agent="test"), gateway.clock)

    daraja = new_daraja()
    webhooks = WebhookClient(new_session(owners.guard("webhook"), user_agent="test"))
    url = gateway.simulator.url.replace("127.0.0.1", "daraja.example")
    merchant = replace(services.merchants.current().by_name["default"], base_url=url)
    known = replace(services.merchants.current(), by_name={"default": merchant})
    body = gateway.body("254712344042", webhook_url="http://shop.example/hook")
    request = parse_payment_request(body, allow_private=True)

    tokens = TokenCache(services.redis, daraja)
    payments = replace(services.payments, daraja=daraja, tokens=tokens)
    payments.initiate(merchant, request)
    assert owners.seen == {("daraja", 1)}
    owners.seen.clear()
    queries = replace(services.queries, daraja=new_daraja(), tokens=tokens, merchants=lambda: known)
    gateway.clock.advance(minutes=2)
    queries.ask(gateway.rows("SELECT id FROM transactions")[0]["id"])
    assert owners.seen == {("daraja", 1)}
    owners.seen.clear()
    path, checkout = (
        gateway.callback_path("254712344042"),
        gateway.checkout_request_id("254712344042"),
    )
    gateway.post(path, callback_body(checkout, code=1032))
    gateway.dispatcher.run(*gateway.notifier.take())
    (delivery,) = gateway.notifier.take()
    replace(services.deliveries, webhooks=webhooks).attempt(delivery.id)
    assert owners.seen == {("webhook", 1)}
    assert current_merchant() == ""


def pool() -> HTTPConnectionPool:
    made = SimpleNamespace(closed=False)
    made.close = lambda: setattr(made, "closed", True)
    return cast("HTTPConnectionPool", made)


def test_a_merchant_with_many_endpoints_pushes_out_its_own_connections_only() -> None:
    pools, victims = SharedPools(8), pool()
    with on_behalf_of("victim"):
        pools["shop"] = victims
    with on_behalf_of("hostile"):
        first, last = pool(), pool()
        pools["first"] = first
        for number in range(200):
            pools[number] = pool()
        pools["last"] = last
        assert (pools.get("first"), pools.get("last"), pools.get("shop")) == (None, last, None)
    with on_behalf_of("victim"):
        assert pools.get("shop") is victims
    assert (first.closed, last.closed, victims.closed) == (True, False, False)  # type: ignore[attr-defined]
    assert len(pools) <= 8
    pools.clear()
    assert (len(pools), victims.closed) == (0, True)  # type: ignore[attr-defined]


def test_the_merchants_of_one_namespace_push_out_none_of_another_s() -> None:
    pools, victims = SharedPools(16), pool()
    with on_behalf_of("victim/shop"):
        pools["shop"] = victims
    for merchant in range(50):
        with on_behalf_of(f"hostile/{merchant}"):
            for number in range(20):
                pools[number] = pool()
    with on_behalf_of("victim/shop"):
        assert pools.get("shop") is victims
    with on_behalf_of("victim/another"):
        pools["shop"] = pool()
    assert not victims.closed  # type: ignore[attr-defined]
    assert len(pools) <= 16
    pools.clear()


def test_a_newcomer_gets_the_place_of_the_one_that_has_most() -> None:
    pools = SharedPools(2)
    for merchant in ("a", "b", "c"):
        with on_behalf_of(merchant):
            pools["shop"] = pool()
    assert len(pools) == 2
    with on_behalf_of("c"):
        assert pools.get("shop") is not None
