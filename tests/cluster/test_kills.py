"""Pods die at once under load: no callback is lost but those on their way to the killed pod."""

from __future__ import annotations

import time

import pytest

from harness.figures import Figure
from harness.load import load
from harness.neighbour import Neighbour
from harness.release import Release
from harness.waiting import wait_for

pytestmark = pytest.mark.timeout(300)
QUIET_S = 4.0
# Until every node's proxy has heard that a pod is gone, new connections may still be sent there.
UNAWARE_S = 2.0


def kill_one(release: Release, role: str) -> tuple[float, float]:
    """`kubectl delete pod --force`; when that was, and when the role was whole again."""
    name = min(release.names(role))
    killed = time.time()
    release.kube.run("delete", "pod", name, "--force", "--grace-period=0")
    release.kube.run(
        "rollout",
        "status",
        f"deployment/{release.fullname}-{role}",
        "--timeout=120s",
        timeout_s=130,
    )
    assert name not in release.names(role)
    return killed, time.time()


@pytest.mark.parametrize("role", ["worker", "operator", "redis"])
def test_a_killed_pod_costs_no_callback(
    release: Release, shop: Neighbour, safaricom: str, figure: Figure, role: str
) -> None:
    with load(release, shop, safaricom) as running:
        killed, whole = kill_one(release, role)
        running.go_on(QUIET_S)
    books = running.books

    figure(f"{role} killed: seconds until it is whole again", whole - killed)
    figure(f"{role} killed: callbacks answered 200", books.answered_callbacks())
    figure(f"{role} killed: callbacks not answered 200", len(books.lost_callbacks()))
    assert books.lost_callbacks() == []
    assert books.troubled_initiates() == []
    books.check(repeats_allowed=role == "worker")


def kill_processes(release: Release) -> tuple[float, float]:
    """`kill -9` of whatever serves in one API pod; when that was, and when it served again."""
    name = min(release.names("api"))
    killed = time.time()
    release.kube.execute(f"pod/{name}", "python", "-c", "import os; os.kill(-1, 9)")

    def has_begun_again() -> bool:
        return release.kube.run("logs", name, "--container=api").count("Booting worker") == 2

    wait_for(has_begun_again, timeout_s=30, what="gunicorn to start its worker again")
    return killed, time.time()


@pytest.mark.parametrize("how", ["pod deleted by force", "kill -9 in the pod"])
def test_a_killed_api_costs_only_what_was_on_its_way_there(
    release: Release, shop: Neighbour, safaricom: str, figure: Figure, how: str
) -> None:
    with load(release, shop, safaricom) as running:
        by_force = how == "pod deleted by force"
        killed, whole = kill_one(release, "api") if by_force else kill_processes(release)
        running.go_on(QUIET_S)
    books = running.books
    lost = books.lost_callbacks()

    figure(f"api, {how}: seconds until it is whole again", whole - killed)
    figure(f"api, {how}: callbacks answered 200", books.answered_callbacks())
    figure(f"api, {how}: callbacks on their way to what was killed", len(lost))
    late = [it for it in lost if it["began"] > killed + UNAWARE_S]
    early = [it for it in lost if it["ended"] < killed]
    assert (early, late) == ([], [])
    figure(f"api, {how}: initiates that had to ask again", len(books.troubled_initiates()))
    books.check(unsent_allowed=True)
