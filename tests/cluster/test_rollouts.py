"""Pods come and go under load: not one callback without a 200, nothing lost, nothing doubled."""

from __future__ import annotations

import os

import pytest

from harness.docker import gateway_image
from harness.figures import Figure
from harness.load import Load, load, rates
from harness.needs import need
from harness.neighbour import Neighbour
from harness.release import Release, image_values

pytestmark = pytest.mark.timeout(400)
QUIET_S = 3.0
ROLES = ("api", "worker")


def next_image() -> str:
    """The same gateway under another tag."""
    image = os.environ.get("GATEWAY_NEXT_IMAGE", "")
    need(image and image != gateway_image(), "GATEWAY_NEXT_IMAGE names no second image")
    return image


def images(release: Release) -> set[str]:
    """What the pods of API and worker run."""
    return {
        container["image"].rpartition("/")[2]
        for component in ROLES
        for pod in release.pods(component)
        for container in pod["spec"]["containers"]
    }


def restart(release: Release) -> None:
    """`kubectl rollout restart` of API and worker."""
    names = [f"deployment/{release.fullname}-{it}" for it in ROLES]
    release.kube.run("rollout", "restart", *names)
    for name in names:
        release.kube.run("rollout", "status", name, "--timeout=180s", timeout_s=190)


def check_nothing_happened(what: str, ended: Load, figure: Figure) -> None:
    """All was answered, at the rate that was meant, and the books agree."""
    books = ended.books
    initiates, callbacks = rates(ended.report)
    figure(f"{what}: initiates a second", initiates)
    figure(f"{what}: callbacks a second, Safaricom's and duplicates", initiates + callbacks)
    figure(f"{what}: callbacks answered 200", books.answered_callbacks())
    lost = books.lost_callbacks()
    figure(f"{what}: callbacks not answered 200", len(lost))
    assert lost == [], what
    took = [it["started"] + it["seconds"] - it["sent"] for it in ended.report["callbacks"]]
    # A figure to watch, not a promise: on two cores a rollout takes the CPU from everybody.
    figure(f"{what}: seconds of the slowest callback, once it was sent", max(took), limit=30)
    figure(f"{what}: initiates that had to ask again", len(books.troubled_initiates()))
    assert [it["refusal"] for it in books.troubled_initiates() if it["refusal"]] == [], what
    books.check()


def test_a_rollout_restart_loses_no_callback(
    release: Release, shop: Neighbour, safaricom: str, figure: Figure
) -> None:
    before = release.names(*ROLES)
    with load(release, shop, safaricom) as running:
        restart(release)
        # Pods that were told to stop still serve for a while: that is when callbacks get lost.
        release.wait_until_gone(before)
        running.go_on(QUIET_S)

    assert len(release.names(*ROLES)) == len(before)
    check_nothing_happened("rollout restart", running, figure)


def test_an_upgrade_and_a_rollback_lose_no_callback(
    release: Release, shop: Neighbour, safaricom: str, figure: Figure
) -> None:
    """The rollback runs the older image on the schema that the newer one left."""
    image = next_image()
    images_before, before = images(release), release.names(*ROLES)
    with load(release, shop, safaricom) as running:
        release.upgrade(image_values(image))
        release.wait_until_gone(before)
        running.go_on(QUIET_S)
    assert images(release) == {image}
    check_nothing_happened("helm upgrade to a new image", running, figure)

    before = release.names(*ROLES)
    with load(release, shop, safaricom) as running:
        release.rollback()
        release.wait_until_gone(before)
        running.go_on(QUIET_S)
    assert images(release) == images_before
    check_nothing_happened("helm rollback", running, figure)
