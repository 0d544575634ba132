"""An ordinary day of a gateway, in a few minutes: customers pay, some cancel, nothing breaks."""

from __future__ import annotations

import contextlib
import itertools
import random
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import requests

from daraja_simulator.outcomes import BY_NAME
from harness.busy import TIMEOUT_S, Run
from harness.settings import API_KEY
from harness.stage import CONFIGS, MERCHANT_NAMES, Stage, stage

MINUTES = 4.0
PAYERS = 2
PAUSE_S = 0.6
# Of a hundred payments. A shop's own share of failures is its own; this is a plausible one.
SHARES = {
    "paid": 84,
    "cancelled": 7,
    "insufficient_funds": 4,
    "no_answer": 3,
    "wrong_pin": 1,
    "callback_twice": 1,
}


@contextlib.contextmanager
def ordinary_run(minutes: float = MINUTES) -> Iterator[Run]:
    """The gateway after those minutes; it still runs, and so does its Prometheus."""
    with (
        # Short, because of Postgres's socket.
        tempfile.TemporaryDirectory(prefix="mpesa-test-") as directory,
        stage(Path(directory)) as opened,
    ):
        _mend(opened)
        with _payers(opened):
            time.sleep(10)  # the first payments warm caches up; a day begins with none of that
            start = time.time()
            time.sleep(minutes * 60)
            yield Run(opened.prometheus, start, time.time())


def _mend(opened: Stage) -> None:
    """The stage has two MerchantConfigs that cannot work; an ordinary day has none."""
    for name in ("kibanda", "unreadable"):
        opened.kubernetes.delete(f"{CONFIGS}/{name}")


@contextlib.contextmanager
def _payers(opened: Stage) -> Iterator[None]:
    stopping = threading.Event()
    keys = itertools.cycle([API_KEY, *(opened.key_of(it) for it in MERCHANT_NAMES)])
    chance = random.Random(1)  # noqa: S311 - which outcome is next
    numbers = itertools.count(1)

    def pay_on() -> None:
        while not stopping.wait(PAUSE_S):
            (name,) = chance.choices(list(SHARES), list(SHARES.values()))
            body = {
                "amount": str(100 + chance.randrange(20) * 50),
                "phone": f"2547{next(numbers) % 10_000:04d}{BY_NAME[name].digits}",
                "webhook_url": opened.endpoints.good.url,
                "idempotency_key": str(uuid.uuid4()),
            }
            with contextlib.suppress(requests.RequestException):
                requests.post(
                    f"http://127.0.0.1:{opened.port}/initiate",
                    json=body,
                    headers={"X-Internal-Secret": next(keys)},
                    timeout=TIMEOUT_S,
                )

    threads = [threading.Thread(target=pay_on) for _ in range(PAYERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
