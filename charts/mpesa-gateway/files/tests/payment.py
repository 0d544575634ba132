"""What `helm test` runs, with the standard library alone: a payment from end to end.

It asks the API to charge a phone of the simulator, is the merchant's endpoint itself, and wants
COMPLETED and a webhook with a right signature. Without the simulator it asks for health only: a
test must not ring at a real phone.
"""
# ruff: noqa: T201 - what it prints is what `helm test --logs` shows

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8000
REQUEST_TIMEOUT_S = 10.0
PAID_DIGITS = "0000"  # the simulator's customer pays
FAILED = 1


class FailedTestError(Exception):
    """What did not hold, as a sentence."""


class Endpoint:
    """The merchant's endpoint: keeps the first webhook that comes."""

    def __init__(self, port: int) -> None:
        self.arrived = threading.Event()
        self.headers: Mapping[str, str] = {}
        self.body = b""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_POST(self) -> None:
                endpoint.keep(self)

            def log_message(self, *_: object) -> None:
                """The test tells what it needs to."""

        self._server = ThreadingHTTPServer(("", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def keep(self, request: BaseHTTPRequestHandler) -> None:
        """Read a request and answer 200."""
        body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
        if not self.arrived.is_set():
            self.headers, self.body = dict(request.headers.items()), body
        request.send_response(200)
        request.send_header("Content-Length", "0")
        request.end_headers()
        self.arrived.set()


def call(url: str, *, key: str = "", body: Any = None) -> tuple[int, Any]:
    """The status and the JSON of an answer. Raises FailedTestError when there is none."""
    headers = {"Content-Type": "application/json", **({"X-Internal-Secret": key} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - our own API
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")
    except OSError as error:
        raise FailedTestError(f"{url} does not answer: {error}") from error


def expect(found: object, wanted: object, what: str) -> None:
    """Raise FailedTestError unless they are equal."""
    if found != wanted:
        raise FailedTestError(f"{what} is {found!r} and should be {wanted!r}")


def check_health(api: str) -> None:
    """Both health endpoints answer 200."""
    for path in ("/readyz", "/health"):
        status, _ = call(api + path)
        expect(status, 200, f"the status of GET {path}")
        print(f"GET {path}: 200")


def initiate(api: str, key: str, webhook_url: str) -> str:
    """Ask for a payment; its id."""
    body = {
        "amount": 1,
        "phone": f"2547{secrets.randbelow(10_000):04d}{PAID_DIGITS}",
        "webhook_url": webhook_url,
        "idempotency_key": str(uuid.uuid4()),
    }
    status, answer = call(f"{api}/initiate", key=key, body=body)
    expect(status, 201, f"the status of POST /initiate ({answer})")
    transaction_id: str = answer["transaction_id"]
    print(f"POST /initiate: 201, transaction {transaction_id}")
    return transaction_id


def wait_until_completed(api: str, key: str, transaction_id: str, give_up: float) -> None:
    """Ask for the transaction until it has ended."""
    while True:
        _, transaction = call(f"{api}/transactions/{transaction_id}", key=key)
        if transaction.get("status") != "PENDING":
            break
        if time.monotonic() > give_up:
            raise FailedTestError(f"the transaction is still pending: {transaction}")
        time.sleep(0.2)
    expect(transaction.get("status"), "COMPLETED", "the transaction's status")
    print("GET /transactions/{id}: COMPLETED")


def signing_key(secret: str) -> bytes:
    """Base64 behind `whsec_`, else the bytes as they are."""
    prefix = "whsec_"
    return base64.b64decode(secret[len(prefix) :]) if secret.startswith(prefix) else secret.encode()


def check_webhook(endpoint: Endpoint, transaction_id: str, secret: str, give_up: float) -> None:
    """The webhook has come, tells of this payment, and both of its signatures are right."""
    if not endpoint.arrived.wait(max(0.0, give_up - time.monotonic())):
        raise FailedTestError(
            "no webhook has come; does the network let the worker reach this pod?"
        )
    headers = {name.lower(): value for name, value in endpoint.headers.items()}
    event = json.loads(endpoint.body)
    expect(event["transaction_id"], transaction_id, "the webhook's transaction")
    expect(event["status"], "COMPLETED", "the webhook's status")
    key = signing_key(secret)
    signature = hmac.new(key, endpoint.body, hashlib.sha256).hexdigest()
    expect(headers.get("x-signature"), signature, "X-Signature")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + endpoint.body
    standard = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    expect(headers.get("webhook-signature"), f"v1,{standard}", "webhook-signature")
    print("webhook: COMPLETED, both signatures are right")


def main(env: Mapping[str, str]) -> None:
    """Run what the release can be tested with. Raises FailedTestError."""
    api, give_up = env["API_URL"], time.monotonic() + float(env["TIMEOUT_S"])
    check_health(api)
    if "MPESA_INTERNAL_SECRET" not in env:
        print("No simulator, so no payment was made: health only.")
        return
    key = env["MPESA_INTERNAL_SECRET"]
    endpoint = Endpoint(PORT)
    host = f"[{env['POD_IP']}]" if ":" in env["POD_IP"] else env["POD_IP"]
    transaction_id = initiate(api, key, f"http://{host}:{PORT}/hook")
    wait_until_completed(api, key, transaction_id, give_up)
    check_webhook(endpoint, transaction_id, env["MPESA_WEBHOOK_SECRET"], give_up)


if __name__ == "__main__":
    try:
        main(os.environ)
    except FailedTestError as problem:
        print(f"FAILED: {problem}", file=sys.stderr)
        sys.exit(FAILED)
