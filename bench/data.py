"""Payments that wait for their callback, and the callbacks for them, as Safaricom sends them."""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg

from bench.load import Request
from bench.rig import API_KEY

SAFARICOM = "196.201.214.200"
# 462 bytes. CheckoutRequestID and receipt differ from payment to payment.
BODY = (
    b'{"Body": {"stkCallback": {"MerchantRequestID": "2654-4b64-97ff-b827b542881d3130",'
    b' "CheckoutRequestID": "ws_CO_021020261811%012d", "ResultCode": 0,'
    b' "ResultDesc": "The service request is processed successfully.",'
    b' "CallbackMetadata": {"Item": [{"Name": "Amount", "Value": 10},'
    b' {"Name": "MpesaReceiptNumber", "Value": "UJ%08d"}, {"Name": "Balance"},'
    b' {"Name": "TransactionDate", "Value": 20261002181102},'
    b' {"Name": "PhoneNumber", "Value": 254708374149}]}}}}'
)
_SECRET = secrets.token_bytes(16)
# Each payment's own token: its id, and a secret that all of a benchmark share.
_MINT = (
    "INSERT INTO transactions (internal_transaction_id, merchant, idempotency_key, request_sha256,"
    " amount, phone, short_code, webhook_url, account_reference, description, push_state,"
    " prompt_until, callback_secret_sha256, checkout_request_id, next_query_at, created_at,"
    " updated_at)"
    " SELECT uuidv7(), %(merchant)s, gen_random_uuid(), sha256('request'), 10,"
    " '2547' || lpad((n %% 100000000)::text, 8, '0'), '174379',"
    " (%(urls)s::text[])[1 + n %% %(count)s], 'payment', 'payment', 'ACCEPTED',"
    " now() + interval '90 s', %(secret)s,"
    " 'ws_CO_021020261811' || lpad(n::text, 12, '0'), now() + interval '1 day', now(), now()"
    " FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n"
    " RETURNING id, internal_transaction_id,"
    " right(checkout_request_id, 12)::bigint"
)


@dataclass
class Payments:
    """Mints payments as they are needed; no token is used twice."""

    conn: psycopg.Connection
    made: int = 0
    merchant: str = "default"
    tokens: list[tuple[int, str, int]] = field(default_factory=list)

    def newest(self) -> int:
        """The highest row so far, of anybody."""
        row = self.conn.execute("SELECT max(id) FROM transactions").fetchone()
        assert row is not None
        newest: int = row[0]
        return newest

    def take(self, count: int, urls: list[str] | None = None) -> list[tuple[int, str, int]]:
        """Row, token and number of so many new payments, told at these webhook URLs in turn."""
        urls = urls or ["http://127.0.0.1:1024/webhooks"]
        cursor = self.conn.execute(
            _MINT,
            {
                "merchant": self.merchant,
                "urls": urls,
                "count": len(urls),
                "secret": hashlib.sha256(_SECRET).digest(),
                "first": self.made,
                "last": self.made + count - 1,
            },
        )
        self.made += count
        return [(row, uid.hex + _SECRET.hex(), number) for row, uid, number in cursor]


def body_of(number: int) -> bytes:
    """The callback of one payment: paid."""
    return BODY % (number, number)


def callbacks(tokens: list[tuple[int, str, int]]) -> Iterator[Request]:
    """A request to the gateway for each, as it leaves the proxy in front."""
    for row, token, number in tokens:
        yield row, _post(f"/callback/{token}", body_of(number))


def peer_callbacks(first: int) -> Iterator[Request]:
    """Requests to a peer, without end."""
    number = first
    while True:
        yield number, _post(f"/callback/{number}", body_of(number))
        number += 1


def _post(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: pay.example.com\r\nContent-Type: application/json\r\n"
        f"User-Agent: okhttp/4.9.0\r\nX-Forwarded-For: {SAFARICOM}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def count_missing(conn: psycopg.Connection, table: str, rows: list[int]) -> int:
    """How many of those answered 200 have no row."""
    found = conn.execute(
        f"SELECT count(*) FROM unnest(%s::bigint[]) AS kept (id) WHERE NOT EXISTS"
        f" (SELECT FROM {table} WHERE transaction_id = kept.id)".encode(),
        [rows],
    ).fetchone()
    assert found is not None
    return int(found[0])


def initiate(phone: str, webhook_url: str) -> bytes:
    """POST /initiate with a fresh key, as it stands on the wire."""
    body = json.dumps(
        {
            "amount": "10",
            "phone": phone,
            "webhook_url": webhook_url,
            "idempotency_key": str(uuid.uuid4()),
        }
    ).encode()
    head = (
        f"POST /initiate HTTP/1.1\r\nHost: pay\r\nContent-Type: application/json\r\n"
        f"X-Internal-Secret: {API_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
