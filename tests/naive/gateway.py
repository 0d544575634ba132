"""A STRAWMAN, for comparison only: STK Push over Huey, as tutorials write it.

POST /initiate pushes and then saves; the callback is enqueued and answered 200; a worker applies it
and posts the webhook, with `retries=5`. It is no worse than its models on purpose: a key that was
saved is not pushed again, a final status is not overwritten, each request has a time-out, and an
update is one statement. The failpoints are those of the real gateway, at the same places.
"""

from __future__ import annotations

import base64
import functools
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import falcon
import psycopg
import requests
from huey import RedisHuey
from psycopg.rows import TupleRow

from mpesa_gateway import failpoint
from mpesa_gateway.failpoint import step

SETTINGS = {name.removeprefix("MPESA_").lower(): it for name, it in os.environ.items()}
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS transactions (id UUID PRIMARY KEY, idempotency_key TEXT UNIQUE,"
    " phone TEXT, amount INT, webhook_url TEXT, checkout_request_id TEXT UNIQUE,"
    " status TEXT DEFAULT 'PENDING', receipt TEXT)"
)
TIMEOUT_S = 10.0
ACCEPTED = {"ResultCode": 0, "ResultDesc": "Accepted"}

huey = RedisHuey("naive", url=SETTINGS["redis_url"])
failpoint.arm(failpoint.die_as_told(Path(SETTINGS["failpoints"])))


def connect() -> psycopg.Connection[TupleRow]:
    return psycopg.connect(SETTINGS["database_url"], autocommit=True)


# --- the web application --------------------------------------------------------------------------


class Ready:
    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"status": "ok"}


class Initiate:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = req.get_media()
        with connect() as conn:
            known = conn.execute(
                "SELECT id FROM transactions WHERE idempotency_key = %s", [body["idempotency_key"]]
            ).fetchone()
            payment = known[0] if known else self._charge(conn, body)
        resp.status = falcon.HTTP_201
        resp.media = {"transaction_id": str(payment), "status": "PENDING"}

    def _charge(self, conn: psycopg.Connection[TupleRow], body: dict[str, Any]) -> uuid.UUID:
        with step("daraja.push"):
            checkout_request_id = stk_push(body["phone"], int(body["amount"]))
        payment = uuid.uuid4()
        conn.execute(
            "INSERT INTO transactions (id, idempotency_key, phone, amount, webhook_url,"
            " checkout_request_id) VALUES (%s, %s, %s, %s, %s, %s)",
            [
                payment,
                body["idempotency_key"],
                body["phone"],
                int(body["amount"]),
                body["webhook_url"],
                checkout_request_id,
            ],
        )
        return payment


class Callback:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        apply_callback(req.get_media())
        resp.media = ACCEPTED


def create_app() -> falcon.App[falcon.Request, falcon.Response]:
    with connect() as conn:
        conn.execute(SCHEMA)
    access_token()
    app = falcon.App()
    app.add_route("/readyz", Ready())
    app.add_route("/initiate", Initiate())
    app.add_route("/callback", Callback())
    return app


# --- Safaricom ------------------------------------------------------------------------------------


@functools.cache
def access_token() -> str:
    token: str = requests.get(
        f"{SETTINGS['safaricom_base_url']}/oauth/v1/generate?grant_type=client_credentials",
        auth=(SETTINGS["safaricom_consumer_key"], SETTINGS["safaricom_consumer_secret"]),
        timeout=TIMEOUT_S,
    ).json()["access_token"]
    return token


def stk_push(phone: str, amount: int) -> str:
    base_url, short_code = SETTINGS["safaricom_base_url"], SETTINGS["safaricom_short_code"]
    timestamp = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    password = f"{short_code}{SETTINGS['safaricom_passkey']}{timestamp}"
    answer = requests.post(
        f"{base_url}/mpesa/stkpush/v1/processrequest",
        headers={"Authorization": f"Bearer {access_token()}"},
        json={
            "BusinessShortCode": short_code,
            "Password": base64.b64encode(password.encode()).decode(),
            "Timestamp": timestamp,
            "TransactionType": "CustomerPayBillOnline",
            "Amount": amount,
            "PartyA": phone,
            "PartyB": short_code,
            "PhoneNumber": phone,
            "CallBackURL": SETTINGS["safaricom_callback_url"],
            "AccountReference": "Payment",
            "TransactionDesc": "Payment",
        },
        timeout=TIMEOUT_S,
    )
    answer.raise_for_status()
    checkout_request_id: str = answer.json()["CheckoutRequestID"]
    return checkout_request_id


# --- the worker -----------------------------------------------------------------------------------


@huey.on_startup()  # type: ignore[untyped-decorator]  # huey has no types
def say_so() -> None:
    """The harness waits for this line."""
    sys.stdout.write("worker started\n")
    sys.stdout.flush()


@huey.task(retries=5, retry_delay=1)  # type: ignore[untyped-decorator]  # huey has no types
def apply_callback(body: dict[str, Any]) -> None:
    failpoint.failpoint("work.callback.begin")
    callback = body["Body"]["stkCallback"]
    items = callback.get("CallbackMetadata", {}).get("Item", [])
    receipt = {it["Name"]: it.get("Value") for it in items}.get("MpesaReceiptNumber")
    with connect() as conn:
        known = conn.execute(
            "SELECT id FROM transactions WHERE checkout_request_id = %s",
            [callback["CheckoutRequestID"]],
        ).fetchone()
        if known is None:
            raise LookupError("no such payment")  # Not saved yet: huey tries again.
        ended = conn.execute(
            "UPDATE transactions SET status = %s, receipt = %s"
            " WHERE id = %s AND status = 'PENDING' RETURNING id",
            ["COMPLETED" if callback["ResultCode"] == 0 else "FAILED", receipt, known[0]],
        ).fetchone()
    if ended is not None:
        send_webhook(str(ended[0]))


@huey.task(retries=5, retry_delay=1)  # type: ignore[untyped-decorator]  # huey has no types
def send_webhook(payment: str) -> None:
    failpoint.failpoint("work.delivery.begin")
    with connect() as conn:
        row = conn.execute(
            "SELECT webhook_url, status, amount, phone, receipt FROM transactions WHERE id = %s",
            [payment],
        ).fetchone()
    assert row is not None
    url, status, amount, phone, receipt = row
    body = {"transaction_id": payment, "status": status, "amount": amount, "phone": phone}
    with step("webhook.post"):
        answer = requests.post(url, json={**body, "receipt": receipt}, timeout=TIMEOUT_S)
    answer.raise_for_status()


# --- the processes --------------------------------------------------------------------------------


def main() -> None:
    """`api` or `worker`, each with the program that tutorials start."""
    here = str(Path(__file__).parent)
    commands = {
        "api": [
            "gunicorn", "--no-control-socket", "--workers", "1", "--threads", "8",
            "--bind", f"127.0.0.1:{SETTINGS.get('server_port')}", "gateway:create_app()",
        ],
        "worker": ["huey.bin.huey_consumer", "gateway.huey", "-w", "4", "-k", "thread"],
    }  # fmt: skip
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    arguments = [sys.executable, "-m", *commands[sys.argv[1]]]
    os.execve(sys.executable, arguments, {**os.environ, "PYTHONPATH": path})  # noqa: S606


if __name__ == "__main__":
    main()
