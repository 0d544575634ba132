"""A MerchantConfig becomes a merchant file, and says so once every pod has loaded it."""

from __future__ import annotations

import hashlib
import time

import pytest

from apiserver.conftest import Starter
from harness.merchantconfigs import (
    BUNDLE,
    DARAJA,
    FINALIZER,
    FULLNAME,
    GATEWAY,
    SHA_ANNOTATION,
    FakePod,
    Operator,
    Shops,
    condition,
)
from harness.waiting import wait_for
from mpesa_gateway.domain.bundle import bundle_sha256


@pytest.mark.usefixtures("operator")
def test_a_merchant_becomes_ready_once_every_pod_has_its_file(
    shops: Shops, pods: dict[str, FakePod]
) -> None:
    begun = time.monotonic()
    shops.add(callback={"allowedCIDRs": ["196.201.214.0/24"]}, limits={"maxAmount": 70000})
    body = shops.wait("Ready", "True", timeout_s=5)
    assert time.monotonic() - begun < 5
    file, keys, status = shops.file(), shops.generated(), body["status"]
    assert file is not None
    assert file["credentials"] == DARAJA
    assert file["apiKeySHA256"] == [hashlib.sha256(keys["api-key"].encode()).hexdigest()]
    assert file["webhook"]["secrets"] == [keys["webhook-signing-secret"]]
    assert file["callback"] == {"allowedCIDRs": ["196.201.214.0/24"]}
    assert file["limits"] == {"maxAmount": 70000}
    assert "baseUrl" not in file
    assert status["credentialsSecretName"] == "duka-mpesa-gateway"
    assert status["merchantKey"] == f"{shops.namespace}/duka"
    assert status["callbackURL"] == "https://pay.example/callback"
    assert status["allowlist"]["count"] == 1
    assert status["observedGeneration"] == body["metadata"]["generation"] == 1
    assert body["metadata"]["finalizers"] == [FINALIZER]
    found = {it["type"]: (it["status"], it["reason"]) for it in status["conditions"]}
    assert found == {
        "CredentialsResolved": ("True", "Resolved"),
        "CredentialsValid": ("True", "TokenIssued"),
        "Published": ("True", "Published"),
        "Loaded": ("True", "Loaded"),
        "WebhookHealthy": ("Unknown", "NoDeliveries"),
        "Ready": ("True", "Ready"),
    }
    for pod in pods.values():
        digests = {key: value["digest"] for key, value in (pod.report() or {})["merchants"].items()}
        assert digests[f"{shops.namespace}/duka"] == status["bundle"]["hash"]


@pytest.mark.usefixtures("operator")
def test_a_pod_that_is_behind_keeps_the_merchant_unready_until_it_has_loaded(
    shops: Shops, pods: dict[str, FakePod]
) -> None:
    pods["worker"].frozen = True
    shops.add()
    said = f"1 of 2 pods have not loaded it yet: {pods['worker'].name}."
    wait_for(lambda: condition(shops.get(), "Loaded").get("message") == said, what=said)
    assert condition(shops.get(), "Ready")["reason"] == "Propagating"
    # A kubelet that looked too early is made to look again.
    bumps = pods["worker"].bumps
    wait_for(lambda: pods["worker"].bumps > bumps, timeout_s=15, what="another bump")
    pods["worker"].frozen = False
    shops.wait("Ready", "True")


@pytest.mark.usefixtures("operator")
def test_a_pod_that_is_not_ready_is_not_asked(shops: Shops, pods: dict[str, FakePod]) -> None:
    pods["worker"].silent = True
    pods["worker"].set_ready(ready=False)
    shops.add()
    shops.wait("Ready", "True")


@pytest.mark.usefixtures("operator")
def test_without_an_api_pod_nobody_is_ready(shops: Shops, pods: dict[str, FakePod]) -> None:
    pods["api"].set_ready(ready=False)
    shops.add()
    shops.wait("Ready", "False", "PodsUnreachable")
    pods["api"].set_ready(ready=True)
    shops.wait("Ready", "True")


@pytest.mark.usefixtures("operator")
def test_pods_that_fall_silent_do_not_make_a_loaded_merchant_unready(
    shops: Shops, pods: dict[str, FakePod]
) -> None:
    shops.add()
    before = shops.wait("Ready", "True")
    pods["worker"].silent = True
    body = shops.wait("Loaded", "Unknown", "PodsUnreachable")
    assert condition(body, "Ready") == condition(before, "Ready")
    # A new generation has yet to be confirmed by it.
    shops.change(limits={"minAmount": 5})
    shops.wait("Ready", "False", "PodsUnreachable")


@pytest.mark.usefixtures("operator")
def test_an_edit_is_published_and_its_generation_confirmed(shops: Shops) -> None:
    shops.add()
    before = shops.wait("Ready", "True")
    shops.change(webhook={"url": "https://shop.example/hooks", "retrySchedule": ["5s", "1m"]})
    body = shops.wait("Ready", "True")
    file = shops.file()
    assert file is not None
    assert file["webhook"]["url"] == "https://shop.example/hooks"
    assert file["webhook"]["retrySchedule"] == ["5s", "1m"]
    assert body["metadata"]["generation"] == 2
    assert body["status"]["bundle"]["hash"] != before["status"]["bundle"]["hash"]
    assert shops.generated()["api-key"]
    unchanged = condition(before, "CredentialsResolved")["lastTransitionTime"]
    assert condition(body, "CredentialsResolved")["lastTransitionTime"] == unchanged


@pytest.mark.usefixtures("operator")
def test_a_failing_endpoint_is_shown_and_does_not_change_ready(
    shops: Shops, pods: dict[str, FakePod]
) -> None:
    shops.add()
    shops.wait("Ready", "True")
    pods["worker"].webhooks[f"{shops.namespace}/duka"] = "failing"
    body = shops.wait("WebhookHealthy", "False", "Failing")
    assert condition(body, "Ready")["status"] == "True"
    pods["worker"].webhooks[f"{shops.namespace}/duka"] = "healthy"
    shops.wait("WebhookHealthy", "True", "Healthy")


def test_the_bundle_is_labelled_owned_by_nobody_and_only_written_when_it_changes(
    operator: Operator, shops: Shops, pods: dict[str, FakePod]
) -> None:
    shops.add()
    shops.wait("Ready", "True")
    path = f"/api/v1/namespaces/{GATEWAY}/secrets/{BUNDLE}"
    meta = shops.kube.get(path)["metadata"]
    assert meta["labels"]["app.kubernetes.io/instance"] == "g"
    assert meta["labels"]["app.kubernetes.io/managed-by"] == "mpesa-operator"
    assert "ownerReferences" not in meta
    pod = shops.kube.get(pods["api"].path)["metadata"]["annotations"]
    files = {name: text.encode() for name, text in pods["api"].files.items()}
    assert pod[SHA_ANNOTATION] == bundle_sha256(files)
    # Two resyncs later nothing was written: neither the bundle, nor the Secret, nor the status.
    versions = [meta["resourceVersion"], shops.get()["metadata"]["resourceVersion"]]
    looked = reconciles(operator)
    wait_for(lambda: reconciles(operator) >= looked + 2, what="two more resyncs")
    again = [shops.kube.get(path)["metadata"]["resourceVersion"]]
    again.append(shops.get()["metadata"]["resourceVersion"])
    assert again == versions


def reconciles(operator: Operator) -> float:
    lines = operator.metrics().splitlines()
    counts = [it for it in lines if it.startswith("mpesa_operator_reconcile_seconds_count")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counts)


@pytest.mark.usefixtures("operator")
def test_a_bundle_that_somebody_deletes_comes_back(shops: Shops) -> None:
    shops.add()
    shops.wait("Ready", "True")
    before = shops.file()
    shops.kube.delete(f"/api/v1/namespaces/{GATEWAY}/secrets/{BUNDLE}")
    wait_for(shops.file, timeout_s=15, what="the bundle to come back")
    assert shops.file() == before


def test_the_allowlist_is_narrowed_and_shown(start_operator: Starter, shops: Shops) -> None:
    start_operator(shops.namespace, MPESA_SAFARICOM_IPS="196.201.212.0/22,10.1.0.0/16")
    shops.add(callback={"allowedCIDRs": ["196.201.214.0/24", "10.0.0.0/8", "172.16.0.0/12"]})
    body = shops.wait("Ready", "True")
    file = shops.file()
    assert file is not None
    assert file["callback"]["allowedCIDRs"] == ["10.1.0.0/16", "196.201.214.0/24"]
    assert body["status"]["allowlist"]["count"] == 2
    path = f"/api/v1/namespaces/{GATEWAY}/configmaps/{FULLNAME}-callback-allowlist"
    key = f'"{shops.namespace}/duka": 2'
    wait_for(lambda: key in shops.kube.get(path)["data"]["merchants.json"], what="the copy")
    data = shops.kube.get(path)["data"]
    assert data["cidrs"].split() == ["10.1.0.0/16", "196.201.212.0/22", "196.201.214.0/24"]
    assert data["unrestricted"] == "false"


@pytest.mark.usefixtures("operator")
def test_an_allowlist_outside_of_the_platforms_is_refused(shops: Shops) -> None:
    shops.add(callback={"allowedCIDRs": ["172.16.0.0/12"]})
    body = shops.wait("Published", "False", "AllowlistOutsidePlatform")
    assert condition(body, "Ready")["reason"] == "AllowlistOutsidePlatform"
    assert shops.file() is None
    shops.change(callback={"allowedCIDRs": ["196.201.214.0/24"]})
    shops.wait("Ready", "True")
