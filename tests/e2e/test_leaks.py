"""Canaries through every path of the real processes: none is in a log, a metric or an error."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from harness.bodies import callback_body
from harness.merchants import write_merchant
from harness.processes import Processes, processes
from harness.receiver import Answer, Receiver
from harness.waiting import wait_for
from harness.witnesses import Witnesses
from mpesa_devkit.processes import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# Every secret of the configuration, each a word of its own that occurs nowhere else.
SECRETS = {
    "internal_secret": "canary-internal-5f1c9a",
    "webhook_secret": "whsec_" + base64.b64encode(b"canary-webhook-secret-77").decode(),
    "safaricom_consumer_key": "canaryConsumerKey8821",
    "safaricom_consumer_secret": "canaryConsumerSecret4410",
    "safaricom_passkey": "canarypasskey0d9fe3b1c2",
}
SHOP_SECRETS = {
    "key": "canary-shop-key-19ab",
    "consumerKey": "canaryShopConsumerKey55",
    "consumerSecret": "canaryShopConsumerSecret66",
    "passkey": "canaryshoppasskey77",
    "webhook": "canary-shop-webhook-secret-88",
}
# Credentials that a caller gets wrong, and the secret part of a chat tool's webhook URL.
WRONG_KEYS = ["canary-wrong-key-1", "canary-wrong-bearer-2", "canary-wrong-basic-3"]
# No payment has them: they come in bodies, paths, headers and answers only.
STRAY_PHONES = [f"2547{number:08}" for number in range(31_415_926, 31_415_946)]
STRAY_TOKEN = "c0ffee" * 10 + "beef"
STRAY_CHECKOUT = "ws_CO_CANARY2711202600123"
OUTCOMES = ["0000", "1032", "2001", "1037", "4042", "0400", "0429", "0503", "0099"]


@dataclass
class System:
    """API and worker, and what they let out."""

    url: str
    made: Processes
    metrics: list[int]
    simulator: RunningSimulator
    receiver: Receiver
    witnesses: Witnesses
    errors: list[str]

    def ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        response = requests.request(method, self.url + path, timeout=30, **kwargs)
        if response.status_code >= 400:
            self.errors.append(response.text + json.dumps(dict(response.headers)))
        return response

    def let_out(self) -> dict[str, str]:
        """What an outsider or a log reader could see."""
        pages = [f"http://127.0.0.1:{port}/metrics" for port in self.metrics]
        return {
            "logs": self.made.logs(),
            "metrics": "".join(requests.get(page, timeout=10).text for page in pages),
            "errors": "\n".join(self.errors),
        }


@pytest.fixture
def system(
    tmp_path: Path,
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> Iterator[System]:
    shops = tmp_path / "shops"
    shops.mkdir()
    write_merchant(
        shops,
        key=SHOP_SECRETS["key"],
        baseUrl=simulator.url,
        credentials={it: SHOP_SECRETS[it] for it in ("consumerKey", "consumerSecret", "passkey")},
        webhook={"secrets": [SHOP_SECRETS["webhook"]]},
    )
    port, metrics = free_port(), [free_port(), free_port()]
    with processes(
        tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        base_url=simulator.url,
        callback_port=port,
        log_level="debug",
        webhook_retry_schedule="500ms,500ms",
        merchants_dir=str(shops),
        trusted_proxies="127.0.0.0/8",
        **SECRETS,
    ) as made:
        made.api(port, metrics_port=str(metrics[0]))
        made.worker(metrics_port=str(metrics[1]))
        url = f"http://127.0.0.1:{port}"
        witnesses = Witnesses(database_url, simulator, receiver)
        yield System(url, made, metrics, simulator, receiver, witnesses, [])


def pay_everything(system: System) -> list[str]:
    """A payment of each outcome for both merchants; the phones that were charged."""
    phones = []
    for number, (key, digits) in enumerate(
        (key, digits)
        for key in (SECRETS["internal_secret"], SHOP_SECRETS["key"])
        for digits in OUTCOMES
    ):
        phones.append(f"2547{1000 + number}{digits}")
        system.ask(
            "POST",
            "/initiate",
            json={
                "amount": "10",
                "phone": phones[-1],
                "webhook_url": system.receiver.url,
                "idempotency_key": f"00000000-0000-4000-8000-{number:012}",
            },
            headers={"Authorization": f"Bearer {key}"},
        )
    return phones


def odd_bodies(chance: random.Random) -> Iterator[bytes]:
    """Callbacks that are cut, turned and broken, with canaries in places where none belongs."""
    for phone in STRAY_PHONES:
        good = callback_body(STRAY_CHECKOUT, PhoneNumber=int(phone), receipt=None)
        yield good
        yield good[: chance.randrange(len(good))]
        yield good.replace(b"ResultCode", phone.encode())
        yield good.replace(b"ResultDesc", STRAY_TOKEN.encode())
        yield json.dumps({phone: {STRAY_CHECKOUT: [STRAY_TOKEN, f"+{phone}"]}}).encode()
        yield f"phone={phone}&token={STRAY_TOKEN}".encode()
        yield f"\xff{phone}\x00{STRAY_CHECKOUT}".encode("latin-1")


def attack(system: System) -> None:
    """Canaries through each endpoint, in each part of a request."""
    chance = random.Random(11)  # noqa: S311 - the same in every run
    basic = base64.b64encode(f"user:{WRONG_KEYS[2]}".encode()).decode()
    wrong = [
        {"X-Internal-Secret": WRONG_KEYS[0]},
        {"Authorization": f"Bearer {WRONG_KEYS[1]}"},
        {"Authorization": f"Basic {basic}"},
    ]
    good = {"X-Internal-Secret": SECRETS["internal_secret"]}
    phone = STRAY_PHONES[0]
    for path in (
        "/transactions",
        f"/transactions/{phone}",
        f"/transactions/{STRAY_TOKEN}/deliveries",
        f"/transactions?phone={phone}x&status={STRAY_CHECKOUT}&{STRAY_TOKEN}={phone}",
        f"/{phone}/{STRAY_TOKEN}?secret={WRONG_KEYS[0]}",
        f"/health?phone={phone}",
        f"/readyz/{STRAY_TOKEN}",
    ):
        for headers in [*wrong, good, {**good, "Referer": f"https://x/{phone}"}]:
            for method in ("GET", "POST", "DELETE"):
                system.ask(method, path, headers=headers)
    for headers in wrong:
        system.ask("POST", "/initiate", json={"phone": phone}, headers=headers)
    for body in odd_bodies(chance):
        for path in ("/callback", f"/callback/{STRAY_TOKEN}", f"/callback/{phone}"):
            sent = {"User-Agent": f"agent {phone}", "X-Forwarded-For": phone}
            system.ask("POST", path, data=body, headers=sent)
        system.ask("POST", "/initiate", data=body, headers={**good, "Content-Type": phone})
        json_type = {**good, "Content-Type": "application/json"}
        system.ask("POST", "/initiate", data=body, headers=json_type)


def hostile_endpoint(system: System) -> None:
    """A merchant's endpoint that answers with what it was told, and an odd status line."""
    echo = f"{STRAY_PHONES[1]} {STRAY_CHECKOUT} {SECRETS['webhook_secret']}".encode()
    headers = {"X-Phone": STRAY_PHONES[1], "Location": f"https://x.example/{STRAY_TOKEN}"}
    system.receiver.answers += [
        Answer(500, headers, echo),
        Answer(302, headers, echo),
        Answer(429, {**headers, "Retry-After": STRAY_PHONES[2]}, echo),
        Answer(200, headers, echo),
    ] * 3


def canaries(system: System, phones: list[str]) -> set[str]:
    pushes = system.simulator.ledger()["pushes"]
    assert {it["phone"] for it in pushes} <= set(phones)
    return {
        *SECRETS.values(),
        *SHOP_SECRETS.values(),
        *WRONG_KEYS,
        *STRAY_PHONES,
        *phones,
        STRAY_TOKEN,
        STRAY_CHECKOUT,
        *(it["checkout_request_id"] for it in pushes if it["checkout_request_id"]),
        *(it["callback_url"].rsplit("/", 1)[-1] for it in pushes),
    }


def test_no_canary_gets_out(system: System) -> None:
    hostile_endpoint(system)
    phones = pay_everything(system)
    attack(system)
    wait_for(lambda: not due(system), timeout_s=60, what="all work that is due")

    out = system.let_out()

    for name, text in out.items():
        assert text, name
        shown = {it for it in canaries(system, phones) if it in text}
        assert shown == set(), f"{len(shown)} canaries are in the {name}: {context(text, shown)}"
    # The check is of what really happened: requests of each kind were logged and counted.
    for words in ("request", "callback applied", "webhook tried"):
        assert f'"{words}"' in out["logs"]
    assert 'mpesa_callbacks_rejected_total{reason="unknown_token"}' in out["metrics"]
    assert len(system.errors) > 500


def due(system: System) -> list[Any]:
    return system.witnesses.rows(
        "SELECT 1 FROM callbacks WHERE state = 'RECEIVED'"
        " UNION ALL SELECT 1 FROM deliveries WHERE state NOT IN ('DELIVERED', 'EXHAUSTED')"
    )


def context(text: str, shown: set[str]) -> list[str]:
    """Where the first of them stand, for the person who reads the failure."""
    places = [text.find(it) for it in sorted(shown)[:3]]
    return [text[max(0, place - 200) : place + 100] for place in places]
