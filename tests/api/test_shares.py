"""One merchant's open pushes and reads leave room for another's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
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


def write_merchants(directory: Path, hostile: list[str]) -> None:
    """The hostile ones have keys that begin with their own names."""
    for number, name in enumerate(hostile):
        file, code = f"hostile-{number}.json", str(700_000 + number)
        write_merchant(directory, file, name=name, key=f"{name}-{HOSTILE_KEY}", shortCode=code)
    write_merchant(
        directory, "victim.json", name="shops/victim", key=VICTIM_KEY, shortCode="600200"
    )


@pytest.mark.parametrize(
    ("hostile", "taken"),
    [
        (["hostile/0"], PUSHES // 2),
        # However many they are, those of a namespace get no more than two thirds.
        ([f"hostile/{number}" for number in range(4)], PUSHES * 2 // 3),
    ],
)
def test_open_pushes_of_hostile_merchants_leave_room_for_another_s(
    hostile: list[str], taken: int, gateways: Gateways, tmp_path: Path
) -> None:
    write_merchants(tmp_path, hostile)
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
            key = f"{hostile[number % len(hostile)]}-{HOSTILE_KEY}"
            answer = start(gateway, key, number)
            with lock:
                answers.append(answer)

        futures = [threads.submit(push, number) for number in range(2 * PUSHES)]
        # Whatever is more than their share has been refused by now.
        wait_for(lambda: len(answers) == 2 * PUSHES - taken)
        victims = [threads.submit(start, gateway, VICTIM_KEY, 900 + it) for it in range(2)]
        for future in futures:
            future.result()

        refused = [it for it in answers if it.status_code == 503]
        assert [it.result().status_code for it in victims] == [201, 201]
        assert len(refused) == 2 * PUSHES - taken
        assert {it.headers["Retry-After"] for it in refused} == {"2"}
        assert len(gateway.rows("SELECT FROM transactions")) == taken + 2
