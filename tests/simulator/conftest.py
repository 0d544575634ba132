"""A caller of the simulator, and an endpoint that receives its callbacks."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import requests

from daraja_simulator import RunningSimulator, Settings
from mpesa_devkit.http_server import QuietServer

SHORT_CODE = "174379"
PASSKEY = "bfb279f9aa9bdbcf158e97dd71a467cd2e0c893059b10f78e6b72ada1ed2c919"
TIMESTAMP = "20261002181102"
DEADLINE_S = 5.0
TIMEOUT_S = 5.0


def password(short_code=SHORT_CODE, passkey=PASSKEY, timestamp=TIMESTAMP) -> str:
    return base64.b64encode(f"{short_code}{passkey}{timestamp}".encode()).decode()


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def callback(self) -> dict[str, Any]:
        inner: dict[str, Any] = json.loads(self.body)["Body"]["stkCallback"]
        return inner

    @property
    def items(self) -> dict[str, Any]:
        items = self.callback["CallbackMetadata"]["Item"]
        return {item["Name"]: item.get("Value") for item in items}


class Receiver:
    """An endpoint that keeps what it was sent; answers `status` once `gate` is open."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = TIMEOUT_S

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(Received(self.path, dict(self.headers), body))
                receiver.gate.wait(TIMEOUT_S)
                self.send_response(receiver.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/back/0a1b"

    def wait_for(self, count: int) -> list[Received]:
        wait_until(lambda: len(self.received) >= count)
        return list(self.received)

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def wait_until(condition: Callable[[], object]) -> None:
    """Poll a condition until it holds; fails after DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


class Caller:
    """What a program that uses Daraja does."""

    def __init__(self, simulator: RunningSimulator, callback_url: str, session: requests.Session):
        self.simulator = simulator
        self.callback_url = callback_url
        self.session = session
        self.token = ""

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.session.request(method, self.simulator.url + path, timeout=TIMEOUT_S, **options)

    def new_token(self, key="key", secret="secret") -> Any:  # noqa: S107  made up
        reply = self.send(
            "GET",
            "/oauth/v1/generate",
            params={"grant_type": "client_credentials"},
            auth=(key, secret),
        )
        self.token = reply.json()["access_token"]
        return reply.json()

    def post(self, path: str, body: object, token: str | None = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        data = body if isinstance(body, bytes) else json.dumps(body)
        return self.send("POST", path, data=data, headers=headers)

    def push_body(self, phone="254700000000", **changes: object) -> dict[str, object]:
        body = {
            "BusinessShortCode": SHORT_CODE,
            "Password": password(),
            "Timestamp": TIMESTAMP,
            "TransactionType": "CustomerPayBillOnline",
            "Amount": 10,
            "PartyA": phone,
            "PartyB": SHORT_CODE,
            "PhoneNumber": phone,
            "CallBackURL": self.callback_url,
            "AccountReference": "INV-1",
            "TransactionDesc": "Payment",
        } | changes
        return {name: value for name, value in body.items() if value is not ...}

    def push(self, phone="254700000000", token=None, **changes: object) -> requests.Response:
        """Fields that are `...` are left out."""
        body = self.push_body(phone, **changes)
        return self.post("/mpesa/stkpush/v1/processrequest", body, token)

    def query(self, checkout_request_id, token=None, **changes: object) -> requests.Response:
        body = {
            "BusinessShortCode": SHORT_CODE,
            "Password": password(),
            "Timestamp": TIMESTAMP,
            "CheckoutRequestID": checkout_request_id,
        } | changes
        return self.post("/mpesa/stkpushquery/v1/query", body, token)

    def wait_until(self, condition: Callable[[], object]) -> None:
        wait_until(condition)

    def ended(self) -> dict[str, list[dict[str, Any]]]:
        """The ledger once nothing is under way."""
        self.simulator.wait_until_idle(DEADLINE_S)
        return self.simulator.ledger()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def simulate(receiver):
    """A function that starts a simulator with some settings and returns its caller."""
    with ExitStack() as stack:

        def start(**settings):
            settings = {"callback_delay": 0.0, "late_delay": 0.02, "hang_delay": 0.02} | settings
            simulator = stack.enter_context(RunningSimulator(Settings(**settings)))
            session = stack.enter_context(requests.Session())
            caller = Caller(simulator, receiver.url, session)
            if not settings.get("credentials"):
                caller.new_token()
            return caller

        yield start


@pytest.fixture
def caller(simulate):
    return simulate()
