"""A merchant's life on a real cluster, in the order in which it is lived; no pod restarts for it.

What is measured is what `docs/merchants.md` promises.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from harness.figures import Figure
from harness.kube import Kube
from harness.merchantconfigs import DARAJA, condition, merchant_config, secret
from harness.neighbour import Fetched, Neighbour
from harness.release import Release
from harness.waiting import wait_for

pytestmark = pytest.mark.timeout(240)
NAME, SHORT_CODE = "duka", "600100"
PAID, LATE = "0000", "3030"
# A new key in the Secret, and how soon the next push must use it (docs/merchants.md).
RESYNCED_S, WATCHED_S = 75.0, 5.0
KNOWN_S, SUSPENDED_S = 5.0, 3.0


@dataclass
class Shop:
    """The merchant `duka`: its namespace, its own client, the payments that it asked for."""

    kube: Kube
    release: Release
    neighbour: Neighbour
    safaricom: str
    phones: Iterator[int]
    key: str = ""
    paid: str = ""

    def initiate(self, digits: str = PAID) -> Fetched:
        body = {
            "amount": "40",
            "phone": f"254{next(self.phones)}{digits}",
            "webhook_url": self.neighbour.hook,
            "idempotency_key": str(uuid.uuid4()),
        }
        headers = {"X-Internal-Secret": self.key}
        url = f"{self.release.api_url}/initiate"
        return self.neighbour.fetch("POST", url, body=body, headers=headers)

    def pay(self, digits: str = PAID) -> str:
        """The id of a payment that was accepted."""
        answer = self.initiate(digits)
        assert answer.status == 201, answer.body
        transaction_id: str = answer.json()["transaction_id"]
        return transaction_id

    def status(self, transaction_id: str) -> str:
        found = self.release.rows(
            f"SELECT status FROM transactions WHERE internal_transaction_id = '{transaction_id}'"
        )
        return str(found[0]["status"])

    def wait_for_status(self, transaction_id: str, status: str) -> None:
        wait_for(lambda: self.status(transaction_id) == status, timeout_s=30, what=status)

    def ledger(self, transaction_id: str) -> dict[str, Any]:
        """What Safaricom knows of it."""
        found = self.release.rows(
            "SELECT checkout_request_id AS id, phone FROM transactions"
            f" WHERE internal_transaction_id = '{transaction_id}'"
        )[0]
        seen = self.neighbour.fetch("GET", f"{self.safaricom}/ledger?phone={found['phone']}")
        ledger: dict[str, Any] = seen.json()
        return ledger

    def change(self, **spec: Any) -> None:
        self.kube.patch("merchantconfig", NAME, {"spec": spec})

    def ready(self) -> dict[str, Any]:
        return condition(self.kube.get("merchantconfig", NAME), "Ready")

    def expect_passkey(self, passkey: str) -> None:
        """Safaricom takes only this one from the merchant from now on."""
        known = self.release.kube.secret(f"{self.release.fullname}-simulator")
        passkeys = {
            SHORT_CODE: passkey,
            known["MPESA_SAFARICOM_SHORT_CODE"]: known["MPESA_SAFARICOM_PASSKEY"],
        }
        self.settings(passkeys=passkeys)

    def settings(self, **changes: Any) -> None:
        answer = self.neighbour.fetch("PATCH", f"{self.safaricom}/settings", body=changes)
        assert answer.status == 200, answer.body

    def seconds_until_used(self, passkey: str, limit: float) -> float:
        """From the change of the Secret to the first push that Safaricom accepts."""
        self.expect_passkey(passkey)
        assert self.initiate().status == 502, "Safaricom refuses the passkey of before"
        started = time.monotonic()
        self.kube.patch("secret", "daraja", {"stringData": {"passkey": passkey}})
        wait_for(lambda: self.initiate().status == 201, timeout_s=2 * limit, what="the passkey")
        return time.monotonic() - started


@pytest.fixture(scope="module")
def duka(release: Release, shop: Neighbour, safaricom: str) -> Iterator[Shop]:
    kube = Kube(f"mpesa-shops-{secrets.token_hex(3)}")
    kube.make_namespace()
    first_phone = 70_000
    try:
        yield Shop(kube, release, shop, safaricom, iter(range(first_phone, 99_999)))
    finally:
        kube.run("delete", "merchantconfigs", "--all", "--timeout=60s")
        kube.delete_namespace()


@pytest.fixture(autouse=True)
def nothing_restarts(release: Release) -> Iterator[None]:
    before = release.restarts()
    yield
    assert release.restarts() == before


def test_a_new_merchant_is_ready_within_seconds_and_its_first_payment_works(
    duka: Shop, figure: Figure
) -> None:
    started = time.monotonic()
    duka.kube.apply(
        secret("daraja", duka.kube.namespace, DARAJA),
        merchant_config(NAME, duka.kube.namespace, shortCode=SHORT_CODE),
    )
    duka.kube.run("wait", "--for=condition=Ready", f"merchantconfig/{NAME}", "--timeout=30s")
    figure("seconds until a new merchant is Ready", time.monotonic() - started, limit=KNOWN_S)

    generated = duka.kube.secret(f"{NAME}-mpesa-gateway")
    duka.key = generated["api-key"]
    duka.paid = duka.pay()
    duka.wait_for_status(duka.paid, "COMPLETED")
    (debit,) = duka.ledger(duka.paid)["debits"]
    assert debit["short_code"] == SHORT_CODE
    (webhook,) = wait_for(lambda: duka.neighbour.webhooks(duka.paid), what="the webhook")
    assert webhook.verify(generated["webhook-signing-secret"])["status"] == "COMPLETED"


def test_another_merchants_key_does_not_see_its_payments(duka: Shop, release: Release) -> None:
    url = f"{release.api_url}/transactions/{duka.paid}"
    headers = {"X-Internal-Secret": release.api_key}
    assert duka.neighbour.fetch("GET", url, headers=headers).status == 404
    assert duka.neighbour.fetch("GET", url, headers={"X-Internal-Secret": duka.key}).status == 200


def test_a_suspended_merchant_may_not_initiate_and_its_callbacks_still_settle(
    duka: Shop, figure: Figure
) -> None:
    open_payment = duka.pay(LATE)
    started = time.monotonic()
    duka.change(suspended=True)
    wait_for(lambda: duka.initiate().status == 403, timeout_s=30, what="the suspension")
    figure("seconds until a suspension counts", time.monotonic() - started, limit=SUSPENDED_S)

    assert duka.status(open_payment) == "PENDING"
    wait_for(lambda: duka.ready().get("reason") == "Suspended", what="Ready=True/Suspended")
    duka.wait_for_status(open_payment, "COMPLETED")
    assert wait_for(lambda: duka.neighbour.webhooks(open_payment), what="the webhook")
    assert duka.initiate().status == 403

    duka.change(suspended=None)
    wait_for(lambda: duka.initiate().status == 201, timeout_s=30, what="the end of it")


def test_a_narrowed_allowlist_refuses_others_for_this_merchant_only(
    duka: Shop, release: Release
) -> None:
    addresses = {
        name: release.kube.get("pod", name)["status"]["podIP"] for name in ("shop", "safaricom")
    }
    duka.change(callback={"allowedCIDRs": [f"{addresses['safaricom']}/32"]})

    def refused() -> bool:
        return repeat_callback(duka, duka.paid).status == 403

    wait_for(refused, timeout_s=30, what=f"callbacks from {addresses['shop']} to be refused")
    # Safaricom's own still come through.
    duka.wait_for_status(duka.pay(), "COMPLETED")
    assert refused()
    duka.change(callback=None)
    wait_for(lambda: repeat_callback(duka, duka.paid).status == 200, timeout_s=30)


def repeat_callback(duka: Shop, transaction_id: str) -> Fetched:
    """Its callback once more, from the shop's address."""
    (push,) = duka.ledger(transaction_id)["pushes"]
    body = {
        "Body": {
            "stkCallback": {
                "MerchantRequestID": push["merchant_request_id"],
                "CheckoutRequestID": push["checkout_request_id"],
                "ResultCode": 1032,
                "ResultDesc": "Request cancelled by user",
            }
        }
    }
    return duka.neighbour.fetch("POST", push["callback_url"], body=body)


def test_a_new_passkey_is_used_by_the_next_push(
    duka: Shop, release: Release, figure: Figure
) -> None:
    try:
        seconds = duka.seconds_until_used("passkey-2", RESYNCED_S)
        figure("seconds until a new passkey is used", seconds, limit=RESYNCED_S)

        release.upgrade({"operator.secretWatch.enabled": True})
        seconds = duka.seconds_until_used("passkey-3", WATCHED_S)
        figure("seconds with the watch on Secrets", seconds, limit=WATCHED_S)
    finally:
        duka.settings(passkeys=None)


def test_of_a_deleted_merchant_the_prompts_that_are_open_still_end(
    duka: Shop, release: Release, figure: Figure
) -> None:
    open_payment = duka.pay(LATE)
    started = time.monotonic()
    duka.kube.run("delete", "merchantconfig", NAME, "--wait=false")
    wait_for(lambda: duka.initiate().status == 410, timeout_s=30, what="410 while it drains")
    figure("seconds until a deleted merchant may not initiate", time.monotonic() - started)

    duka.wait_for_status(open_payment, "COMPLETED")
    wait_for(lambda: duka.initiate().status == 401, timeout_s=90, what="401 after the drain")
    wait_for(lambda: duka.kube.find("merchantconfig", NAME) is None, what="the object to go")
    assert duka.kube.find("secret", f"{NAME}-mpesa-gateway") is None

    said = release.kube.execute(
        f"deployment/{release.fullname}-worker",
        *("mpesa-gateway", "transactions", "list", "--json", "--status", "COMPLETED"),
        *("--merchant", f"{duka.kube.namespace}/{NAME}"),
    )
    history = {it["transaction_id"]: it["status"] for it in json.loads(said)["items"]}
    assert (history[duka.paid], history[open_payment]) == ("COMPLETED", "COMPLETED")
