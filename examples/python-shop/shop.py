"""A small shop that takes M-Pesa by mpesa-gateway: Python's standard library, one file.

What to copy: `Payments.send` (one key per attempt, repeated until an answer comes),
`verify_webhook`, and `Payments.take` (a webhook and its id in one database transaction).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import os
import sqlite3
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

GATEWAY = os.environ.get("GATEWAY_URL", "http://localhost:8080")
KEY = os.environ.get("GATEWAY_KEY", "dev-key-for-this-machine-only")
SECRET = os.environ.get("WEBHOOK_SECRET", "whsec_ZGV2LXNlY3JldC1mb3ItdGhpcy1tYWNoaW5lLW9ubHk=")
# Empty: the endpoint that the merchant has at the gateway.
WEBHOOK_URL = os.environ.get("WEBHOOK_URL", "")
PORT = int(os.environ.get("PORT", "3000"))
DATABASE = os.environ.get("DATABASE", "shop.sqlite3")

SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    idempotency_key TEXT PRIMARY KEY,
    order_number    TEXT NOT NULL,
    phone           TEXT NOT NULL,
    amount          INTEGER NOT NULL,
    transaction_id  TEXT UNIQUE,
    status          TEXT NOT NULL DEFAULT 'SENDING',
    receipt         TEXT,
    message         TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS seen_webhooks (id TEXT PRIMARY KEY);
"""


def verify_webhook(secret: str, headers: dict[str, str], body: bytes) -> None:
    """Raise ValueError unless the gateway signed this body within the last five minutes."""
    webhook_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise ValueError("webhook-timestamp is missing or not a number")
    if abs(time.time() - int(timestamp)) > 300:
        raise ValueError("the webhook is not from the last five minutes")
    if secret.startswith("whsec_"):
        key = base64.b64decode(secret.removeprefix("whsec_"))
    else:
        key = secret.encode()
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    signatures = headers.get("webhook-signature", "").encode().split()
    if not any(hmac.compare_digest(expected, signature) for signature in signatures):
        raise ValueError("the webhook's signature does not match")


class Payments:
    """The shop's database. Each call has its own connection, so any thread may make it."""

    def __init__(self) -> None:
        with self._open() as database:
            database.executescript(SCHEMA)
            unsent = database.execute("SELECT * FROM payments WHERE status = 'SENDING'").fetchall()
        # We were stopped before an answer came: ask again, with the keys that were kept.
        for payment in unsent:
            self._send_soon(payment)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction."""
        with closing(sqlite3.connect(DATABASE, timeout=30)) as database:
            database.row_factory = sqlite3.Row
            with database:
                yield database

    def start(self, order_number: str, phone: str, amount: int) -> None:
        """Make an attempt to pay. Its key is in the database before anything leaves."""
        with self._open() as database:
            payment = database.execute(
                """
                INSERT INTO payments (idempotency_key, order_number, phone, amount)
                VALUES (?, ?, ?, ?) RETURNING *
                """,
                (str(uuid.uuid4()), order_number, phone, amount),
            ).fetchone()
        self._send_soon(payment)

    def _send_soon(self, payment: sqlite3.Row) -> None:
        threading.Thread(target=self.send, args=(payment,), daemon=True).start()

    def send(self, payment: sqlite3.Row) -> None:
        """Repeat the request, always with the same key, until the gateway gives its answer."""
        body = {
            "amount": payment["amount"],
            "phone": payment["phone"],
            "account_reference": payment["order_number"],
            "idempotency_key": payment["idempotency_key"],
        }
        if WEBHOOK_URL:
            body["webhook_url"] = WEBHOOK_URL
        while True:
            status, headers, answer = call("POST", "/initiate", body)
            # With an id the payment exists, and this is how it stands. Without one, 409, 429 and
            # 5xx mean "not now", and 0 means that no answer came.
            if "transaction_id" in answer:
                break
            if status not in (0, 409, 429) and status < 500:
                self._save(payment, status="REFUSED", message=answer.get("detail", ""))
                return
            time.sleep(int(headers.get("Retry-After", 1)))
        self._save(payment, transaction_id=answer["transaction_id"], status="PENDING")
        # Its webhook may have come before this answer did.
        _, _, view = call("GET", f"/transactions/{answer['transaction_id']}")
        if view.get("status") in ("COMPLETED", "FAILED"):
            with self._open() as database:
                update(database, view)

    def _save(self, payment: sqlite3.Row, **columns: str) -> None:
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        with self._open() as database:
            database.execute(
                f"UPDATE payments SET {assignments} WHERE idempotency_key = :idempotency_key",
                {**columns, "idempotency_key": payment["idempotency_key"]},
            )

    def take(self, webhook_id: str, event: dict) -> bool:
        """Store what a webhook says, once. False when its payment is not known yet."""
        if not event["type"].startswith("transaction."):
            return True
        with self._open() as database:
            seen = database.execute("INSERT OR IGNORE INTO seen_webhooks VALUES (?)", (webhook_id,))
            if seen.rowcount == 0:
                return True
            if not update(database, event):
                database.rollback()
                return False
        return True

    def of_order(self, order_number: str) -> list[sqlite3.Row]:
        """The attempts to pay an order, oldest first."""
        with self._open() as database:
            return database.execute(
                "SELECT * FROM payments WHERE order_number = ? ORDER BY rowid", (order_number,)
            ).fetchall()


def update(database: sqlite3.Connection, view: dict) -> bool:
    """Bring a payment to the state of a webhook, or of GET /transactions. False if unknown."""
    metadata, result = view.get("metadata") or {}, view.get("result") or {}
    conflict = view.get("type") == "transaction.conflict"
    changed = database.execute(
        """
        UPDATE payments
           SET status = CASE status WHEN 'CONFLICT' THEN status ELSE :status END,
               receipt = coalesce(:receipt, receipt),
               message = :message
         WHERE transaction_id = :transaction_id
        """,
        {
            "transaction_id": view["transaction_id"],
            # Money came against what was reported. It stays so until an employee has looked.
            "status": "CONFLICT" if conflict else view["status"],
            "receipt": metadata.get("MpesaReceiptNumber"),
            "message": (result.get("message") or {}).get("en", ""),
        },
    )
    return changed.rowcount == 1


def call(method: str, path: str, body: dict | None = None) -> tuple[int, dict, dict]:
    """Status, headers and body of an answer; status 0 when none came."""
    request = urllib.request.Request(
        GATEWAY + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"X-Internal-Secret": KEY, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, dict(answer.headers), json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), as_object(error.read())
    except (OSError, ValueError):
        return 0, {}, {}


def as_object(text: bytes) -> dict:
    """A JSON object; an empty one for what is none, as a proxy's page of HTML."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class Shop(BaseHTTPRequestHandler):
    """GET / is the form, POST /orders pays, GET /orders/N shows, POST /mpesa takes webhooks."""

    payments: Payments

    def do_GET(self) -> None:
        if self.path == "/":
            self.answer(200, FORM)
            return
        number = self.path.removeprefix("/orders/")
        attempts = self.payments.of_order(number)
        if attempts:
            self.answer(200, page(number, attempts))
        else:
            self.answer(404, "No such order.")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/mpesa":
            self.take_webhook(body)
            return
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        number = form.get("order") or uuid.uuid4().hex[:8].upper()
        if any(it["status"] not in ("FAILED", "REFUSED") for it in self.payments.of_order(number)):
            self.answer(409, "This order is paid, or its payment is still open.")
            return
        self.payments.start(number, form["phone"], int(form["amount"]))
        self.send_response(303)
        self.send_header("Location", f"/orders/{number}")
        self.end_headers()

    def take_webhook(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            verify_webhook(SECRET, headers, body)
        except ValueError as error:
            self.answer(400, str(error))
            return
        known = self.payments.take(headers["webhook-id"], json.loads(body))
        self.answer(200 if known else 503, "" if known else "Not known yet: send it again.")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())


FORM = """<h1>Shop</h1><form method="post" action="/orders">
Phone <input name="phone" value="254712340000"> KES <input name="amount" value="100">
<button>Pay with M-Pesa</button></form>"""


def page(number: str, attempts: list[sqlite3.Row]) -> str:
    """How an order stands. It looks again by itself while a payment is open."""
    last = attempts[-1]
    again = ""
    if last["status"] in ("SENDING", "PENDING"):
        again = '<meta http-equiv="refresh" content="2">'
    elif last["status"] == "FAILED":
        fields = {"order": number, "phone": last["phone"], "amount": last["amount"]}
        inputs = "".join(
            f'<input type="hidden" name="{name}" value="{html.escape(str(value))}">'
            for name, value in fields.items()
        )
        again = f'<form method="post" action="/orders">{inputs}<button>Try again</button></form>'
    return (
        f"<h1>Order {html.escape(number)}</h1><p>KES {last['amount']}: <b>{last['status']}</b>"
        f" {html.escape(last['receipt'] or '')}</p><p>{html.escape(last['message'])}</p>{again}"
    )


if __name__ == "__main__":
    Shop.payments = Payments()
    print(f"The shop is at http://localhost:{PORT}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", PORT), Shop).serve_forever()
