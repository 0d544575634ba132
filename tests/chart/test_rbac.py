"""Rights: named verbs on named resources, and nothing cluster-wide where namespaces are listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.helm import FULLNAME, NAMESPACE, VALUE_SETS, Object, of, render

ROLES = ("Role", "ClusterRole")
OURS = {"mpesa-gateway.dev"}


def rules(objects: list[Object]) -> list[Object]:
    return [rule for kind in ROLES for role in of(objects, kind) for rule in role["rules"]]


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_no_rule_has_a_wildcard(values: Path) -> None:
    for rule in rules(render(values)):
        for words in rule.values():
            assert "*" not in words, rule


def test_secrets_are_listed_only_where_they_may_be_watched() -> None:
    def verbs(*, watched: bool) -> set[str]:
        objects = render({"operator": {"secretWatch": {"enabled": watched}}})
        return {
            verb
            for rule in rules(objects)
            if "secrets" in rule["resources"]
            for verb in rule["verbs"]
        }

    assert not {"list", "watch"} & verbs(watched=False)
    assert {"list", "watch"} <= verbs(watched=True)
    assert "delete" not in verbs(watched=True)


def test_listed_namespaces_need_no_right_on_the_cluster() -> None:
    values = {
        "operator": {"watchNamespaces": ["shop", "books"]},
        "rbac": {"aggregateClusterRoles": False},
    }
    objects = render(values)
    assert not of(objects, "ClusterRole") + of(objects, "ClusterRoleBinding")
    places = {it["metadata"]["namespace"] for it in of(objects, "Role")}
    assert places == {"shop", "books", NAMESPACE}


def test_every_binding_is_the_operators() -> None:
    objects = render({})
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for binding in of(objects, kind):
            assert binding["subjects"] == [
                {
                    "kind": "ServiceAccount",
                    "name": f"{FULLNAME}-operator",
                    "namespace": NAMESPACE,
                }
            ]


def test_without_the_operator_nobody_is_given_a_right() -> None:
    objects = render({"operator": {"enabled": False}})
    assert not of(objects, "RoleBinding") + of(objects, "ClusterRoleBinding")
    assert {it["metadata"]["name"] for it in of(objects, "ServiceAccount")} == {FULLNAME}


def test_people_who_administer_a_namespace_edit_its_merchants() -> None:
    roles = {it["metadata"]["name"].rpartition("-")[2]: it for it in of(render({}), "ClusterRole")}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    edit, view = roles["edit"]["metadata"]["labels"], roles["view"]["metadata"]["labels"]
    assert {it for it in edit if it.startswith(prefix)} == {f"{prefix}admin"}
    assert f"{prefix}view" in view
    for role in (roles["edit"], roles["view"]):
        assert {group for rule in role["rules"] for group in rule["apiGroups"]} == OURS
    # Who may only look at it may not write, and nobody but the operator writes the status.
    written = [it for rule in roles["edit"]["rules"] for it in rule["resources"]]
    assert written == ["merchantconfigs"]
    assert {verb for rule in roles["view"]["rules"] for verb in rule["verbs"]} == {
        "get",
        "list",
        "watch",
    }
