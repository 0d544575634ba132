"""Two tenants of one gateway: a victim, and one who edits and runs whatever it can.

The operator is the real process and the gateway a real one; Kubernetes is whoever `kube` speaks to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from daraja_simulator.settings import Settings
from harness.apiserver import Json, Kube
from harness.gateway import Gateway, Gateways
from harness.kubernetes import KubernetesStub
from harness.merchantconfigs import (
    BUNDLE,
    DARAJA,
    GATEWAY,
    Shops,
    values_of,
)
from harness.merchants import write_file
from harness.waiting import wait_for

# The apps that Safaricom knows: the victim's, and one of the attacker's own.
OWN_APP = {"consumerKey": "ck-of-the-attacker", "consumerSecret": "cs-of-the-attacker"}
SAFARICOM = Settings(
    callback_delay=0.0,
    credentials={
        DARAJA["consumerKey"]: DARAJA["consumerSecret"],
        OWN_APP["consumerKey"]: OWN_APP["consumerSecret"],
        "test-consumer-key": "test-consumer-secret",
    },
)
# Two resyncs of the tests' operator, within which whatever it would do has been done.
RESYNCS_S = 8.0
VICTIM, ATTACKER = "600200", "999999"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class StubServer:
    """What `Operator` needs of an API server, in front of the in-memory Kubernetes."""

    def __init__(self, stub: KubernetesStub) -> None:
        self.stub = stub
        self.admin = Kube(stub.url, Path("/no/ca"), "of-no-use-anywhere")

    def kubeconfig(self, path: Path, _token: str, _url: str | None = None) -> Path:
        return self.stub.kubeconfig(path)


@dataclass
class Town:
    """A victim that is served, an attacker, and the gateway that serves both."""

    kube: Kube
    victim: Shops
    attacker: Shops
    gateway: Gateway
    directory: Path

    def refresh(self) -> None:
        """The gateway's pods read the bundle as it is now."""
        found = self.kube.find(f"/api/v1/namespaces/{GATEWAY}/secrets/{BUNDLE}") or {}
        files = {name: text for name, text in values_of(found).items() if name.endswith(".json")}
        for path in self.directory.glob("*.json"):
            if path.name not in files:
                path.unlink()
        for name, text in files.items():
            write_file(self.directory / name, text)
        self.gateway.services.merchants.refresh()

    def serve_victim(self) -> str:
        """The victim is ready; its API key."""
        self.victim.add("owner", shortCode=VICTIM)
        self.victim.wait("Ready", "True", name="owner")
        return self.victim.generated("owner")["api-key"]

    def serve_attacker(self, name: str = "x", **spec: Any) -> None:
        """A merchant of the attacker's own, with its own app."""
        self.attacker.add_secret("own", **OWN_APP)
        self.attacker.add(
            name, **{"shortCode": ATTACKER, "credentialsSecretRef": {"name": "own"}, **spec}
        )
        self.attacker.wait("Ready", "True", name=name)

    def pay(self, key: str, phone: str = "254712340000") -> requests.Response:
        self.refresh()
        return self.gateway.initiate(phone, key=key)

    def paid_to(self, key: str, phone: str = "254712340000") -> str:
        """The short code that Safaricom was told to charge for."""
        answer = self.pay(key, phone)
        assert answer.status_code == 201, answer.text
        found: str = self.gateway.simulator.ledger(phone=phone)["pushes"][-1]["short_code"]
        return found

    def events(self, shops: Shops, name: str) -> list[Json]:
        """The events of an object."""
        items: list[Json] = self.kube.get(f"/api/v1/namespaces/{shops.namespace}/events")["items"]
        return [it for it in items if it["involvedObject"]["name"] == name]

    def told(self, shops: Shops, name: str, reason: str) -> Json:
        """The event of that reason, once there is one."""

        def look() -> Json | None:
            found = (it for it in self.events(shops, name) if it["reason"] == reason)
            return next(found, None)

        event = wait_for(look, timeout_s=RESYNCS_S, what=f"an event {reason} of {name}")
        assert event is not None
        return event

    def edit_generated(self, name: str, **values: str) -> None:
        """As the attacker does with the Secret that lies in its namespace."""
        self.attacker.change_secret(f"{name}-mpesa-gateway", **values)


@contextmanager
def town(
    kube: Kube,
    gateways: Gateways,
    directory: Path,
    victim: str,
    attacker: str,
) -> Iterator[Town]:
    """Both tenants, without an operator; the caller starts one on `gateway.simulator.url`."""
    directory.mkdir()
    with gateways.start(
        safaricom=SAFARICOM, merchants_dir=str(directory), max_amount="70000"
    ) as gateway:
        both = Shops(kube, victim), Shops(kube, attacker)
        both[0].add_secret()
        yield Town(kube, *both, gateway, directory)


def previous_keys(*digests: str) -> str:
    """What an attacker writes into `previous-api-keys`."""
    far = "2099-01-01T00:00:00+00:00"
    return json.dumps([{"value": digest, "validUntil": far} for digest in digests])


def restore(shops: Shops, name: str, uid: str) -> None:
    """Put a generated Secret back as a backup has it: with the owner of then."""
    path = shops.secret_path(f"{name}-mpesa-gateway")
    body = shops.kube.get(path)
    owner = {"apiVersion": "mpesa-gateway.dev/v1alpha1", "kind": "MerchantConfig", "name": name}
    meta = {"name": body["metadata"]["name"], "namespace": shops.namespace}
    meta["labels"] = body["metadata"]["labels"]
    meta["ownerReferences"] = [{**owner, "uid": uid, "controller": True}]
    shops.kube.delete(path)
    saved = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque"}
    base = f"/api/v1/namespaces/{shops.namespace}/secrets"
    shops.kube.create(base, {**saved, "data": body["data"]})
