"""`mpesa-gateway webhooks`: the secret, a saved request, and a test of an endpoint."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import standardwebhooks

from commands.conftest import Run, fail_one
from harness.gateway import Gateway
from harness.receiver import Answer, Received
from harness.settings import API_KEY, environment

ENCODED = "whsec_" + base64.b64encode(b"thirty-two bytes of randomness..").decode()


@pytest.fixture
def env() -> dict[str, str]:
    """The merchant `default`, and endpoints on this machine; no database is needed."""
    return environment(
        database_url="postgresql://nobody@127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1/0",
        base_url="http://127.0.0.1:1",
        callback_url="http://127.0.0.1:1/callback",
    )


@pytest.fixture
def saved(gateway: Gateway) -> Received:
    """A webhook as its endpoint got it."""
    fail_one(gateway)
    return gateway.receiver.requests[-1]


def save(request: Received, directory: Path) -> tuple[str, str]:
    """Headers as `curl --dump-header` and most servers print them, and the raw body."""
    headers, body = directory / "headers.txt", directory / "body.json"
    lines = [f"{name.title()}: {value}" for name, value in request.headers.items()]
    headers.write_text("\r\n".join(["POST /mpesa HTTP/1.1", *lines, ""]), "utf-8")
    body.write_bytes(request.body)
    return str(headers), str(body)


def test_the_secret_is_printed_in_the_form_that_libraries_take(
    run: Run, env: dict[str, str], saved: Received
) -> None:
    result = run("webhooks", "secret", env=env)

    assert result.exit_code == 0, result.output
    secret = result.stdout.strip()
    assert secret.startswith("whsec_")
    standardwebhooks.Webhook(secret).verify(saved.body, saved.headers)


def test_an_encoded_secret_is_printed_as_it_is(run: Run, env: dict[str, str]) -> None:
    result = run("webhooks", "secret", "default", env={**env, "MPESA_WEBHOOK_SECRET": ENCODED})

    assert result.stdout.strip() == ENCODED


def test_a_merchant_that_is_not_there_is_named(run: Run, env: dict[str, str]) -> None:
    result = run("webhooks", "secret", "shop/duka", env=env)

    assert result.exit_code == 1
    assert "there is no merchant 'shop/duka'" in result.stderr


def test_a_saved_webhook_is_verified(
    run: Run, env: dict[str, str], saved: Received, tmp_path: Path
) -> None:
    headers, body = save(saved, tmp_path)
    options = ["--headers", headers, "--body", body]

    result = run("webhooks", "verify", "--secret", API_KEY, *options, env=env)
    assert result.exit_code == 0, result.output
    assert saved.webhook_id in result.stdout

    other = run("webhooks", "verify", "--secret", ENCODED, *options, env=env)
    assert other.exit_code == 1
    assert "not genuine" in other.stderr


def test_headers_may_be_a_json_object(
    run: Run, env: dict[str, str], saved: Received, tmp_path: Path
) -> None:
    _, body = save(saved, tmp_path)
    headers = tmp_path / "headers.json"
    headers.write_text(json.dumps(saved.headers), "utf-8")

    result = run(
        "webhooks", "verify", "--secret", API_KEY, "--headers", str(headers), "--body", body,
        env=env,
    )  # fmt: skip

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"webhook-timestamp": "1700000000"}, "five minutes"),
        ({"webhook-timestamp": "soon"}, "not a number"),
        ({"webhook-id": "msg_other"}, "no signature"),
        ({"webhook-signature": ""}, "webhook-signature is missing"),
    ],
)
def test_what_is_wrong_is_said(
    run: Run,
    env: dict[str, str],
    saved: Received,
    tmp_path: Path,
    change: dict[str, str],
    sentence: str,
) -> None:
    changed = Received(saved.path, {**saved.headers, **change}, saved.body)
    headers, body = save(changed, tmp_path)

    result = run(
        "webhooks", "verify", "--secret", API_KEY, "--headers", headers, "--body", body, env=env
    )

    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.output


def test_a_secret_that_is_no_base64_is_a_sentence(
    run: Run, env: dict[str, str], saved: Received, tmp_path: Path
) -> None:
    headers, body = save(saved, tmp_path)

    result = run(
        "webhooks", "verify", "--secret", "whsec_!", "--headers", headers, "--body", body, env=env
    )

    assert result.exit_code == 2
    assert "base64" in result.stderr


def test_an_endpoint_is_sent_a_ping_that_it_can_verify(
    run: Run, env: dict[str, str], gateway: Gateway
) -> None:
    result = run("webhooks", "test", "default", "--url", gateway.receiver.url, env=env)

    assert result.exit_code == 0, result.output
    assert "answered 200" in result.stdout
    (request,) = gateway.receiver.requests
    body = request.verify(API_KEY)
    assert body["type"] == "test.ping"
    assert body["merchant"] == "default"


def test_an_endpoint_that_refuses_is_shown_as_it_answered(
    run: Run, env: dict[str, str], gateway: Gateway
) -> None:
    gateway.receiver.default = Answer(500)

    result = run("webhooks", "test", "--url", gateway.receiver.url, "--json", env=env)

    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert shown["response_status_code"] == 500
    assert shown["success"] is False


def test_a_ping_obeys_the_egress_guard(run: Run, env: dict[str, str], gateway: Gateway) -> None:
    guarded = {**env, "MPESA_WEBHOOK_ALLOW_PRIVATE": "false"}

    result = run("webhooks", "test", "--url", gateway.receiver.url, env=guarded)

    assert result.exit_code == 1
    assert "MPESA_WEBHOOK_ALLOW_PRIVATE" in result.stderr
    assert gateway.receiver.requests == []


def test_a_merchant_without_an_endpoint_needs_one(run: Run, env: dict[str, str]) -> None:
    result = run("webhooks", "test", env=env)

    assert result.exit_code == 2
    assert "--url" in result.stderr
