"""What can be reached from where: routes and network policies."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from harness.helm import VALUE_SETS, Object, component, of, only, render
from mpesa_gateway.domain.endpoint import is_public

SCALED = next(path for path in VALUE_SETS if path.stem == "scaled-values")
PRODUCTION = next(path for path in VALUE_SETS if path.stem == "production-values")
DNS_PORT = 53
POLICIES: dict[str, Any] = {"networkPolicy": {"enabled": True}}


def policy(objects: list[Object], name: str) -> Object:
    spec: Object = only(objects, "NetworkPolicy", name)["spec"]
    return spec


def blocks(spec: Object) -> list[Object]:
    """Every ipBlock that a policy lets its pods reach, but for looking names up."""
    return [
        peer["ipBlock"]
        for rule in spec["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer and {it["port"] for it in rule["ports"]} != {DNS_PORT}
    ]


def resolvers(spec: Object) -> list[Object] | None:
    """Where a policy lets its pods look names up; None is everywhere."""
    (rule,) = [it for it in spec["egress"] if {port["port"] for port in it["ports"]} == {DNS_PORT}]
    found: list[Object] | None = rule.get("to")
    return found


def ports_to(spec: Object, name: str) -> list[int]:
    """Ports on which a policy lets its pods reach a component."""
    return [
        port["port"]
        for rule in spec["egress"]
        for peer in rule.get("to", [])
        if selected(peer) == name
        for port in rule["ports"]
    ]


def selected(peer: Object) -> str | None:
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    found: str | None = labels.get("app.kubernetes.io/component")
    return found


def test_nothing_is_exposed_unless_asked_for() -> None:
    assert not {"Ingress", "HTTPRoute", "NetworkPolicy"} & {it["kind"] for it in render({})}
    assert only(render({}), "Service", "api")["spec"]["type"] == "ClusterIP"


def test_the_public_ingress_carries_callbacks_only() -> None:
    found = {it["metadata"]["name"].rpartition("-")[2]: it for it in of(render(SCALED), "Ingress")}
    paths = {
        name: [it["path"] for rule in ingress["spec"]["rules"] for it in rule["http"]["paths"]]
        for name, ingress in found.items()
    }
    assert paths == {"public": ["/callback"], "internal": ["/"]}
    rules = [rule for it in found.values() for rule in it["spec"]["rules"]]
    assert all(rule["host"] for rule in rules)
    for rule in rules:
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend == {"name": "g-mpesa-gateway-api", "port": {"name": "http"}}


def test_the_public_route_carries_callbacks_only() -> None:
    found = {
        it["metadata"]["name"].rpartition("-")[2]: it["spec"]["rules"]
        for it in of(render(PRODUCTION), "HTTPRoute")
    }
    assert set(found) == {"public", "internal"}
    for name, value in [("public", "/callback"), ("internal", "/")]:
        (rule,) = found[name]
        assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": value}}]
        assert rule["backendRefs"] == [{"name": "g-mpesa-gateway-api", "port": 80}]


def test_every_component_has_a_policy() -> None:
    objects = render({**POLICIES, "simulator": {"enabled": True}})
    names = {component(it) for it in of(objects, "NetworkPolicy")}
    wanted = {"api", "worker", "operator", "migrate", "postgresql", "redis", "simulator"}
    assert names == wanted
    for it in of(objects, "NetworkPolicy"):
        assert it["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_the_data_plane_reaches_the_public_internet_only(name: str) -> None:
    found = blocks(policy(render(POLICIES), name))
    assert [it["cidr"] for it in found] == ["0.0.0.0/0", "2000::/3"]
    for block in found:
        inside = ipaddress.ip_network(block["cidr"])
        for denied in block["except"]:
            assert ipaddress.ip_network(denied).subnet_of(inside)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.31.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",  # noqa: S104
        "fd00::1",
        "fe80::1",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2001:db8::1",
    ],
)
def test_the_wall_stands_where_the_workers_own_guard_does(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert not is_public(parsed)
    for block in blocks(policy(render(POLICIES), "worker")):
        denied = [ipaddress.ip_network(it) for it in block["except"]]
        inside = parsed in ipaddress.ip_network(block["cidr"])
        assert not inside or any(parsed in it for it in denied), address


@pytest.mark.parametrize("name", ["api", "worker", "operator"])
def test_names_are_looked_up_in_the_cluster_only(name: str) -> None:
    node_local = {"ipBlock": {"cidr": "169.254.20.10/32"}}
    assert resolvers(policy(render(POLICIES), name)) == [{"namespaceSelector": {}}, node_local]
    anywhere = render({"networkPolicy": {"enabled": True, "dnsTo": []}})
    assert resolvers(policy(anywhere, name)) is None


def test_safaricom_is_within_reach() -> None:
    parsed = ipaddress.ip_address("196.201.214.200")
    block = blocks(policy(render(POLICIES), "api"))[0]
    assert not any(parsed in ipaddress.ip_network(it) for it in block["except"])


def test_pods_reach_the_stores_and_the_stores_reach_nothing() -> None:
    objects = render(POLICIES)
    for name, redis in [("api", [6379]), ("worker", [6379]), ("migrate", [])]:
        assert ports_to(policy(objects, name), "postgresql") == [5432]
        assert ports_to(policy(objects, name), "redis") == redis
    for name in ("postgresql", "redis"):
        assert "egress" not in policy(objects, name)


def test_only_the_data_plane_reaches_the_stores() -> None:
    objects = render(POLICIES)
    (postgresql,) = policy(objects, "postgresql")["ingress"]
    assert [selected(it) for it in postgresql["from"]] == ["api", "worker", "migrate"]
    (redis,) = policy(objects, "redis")["ingress"]
    assert [selected(it) for it in redis["from"]] == ["api", "worker"]


def test_the_operator_reaches_what_the_pods_report_and_no_store() -> None:
    spec = policy(render(POLICIES), "operator")
    assert ports_to(spec, "api") == [9090]
    assert ports_to(spec, "worker") == [9090]
    assert ports_to(spec, "postgresql") == []
    for name in ("api", "worker"):
        rules = policy(render(POLICIES), name)["ingress"]
        metrics = next(it for it in rules if it["ports"] == [{"port": "metrics"}])
        assert "operator" in [selected(peer) for peer in metrics["from"]]


def test_with_private_webhooks_there_is_nothing_to_keep_the_worker_from() -> None:
    objects = render({**POLICIES, "simulator": {"enabled": True}})
    assert policy(objects, "worker")["egress"] == [{}]
    assert {} not in policy(objects, "api")["egress"]


def test_peers_can_be_narrowed() -> None:
    rules = policy(render(SCALED), "api")["ingress"]
    http = next(it for it in rules if it["ports"] == [{"port": "http"}])
    spaces = [it["namespaceSelector"] for it in http["from"] if "namespaceSelector" in it]
    assert spaces == [{"matchLabels": {"kubernetes.io/metadata.name": "traefik"}}]
    everybody = policy(render(POLICIES), "api")["ingress"][0]
    assert everybody == {"ports": [{"port": "http"}]}
