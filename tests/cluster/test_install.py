"""A fresh install with no value but the simulator: it works, and it is what it should be."""

from __future__ import annotations

import json
import uuid

import pytest

from harness import shell
from harness.figures import Figure
from harness.kube import Kube
from harness.neighbour import Neighbour
from harness.release import Installed, Release
from harness.waiting import wait_for

pytestmark = pytest.mark.timeout(300)
COMPONENTS = ("api", "worker", "operator", "simulator", "postgresql", "redis")


@pytest.fixture
def fresh(installed: Installed) -> Release:
    return installed.release


def test_it_is_ready_in_time(installed: Installed, figure: Figure) -> None:
    figure("seconds from helm install to everything ready", installed.seconds, limit=90)

    for component in COMPONENTS:
        for pod in installed.release.pods(component):
            ready = {it["type"]: it["status"] for it in pod["status"]["conditions"]}["Ready"]
            assert ready == "True", pod["metadata"]["name"]
    assert not any(installed.release.restarts().values())


# Python's own view of all processes of its container, in KiB: what is shared counts once.
PSS = """
import glob
def pss(path):
    try:
        return sum(int(line.split()[1]) for line in open(path) if line.startswith("Pss:"))
    except OSError:
        return 0
print(sum(map(pss, glob.glob("/proc/[0-9]*/smaps_rollup"))))
"""
ROLES = ("api", "worker", "operator", "simulator")


@pytest.mark.parametrize("component", ROLES)
def test_a_pod_at_rest_needs_little_memory(fresh: Release, component: str, figure: Figure) -> None:
    name = fresh.pods(component)[0]["metadata"]["name"]
    said = fresh.kube.run("exec", name, "--container", component, "--", "python", "-c", PSS)
    mib = int(said) / 1024
    figure(f"{component}: MiB (PSS) at rest", mib, limit=120)

    assert mib > 1, "nothing was measured"


def test_helm_test_makes_a_payment(fresh: Release) -> None:
    said = fresh.helm("test", fresh.name, "--logs", "--timeout=120s")

    assert "Phase:          Succeeded" in said
    assert "COMPLETED" in said


def test_a_payment_by_curl_through_the_service_completes_and_is_told_signed(
    fresh: Release, kube: Kube, shop: Neighbour
) -> None:
    with kube.forward(f"service/{fresh.fullname}-api", 80) as url:
        key = f"X-Internal-Secret: {fresh.api_key}"
        body = {
            "amount": "25",
            "phone": "254712340000",
            "webhook_url": shop.hook,
            "idempotency_key": str(uuid.uuid4()),
        }
        answer = curl(f"{url}/initiate", "-H", key, "-d", json.dumps(body))
        transaction_id = answer["transaction_id"]
        wait_for(
            lambda: curl(f"{url}/transactions/{transaction_id}", "-H", key)["status"] == "COMPLETED"
        )

    (webhook,) = wait_for(lambda: shop.webhooks(transaction_id), what="the webhook")
    told = webhook.verify(fresh.app_secret()["MPESA_WEBHOOK_SECRET"])
    assert (told["type"], told["status"]) == ("transaction.completed", "COMPLETED")
    assert (told["amount"], told["phone"]) == ("25", "254712340000")


def curl(*arguments: str) -> dict[str, str]:
    said = shell.output(
        "curl", "--silent", "--fail", "--max-time", "30", "-H", "Content-Type: application/json",
        *arguments,
    )  # fmt: skip
    answer: dict[str, str] = json.loads(said)
    return answer


def test_pods_of_the_data_plane_hold_no_token_of_the_cluster(fresh: Release) -> None:
    for component in COMPONENTS:
        for pod in fresh.pods(component):
            mounts = [
                mount["mountPath"]
                for container in pod["spec"]["containers"]
                for mount in container.get("volumeMounts", [])
            ]
            holds = any(path.startswith("/var/run/secrets/kubernetes.io") for path in mounts)
            assert holds == (component == "operator"), pod["metadata"]["name"]


def test_an_upgrade_with_one_other_value_works_and_keeps_the_secrets(
    fresh: Release, kube: Kube
) -> None:
    """The Job of the migration is immutable: its name must change with what it is made of."""
    names = [f"{fresh.fullname}-{name}" for name in ("app", "postgresql", "redis")]
    before = [kube.secret(name) for name in names]
    fresh.upgrade({"migrations.resources.requests.memory": "97Mi"})

    assert [kube.secret(name) for name in names] == before
    assert fresh.rows("SELECT count(*) FROM transactions") != [{"count": 0}]
