"""Namespaces come back from a backup, with new uids: nobody's keys change. docs/backup.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import pytest

from apiserver.conftest import Starter
from harness.apiserver import GROUP_PATH, Json, Kube, RefusedError
from harness.merchantconfigs import BUNDLE, FULLNAME, GATEWAY, Operator, Shops, condition, secret
from harness.waiting import wait_for

OWN_KEY = "canary-api-key-of-the-merchants-own-choice"
NAMES = ("duka", "brings")
KEPT = ("name", "namespace", "labels", "annotations")


def backed_up(body: Json) -> Json:
    """What a backup tool puts back: no uid, no owner, no finalizer and no status."""
    kept = {key: value for key, value in body.items() if key not in ("metadata", "status")}
    return {
        **kept,
        "metadata": {key: body["metadata"][key] for key in KEPT & body["metadata"].keys()},
    }


class Backup:
    """Objects of a namespace, as they were."""

    def __init__(self, kube: Kube, *paths: str) -> None:
        self._kube = kube
        self._bodies = {path: backed_up(kube.get(path)) for path in paths}

    def lose(self) -> None:
        for path in self._bodies:
            self._kube.patch(path, {"metadata": {"finalizers": None}})
            self._kube.delete(path)

    def restore(self) -> None:
        for path, body in self._bodies.items():
            create = partial(created, self._kube, path.rpartition("/")[0], body)
            wait_for(create, timeout_s=20, what=f"{path} to be restored")


def created(kube: Kube, base: str, body: Json) -> bool:
    """False while the API server still thinks of the namespace that is gone."""
    try:
        kube.create(base, body)
    except RefusedError as error:
        if error.status in (403, 404):
            return False
        raise
    return True


def make_anew(kube: Kube, namespace: str) -> None:
    """Delete a namespace and make another one of that name. No controller does it here."""
    path = f"/api/v1/namespaces/{namespace}"
    uid = kube.get(path)["metadata"]["uid"]
    kube.delete(path)
    body = kube.find(path)
    if body is not None:
        kube.call("PUT", f"{path}/finalize", {**body, "spec": {"finalizers": []}})
    wait_for(lambda: kube.find(path) is None, timeout_s=20, what="the namespace to go")
    kube.namespace(namespace)
    assert kube.get(path)["metadata"]["uid"] != uid


@dataclass(frozen=True)
class Keys:
    """What a merchant's client and endpoint hold, and what the pods believe, newest first."""

    api_key: str | None
    webhook_secret: str
    digests: tuple[str, ...]
    secrets: tuple[str, ...]

    @property
    def current(self) -> Keys:
        return replace(self, digests=self.digests[:1], secrets=self.secrets[:1])


def keys_of(shops: Shops, name: str) -> Keys:
    file, generated = shops.file(name), shops.generated(name)
    assert file is not None
    return Keys(
        generated.get("api-key"),
        generated["webhook-signing-secret"],
        tuple(file["apiKeySHA256"]),
        tuple(file["webhook"]["secrets"]),
    )


@pytest.fixture
def served(operator: Operator, shops: Shops) -> Operator:
    """One merchant in the middle of a rotation, and one that brings its own key."""
    key = secret("own-key", shops.namespace, {"key": OWN_KEY})
    shops.kube.create(f"/api/v1/namespaces/{shops.namespace}/secrets", key)
    own = {"secretRef": {"name": "own-key", "key": "key"}}
    shops.add()
    shops.add("brings", shortCode="600100", apiKey=own)
    shops.wait("Ready", "True", name="brings")
    shops.wait("Ready", "True")
    shops.change(rotation={"apiKey": "one", "webhookSecret": "one"})
    shops.wait("Ready", "True")
    assert len(keys_of(shops, "duka").digests) == 2
    return operator


def backups(shops: Shops, *gateway: str) -> tuple[Backup, Backup]:
    """Of the merchants' namespace, and of the gateway's."""
    names = ("daraja", "own-key", "duka-mpesa-gateway", "brings-mpesa-gateway")
    base = f"{GROUP_PATH}/namespaces/{shops.namespace}/merchantconfigs"
    secrets = [shops.secret_path(name) for name in names]
    theirs = Backup(shops.kube, *secrets, f"{base}/duka", f"{base}/brings")
    ours = (f"/api/v1/namespaces/{GATEWAY}/secrets/{name}" for name in gateway)
    return theirs, Backup(shops.kube, *ours)


@pytest.mark.parametrize("gateway", ["stays", "restored", "without its bundle"])
def test_a_restored_namespace_keeps_every_key(served: Operator, shops: Shops, gateway: str) -> None:
    before = {name: keys_of(shops, name).current for name in NAMES}
    uids = {name: shops.get(name)["metadata"]["uid"] for name in NAMES}
    lost = () if gateway == "stays" else (BUNDLE, f"{FULLNAME}-operator-seal")
    theirs, ours = backups(shops, *lost)
    served.stop()
    theirs.lose()
    ours.lose()
    make_anew(shops.kube, shops.namespace)
    ours.restore()
    if gateway == "without its bundle":
        shops.kube.delete(f"/api/v1/namespaces/{GATEWAY}/secrets/{BUNDLE}")
    theirs.restore()
    served.start()
    for name, uid in uids.items():
        body = shops.wait("Ready", "True", name=name)
        assert body["metadata"]["uid"] != uid
        assert condition(body, "Published")["status"] == "True"
        wait_for(partial(is_adopted, shops, name), timeout_s=20, what=f"the Secret of {name}")
    # A key that had been replaced, and was valid for its overlap still, ends with the restore.
    assert {name: keys_of(shops, name) for name in NAMES} == before


def is_adopted(shops: Shops, name: str) -> bool:
    found = shops.kube.get(shops.secret_path(f"{name}-mpesa-gateway"))
    owners = found["metadata"].get("ownerReferences") or []
    return [it["uid"] for it in owners] == [shops.get(name)["metadata"]["uid"]]


def test_without_the_seal_generated_keys_are_replaced(
    start_operator: Starter, served: Operator, shops: Shops
) -> None:
    """So the backup has it. A merchant that brought its key is the same in any case."""
    before = {name: keys_of(shops, name) for name in NAMES}
    theirs, ours = backups(shops, f"{FULLNAME}-operator-seal")
    served.stop()
    theirs.lose()
    ours.lose()
    theirs.restore()
    start_operator(shops.namespace)
    for name in NAMES:
        shops.wait("Ready", "True", name=name)
    after = {name: keys_of(shops, name) for name in NAMES}
    assert after["brings"].digests == before["brings"].digests
    assert after["duka"].api_key != before["duka"].api_key
    assert after["duka"].webhook_secret == before["duka"].webhook_secret
