"""A merchant whose endpoints accept and never answer, beside one whose endpoint works."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from harness.receiver import Answer, Receiver
from harness.waiting import wait_for
from mpesa_gateway.usecases.endpoint_limiter import SLOW_S, EndpointLimiter, Slots, threads_for
from mpesa_gateway.worker.dispatcher import Dispatcher
from mpesa_gateway.worker.sweeper import DEFERRED_INTERVAL_S, Sweeper, Webhooks

HOSTILE_KEY = "key-of-the-hostile"
ENDPOINTS = 40
REFUSED = "4000"


def fail_payments(gateway: Gateway, holes: Receiver) -> None:
    """One webhook for each of the hostile's endpoints: 127.0.1.x is an origin of its own."""
    for number in range(ENDPOINTS):
        url = holes.url.replace("127.0.0.1", f"127.0.1.{number + 1}")
        answer = gateway.initiate(f"2547{number:04d}{REFUSED}", key=HOSTILE_KEY, webhook_url=url)
        assert answer.status_code == 502, answer.text


def held_by_hostile(limiter: EndpointLimiter) -> int:
    running = dict(limiter._running)
    return sum(len(began) for it, began in running.items() if it.merchant == "shops/hostile")


def is_settled(limiter: EndpointLimiter) -> bool:
    """Whether every attempt is slow, and the limiter has been asked since whether there is room."""
    began = [at for attempts in list(limiter._running.values()) for at in attempts]
    return bool(began) and max(began) < time.monotonic() - SLOW_S - 4 * DEFERRED_INTERVAL_S


@pytest.mark.parametrize("concurrency", [1, 4, 10])
def test_endpoints_that_never_answer_keep_no_other_merchant_s_webhook_back(
    gateways: Gateways, tmp_path: Path, concurrency: int
) -> None:
    release = threading.Event()

    def swallow(handler: BaseHTTPRequestHandler) -> None:
        release.wait(60)
        handler.close_connection = True

    write_merchant(tmp_path, name="shops/hostile", key=HOSTILE_KEY)
    with (
        gateways.start(merchants_dir=str(tmp_path), worker_concurrency=str(concurrency)) as gateway,
        Receiver(host="0.0.0.0") as holes,  # noqa: S104 - every loopback address is an origin
    ):
        holes.default = Answer(act=swallow)
        services, limiter = gateway.services, gateway.services.deliveries.limiter
        fail_payments(gateway, holes)
        dispatcher = Dispatcher(services, gateway.notifier)  # type: ignore[arg-type]
        sweeper = Sweeper(
            services.pool,
            dispatcher.run,
            clock=services.clock,
            interval=timedelta(hours=1),
            threads=8,
            webhooks=Webhooks(
                threads_for(concurrency),
                services.deliveries.is_deferred,
                services.deliveries.next_deferred,
            ),
        )
        dispatcher.hand_over = sweeper.hand_over
        gateway.clock.advance(seconds=5)
        try:
            sweeper.start()
            # It gets more slots as its attempts turn slow, until nothing more changes.
            wait_for(lambda: is_settled(limiter), what="the hostile's last slot")
            assert held_by_hostile(limiter) == Slots.of(concurrency).all // 2
            gateway.initiate(f"25479999{REFUSED}")
            gateway.clock.advance(seconds=5)
            sweeper.sweep()
            wait_for(lambda: gateway.receiver.requests, what="the webhook of the other merchant")
            assert not release.is_set()
        finally:
            release.set()
            sweeper.stop()
