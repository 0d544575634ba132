"""What the operator's token cannot do although its role says so: the chart's admission policies.

Written as what somebody tries who has taken the operator's pod.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from harness.apiserver import Json, Kube, RefusedError
from harness.merchantconfigs import BUNDLE, GATEWAY, FakePod, Operator, Shops
from harness.waiting import wait_for


@pytest.fixture
def thief(operator: Operator) -> Kube:
    """The operator's own token, once the policies are in force."""
    server = operator.server
    kube = Kube(server.url, server.ca, operator.install_rbac())
    body = generated("probe", type="example.com/probe")

    def in_force() -> bool:
        path = f"/api/v1/namespaces/{operator.namespaces[0]}/secrets?dryRun=All"
        try:
            kube.create(path, body)
        except RefusedError as error:
            return "of type Opaque only" in str(error)
        return False

    wait_for(in_force, timeout_s=30, what="the policies")
    return kube


def generated(name: str, **changes: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name},
        **changes,
    }


def owned(name: str, owner: str, kind: str = "MerchantConfig") -> Json:
    reference = {"apiVersion": "mpesa-gateway.dev/v1alpha1", "kind": kind, "uid": "u"}
    return {"name": name, "ownerReferences": [{**reference, "name": owner}]}


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(RefusedError) as refused:
        call()
    assert refused.value.status in (403, 422)
    return str(refused.value)


def test_no_token_of_a_service_account_is_minted(thief: Kube, shops: Shops) -> None:
    path = f"/api/v1/namespaces/{shops.namespace}/secrets"
    meta = {
        **owned("duka-mpesa-gateway", "duka"),
        "annotations": {"kubernetes.io/service-account.name": "default"},
    }
    body = generated("x", type="kubernetes.io/service-account-token", metadata=meta)
    assert "of type Opaque only" in refusal(lambda: thief.create(path, body))


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": "anything"},
        {"name": "duka-mpesa-gateway"},
        owned("anything", "duka"),
        owned("other-mpesa-gateway", "duka"),
        owned("duka-mpesa-gateway", "duka", kind="Deployment"),
        # The names of the gateway's namespace mean nothing elsewhere.
        {"name": BUNDLE},
    ],
)
def test_no_secret_but_a_merchantconfigs_is_made(thief: Kube, shops: Shops, metadata: Json) -> None:
    path = f"/api/v1/namespaces/{shops.namespace}/secrets"
    body = generated("x", metadata=metadata)
    assert "generates for a MerchantConfig" in refusal(lambda: thief.create(path, body))


def test_a_secret_of_somebody_else_is_not_changed(thief: Kube, shops: Shops) -> None:
    change = {"stringData": {"passkey": "x"}}
    call = partial(thief.patch, shops.secret_path("daraja"), change)
    assert "generates for a MerchantConfig" in refusal(call)


def test_pods_are_annotated_and_nothing_else(thief: Kube, pods: dict[str, FakePod]) -> None:
    path = pods["api"].path
    image = {"spec": {"containers": [{"name": "api", "image": "of-the-thief"}]}}
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    said = refusal(lambda: thief.call("PATCH", path, image, **strategic))
    assert "annotations of pods only" in said
    for change in (
        {"metadata": {"labels": {"app.kubernetes.io/component": "worker"}}},
        {"metadata": {"finalizers": ["of/the-thief"]}},
        {"spec": {"activeDeadlineSeconds": 1}},
    ):
        assert "annotations of pods only" in refusal(partial(thief.patch, path, change))
    thief.patch(path, {"metadata": {"annotations": {"mpesa-gateway.dev/x": "1"}}})


@pytest.mark.usefixtures("thief")
def test_what_the_operator_does_is_allowed(shops: Shops) -> None:
    """Every other test runs with the policies too; this one names the writes."""
    shops.add()
    shops.wait("Ready", "True")
    shops.change(rotation={"apiKey": "one", "webhookSecret": "one"})
    wait_for(lambda: "previous-api-keys" in shops.generated(), what="the rotation")
    assert shops.kube.find(f"/api/v1/namespaces/{GATEWAY}/secrets/{BUNDLE}")


@pytest.mark.usefixtures("thief")
def test_somebody_else_is_not_held_by_them(shops: Shops) -> None:
    path = f"/api/v1/namespaces/{shops.namespace}/secrets"
    body = generated("theirs", type="kubernetes.io/basic-auth", stringData={"username": "u"})
    assert shops.kube.create(path, body)
