"""How callbacks are posted: at most once, whatever the endpoint does."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from daraja_simulator import poster


def only_callback(caller) -> dict[str, Any]:
    callback: dict[str, Any]
    (callback,) = caller.ended()["callbacks"]
    return callback


def test_a_refused_callback_is_never_posted_again(caller, receiver):
    receiver.status = 500
    caller.push()
    assert only_callback(caller)["status"] == 500
    assert len(receiver.received) == 1


def test_a_redirect_is_not_followed(caller, receiver):
    receiver.status = 307
    caller.push()
    assert only_callback(caller)["status"] == 307
    assert len(receiver.received) == 1


def test_an_endpoint_that_does_not_answer_is_given_up(simulate, receiver):
    receiver.gate.clear()
    # Long enough to get there on a busy machine.
    caller = simulate(callback_timeout=0.5)
    caller.push()
    callback = only_callback(caller)
    assert callback["status"] is None
    assert callback["error"].startswith("TimeoutError")
    assert callback["duration_ms"] >= 500
    assert len(receiver.received) == 1


def test_an_endpoint_that_is_not_there_is_an_error(caller):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        caller.push(CallBackURL=f"http://127.0.0.1:{free.getsockname()[1]}/back")
        callback = only_callback(caller)
    assert callback["error"].startswith("ClientConnectorError")
    assert (callback["copy"], callback["copies"]) == (1, 1)
    assert len(caller.ended()["debits"]) == 1


def test_a_connection_that_breaks_is_an_error(caller):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept_and_close() -> None:
            server.accept()[0].close()

        hang_up = threading.Thread(target=accept_and_close)
        hang_up.start()
        caller.push(CallBackURL=f"http://127.0.0.1:{server.getsockname()[1]}/back")
        callback = only_callback(caller)
        hang_up.join()
    assert callback["status"] is None
    assert callback["error"]


def test_the_exact_path_is_called(caller, receiver):
    path = "/back/%7Ea//b/%2F?x=%20y&x=2"
    caller.push(CallBackURL=receiver.url.removesuffix("/back/0a1b") + path)
    caller.ended()
    assert receiver.received[0].path == path


def test_callbacks_can_be_dropped_at_random(simulate, receiver):
    caller = simulate(callback_drop_rate=1)
    caller.push()
    ledger = caller.ended()
    assert len(ledger["debits"]) == 1
    assert ledger["callbacks"] == []
    assert ledger["pushes"][0]["callback_copies"] == 0
    assert not receiver.received


def test_callbacks_can_be_doubled_at_random(simulate, receiver):
    caller = simulate(callback_duplicate_rate=1)
    caller.push()
    ledger = caller.ended()
    assert len(ledger["debits"]) == 1
    assert len({each.body for each in receiver.received}) == 1
    assert len(receiver.received) == len(ledger["callbacks"]) == 2


def test_a_seed_replays_the_failures(simulate):
    def copies(**settings: object) -> list[tuple[int, int]]:
        rates = {"push_failure_rate": 0.3, "callback_drop_rate": 0.3} | settings
        caller = simulate(subscriber_lock=False, callback_delay=60, **rates)
        return [
            (caller.push().status_code, caller.simulator.ledger()["pushes"][-1]["callback_copies"])
            for _ in range(40)
        ]

    first = copies(seed=1)
    assert set(first) == {(200, 1), (200, 0), (500, 0)}
    assert copies(seed=1) == first
    assert copies(seed=2) != first
    assert [status for status, _ in copies(seed=1, callback_drop_rate=0)] == [
        status for status, _ in first
    ]


def test_a_seed_can_be_set_again(simulate):
    caller = simulate(subscriber_lock=False, callback_delay=60, push_failure_rate=0.5, seed=1)
    first = [caller.push().status_code for _ in range(20)]
    caller.simulator.change(seed=1)
    assert [caller.push().status_code for _ in range(20)] == first


def test_few_callbacks_are_posted_at_once(simulate, receiver, monkeypatch):
    monkeypatch.setattr(poster, "MAX_POSTS_AT_ONCE", 2)
    receiver.gate.clear()
    caller = simulate()
    caller.push("254700002003")
    receiver.wait_for(2)
    assert caller.simulator.ledger()["callbacks"] == []
    assert len(receiver.received) == 2
    receiver.gate.set()
    assert len(caller.ended()["callbacks"]) == len(receiver.received) == 5


@pytest.mark.parametrize("outcome", ["callback_twice", "callback_five_times"])
def test_copies_come_at_once(caller, receiver, outcome):
    receiver.gate.clear()
    caller.send("PUT", "/next", json={"outcome": outcome})
    caller.push()
    count = {"callback_twice": 2, "callback_five_times": 5}[outcome]
    receiver.wait_for(count)
    receiver.gate.set()
    assert len(caller.ended()["callbacks"]) == count
