"""The OpenAPI document is true: what it allows is accepted, what it forbids refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from daraja_simulator.outcomes import OUTCOMES, PushAnswer
from daraja_simulator.settings import Settings
from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from mpesa_gateway.api.openapi import document
from mpesa_gateway.api.requests import AMOUNT_TEXT_PATTERN
from mpesa_gateway.domain.amount import MAX_AMOUNT

SEED = 7
ACCEPTED = ["2xx", 401, 403, 404, 409, 429, "5xx"]
LONGEST_HOST = 253
KEY = "key-of-duka"
WEBHOOK = {"url": "https://shop.example/hooks", "secrets": ["duka-webhook-secret"]}
REFUSED_DIGITS = {it.digits for it in OUTCOMES if it.push_answer is not PushAnswer.ACCEPTED}
METHODS = ("get", "post")
OPERATIONS = [
    (method.upper(), path)
    for path, item in document()["paths"].items()
    for method in METHODS
    if method in item
]


@pytest.fixture(scope="module")
def public(
    gateways: Gateways,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway as in production: public https endpoints only. Nobody is called back."""
    tmp_path = tmp_path_factory.mktemp("merchants")
    # Of a merchant with an endpoint of its own, webhook_url may be left out.
    write_merchant(tmp_path, key=KEY, webhook=WEBHOOK)
    safaricom = Settings(callback_delay=0.0, callback_drop_rate=1.0)
    with gateways.start(
        safaricom=safaricom, webhook_allow_private="false", merchants_dir=str(tmp_path)
    ) as gateway:
        yield gateway


def config(examples: int) -> SchemathesisConfig:
    """All default checks, good and bad data, the same every time."""
    settings: dict[str, Any] = {
        "seed": SEED,
        "headers": {"X-Internal-Secret": KEY},
        "workers": 1,
        "request-timeout": 20,
        "generation": {
            "mode": "all",
            "max-examples": examples,
            "deterministic": True,
            "database": "none",
            "no-shrink": True,
        },
        "phases": {"stateful": {"enabled": False}},
        # 422 is a key that was used before, which no schema can know.
        "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, 422]}},
    }
    return SchemathesisConfig.from_dict(settings)


def has_a_possible_host(_context: Any, case: Any) -> bool:
    """A URL may be far longer than a host name, which the schema's formats do not know."""
    body = case.body if isinstance(case.body, dict) else {}
    url = body.get("webhook_url")
    host = url.partition("://")[2].partition("/")[0] if isinstance(url, str) else ""
    return len(host) <= LONGEST_HOST


def is_taken_by_safaricom(_context: Any, case: Any) -> bool:
    """The simulator refuses the pushes to some phones by design, and the answer is 502 then.

    Hypothesis draws from the constants of whatever is imported, those digits among them.
    """
    phone = case.body.get("phone") if isinstance(case.body, dict) else None
    return not (isinstance(phone, str) and phone.strip()[-4:] in REFUSED_DIGITS)


def is_within_the_limits(_context: Any, case: Any) -> bool:
    """Amounts have no maximum in the document: each merchant and platform has its own."""
    amount = case.body.get("amount") if isinstance(case.body, dict) else None
    if isinstance(amount, str) and re.fullmatch(AMOUNT_TEXT_PATTERN, amount):
        return Decimal(amount) <= MAX_AMOUNT
    # 10.0 is an integer in JSON Schema, and is drawn now and then.
    if not isinstance(amount, int | float) or isinstance(amount, bool):
        return True
    return amount <= MAX_AMOUNT


def has_no_cursor(_context: Any, case: Any) -> bool:
    """A cursor is one that a page gave; no schema can know which there are."""
    return "cursor" not in (case.query or {})


def failures_of(schema: Any) -> list[str]:
    """Every check that failed, with the request that shows it; and the run's own errors."""
    found: list[str] = []
    tested = 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(repr(getattr(event, "value", None) or getattr(event, "exception", None)))
        if isinstance(event, events.ScenarioFinished):
            tested += len(event.recorder.interactions)
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.status is Status.FAILURE and check.failure_info is not None:
                        info = check.failure_info
                        found.append(f"{check.name}: {info.failure}\n{info.code_sample}")
    assert tested > 0, "nothing was tested"
    return found


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_document_is_true(public: Gateway, method: str, path: str) -> None:
    schema = schemathesis.openapi.from_url(f"{public.url}/openapi.json", config=config(30))

    schema.hook("filter_case")(has_a_possible_host)
    schema.hook("filter_case")(is_taken_by_safaricom)
    schema.hook("filter_case")(is_within_the_limits)
    schema.hook("filter_case")(has_no_cursor)
    found = failures_of(schema.include(path=path, method=method))

    assert not found, "\n\n".join(dict.fromkeys(found))
