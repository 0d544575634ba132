"""One merchant's open pushes and reads leave room for another's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from daraja_simulator.settings import Settings
from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from harness.waiting import wait_for

VICTIM_KEY = "key-of-the-victim"
HOSTILE_KEY = "key-of-the-hostile"
PUSHES = 8


def start(gateway: Gateway, key: str, number: int) -> requests.Response:
    """A push of its own connection, on a phone of its own."""
    return requests.post(
        f"{gateway.url}/initiate",
        json=gateway.body(f"25471{number:03d}4042"),
        headers={"X-Internal-Secret": key},
        timeout=60,
    )


def test_open_pushes_of_one_merchant_leave_room_for_another_s(
    gateways: Gateways, tmp_path: Path
) -> None:
    write_merchant(tmp_path, "hostile.json", name="shops/hostile", key=HOSTILE_KEY)
    write_merchant(tmp_path, "victim.json", name="shops/victim", key=VICTIM_KEY, shortCode="600200")
    slow = Settings(push_delay=6.0, callback_delay=3600.0)
    with (
        gateways.start(
            safaricom=slow, merchants_dir=str(tmp_path), pushes_in_flight=str(PUSHES)
        ) as gateway,
        ThreadPoolExecutor(2 * PUSHES) as threads,
    ):
        answers: list[requests.Response] = []
        lock = threading.Lock()

        def push(number: int) -> None:
            answer = start(gateway, HOSTILE_KEY, number)
            with lock:
                answers.append(answer)

        futures = [threads.submit(push, number) for number in range(2 * PUSHES)]
        # Half of the places are the hostile's; whatever is more has been refused by now.
        wait_for(lambda: len(answers) == 2 * PUSHES - PUSHES // 2)
        victims = [threads.submit(start, gateway, VICTIM_KEY, 900 + it) for it in range(2)]
        for future in futures:
            future.result()

        refused = [it for it in answers if it.status_code == 503]
        assert [it.result().status_code for it in victims] == [201, 201]
        assert len(refused) == 2 * PUSHES - PUSHES // 2
        assert {it.headers["Retry-After"] for it in refused} == {"2"}
        assert len(gateway.rows("SELECT FROM transactions")) == PUSHES // 2 + 2
