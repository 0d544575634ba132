"""The rendered roles are enough (every other test runs with them), and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from apiserver.conftest import Starter
from harness.apiserver import GROUP_PATH, Json, Kube, RefusedError, rbac_path, render
from harness.merchantconfigs import BUNDLE, FULLNAME, GATEWAY, RELEASE, Operator, Shops

SECRETS = "/api/v1/namespaces/{}/secrets"


@pytest.fixture
def as_operator(operator: Operator) -> Kube:
    """Calls with the operator's own token."""
    server = operator.server
    return Kube(server.url, server.ca, operator.install_rbac())


def forbidden(call: Callable[[], object]) -> bool:
    try:
        call()
    except RefusedError as error:
        return error.status == 403
    return False


def test_secrets_are_never_listed(as_operator: Kube, shops: Shops) -> None:
    for namespace in (shops.namespace, GATEWAY):
        path = SECRETS.format(namespace)
        assert forbidden(partial(as_operator.get, path))
        assert forbidden(partial(as_operator.get, f"{path}?watch=true&timeoutSeconds=1"))
    assert forbidden(lambda: as_operator.get("/api/v1/secrets"))


def test_what_it_may_read_and_write(as_operator: Kube, shops: Shops) -> None:
    path = shops.secret_path("daraja")
    assert as_operator.get(path)
    assert forbidden(lambda: as_operator.delete(path))
    assert as_operator.get(f"{GROUP_PATH}/namespaces/{shops.namespace}/merchantconfigs")
    assert forbidden(lambda: as_operator.get(f"{GROUP_PATH}/merchantconfigs"))
    assert forbidden(lambda: as_operator.get(f"{GROUP_PATH}/namespaces/{GATEWAY}/merchantconfigs"))
    assert forbidden(lambda: as_operator.delete(shops.path()))


def test_in_the_gateways_namespace_only_its_own_objects(as_operator: Kube) -> None:
    assert forbidden(lambda: as_operator.get(f"{SECRETS.format(GATEWAY)}/{FULLNAME}-app"))
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}}
    assert forbidden(lambda: as_operator.create(SECRETS.format(GATEWAY), body))
    path = f"{SECRETS.format(GATEWAY)}/other"
    assert forbidden(lambda: as_operator.apply(path, body))
    assert forbidden(lambda: as_operator.delete(f"{SECRETS.format(GATEWAY)}/{BUNDLE}"))
    for kind in ("configmaps", "pods/log", "serviceaccounts", "events"):
        path = f"/api/v1/namespaces/{GATEWAY}/{kind}"
        assert forbidden(partial(as_operator.get, path))


def test_a_watched_namespace_has_a_role_and_no_other_one(as_operator: Kube, shops: Shops) -> None:
    other = shops.kube.namespace(f"{shops.namespace}-unwatched")
    path = f"{GROUP_PATH}/namespaces/{other}/merchantconfigs"
    assert forbidden(lambda: as_operator.get(path))


def rules(*namespaces: str, secret_watch: bool) -> list[Json]:
    operator = {"watchNamespaces": list(namespaces), "secretWatch": {"enabled": secret_watch}}
    return render(RELEASE, GATEWAY, "templates/operator/rbac.yaml", {"operator": operator})


@pytest.mark.parametrize("secret_watch", [False, True])
@pytest.mark.parametrize("namespaces", [(), ("a", "b")])
@pytest.mark.usefixtures("server")
def test_no_wildcards_and_secrets_listed_only_when_asked_for(
    namespaces: tuple[str, ...], secret_watch: bool
) -> None:
    bodies = rules(*namespaces, secret_watch=secret_watch)
    found = [rule for body in bodies for rule in body.get("rules", [])]
    assert found
    for rule in found:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
    listing = [it for it in found if "secrets" in it["resources"] and "list" in it["verbs"]]
    assert len(listing) == (len(namespaces) or 1) * secret_watch
    kinds = [str(body["kind"]) for body in bodies]
    assert kinds.count("ClusterRole") == (0 if namespaces else 1)
    assert kinds.count("Role") == 1 + len(namespaces)


@pytest.fixture
def every_namespace(start_operator: Starter, shops: Shops) -> Iterator[Operator]:
    """An operator with the cluster role, which goes with the test."""
    yield start_operator()
    for body in rules(secret_watch=False):
        if body["kind"] == "ClusterRoleBinding":
            shops.kube.delete(rbac_path(body))


@pytest.mark.usefixtures("every_namespace")
def test_all_namespaces_with_a_cluster_role(shops: Shops) -> None:
    shops.add(shortCode="777001")
    # This operator also finds what all the tests before it have left in their namespaces.
    shops.wait("Ready", "True", timeout_s=60)
    later = Shops(shops.kube, shops.kube.namespace(f"{shops.namespace}-later"))
    later.add_secret()
    later.add("kiosk", shortCode="777002")
    later.wait("Ready", "True", name="kiosk")
