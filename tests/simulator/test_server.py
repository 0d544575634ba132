"""Starting and stopping: in a thread, in an event loop, as a program."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import aiohttp
import pytest
import requests

from daraja_simulator import RunningSimulator, Settings, running
from daraja_simulator.__main__ import main
from harness.collecting import every_case
from harness.waiting import PROMPTLY_S

START_S = 15


def health(url: str) -> object:
    return requests.get(url + "/health", timeout=5).json()


def test_a_simulator_starts_stops_and_starts_again():
    simulator = RunningSimulator()
    for _ in range(2):
        simulator.start()
        url = simulator.url
        assert health(url) == {"status": "ok"}
        simulator.stop()
        simulator.stop()
        with pytest.raises(requests.ConnectionError):
            health(url)


def test_a_port_can_be_chosen_again():
    with RunningSimulator() as first:
        port = int(first.url.rpartition(":")[2])
    with RunningSimulator(port=port) as second:
        assert second.url.endswith(f":{port}")
        assert health(second.url) == {"status": "ok"}


def test_a_port_that_is_taken_is_an_error():
    with RunningSimulator() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            RunningSimulator(port=port).start()


def test_stopping_does_not_wait_for_payments(caller):
    caller.simulator.change(callback_delay="1h", hang_delay="1h")
    caller.push()
    with pytest.raises(requests.Timeout):
        requests.post(
            caller.simulator.url + "/mpesa/stkpush/v1/processrequest",
            json=caller.push_body("254700008001"),
            headers={"Authorization": f"Bearer {caller.token}"},
            timeout=0.05,
        )
    started = time.monotonic()
    caller.simulator.stop()
    assert time.monotonic() - started < PROMPTLY_S


def test_waiting_for_the_end_has_a_limit(simulate):
    caller = simulate(callback_delay=60)
    caller.push()
    with pytest.raises(TimeoutError, match="under way"):
        caller.simulator.wait_until_idle(0.02)


def test_it_runs_in_an_event_loop():
    async def use() -> object:
        async with (
            running(Settings(port=0)) as started,
            aiohttp.ClientSession() as session,
            session.get(started.url + "/health") as answer,
        ):
            assert started.simulator.payments_under_way == 0
            return await answer.json()

    assert asyncio.run(use()) == {"status": "ok"}


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104  for a moment, in a test
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
    ],
)
def test_the_url_can_be_called(host, shown):
    if host == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with RunningSimulator(Settings(host=host)) as simulator:
        assert simulator.url.startswith(f"http://{shown}:")
        assert health(simulator.url) == {"status": "ok"}


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_stops_on_a_signal(number, tmp_path):
    options = ["--port", "0", "--callback-delay", "1h", "--no-subscriber-lock"]
    options += ["--credentials", "key=hidden", "--ledger-file", str(tmp_path / "ledger.jsonl")]
    with subprocess.Popen(
        [sys.executable, "-m", "daraja_simulator", *options], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            found = re.search(r"http://[0-9.:]+", process.stderr.readline())
            assert found
            url = found[0]
            settings = requests.get(url + "/", timeout=5).json()["settings"]
            assert settings["callback_delay"] == 3600
            assert settings["subscriber_lock"] is False
            assert settings["credentials"] == ["key"]
            process.send_signal(number)
            assert process.wait(START_S) == 0
        finally:
            process.kill()


def test_the_command_line_serves_in_the_main_thread(caplog):
    caplog.set_level("INFO")

    def use() -> None:
        while not (found := re.search(r"http://[0-9.:]+", caplog.text)):
            time.sleep(0.01)
        health(found[0])
        os.kill(os.getpid(), signal.SIGTERM)

    user = threading.Thread(target=use)
    user.start()
    assert main(["--port", "0", "--log-level", "INFO"]) == 0
    user.join()
    assert "The simulator stops" in caplog.text


@every_case(
    ("options", "message"),
    [
        (["--port", "x"], "port must be a whole number"),
        (["--callback-delay", "soon"], "callback_delay must be seconds"),
        (["--credentials", "key"], "must be NAME=VALUE"),
        (["--passkeys", "174379="], "passkeys must be an object"),
        (["--colour", "green"], "unrecognized arguments"),
    ],
)
def test_a_wrong_option_is_named(options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use_ends_the_program(capsys):
    with RunningSimulator() as other, pytest.raises(SystemExit) as caught:
        main(["--port", other.url.rpartition(":")[2]])
    assert caught.value.code == 1
    assert "cannot start" in capsys.readouterr().err


def test_log_lines_have_no_whole_phone_and_no_id(caller, caplog):
    caplog.set_level("DEBUG")
    checkout_request_id = caller.push("254712349999").json()["CheckoutRequestID"]
    caller.push("254712349998", CallBackURL="http://127.0.0.1:9/secret-path")
    caller.ended()
    said = str([vars(record) for record in caplog.records if "daraja" in record.name])
    assert "254******999" in said
    for secret in ("254712349999", checkout_request_id, caller.token, "secret-path"):
        assert secret not in said
