"""The operator is killed, the API server restarts, two hundred merchants come at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apiserver.conftest import Starter
from harness.apiserver import GROUP_PATH, ApiServer
from harness.merchantconfigs import FULLNAME, FakePod, Operator, Shops, condition
from harness.waiting import wait_for
from mpesa_operator.__main__ import WATCH_LOST

MANY = 200


def test_a_killed_operator_goes_on_where_it_was(
    operator: Operator, shops: Shops, pods: dict[str, FakePod]
) -> None:
    shops.add()
    shops.add("second", shortCode="600200")
    shops.add("third", shortCode="600300")
    for name in ("duka", "second", "third"):
        shops.wait("Ready", "True", name=name)
    keys = {name: shops.generated(name) for name in ("duka", "second", "third")}
    operator.kill()
    # Meanwhile one is edited, one is deleted, one is new; the others stay published.
    shops.change(limits={"minAmount": 7})
    shops.delete("second")
    shops.add("fourth", shortCode="600400")
    files = set(pods["api"].files)
    operator.start()
    shops.wait("Ready", "True")
    shops.wait("Ready", "True", name="fourth")
    wait_for(lambda: shops.kube.find(shops.path("second")) is None, what="the drain")
    wait_for(lambda: shops.file("second") is None, what="its file to go")
    assert f"{shops.namespace}.third.json" in files & set(pods["api"].files)
    assert shops.generated() == keys["duka"]
    assert shops.generated("third") == keys["third"]
    assert (shops.file() or {})["limits"] == {"minAmount": 7}


def test_a_merchant_that_was_removed_by_force_is_unpublished(
    operator: Operator, shops: Shops
) -> None:
    shops.add()
    shops.wait("Ready", "True")
    operator.kill()
    shops.kube.patch(shops.path(), {"metadata": {"finalizers": None}})
    shops.delete()
    assert shops.file() is not None
    operator.start()
    wait_for(lambda: shops.file() is None, what="the file of nobody to go")


def test_a_namespace_that_is_not_watched_any_more_keeps_its_merchants(
    operator: Operator, shops: Shops
) -> None:
    shops.add()
    shops.wait("Ready", "True")
    operator.stop()
    operator.namespaces = (shops.kube.namespace(f"{shops.namespace}-other"),)
    operator.start()
    time.sleep(4)  # More than a resync: nothing can be waited for.
    assert shops.file() is not None


def test_a_namespace_whose_role_is_gone_does_not_stop_the_others(
    start_operator: Starter, shops: Shops
) -> None:
    other = Shops(shops.kube, shops.kube.namespace(f"{shops.namespace}-other"))
    other.add_secret()
    operator = start_operator(shops.namespace, other.namespace)
    other.add("kiosk", shortCode="600200")
    other.wait("Ready", "True", name="kiosk")
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{other.namespace}/rolebindings"
    binding = shops.kube.get(f"{base}/{FULLNAME}-operator-merchants")
    shops.kube.delete(f"{base}/{FULLNAME}-operator-merchants")
    shops.add()
    shops.wait("Ready", "True")
    operator.stop()
    operator.start(install_rbac=False)
    shops.change(suspended=True)
    shops.wait("Ready", "True", "Suspended")
    assert other.file("kiosk") is not None
    # With its role back it is to be watched again, which only a new process does.
    binding["metadata"] = {"name": binding["metadata"]["name"], "namespace": other.namespace}
    shops.kube.create(base, binding)
    process = operator.process
    assert process is not None
    wait_for(lambda: not process.is_running(), what="the operator to end")
    assert process.exit_status == WATCH_LOST
    operator.start()
    other.change("kiosk", suspended=True)
    other.wait("Ready", "True", "Suspended", name="kiosk")


def test_an_api_server_that_restarts(server: ApiServer, operator: Operator, shops: Shops) -> None:
    shops.add()
    shops.wait("Ready", "True")
    server.stop_server()
    time.sleep(3)
    assert operator.process is not None
    assert operator.process.is_running()
    server.start_server()
    shops.add("second", shortCode="600200")
    shops.wait("Ready", "True", name="second", timeout_s=30)
    shops.change(suspended=True)
    shops.wait("Ready", "True", "Suspended", timeout_s=30)
    assert operator.process.is_running()


def resident_mb(operator: Operator) -> float:
    assert operator.process is not None
    status = Path(f"/proc/{operator.process.pid}/status").read_text()
    line = next(it for it in status.splitlines() if it.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.timeout(600)
def test_two_hundred_merchants_at_once(
    start_operator: Starter, shops: Shops, record_property: Callable[[str, object], None]
) -> None:
    operator = start_operator(shops.namespace, MPESA_OPERATOR_RESYNC="10s")
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: shops.add(f"m{n:03}", shortCode=str(600000 + n)), range(MANY)))
    base = f"{GROUP_PATH}/namespaces/{shops.namespace}/merchantconfigs"

    def ready() -> int:
        items = shops.kube.get(base)["items"]
        return sum(condition(item, "Ready").get("status") == "True" for item in items)

    wait_for(lambda: ready() == MANY, timeout_s=240, what="all to be ready")
    took_s = time.monotonic() - begun
    before = resident_mb(operator)
    text = operator.metrics()
    assert f'mpesa_operator_merchants{{condition="Ready",status="True"}} {MANY}.0' in text
    assert f'mpesa_operator_bundle_entries{{shard="0"}} {MANY}.0' in text
    # Memory is flat while the same objects are looked at again and again.
    sweeps = 3
    count = reconciles(operator)
    wait_for(lambda: reconciles(operator) >= count + sweeps * MANY, timeout_s=240, what="resyncs")
    after = resident_mb(operator)
    record_property("figures", f"ready {took_s:.1f} s, {before:.0f} MB, then {after:.0f} MB")
    assert after < before + 10


def reconciles(operator: Operator) -> float:
    lines = operator.metrics().splitlines()
    counts = [it for it in lines if it.startswith("mpesa_operator_reconcile_seconds_count")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counts)
