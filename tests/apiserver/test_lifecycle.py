"""Rotation, suspension, conflicts, deletion, and a Secret that belongs to somebody else."""

from __future__ import annotations

import hashlib
import time

import pytest

from apiserver.conftest import Starter
from harness.apiserver import Json
from harness.merchantconfigs import FakePod, Shops, condition, secret, values_of
from harness.waiting import wait_for


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def file_of(shops: Shops, name: str = "duka") -> Json:
    file = shops.file(name)
    assert file is not None
    return file


def test_a_rotation_makes_a_new_key_and_keeps_the_old_one_for_the_overlap(
    start_operator: Starter, shops: Shops
) -> None:
    start_operator(shops.namespace, MPESA_OPERATOR_ROTATION_OVERLAP="6s")
    shops.add()
    shops.wait("Ready", "True")
    old = shops.generated()
    shops.change(rotation={"apiKey": "one"})
    body = shops.wait("Ready", "True")
    new = shops.generated()
    assert new["api-key"] != old["api-key"]
    assert new["webhook-signing-secret"] == old["webhook-signing-secret"]
    assert file_of(shops)["apiKeySHA256"] == [sha(new["api-key"]), sha(old["api-key"])]
    assert body["status"]["rotation"]["apiKey"] == "one"
    assert body["status"]["rotation"]["previousValidUntil"]
    assert old["api-key"] not in str(new)
    wait_for(
        lambda: file_of(shops)["apiKeySHA256"] == [sha(new["api-key"])],
        timeout_s=12,
        what="the end of the overlap",
    )
    assert shops.generated()["api-key"] == new["api-key"]


@pytest.mark.usefixtures("operator")
def test_a_rotated_webhook_secret_signs_beside_the_old_one(shops: Shops) -> None:
    shops.add(rotation={"webhookSecret": "first"})
    shops.wait("Ready", "True")
    old = shops.generated()["webhook-signing-secret"]
    shops.change(rotation={"webhookSecret": "second"})
    shops.wait("Ready", "True")
    new = shops.generated()["webhook-signing-secret"]
    assert new != old
    assert new.startswith("whsec_")
    assert file_of(shops)["webhook"]["secrets"] == [new, old]
    # A text that is taken back asks for nothing.
    shops.change(rotation=None)
    shops.wait("Ready", "True")
    assert shops.generated()["webhook-signing-secret"] == new


@pytest.mark.usefixtures("operator")
def test_a_generated_secret_that_was_deleted_is_a_rotation(shops: Shops) -> None:
    shops.add()
    shops.wait("Ready", "True")
    old = shops.generated()
    shops.kube.delete(shops.secret_path("duka-mpesa-gateway"))
    path = shops.secret_path("duka-mpesa-gateway")
    wait_for(lambda: shops.kube.find(path), timeout_s=10, what="a new Secret")
    new = shops.generated()
    keys = [sha(new["api-key"]), sha(old["api-key"])]
    wait_for(lambda: file_of(shops)["apiKeySHA256"] == keys, what="both keys")


@pytest.mark.usefixtures("operator")
def test_a_secret_of_somebody_else_is_never_overwritten(shops: Shops) -> None:
    base = f"/api/v1/namespaces/{shops.namespace}/secrets"
    theirs = secret("duka-mpesa-gateway", shops.namespace, {"api-key": "canary-not-ours"})
    before = shops.kube.create(base, theirs)
    shops.add()
    body = shops.wait("Published", "False", "SecretNotOwned")
    assert "does not belong" in condition(body, "Ready")["message"]
    assert "credentialsSecretName" not in body["status"]
    after = shops.kube.get(shops.secret_path("duka-mpesa-gateway"))
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert shops.file() is None
    shops.kube.delete(shops.secret_path("duka-mpesa-gateway"))
    shops.wait("Ready", "True")
    assert shops.generated()["api-key"] != "canary-not-ours"


@pytest.mark.usefixtures("operator")
def test_the_generated_secret_belongs_to_the_merchantconfig(shops: Shops) -> None:
    body = shops.add()
    shops.wait("Ready", "True")
    found = shops.kube.get(shops.secret_path("duka-mpesa-gateway"))
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (body["metadata"]["uid"], True)
    assert set(values_of(found)) == {"api-key", "webhook-signing-secret"}


@pytest.mark.usefixtures("operator")
def test_a_suspension_is_published_at_once(shops: Shops) -> None:
    shops.add()
    shops.wait("Ready", "True")
    begun = time.monotonic()
    shops.change(suspended=True)
    body = shops.wait("Ready", "True", "Suspended", timeout_s=3)
    assert condition(body, "Suspended")["status"] == "True"
    assert file_of(shops)["suspended"] is True
    assert time.monotonic() - begun < 3
    shops.change(suspended=False)
    body = shops.wait("Ready", "True", "Ready", timeout_s=3)
    assert condition(body, "Suspended") == {}
    assert file_of(shops)["suspended"] is False


@pytest.mark.usefixtures("operator")
def test_of_two_with_one_short_code_the_older_wins(shops: Shops) -> None:
    shops.add("older")
    shops.wait("Ready", "True", name="older")
    shops.add("newer")
    body = shops.wait("Ready", "False", "ShortCodeConflict", name="newer")
    assert "older" in condition(body, "Published")["message"]
    assert shops.file("newer") is None
    assert shops.file("older") is not None
    shops.delete("older")
    shops.wait("Ready", "True", name="newer", timeout_s=15)


def test_the_other_object_is_not_named_across_namespaces(
    start_operator: Starter, shops: Shops
) -> None:
    other = Shops(shops.kube, shops.kube.namespace(f"{shops.namespace}-other"))
    other.add_secret()
    start_operator(shops.namespace, other.namespace)
    other.add("secretive")
    other.wait("Ready", "True", name="secretive")
    time.sleep(1.1)  # Creation times have whole seconds.
    shops.add()
    message = condition(shops.wait("Ready", "False", "ShortCodeConflict"), "Ready")["message"]
    assert "another namespace" in message
    assert "secretive" not in message
    assert other.namespace not in message


@pytest.mark.usefixtures("operator")
def test_a_merchant_of_another_environment_is_not_published(shops: Shops) -> None:
    shops.add(environment="production")
    shops.wait("Ready", "False", "EnvironmentMismatch")
    assert shops.file() is None


@pytest.mark.usefixtures("operator")
def test_a_deleted_merchant_drains_and_goes(shops: Shops, pods: dict[str, FakePod]) -> None:
    shops.add()
    shops.wait("Ready", "True")
    begun = time.monotonic()
    shops.delete()
    wait_for(lambda: (shops.file() or {}).get("draining"), timeout_s=2, what="draining")
    body = shops.wait("Ready", "False", "Deleting")
    assert body["status"]["drainUntil"]
    key = f"{shops.namespace}/duka"
    wait_for(lambda: shops.kube.find(shops.path()) is None, timeout_s=10, what="the end")
    assert time.monotonic() - begun >= 1  # The drain of the tests is 2 s, times are whole seconds.
    assert shops.file() is None
    # The object goes only after the pods have let go of the merchant.
    assert all(key not in (pod.report() or {})["merchants"] for pod in pods.values())


def test_a_merchant_without_a_file_goes_at_once(start_operator: Starter, shops: Shops) -> None:
    start_operator(shops.namespace, MPESA_OPERATOR_DRAIN="1h")
    shops.add(credentialsSecretRef={"name": "never"})
    shops.wait("CredentialsResolved", "False", "SecretNotFound")
    shops.delete()
    wait_for(lambda: shops.kube.find(shops.path()) is None, what="the end")


@pytest.mark.usefixtures("operator")
def test_a_merchant_drains_though_its_secrets_are_gone_too(shops: Shops) -> None:
    shops.add()
    shops.wait("Ready", "True")
    shops.kube.delete(shops.secret_path("daraja"))
    shops.kube.delete(shops.secret_path("duka-mpesa-gateway"))
    shops.delete()
    wait_for(lambda: (shops.file() or {}).get("draining"), timeout_s=2, what="draining")
    wait_for(lambda: shops.kube.find(shops.path()) is None, timeout_s=10, what="the end")
    assert shops.kube.find(shops.secret_path("duka-mpesa-gateway")) is None
