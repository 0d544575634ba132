"""Every function of docs/webhooks.md, in its own language, against webhooks of a real gateway."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.gateway import Gateway
from harness.snippets import DOCS, Case, as_json, blocks, verdicts
from mpesa_gateway.domain.signature import body_signature, webhook_headers

LANGUAGES = ["python", "javascript", "php", "java", "go"]
PLAIN = "a plain secret of forty-one letters, as it was"
ENCODED = "whsec_" + base64.b64encode(b"thirty-two bytes of randomness..").decode()
OTHER = "whsec_" + base64.b64encode(b"another merchant's key, as random").decode()


@pytest.fixture
def delivered(gateway: Gateway) -> Case:
    """A webhook of a payment, as its endpoint got it."""
    gateway.pay("254712344001")
    gateway.simulator.wait_until_idle()
    gateway.work()
    request = gateway.receiver.requests[-1]
    merchant = gateway.services.merchants.current().by_name["default"]
    return Case(merchant.webhook_secrets[0], request.headers, request.body)


def resigned(case: Case, secret: str, *, webhook_id: str = "msg_new", age_s: float = 0) -> Case:
    """The same body, signed by the gateway's signer with another secret, id or time."""
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    signed = webhook_headers(webhook_id, [secret], case.body, at)
    return Case(secret, {name.lower(): value for name, value in signed.items()}, case.body)


def changed(case: Case, **headers: str) -> Case:
    return replace(
        case,
        headers={**case.headers, **{name.replace("_", "-"): it for name, it in headers.items()}},
    )


def genuine(delivered: Case) -> list[Case]:
    encoded = resigned(delivered, ENCODED)
    rotating = webhook_headers("msg_1", [ENCODED, PLAIN], delivered.body, datetime.now(UTC))
    both = {name.lower(): value for name, value in rotating.items()}
    return [
        delivered,
        resigned(delivered, PLAIN),
        encoded,
        resigned(delivered, ENCODED, age_s=200),
        Case(PLAIN, both, delivered.body),
        Case(ENCODED, both, delivered.body),
        resigned(replace(delivered, body=b""), ENCODED),
        resigned(replace(delivered, body='{"n": "Wanjiků €"}\n'.encode()), ENCODED),
    ]


def forged(delivered: Case) -> list[Case]:
    good = resigned(delivered, ENCODED)
    now = int(time.time())
    unsigned = {
        "webhook-id": "msg_evil",
        "webhook-timestamp": str(now),
        "x-signature": body_signature(ENCODED, delivered.body),
    }
    days_400 = resigned(delivered, ENCODED, age_s=400 * 86400)
    return [
        # A body that was changed, a secret that is another merchant's, an id that is not the one.
        replace(good, body=good.body + b" "),
        replace(good, secret=OTHER),
        replace(good, secret=PLAIN),
        changed(good, webhook_id="msg_evil"),
        changed(good, webhook_timestamp=str(now - 1)),
        # Replays: recorded 400 days ago, as it was and with another id and another time.
        days_400,
        changed(days_400, webhook_id="msg_evil"),
        changed(days_400, webhook_id="msg_evil", webhook_timestamp=str(now)),
        changed(days_400, webhook_timestamp=str(now)),
        resigned(delivered, ENCODED, age_s=600),
        resigned(delivered, ENCODED, age_s=-86400),
        # `X-Signature` alone, which covers neither id nor time, is no proof.
        Case(ENCODED, unsigned, delivered.body),
        Case(ENCODED, {**unsigned, "webhook-signature": ""}, delivered.body),
        Case(ENCODED, {**unsigned, "webhook-signature": "v1,"}, delivered.body),
        Case(ENCODED, {**unsigned, "webhook-signature": "v1"}, delivered.body),
        Case(ENCODED, {}, delivered.body),
        changed(good, webhook_timestamp=""),
        changed(good, webhook_timestamp="now"),
        changed(good, webhook_timestamp="-1"),
        changed(good, webhook_timestamp="9" * 400),
        changed(good, webhook_timestamp=f"{now}.5"),
        changed(good, webhook_signature=good.headers["webhook-signature"].replace("v1,", "v2,")),
        changed(good, webhook_signature=good.headers["webhook-signature"][:-3]),
        changed(good, webhook_signature=good.headers["webhook-signature"].lower()),
        changed(good, webhook_signature=good.headers["webhook-signature"].removeprefix("v1,")),
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_snippet_tells_genuine_webhooks_from_forged_ones(
    language: str, delivered: Case, tmp_path: Path
) -> None:
    (snippet,) = blocks("webhooks.md", language)
    good, bad = genuine(delivered), forged(delivered)

    said = verdicts(language, snippet, [*good, *bad], tmp_path)

    assert len(said) == len(good) + len(bad)
    expected = ["accepted"] * len(good) + ["refused"] * len(bad)
    wrong = [
        f"{verdict}: {as_json(case)}"
        for case, verdict, right in zip([*good, *bad], said, expected, strict=True)
        if verdict != right
    ]
    assert wrong == []


def test_the_page_has_one_function_in_each_language() -> None:
    assert {language: len(blocks("webhooks.md", language)) for language in LANGUAGES} == (
        dict.fromkeys(LANGUAGES, 1)
    )


def test_no_page_checks_a_signature_with_assert() -> None:
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    found = [page.name for page in pages if "assert hmac" in page.read_text("utf-8")]
    assert found == []
