"""Two gateways in one cluster, two operators of one gateway, and objects that vanish."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from typing import Self

import pytest

from apiserver.conftest import Starter
from harness import shell
from harness.apiserver import Json, Kube, RefusedError
from harness.merchantconfigs import (
    BUNDLE,
    FINALIZER,
    GATEWAY,
    Operator,
    Shops,
    condition,
    values_of,
)
from harness.waiting import wait_for

SECRETS = f"/api/v1/namespaces/{GATEWAY}/secrets"
CROWD = 20


def sweeps_after(operator: Operator, moment: float) -> bool:
    """Whether the operator has looked at everything since then."""
    lines = operator.metrics().splitlines()
    name = "mpesa_operator_last_sweep_timestamp_seconds "
    return float(next(it for it in lines if it.startswith(name)).split()[1]) > moment


def wait_for_sweeps(operator: Operator, count: int) -> None:
    for _ in range(count):
        wait_for(partial(sweeps_after, operator, time.time()), timeout_s=60, what="a sweep")


@pytest.mark.usefixtures("operator")
def test_an_object_of_another_gateway_is_left_alone(operator: Operator, shops: Shops) -> None:
    made = shops.add(gateway="live")
    shops.add("mine", shortCode="600100")
    shops.wait("Ready", "True", name="mine")
    wait_for_sweeps(operator, 2)
    assert shops.get()["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert shops.file() is None
    assert shops.kube.find(shops.secret_path("duka-mpesa-gateway")) is None


def test_two_gateways_look_after_their_own(start_operator: Starter, shops: Shops) -> None:
    """Neither writes what the other one wrote, whatever each makes of it."""
    ours = start_operator(shops.namespace)
    other = start_operator(
        shops.namespace,
        release="second",
        MPESA_OPERATOR_GATEWAY="live",
        MPESA_SAFARICOM_IPS="41.90.0.0/16",
    )
    shops.add()
    shops.add("theirs", gateway="live")
    shops.wait("Ready", "True")
    # The same short code at another gateway is another account, as far as anybody knows.
    shops.wait("Published", "True", name="theirs")
    shops.wait("CredentialsValid", "True", name="theirs")
    wait_for_sweeps(other, 1)
    before = versions(shops)
    events = count_events(shops)
    for operator in (ours, other):
        wait_for_sweeps(operator, 2)
    assert versions(shops) == before
    assert count_events(shops) == events


def versions(shops: Shops) -> list[str]:
    return [shops.get(name)["metadata"]["resourceVersion"] for name in ("duka", "theirs")]


def count_events(shops: Shops) -> int:
    return len(shops.kube.get(f"/api/v1/namespaces/{shops.namespace}/events")["items"])


@pytest.mark.usefixtures("pods")
def test_a_gateway_cannot_be_changed(shops: Shops) -> None:
    assert shops.add()["spec"]["gateway"] == "default"
    with pytest.raises(RefusedError, match="gateway cannot be changed"):
        shops.change(gateway="live")


class Watcher:
    """Looks at the bundle all the time, and notes what was in it once and is not any more."""

    def __init__(self, kube: Kube) -> None:
        self._kube = Kube(kube.url, kube.ca, kube.token)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: set[str] = set()
        self.vanished: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        self._kube.session.close()

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            found = self._kube.find(f"{SECRETS}/{BUNDLE}") or {}
            files = set(found.get("data") or {})
            self.vanished |= self.seen - files
            self.seen |= files


def test_two_operators_of_one_gateway_never_drop_a_file(
    start_operator: Starter, shops: Shops
) -> None:
    """A pod that is evicted goes on for a moment beside its successor."""
    first, second = start_operator(shops.namespace), start_operator(shops.namespace)
    with Watcher(shops.kube) as watcher:
        for number in range(CROWD):
            shops.add(f"duka-{number}", shortCode=str(600100 + number))
        wait_for(lambda: len(watcher.seen) == CROWD, timeout_s=60, what="every file")
        for operator in (first, second):
            wait_for_sweeps(operator, 2)
    assert watcher.vanished == set()


def published(shops: Shops) -> dict[str, Json | None]:
    return {name: shops.file(name) for name in ("duka", "second", "third")}


def test_objects_that_vanish_are_drained_and_counted(
    operator: Operator, shops: Shops, start_operator: Starter
) -> None:
    """The CRD was deleted, or etcd came back from an older snapshot, while nobody looked."""
    names = {"duka": "174379", "second": "600100", "third": "600200"}
    for name, code in names.items():
        shops.add(name, shortCode=code)
        shops.wait("Ready", "True", name=name)
    keys = shops.generated("third")
    operator.kill()
    for name in names:
        shops.kube.patch(shops.path(name), {"metadata": {"finalizers": None}})
        shops.delete(name)
    again = start_operator(shops.namespace, MPESA_OPERATOR_DRAIN="15s")
    wait_for(
        lambda: all(it and it["draining"] for it in published(shops).values()),
        what="every one to drain",
    )
    wait_for(lambda: "orphaned_merchants 3.0" in again.metrics(), what="the gauge")

    shops.add("third", shortCode="600200")  # Back in time: it is served on, with the key it had.
    shops.wait("Ready", "True", name="third")
    assert shops.generated("third") == keys
    assert (shops.file("third") or {})["draining"] is False
    wait_for(
        lambda: [name for name, it in published(shops).items() if it] == ["third"],
        timeout_s=40,
        what="the drains to end",
    )
    wait_for(lambda: "orphaned_merchants 0.0" in again.metrics(), what="the gauge")


@pytest.mark.usefixtures("operator")
def test_a_mistake_of_the_users_is_stalled_at_once(shops: Shops) -> None:
    shops.add(environment="production")
    body = shops.wait("Stalled", "True", "EnvironmentMismatch")
    assert condition(body, "Stalled")["message"] == condition(body, "Ready")["message"]
    shops.add("patient", shortCode="600100", credentialsSecretRef={"name": "later"})
    body = shops.wait("Ready", "False", "SecretNotFound", name="patient")
    assert condition(body, "Stalled") == {}


def test_the_bundle_has_no_other_values(operator: Operator, shops: Shops) -> None:
    """What is applied first to make the Secret leaves nothing behind."""
    shops.add()
    shops.wait("Ready", "True")
    assert operator.process is not None
    found = shops.kube.get(f"{SECRETS}/{BUNDLE}")
    assert set(values_of(found)) == {f"{shops.namespace}.duka.json"}


def test_a_release_takes_off_its_own_finalizers_only(operator: Operator, shops: Shops) -> None:
    """What the chart runs before an uninstall, so that nothing stays Terminating."""
    shops.add()
    shops.wait("Ready", "True")
    theirs = shops.add("theirs", shortCode="600100", gateway="live")
    held = {"metadata": {"finalizers": [FINALIZER, "example.com/theirs"]}}
    shops.kube.patch(shops.path("theirs"), held)
    operator.stop()

    command = (sys.executable, "-m", "mpesa_operator", "--release")
    done = shell.run(*command, env=operator.environment())
    assert done.returncode == 0, done.stderr
    assert not shops.get()["metadata"].get("finalizers")
    assert shops.get("theirs")["metadata"]["finalizers"] == held["metadata"]["finalizers"]
    # The bundle stays: whoever installs again goes on where it was.
    assert shops.file() is not None
    shops.delete()
    assert shops.kube.find(shops.path()) is None
    shops.kube.patch(shops.path(theirs["metadata"]["name"]), {"metadata": {"finalizers": None}})
