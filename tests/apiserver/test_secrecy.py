"""No credential leaves the two places where it belongs: Secrets, and requests to Daraja."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import requests

from apiserver.conftest import Starter
from harness.apiserver import GROUP_PATH
from harness.merchantconfigs import DARAJA, GATEWAY, Shops, secret
from harness.waiting import wait_for


def spellings(value: str) -> set[str]:
    """The ways in which a value could leak."""
    raw = value.encode()
    encoded = base64.b64encode(raw).decode().rstrip("=")
    return {value, encoded, hashlib.sha256(raw).hexdigest(), raw.hex()}


def everything(shops: Shops) -> dict[str, str]:
    """All that people and tools may read who may not read Secrets."""
    places = {"merchantconfigs": f"{GROUP_PATH}/namespaces/{shops.namespace}/merchantconfigs"}
    for namespace in (shops.namespace, GATEWAY):
        for kind in ("events", "configmaps", "pods"):
            places[f"{namespace} {kind}"] = f"/api/v1/namespaces/{namespace}/{kind}"
    return {name: shops.kube.raw(path) for name, path in places.items()}


def metadata_of(body: dict[str, Any]) -> str:
    meta = body["metadata"]
    return str([meta.get("annotations"), meta.get("labels"), meta.get("managedFields")])


def test_credentials_show_up_nowhere_else(start_operator: Starter, shops: Shops) -> None:
    operator = start_operator(shops.namespace, secret_watch=True, MPESA_LOG_LEVEL="debug")
    base = f"/api/v1/namespaces/{shops.namespace}/secrets"
    shops.kube.create(base, secret("hooks", shops.namespace, {"key": "canary-signing-secret"}))
    canaries = {*DARAJA.values(), "canary-signing-secret"}
    # Each thing that can happen to a merchant, good and bad.
    shops.add(webhook={"signingSecretRef": {"name": "hooks", "key": "key"}})
    shops.wait("Ready", "True")
    canaries |= set(shops.generated().values())
    shops.change(rotation={"apiKey": "again"}, webhook=None)
    shops.wait("Ready", "True")
    canaries |= set(shops.generated().values())
    shops.change_secret(consumerSecret="canary-that-daraja-refuses")
    shops.wait("Ready", "False", "Rejected")
    shops.change_secret(passkey="", consumerSecret=DARAJA["consumerSecret"])
    shops.wait("Ready", "False", "EmptyValue")
    shops.kube.patch(
        shops.secret_path("daraja"), {"data": {"passkey": base64.b64encode(b"\xff").decode()}}
    )
    shops.wait("Ready", "False", "InvalidValue")
    shops.change_secret(passkey="canary-passkey-\x00-with-a-zero")
    shops.wait("CredentialsResolved", "False", "InvalidValue")
    seen = everything(shops)
    shops.delete()
    wait_for(lambda: shops.kube.find(shops.path()) is None, timeout_s=15, what="the end")
    seen |= {f"{name} later": text for name, text in everything(shops).items()}
    seen["log"] = operator.log.read_text()
    seen["metrics"] = operator.metrics()
    url = f"http://127.0.0.1:{operator.health_port}/healthz"
    seen["health"] = requests.get(url, timeout=5).text
    for namespace, name in ((shops.namespace, "daraja"), (GATEWAY, "g-mpesa-gateway-merchants-0")):
        seen[f"annotations of {name}"] = metadata_of(
            shops.kube.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        )
    canaries |= {"canary-that-daraja-refuses", "canary-passkey-", "canary-"}
    assert len(canaries) >= 10
    leaks = [
        (place, canary)
        for place, text in seen.items()
        for canary in canaries
        for spelling in spellings(canary)
        if len(spelling) > 8 and spelling in text
    ]
    assert leaks == []
    # The search would find it where it is.
    assert DARAJA["passkey"] not in seen["log"]
    assert "duka" in seen["log"]
    assert "Rejected" in seen[f"{shops.namespace} events"]
    # No library wrote what it handled last into an annotation.
    assert "last-handled" not in str(seen)


def test_an_operator_that_meets_errors_does_not_quote_secrets(
    start_operator: Starter, shops: Shops
) -> None:
    """Without the right to write the bundle, and then without its role at all."""
    operator = start_operator(shops.namespace)
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{GATEWAY}/roles/g-mpesa-gateway-operator"
    rules = shops.kube.get(role)["rules"]
    shops.kube.patch(role, {"rules": [it for it in rules if "secrets" not in it["resources"]]})
    shops.add()
    body = shops.wait("Published", "False", "WriteFailed")
    assert "403" in str(body["status"])
    text = str(body) + operator.log.read_text() + str(everything(shops))
    generated = shops.generated().values()
    assert not [it for it in (*DARAJA.values(), *generated) if it in text]
    shops.kube.patch(role, {"rules": rules})
    shops.wait("Ready", "True", timeout_s=15)
