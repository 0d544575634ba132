"""Which namespaces are open: a label selector, as Kubernetes reads it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.collecting import every_case
from harness.operating import make_merchant, make_observed, plan, settled
from mpesa_operator.bundle import apply_changes
from mpesa_operator.namespaces import Namespaces, check_selector, selects

GOLD = {"matchLabels": {"tier": "gold"}}


def expression(operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "tier", "operator": operator, "values": list(values)}]}


@every_case(
    ("selector", "labels", "selected"),
    [
        ({}, {}, True),
        (GOLD, {"tier": "gold", "other": "x"}, True),
        (GOLD, {"tier": "silver"}, False),
        (GOLD, {}, False),
        ({"matchLabels": {"tier": "gold", "open": "yes"}}, {"tier": "gold"}, False),
        (expression("In", "gold", "silver"), {"tier": "silver"}, True),
        (expression("In", "gold"), {}, False),
        (expression("NotIn", "gold"), {}, True),
        (expression("NotIn", "gold"), {"tier": "gold"}, False),
        (expression("Exists"), {"tier": ""}, True),
        (expression("Exists"), {}, False),
        (expression("DoesNotExist"), {}, True),
        (expression("DoesNotExist"), {"tier": "x"}, False),
        ({**GOLD, **expression("NotIn", "gold")}, {"tier": "gold"}, False),
    ],
)
def test_a_selector(selector: dict[str, Any], labels: dict[str, str], selected: bool) -> None:
    assert selects(check_selector(selector), labels) is selected


@every_case(
    "selector",
    [
        None,
        [],
        "tier=gold",
        {"labels": {}},
        {"matchLabels": []},
        {"matchExpressions": {}},
        {"matchExpressions": [1]},
        {"matchExpressions": [{"operator": "In"}]},
        {"matchExpressions": [{"key": "a", "operator": "Gt"}]},
    ],
)
def test_what_is_no_selector(selector: Any) -> None:
    with pytest.raises(ValueError, match=r"selector|matchExpression"):
        check_selector(selector)


class Listing:
    """A cluster that counts how often it is asked."""

    def __init__(self) -> None:
        self.labels: dict[str, dict[str, str]] = {"shops": {"tier": "gold"}, "aaa": {}}
        self.asked = 0

    async def namespace_labels(self) -> dict[str, dict[str, str]]:
        self.asked += 1
        return self.labels


def test_labels_are_remembered_for_one_resync_and_a_closed_namespace_for_less() -> None:
    cluster, now = Listing(), [0.0]
    known = Namespaces(cluster, GOLD, 60.0, lambda: now[0])  # type: ignore[arg-type]

    def is_open(namespace: str) -> bool:
        return asyncio.run(known.is_open(namespace))

    assert (is_open("shops"), is_open("aaa"), cluster.asked) == (True, False, 1)
    cluster.labels = {"shops": {}, "aaa": {"tier": "gold"}}
    now[0] = 3.0
    assert (is_open("aaa"), cluster.asked) == (True, 2)
    now[0] = 64.0
    assert is_open("shops") is False
    anyone = Namespaces(cluster, {}, 60.0, lambda: now[0])  # type: ignore[arg-type]
    assert asyncio.run(anyone.is_open("nobody"))


def test_a_namespace_that_lost_its_label_takes_no_new_payments() -> None:
    good = settled(make_merchant())
    seen = make_observed(published=good.published, generated=good.generated, selected=False)
    found = plan(make_merchant(), seen)
    assert found.published.reason == "NamespaceNotSelected"
    assert b'"suspended":true' in (found.entry or b"")
    assert plan(make_merchant(), make_observed(selected=False)).entry is None


def test_a_namespace_has_so_many_merchants_and_no_more() -> None:
    files = {"aaa.m1.json": b"{}", "shops.m1.json": b"{}"}
    elsewhere = {"aaa.m2.json": b"{}"}

    def refused(name: str, namespace_max: int) -> str | None:
        done = apply_changes(
            files, {name: b"{ }"}, elsewhere=elsewhere, namespace_max=namespace_max
        )
        problem = done.refused.get(name)
        return None if problem is None else problem.reason

    assert refused("aaa.m3.json", 2) == "TooManyMerchants"
    assert refused("aaa.m3.json", 3) is None
    assert refused("aaa.m3.json", 0) is None
    # What is published may change, and another namespace has room of its own.
    assert refused("aaa.m1.json", 1) is None
    assert refused("shops.m2.json", 2) is None
