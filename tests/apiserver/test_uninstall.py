"""`helm uninstall`, with the CRD kept and without: nothing stays Terminating."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from daraja_simulator.server import RunningSimulator
from harness import shell
from harness.apiserver import ADMIN_TOKEN, CHART, GROUP_PATH, ApiServer, Kube, need_commands
from harness.merchantconfigs import GATEWAY, RELEASE, Operator, Shops
from harness.waiting import wait_for

CRD_PATH = (
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/merchantconfigs.mpesa-gateway.dev"
)
NAMESPACE = "shops"


@pytest.fixture
def empty_server(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server of its own: the CRD goes here."""
    need_commands()
    directory = tmp_path / "server"
    directory.mkdir()
    server = ApiServer(directory)
    try:
        server.start()
        for name in (GATEWAY, NAMESPACE):
            server.admin.namespace(name)
        yield server
    finally:
        server.stop()


def helm(server: ApiServer, *arguments: str, values: object = None) -> None:
    """Without its hooks, for which a cluster would run pods; their command is run here."""
    config = server.kubeconfig(server.directory / "admin.kubeconfig", ADMIN_TOKEN)
    options = ("--no-hooks", "--namespace", GATEWAY, "--kubeconfig", str(config))
    given = ("--values", "-") if values is not None else ()
    shell.output("helm", *arguments, *options, *given, stdin=yaml.safe_dump(values))


def is_served(kube: Kube) -> bool:
    return kube.find(f"{GROUP_PATH}/merchantconfigs") is not None


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "not kept"])
def test_an_uninstall_leaves_nothing_terminating(
    empty_server: ApiServer, daraja: RunningSimulator, tmp_path: Path, keep: bool
) -> None:
    server, kube = empty_server, empty_server.admin
    operated = {"enabled": True, "watchNamespaces": [NAMESPACE]}
    values = {"simulator": {"enabled": True}, "operator": operated, "crds": {"keep": keep}}
    helm(server, "install", RELEASE, str(CHART), values=values)
    wait_for(lambda: is_served(kube), timeout_s=30, what="the CRD to be served")
    shops = Shops(kube, NAMESPACE)
    shops.add_secret()
    operator = Operator(server, tmp_path, daraja.url, (NAMESPACE,))
    operator.start()
    try:
        shops.add()
        shops.wait("Published", "True")
        assert shops.get()["metadata"]["finalizers"]
    finally:
        operator.stop()

    # The hook deletes the operator's Deployment, and takes the finalizers off.
    command = (sys.executable, "-m", "mpesa_operator", "--release")
    done = shell.run(*command, env=operator.environment())
    assert done.returncode == 0, done.stderr
    helm(server, "uninstall", RELEASE)

    if keep:
        assert "deletionTimestamp" not in kube.get(CRD_PATH)["metadata"]
        shops.delete()
        assert kube.find(shops.path()) is None
    else:
        wait_for(lambda: kube.find(CRD_PATH) is None, timeout_s=30, what="the CRD to go")
