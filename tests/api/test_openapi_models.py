"""What the OpenAPI document promises to clients, and what a running gateway answers and sends."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import requests

from daraja_simulator.outcomes import OUTCOMES
from harness.bodies import callback_body
from harness.gateway import Gateway
from harness.receiver import Answer
from mpesa_gateway.api.models import Deliveries, Problem, Transaction, Transactions, Webhook
from mpesa_gateway.api.openapi import document
from mpesa_gateway.domain.delivery import WebhookType

SILENT = "254712344042"


def every_schema(value: Any) -> list[dict[str, Any]]:
    """Each object of the document, however deep."""
    found = []
    if isinstance(value, dict):
        found.append(value)
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            found += every_schema(child)
    return found


def test_no_schema_is_a_list_of_types() -> None:
    """Generators for Go refuse them."""
    assert [it for it in every_schema(document()) if isinstance(it.get("type"), list)] == []


def test_answers_are_open_and_requests_closed() -> None:
    schemas = document()["components"]["schemas"]
    closed = [name for name, it in schemas.items() if it.get("additionalProperties") is False]

    assert closed == ["InitiateRequest"]


def test_every_operation_and_schema_is_described() -> None:
    spec = document()
    operations = [
        item[method]
        for item in (*spec["paths"].values(), *spec["webhooks"].values())
        for method in ("get", "post")
        if method in item
    ]
    missing = [it["operationId"] for it in operations if not it.get("description")]
    missing += [
        name for name, it in spec["components"]["schemas"].items() if "description" not in it
    ]

    assert missing == []
    names = [it["operationId"] for it in operations]
    assert len(names) == len(set(names))
    assert spec["servers"]


def test_every_webhook_type_is_described() -> None:
    assert set(document()["webhooks"]) == {it.value for it in WebhookType}


@pytest.mark.parametrize("amount", ["99999", "100000", "150000", 250_000, "250000", "250000.00"])
def test_an_amount_that_the_document_allows_is_taken(gateway: Gateway, amount: str | int) -> None:
    fits = document()["components"]["schemas"]["InitiateRequest"]["properties"]["amount"]["anyOf"]
    pattern = next(it["pattern"] for it in fits if it["type"] == "string")

    assert isinstance(amount, int) or re.fullmatch(pattern, amount)
    assert gateway.initiate(SILENT, amount=amount).status_code == 201


@pytest.mark.parametrize("field", ["webhook_url", "account_reference", "description"])
def test_an_optional_field_that_is_null_is_absent(gateway: Gateway, field: str) -> None:
    body = gateway.body(SILENT, **{field: None})
    if field == "webhook_url":
        refused = gateway.initiate(SILENT, webhook_url=None)
        assert refused.status_code == 400
        assert "the merchant has none" in refused.text
        return
    key = body["idempotency_key"]
    first = gateway.initiate(SILENT, idempotency_key=key)
    again = gateway.initiate(SILENT, idempotency_key=key, **{field: None})  # type: ignore[arg-type]

    assert first.status_code == 201
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()


def test_what_is_answered_and_sent_fits_the_models(gateway: Gateway) -> None:
    """Of every outcome of the simulator: views, lists, deliveries, webhooks."""
    for number, outcome in enumerate(OUTCOMES):
        gateway.initiate(f"2547{number:04d}{outcome.digits}"[:8] + outcome.digits)
    gateway.simulator.wait_until_idle()
    gateway.receiver.answers = [Answer(500)]
    gateway.work()
    page = gateway.get("/transactions", limit=200).json()

    assert len(Transactions.model_validate(page, strict=False).items) > 5
    for item in page["items"]:
        path = f"/transactions/{item['transaction_id']}"
        Transaction.model_validate(gateway.get(path).json())
        Deliveries.model_validate(gateway.get(f"{path}/deliveries").json())
    assert gateway.receiver.requests
    for request in gateway.receiver.requests:
        Webhook.model_validate_json(request.body)


def test_every_member_of_an_answer_is_described(gateway: Gateway) -> None:
    """Open for clients, not for us: what we add is written down."""
    transaction_id = gateway.pay(SILENT)
    body = callback_body(gateway.checkout_request_id(SILENT))
    gateway.post(gateway.callback_path(SILENT), body)
    gateway.work()
    view = gateway.transaction(transaction_id)
    (delivery,) = gateway.get(f"/transactions/{transaction_id}/deliveries").json()["items"]
    webhook = json.loads(gateway.receiver.requests[-1].body)

    schemas = document()["components"]["schemas"]
    assert set(view) == set(schemas["Transaction"]["properties"])
    assert set(view["result"]) == set(schemas["Result"]["properties"])
    assert set(delivery) == set(schemas["Delivery"]["properties"])
    assert set(delivery["attempts"][0]) == set(schemas["Attempt"]["properties"])
    assert set(webhook) <= set(schemas["Webhook"]["properties"])


def test_a_problem_fits_its_model(gateway: Gateway) -> None:
    answers = [
        gateway.initiate(SILENT, amount="0.5", account_reference="/", more=1),
        gateway.initiate(SILENT, key="nobody's"),
        gateway.get("/transactions/nothing"),
        gateway.get("/transactions", limit="many"),
    ]
    for answer in answers:
        problem = Problem.model_validate(answer.json())
        assert problem.status == answer.status_code
        assert set(answer.json()) <= set(Problem.model_fields)


def test_the_document_is_a_page_that_loads_nothing(gateway: Gateway) -> None:
    answer = requests.get(f"{gateway.url}/docs", timeout=10)

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "<script" not in answer.text
    for reference in re.findall(r'(?:href|src)="([^"]*)"', answer.text):
        assert reference.startswith("#") or reference == "/openapi.json", reference
    for path in document()["paths"]:
        assert path in answer.text
    anchors = set(re.findall(r'id="([^"]+)"', answer.text))
    assert set(re.findall(r'href="#([^"]+)"', answer.text)) <= anchors
