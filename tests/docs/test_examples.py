"""The example shops, as processes, against a running gateway and the simulator."""

from __future__ import annotations

import ast
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from harness.dev_stack import DevStack
from harness.snippets import blocks, program
from harness.waiting import wait_for
from mpesa_devkit.processes import Process, answers, clean_env, free_port
from mpesa_gateway.domain.signature import webhook_headers

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LANGUAGES = ("python", "node")
_ORDER = re.compile(r"<h1>Order (\w+)</h1><p>KES (\d+): <b>(\w+)</b>\s*(\w*)</p><p>(.*?)</p>")

pytestmark = pytest.mark.timeout(600)


@dataclass
class Shop:
    """A shop that can be killed and started again; its data and its port stay."""

    language: str
    directory: Path
    dev: DevStack
    gateway_url: str
    port: int = field(default_factory=free_port)
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        commands: dict[str, Callable[[], list[str | Path]]] = {
            "python": lambda: [sys.executable, EXAMPLES / "python-shop" / "shop.py"],
            "node": lambda: [program("node"), EXAMPLES / "node-shop" / "shop.js"],
        }
        settings = {
            "GATEWAY_URL": self.gateway_url,
            "GATEWAY_KEY": self.dev.api_key,
            "WEBHOOK_SECRET": self.dev.webhook_secret,
            "WEBHOOK_URL": f"{self.url}/mpesa",
            "PORT": str(self.port),
            "DATABASE": str(self.directory / "shop.data"),
        }
        log = self.directory / "shop.log"
        self.process = Process(
            f"{self.language} shop", commands[self.language](), log=log, env=clean_env(settings)
        )
        self.process.wait_until(lambda: answers(self.port))

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def pay(self, phone: str, amount: int = 100, **more: str) -> str:
        """The order's number, by the page that the customer is sent to."""
        form = {"phone": phone, "amount": str(amount), **more}
        answer = requests.post(f"{self.url}/orders", data=form, timeout=30, allow_redirects=False)
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"].removeprefix("/orders/")

    def order(self, number: str) -> tuple[str, str, str]:
        """Status, receipt and sentence, as the customer sees them."""
        page = requests.get(f"{self.url}/orders/{number}", timeout=30).text
        found = _ORDER.match(page)
        assert found, page
        assert found[1] == number
        return found[3], found[4], found[5]

    def wait_for(self, number: str, status: str) -> tuple[str, str, str]:
        def look() -> tuple[str, str, str] | None:
            seen = self.order(number)
            return seen if seen[0] == status else None

        found = wait_for(look, timeout_s=90, what=f"order {number} to be {status}")
        assert found is not None
        return found

    def tell(self, webhook_id: str, event: dict[str, Any], *, secret: str | None = None) -> int:
        """Send it a webhook of ours, and return the status of its answer."""
        body = json.dumps(event).encode()
        secrets = [secret or self.dev.webhook_secret]
        headers = webhook_headers(webhook_id, secrets, body, datetime.now(UTC))
        url = f"{self.url}/mpesa"
        return requests.post(url, data=body, headers=headers, timeout=30).status_code


@contextmanager
def shop(language: str, directory: Path, dev: DevStack, gateway_url: str = "") -> Iterator[Shop]:
    running = Shop(language, directory, dev, gateway_url or dev.url)
    running.start()
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def forgetful(dev: DevStack) -> Iterator[tuple[str, list[bytes]]]:
    """A way to the gateway that loses the answer to the first POST; and the bodies of all."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(body)
            self._pass_on("POST", body, is_lost=len(bodies) == 1)

        def do_GET(self) -> None:
            self._pass_on("GET", None, is_lost=False)

        def _pass_on(self, method: str, body: bytes | None, *, is_lost: bool) -> None:
            headers = {"X-Internal-Secret": dev.api_key, "Content-Type": "application/json"}
            url = dev.url + self.path
            answer = requests.request(method, url, data=body, headers=headers, timeout=60)
            if is_lost:
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


def ledger(dev: DevStack, phone: str) -> dict[str, list[dict[str, Any]]]:
    """What the simulator did to that phone."""
    found = requests.get(f"{dev.simulator_url}/ledger", params={"phone": phone}, timeout=30).json()
    return {name: found[name] for name in ("pushes", "debits")}


def transaction_of(dev: DevStack, phone: str) -> str:
    headers = {"X-Internal-Secret": dev.api_key}
    listed = requests.get(
        f"{dev.url}/transactions", params={"phone": phone}, headers=headers, timeout=30
    )
    transaction_id: str = listed.json()["items"][0]["transaction_id"]
    return transaction_id


@pytest.mark.parametrize("language", LANGUAGES)
def test_customers_see_how_their_payment_ended(
    language: str, dev: DevStack, tmp_path: Path
) -> None:
    number = LANGUAGES.index(language)
    with shop(language, tmp_path, dev) as it:
        paid, failed = it.pay(f"2547110{number}0000"), it.pay(f"2547110{number}0001")

        _, receipt, _ = it.wait_for(paid, "COMPLETED")
        assert re.fullmatch(r"[A-Z0-9]{10}", receipt)
        _, _, sentence = it.wait_for(failed, "FAILED")
        assert sentence == "The M-PESA balance is too low. Top up and try again."

        # A paid order is not charged again; a failed one may be, and this time it works.
        again = {"phone": f"2547110{number}0000", "amount": "100", "order": paid}
        assert requests.post(f"{it.url}/orders", data=again, timeout=30).status_code == 409
        it.pay(f"2547111{number}0000", order=failed)
        it.wait_for(failed, "COMPLETED")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_lost_answer_charges_nobody_twice(language: str, dev: DevStack, tmp_path: Path) -> None:
    phone = f"2547120{LANGUAGES.index(language)}0000"
    with forgetful(dev) as (url, bodies), shop(language, tmp_path, dev, url) as it:
        it.wait_for(it.pay(phone), "COMPLETED")

    keys = {json.loads(body)["idempotency_key"] for body in bodies}
    assert (len(bodies) >= 2, len(keys)) == (True, 1)
    assert {name: len(entries) for name, entries in ledger(dev, phone).items()} == {
        "pushes": 1,
        "debits": 1,
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_shop_that_was_killed_before_the_answer_goes_on_with_its_key(
    language: str, dev: DevStack, tmp_path: Path
) -> None:
    phone = f"2547130{LANGUAGES.index(language)}0000"
    with shop(language, tmp_path, dev, f"http://127.0.0.1:{free_port()}") as it:
        number = it.pay(phone)
        assert it.order(number)[0] == "SENDING"
        it.kill()
        it.gateway_url = dev.url
        it.start()

        it.wait_for(number, "COMPLETED")
        assert len(ledger(dev, phone)["pushes"]) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_webhooks_are_verified_and_remembered(language: str, dev: DevStack, tmp_path: Path) -> None:
    phone = f"2547140{LANGUAGES.index(language)}0000"
    with shop(language, tmp_path, dev) as it:
        number = it.pay(phone)
        it.wait_for(number, "COMPLETED")
        event = {"transaction_id": transaction_of(dev, phone), "metadata": None, "result": None}
        paid = {**event, "type": "transaction.completed", "status": "COMPLETED"}
        failed = {**event, "type": "transaction.failed", "status": "FAILED"}

        other = "whsec_YW5vdGhlciBtZXJjaGFudCdzIHNlY3JldCwgbm90IG91cnM="
        assert it.tell("msg_forged", failed, secret=other) == 400
        assert requests.post(f"{it.url}/mpesa", json=failed, timeout=30).status_code == 400
        assert it.tell("msg_seen", paid) == 200
        assert it.tell("msg_seen", failed) == 200
        assert it.order(number)[0] == "COMPLETED"
        # The id is what protected it: a new one is believed.
        assert it.tell("msg_new", failed) == 200
        assert it.order(number)[0] == "FAILED"

        stranger = {**paid, "transaction_id": "01a20a83-ed23-7188-93c4-82db372d5be4"}
        assert it.tell("msg_stranger", stranger) == 503
        conflict = {**event, "type": "transaction.conflict", "status": "FAILED"}
        assert (it.tell("msg_conflict", conflict), it.tell("msg_late", failed)) == (200, 200)
        assert it.order(number)[0] == "CONFLICT"


def test_the_shops_verify_as_the_docs_do() -> None:
    (python,) = blocks("webhooks.md", "python")
    (node,) = blocks("webhooks.md", "javascript")
    shops = {
        name: (EXAMPLES / name).read_text("utf-8")
        for name in ("python-shop/shop.py", "node-shop/shop.js")
    }
    (function,) = [it for it in ast.parse(python).body if isinstance(it, ast.FunctionDef)]

    assert (ast.get_source_segment(python, function) or "?") in shops["python-shop/shop.py"]
    assert node[node.index("function verifyWebhook") :] in shops["node-shop/shop.js"]
