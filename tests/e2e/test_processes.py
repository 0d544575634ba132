"""Real processes: how they stop, their ports, what they log."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness import shell
from harness.hanging import children
from harness.processes import Processes
from harness.receiver import Answer, Receiver
from harness.settings import API_KEY
from harness.waiting import wait_for
from harness.witnesses import Witnesses, pay_many
from mpesa_devkit.processes import free_port

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("command", ["api", "worker"])
def test_sigterm_ends_a_process_gracefully(gateway: Processes, command: str, port: int) -> None:
    process = gateway.api(port) if command == "api" else gateway.worker()

    assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


def test_a_worker_ends_the_webhook_it_is_at_before_it_stops(
    gateway: Processes, receiver: Receiver, witnesses: Witnesses, port: int
) -> None:
    begun = threading.Event()

    def late(handler: Any) -> None:
        begun.set()
        time.sleep(1.0)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver.default = Answer(act=late)
    gateway.api(port)
    worker = gateway.worker()
    pay_many(gateway, [port], receiver, 1)
    assert begun.wait(15)
    assert worker.stop() == 0

    (row,) = witnesses.rows("SELECT outcome FROM webhook_attempts")
    assert row["outcome"] == "delivered"


def test_a_server_whose_gunicorn_was_killed_gives_the_port_back(
    gateway: Processes, port: int
) -> None:
    api = gateway.api(port)
    (server,) = children(api.pid)
    api.kill()
    wait_for(lambda: not Path(f"/proc/{server}").exists(), what="the server to end")

    assert gateway.api(port).is_running()


def test_readyz_is_503_once_sigterm_came_and_requests_are_still_served(
    gateway: Processes, receiver: Receiver, port: int
) -> None:
    api = gateway.api(port)
    api.send(signal.SIGTERM)
    wait_for(lambda: not gateway.is_ready(port), timeout_s=2)
    response = gateway.initiate(
        port,
        amount="10",
        phone="254712341032",
        webhook_url=receiver.url,
        idempotency_key=str(uuid.uuid4()),
    )

    assert response.status_code == 201
    wait_for(lambda: not api.is_running())
    assert api.exit_status == 0


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_metrics_port_in_use_is_an_error_that_names_the_variable(
    gateway: Processes, command: str, port: int
) -> None:
    api = gateway.api(port, metrics_port=str(free_port()))
    taken = str(port)
    process = gateway.start(command, server_port=str(free_port()), metrics_port=taken)
    wait_for(lambda: not process.is_running())

    assert process.exit_status == 2
    assert f"MPESA_METRICS_PORT {taken} cannot be used" in process.log.read_text()
    assert api.is_running()


def test_the_apis_port_in_use_is_one_line_that_names_the_variable(
    gateway: Processes, port: int
) -> None:
    gateway.api(port)
    process = gateway.start("api", server_port=str(port), metrics_port="0")
    wait_for(lambda: not process.is_running(), timeout_s=60)
    said = process.log.read_text()

    assert process.exit_status == 2
    assert said.count(f"MPESA_SERVER_PORT {port} cannot be used") == 1
    assert "gunicorn" not in said
    assert "Traceback" not in said


def test_metrics_and_liveness_have_a_port_of_their_own(
    gateway: Processes, port: int, receiver: Receiver, witnesses: Witnesses
) -> None:
    ports = {"api": free_port(), "worker": free_port()}
    gateway.api(port, metrics_port=str(ports["api"]))
    gateway.worker(metrics_port=str(ports["worker"]))
    pay_many(gateway, [port], receiver, 5)
    wait_for(witnesses.all_told)

    def scrape(name: str, path: str = "/metrics") -> str:
        return requests.get(f"http://127.0.0.1:{ports[name]}{path}", timeout=5).text

    assert 'mpesa_stk_push_total{outcome="accepted"} 5.0' in scrape("api")
    assert 'mpesa_callbacks_total{outcome="received"} 5.0' in scrape("api")
    worker = scrape("worker")
    assert 'mpesa_webhook_attempts_total{attempt="first",outcome="delivered"} 5.0' in worker
    assert 'mpesa_transactions_total{status="COMPLETED"} 4.0' in worker
    assert "mpesa_callback_lag_seconds_count 5.0" in worker
    wait_for(lambda: "mpesa_transaction_pending_oldest_age_seconds" in scrape("worker"))
    assert scrape("worker", "/livez") == "ok\n"
    assert "/metrics, /livez or /merchants" in scrape("worker", "/other")


def test_what_a_person_ends_by_a_command_is_counted_by_a_worker(
    gateway: Processes, receiver: Receiver, port: int
) -> None:
    metrics_port = free_port()
    gateway.api(port)
    gateway.worker(metrics_port=str(metrics_port))
    # Its callback names another amount.
    asked = gateway.initiate(
        port,
        amount="10",
        phone="254712347001",
        webhook_url=receiver.url,
        idempotency_key=str(uuid.uuid4()),
    )
    words = ["transactions", "resolve", asked.json()["transaction_id"], "--status", "FAILED"]
    audit = ["--by", "wanjiru", "--reason", "not in the statement"]

    def resolve() -> bool:
        """Refused until the callback was looked at."""
        command = [sys.executable, "-m", "mpesa_gateway", *words, *audit]
        return shell.run(*command, env=gateway.settings).returncode == 0

    def counted() -> bool:
        text = requests.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5).text
        return (
            'mpesa_transactions_total{status="FAILED"} 1.0' in text
            and 'results_total{cause="unknown",reason="resolved_by_person"} 1.0' in text
        )

    wait_for(resolve, timeout_s=30)
    wait_for(counted)


def test_no_log_line_shows_a_secret_a_phone_an_id_or_a_token(
    gateway: Processes,
    simulator: RunningSimulator,
    receiver: Receiver,
    witnesses: Witnesses,
    port: int,
) -> None:
    gateway.api(port, log_level="debug")
    gateway.worker(log_level="debug")
    pay_many(gateway, [port], receiver, 10)
    requests.post(f"http://127.0.0.1:{port}/callback/{'0' * 64}", data=b"{", timeout=5)
    wait_for(witnesses.all_told)
    ledger = simulator.ledger()
    secrets = {API_KEY, "test-consumer-secret", "test-passkey-0123456789", "test-consumer-key"}
    phones = {it["phone"] for it in ledger["pushes"]}
    ids = {it["checkout_request_id"] for it in ledger["pushes"]}
    tokens = {it["callback_url"].rsplit("/", 1)[-1] for it in ledger["pushes"]}
    logs = gateway.logs()

    for secret in secrets | phones | ids | tokens:
        assert secret not in logs
    for line in filter(None, logs.splitlines()):
        assert {"event", "level", "timestamp"} <= set(json.loads(line))
