"""One namespace and one release for the whole suite, in the cluster of KUBECONFIG.

The release is installed with no value but the images and the simulator; what later tests need is
an upgrade of it. Everything is removed at the end, the CRD too if it was not there before.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import bystanders, shell
from harness.figures import FIGURES, Figure, lines
from harness.kube import Kube
from harness.needs import need
from harness.neighbour import Neighbour
from harness.release import Installed, Release, stand_ins
from harness.waiting import wait_for

CRD = "merchantconfigs.mpesa-gateway.dev"
# In this order: a fresh install first, what breaks things last.
MODULES = ("install", "runbooks", "merchants", "changes", "rollouts", "operator", "kills", "many")
DRAIN_S = 12
# Values of the upgrade after the first test: a Safaricom that outlives upgrades of the release,
# queries soon enough to wait for, a drain that a test can sit out.
SETTINGS = {
    "MPESA_QUERY_SCHEDULE": "5s,5s,10s,20s",
    "MPESA_PROMPT_LIFE": "5s",
    "MPESA_SAFARICOM_QUERY_PER_MINUTE": "0",
}


def pytest_configure(config: pytest.Config) -> None:
    """Where the figures are kept."""
    config.stash[FIGURES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules of this suite into their order; the others stay as they are."""

    def place(item: pytest.Item) -> int:
        name = item.path.stem.removeprefix("test_")
        return MODULES.index(name) if item.path.parent.name == "cluster" else -1

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, to be quoted."""
    figures = terminalreporter.config.stash[FIGURES]
    if figures:
        terminalreporter.section("measured")
    for line in lines(figures):
        terminalreporter.write_line(line)


@pytest.fixture
def figure(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> Figure:
    """Keep a figure for the report, and fail when it is not below its promise."""

    def keep(what: str, value: float, *, limit: float | None = None) -> None:
        record_property(what, value)
        request.config.stash[FIGURES].append((what, value, limit))
        assert limit is None or value < limit, f"{what}: {value:.2f}, promised is under {limit:g}"

    return keep


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """The gateway's namespace. Pods in it must be restricted, as platforms ask for."""
    for command in ("kubectl", "helm"):
        need(shutil.which(command), f"{command} is not installed")
    need(os.environ.get("KUBECONFIG"), "KUBECONFIG names no cluster")
    need(shell.succeeds("kubectl", "get", "nodes"), "the cluster of KUBECONFIG does not answer")
    kube = Kube(f"mpesa-e2e-{secrets.token_hex(3)}")
    kube.make_namespace(restricted=True)
    yield kube
    kube.delete_namespace()


@pytest.fixture(scope="session")
def crd(kube: Kube) -> Iterator[bool]:
    """Whether the CRD is the chart's to install. One that was there already is left in place."""
    there = kube.find("crd", CRD) is not None
    yield not there
    if not there:
        kube.run("delete", "crd", CRD, "--ignore-not-found")


@pytest.fixture(scope="session")
def installed(kube: Kube, crd: bool) -> Iterator[Installed]:
    """`helm install g charts/mpesa-gateway --set simulator.enabled=true`, images aside."""
    values: dict[str, Any] = {"simulator.enabled": True, **stand_ins()}
    if not crd:
        values["crds.enabled"] = False
    release = Release(kube, "g")
    started = time.monotonic()
    try:
        release.install(values)
        yield Installed(release, time.monotonic() - started)
    finally:
        release.helm("uninstall", release.name, "--ignore-not-found", "--wait")


@pytest.fixture(scope="session")
def shop(kube: Kube) -> Iterator[Neighbour]:
    """The merchant's endpoint and its clients, in a pod."""
    kube.apply(*bystanders.shop())
    kube.run("wait", "--for=condition=Ready", f"pod/{bystanders.SHOP}", "--timeout=60s")
    with kube.forward(f"pod/{bystanders.SHOP}", bystanders.SHOP_PORT) as url:
        yield Neighbour(url, bystanders.shop_hook(kube))


@pytest.fixture(scope="session")
def safaricom(kube: Kube) -> str:
    """The address of a simulator that no upgrade restarts."""
    kube.apply(*bystanders.safaricom())
    kube.run("wait", "--for=condition=Ready", f"pod/{bystanders.SAFARICOM}", "--timeout=60s")
    return bystanders.safaricom_url(kube)


@pytest.fixture(scope="session")
def release(installed: Installed, safaricom: str, shop: Neighbour) -> Release:
    """The release as most tests need it."""
    before = installed.release.names("api", "worker")
    values = {f"settings.{name}": value for name, value in SETTINGS.items()}
    installed.release.upgrade(
        {**values, "safaricom.baseUrl": safaricom, "operator.drainSeconds": DRAIN_S}
    )
    # Until they are gone they serve with the old settings.
    installed.release.wait_until_gone(before)
    wait_for(shop.is_up, what="the merchant's endpoint")
    return installed.release
