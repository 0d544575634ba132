"""A hostile tenant on a real API server: CRD, RBAC, the real operator, a real gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver.conftest import Starter
from harness.apiserver import ApiServer
from harness.attacks import ATTACKS, Attack
from harness.gateway import Gateways
from harness.merchantconfigs import Shops
from harness.tenants import Town, town
from harness.waiting import wait_for


@pytest.fixture
def the_town(
    server: ApiServer, gateways: Gateways, tmp_path: Path, start_operator: Starter, shops: Shops
) -> Iterator[Town]:
    victim = server.admin.namespace(f"{shops.namespace}-v")
    attacker = server.admin.namespace(f"{shops.namespace}-a")
    with town(server.admin, gateways, tmp_path / "merchants", victim, attacker) as found:
        url = found.gateway.simulator.url
        start_operator(
            victim,
            attacker,
            MPESA_SAFARICOM_BASE_URL=url,
            MPESA_OPERATOR_MAX_MERCHANTS_PER_NAMESPACE="2",
        )
        yield found


SELECTED = {"matchLabels": {"mpesa-gateway.dev/merchants": "allowed"}}


def test_a_namespace_that_the_platform_has_not_opened_is_left_alone(
    server: ApiServer, start_operator: Starter, shops: Shops
) -> None:
    closed = Shops(server.admin, server.admin.namespace(f"{shops.namespace}-closed"))
    closed.add_secret()
    path = f"/api/v1/namespaces/{shops.namespace}"
    label = {"mpesa-gateway.dev/merchants": "allowed"}
    server.admin.patch(path, {"metadata": {"labels": label}})
    start_operator(
        shops.namespace,
        closed.namespace,
        values={"namespaceSelector": SELECTED},
        MPESA_OPERATOR_NAMESPACE_SELECTOR=json.dumps(SELECTED),
    )
    closed.add("kiosk", shortCode="600300")
    shops.add()
    shops.wait("Ready", "True")
    alone = closed.get("kiosk")
    assert "status" not in alone
    assert "finalizers" not in alone["metadata"]
    assert closed.file("kiosk") is None
    # Once it is opened, it is served; once it is shut, it takes no new payments.
    closed_path = f"/api/v1/namespaces/{closed.namespace}"
    server.admin.patch(closed_path, {"metadata": {"labels": label}})
    closed.wait("Ready", "True", name="kiosk", timeout_s=30)
    server.admin.patch(closed_path, {"metadata": {"labels": {"mpesa-gateway.dev/merchants": None}}})
    closed.wait("Published", "False", "NamespaceNotSelected", name="kiosk", timeout_s=30)
    assert (closed.file("kiosk") or {})["suspended"] is True
    closed.delete("kiosk")
    wait_for(lambda: server.admin.find(closed.path("kiosk")) is None, what="its end")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda it: str(it.__name__))
def test_a_tenant(attack: Attack, the_town: Town) -> None:
    attack(the_town)
