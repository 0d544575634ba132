"""Traces over the real processes: one for each payment, whatever Redis loses; off by default."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import requests

from daraja_simulator.server import RunningSimulator
from harness.otlp import Collector
from harness.processes import Processes
from harness.receiver import Answer, Receiver
from harness.settings import API_KEY, PASSKEY
from harness.waiting import wait_for
from harness.witnesses import Witnesses, pay_many
from mpesa_devkit.processes import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# The simulator sends no callback, and its query says paid.
NO_CALLBACK = "254712344040"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def initiate(port: int, receiver: Receiver, phone: str, **headers: str) -> str:
    response = requests.post(
        f"http://127.0.0.1:{port}/initiate",
        json={
            "amount": "10",
            "phone": phone,
            "webhook_url": receiver.url,
            "idempotency_key": str(uuid.uuid4()),
        },
        headers={"X-Internal-Secret": API_KEY, **headers},
        timeout=30,
    )
    assert response.status_code == 201, response.text
    transaction_id: str = response.json()["transaction_id"]
    return transaction_id


def lines_about(gateway: Processes, transaction_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.logs().splitlines() if line]
    return [line for line in lines if line.get("transaction_id") == transaction_id]


def test_one_trace_and_one_id_span_all_processes_although_redis_forgets(
    gateway: Processes,
    receiver: Receiver,
    witnesses: Witnesses,
    simulator: RunningSimulator,
    collector: Collector,
    redis_url: str,
    port: int,
) -> None:
    receiver.answers.append(Answer(status=500))
    settings = {"otlp_endpoint": collector.url, "webhook_retry_schedule": "500ms"}
    api = gateway.api(port, **settings)
    transaction_id = initiate(
        port, receiver, "254712340000", traceparent=CALLER, **{"X-Request-ID": "order-7"}
    )
    wait_for(lambda: witnesses.rows("SELECT id FROM callbacks"))
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    worker = gateway.worker(**settings)
    wait_for(lambda: receiver.requests)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    wait_for(lambda: len(receiver.requests) == 2 and witnesses.all_told())
    # What waits in a process is sent when it stops.
    assert (api.stop(), worker.stop()) == (0, 0)

    names = ["initiate", "daraja push", "callback", "callback apply", "webhook attempt"]
    found = {name: collector.named(name) for name in names}
    assert {name: len(spans) for name, spans in found.items()} == {
        **dict.fromkeys(names, 1),
        "webhook attempt": 2,
    }
    assert {it.trace_id for it in collector.spans} == {TRACE}
    (begun,), (pushed,), (kept,), (applied,), tried = found.values()
    assert begun.parent_id == "b7ad6b7169203331"
    assert pushed.parent_id == kept.parent_id == begun.span_id
    assert applied.parent_id == kept.span_id
    assert {it.parent_id for it in tried} == {applied.span_id}
    assert {it.service for it in (begun, pushed, kept)} == {"mpesa-gateway-api"}
    assert {it.service for it in (applied, *tried)} == {"mpesa-gateway-worker"}
    assert {it.attributes["mpesa.transaction_id"] for it in (begun, applied, *tried)} == {
        transaction_id
    }
    # The merchant can go on with the trace, from the very try that reached it.
    assert [it.headers["traceparent"] for it in receiver.requests] == [
        f"00-{TRACE}-{it.span_id}-01"
        for it in sorted(tried, key=lambda it: it.attributes["mpesa.attempt"])
    ]

    lines = lines_about(gateway, transaction_id)
    assert {line["event"] for line in lines} == {"request", "callback applied", "webhook tried"}
    assert {line.get("route") for line in lines} == {"/initiate", "/callback/{token}", None}
    assert {line["trace_id"] for line in lines if line.get("route") != "/callback/{token}"} == {
        TRACE
    }
    assert [line["route"] for line in lines if line.get("request_id") == "order-7"] == ["/initiate"]
    assert all(line["filename"].endswith(".py") and line["lineno"] > 0 for line in lines)

    ledger = simulator.ledger()["pushes"]
    canaries = [API_KEY, PASSKEY, "test-consumer-secret", "test-consumer-key", "254712340000"]
    canaries += [it["checkout_request_id"] for it in ledger]
    canaries += [it["callback_url"].rsplit("/", 1)[-1] for it in ledger]
    canaries += [it["callback_url"].rsplit("/", 1)[-1][32:] for it in ledger]
    sent = b"".join(collector.bodies).decode("utf-8", "replace")
    assert len(ledger) == 1
    assert [it for it in canaries if it in sent] == []
    assert [it for it in canaries if it in gateway.logs()] == []


def test_a_payment_that_only_a_query_ends_stays_in_its_trace(
    gateway: Processes,
    receiver: Receiver,
    witnesses: Witnesses,
    collector: Collector,
    port: int,
) -> None:
    settings = {"otlp_endpoint": collector.url, "query_schedule": "500ms", "prompt_life": "1s"}
    gateway.api(port, **settings)
    gateway.worker(**settings)
    initiate(port, receiver, NO_CALLBACK)
    wait_for(witnesses.all_told, timeout_s=40)
    wait_for(lambda: collector.named("initiate") and collector.named("webhook attempt"))

    (begun,) = collector.named("initiate")
    asked = collector.named("query")
    (tried,) = collector.named("webhook attempt")
    assert begun.parent_id == ""
    assert {it.parent_id for it in asked} == {begun.span_id}
    assert {it.parent_id for it in collector.named("daraja query")} == {it.span_id for it in asked}
    assert tried.parent_id in {it.span_id for it in asked}
    assert {it.trace_id for it in (*asked, tried)} == {begun.trace_id}


def test_the_lag_histogram_leads_to_a_trace(
    gateway: Processes, receiver: Receiver, witnesses: Witnesses, collector: Collector, port: int
) -> None:
    metrics_port = free_port()
    gateway.api(port, otlp_endpoint=collector.url)
    gateway.worker(otlp_endpoint=collector.url, metrics_port=str(metrics_port))
    initiate(port, receiver, "254712340000", traceparent=CALLER)
    wait_for(witnesses.all_told)

    def scrape(accept: str) -> list[str]:
        url = f"http://127.0.0.1:{metrics_port}/metrics"
        answer = requests.get(url, headers={"Accept": accept}, timeout=5)
        assert answer.headers["Content-Type"].startswith(accept.split(";", maxsplit=1)[0])
        return answer.text.splitlines()

    wait_for(lambda: "mpesa_callback_lag_seconds_count 1.0" in scrape(OPEN_METRICS))
    buckets = [it for it in scrape(OPEN_METRICS) if it.startswith("mpesa_callback_lag_seconds_b")]
    (with_exemplar,) = [it for it in buckets if " # {" in it]
    wait_for(lambda: collector.named("callback apply"))
    (applied,) = collector.named("callback apply")
    assert f'trace_id="{TRACE}"' in with_exemplar
    assert f'span_id="{applied.span_id}"' in with_exemplar
    # The classic form has no exemplars; Prometheus would refuse the line.
    assert not [it for it in scrape("text/plain") if " # {" in it]


def test_without_an_endpoint_nothing_is_traced_or_sent(
    gateway: Processes,
    receiver: Receiver,
    witnesses: Witnesses,
    collector: Collector,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The library's own variables switch nothing on.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    api, worker = gateway.api(port), gateway.worker()
    initiate(port, receiver, "254712340000", traceparent=CALLER)
    wait_for(witnesses.all_told)
    assert (api.stop(), worker.stop()) == (0, 0)

    assert collector.bodies == []
    assert [it for it in receiver.requests if "traceparent" in it.headers] == []
    (row,) = witnesses.rows(
        "SELECT t.traceparent AS t, c.traceparent AS c, d.traceparent AS d FROM transactions t"
        " JOIN callbacks c ON c.transaction_id = t.id JOIN deliveries d ON d.transaction_id = t.id"
    )
    assert set(row.values()) == {None}
    assert "trace_id" not in gateway.logs()


@pytest.mark.parametrize("failing", ["refused", "500"])
def test_a_receiver_of_traces_that_fails_hurts_no_payment(
    gateway: Processes,
    receiver: Receiver,
    witnesses: Witnesses,
    collector: Collector,
    port: int,
    failing: str,
) -> None:
    collector.status = 500
    url = collector.url if failing == "500" else f"http://127.0.0.1:{free_port()}"
    api, worker = gateway.api(port, otlp_endpoint=url), gateway.worker(otlp_endpoint=url)
    pay_many(gateway, [port], receiver, 20)
    wait_for(witnesses.all_told, timeout_s=40)

    assert (api.stop(), worker.stop()) == (0, 0)
    witnesses.check(payments=20, repeats_allowed=False)
    assert "Traceback" not in gateway.logs()


def test_a_ratio_of_zero_traces_only_what_a_caller_traces(
    gateway: Processes, receiver: Receiver, witnesses: Witnesses, collector: Collector, port: int
) -> None:
    settings = {"otlp_endpoint": collector.url, "traces_sample_ratio": "0"}
    api, worker = gateway.api(port, **settings), gateway.worker(**settings)
    initiate(port, receiver, "254712340000")
    initiate(port, receiver, "254712350000", traceparent=CALLER)
    initiate(port, receiver, "254712360000", traceparent=CALLER.upper())
    wait_for(witnesses.all_told)
    assert (api.stop(), worker.stop()) == (0, 0)

    assert {it.trace_id for it in collector.spans} == {TRACE}
    assert len(collector.named("initiate")) == 1
