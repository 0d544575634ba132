"""Monitors, rules and dashboards: they ask for what is there."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from harness.alerts import groups_of_files
from harness.helm import CHART, Object, of, only, pod_templates, render
from mpesa_gateway.telemetry import metrics
from mpesa_operator import metrics as operator_metrics

RULES = {"metrics": {"prometheusRule": {"enabled": True}}}
SERVICE_MONITOR = {"metrics": {"serviceMonitor": {"enabled": True, "interval": "10s"}}}
POD_MONITOR = {"metrics": {"podMonitor": {"enabled": True}}}
SCRAPED = ["api", "worker", "operator"]


def rules(values: dict[str, Any]) -> list[Object]:
    groups = only(render(values), "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert_names(values: dict[str, Any]) -> set[str]:
    return {rule["alert"] for rule in rules(values) if "alert" in rule}


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    kinds = {it["kind"] for it in render({})}
    assert not {"ServiceMonitor", "PodMonitor", "PrometheusRule"} & kinds


def test_the_service_monitor_finds_the_service_that_finds_the_pods() -> None:
    objects = render({**SERVICE_MONITOR, "simulator": {"enabled": True}})
    monitor = only(objects, "ServiceMonitor")["spec"]
    services = [
        it
        for it in of(objects, "Service")
        if matches(monitor["selector"]["matchLabels"], it["metadata"]["labels"])
    ]
    assert [it["metadata"]["name"] for it in services] == ["g-mpesa-gateway-metrics"]
    selector = services[0]["spec"]["selector"]
    found = [
        name
        for name, pod in pod_templates(objects).items()
        if matches(selector, pod["metadata"]["labels"])
    ]
    assert sorted(found) == sorted(SCRAPED)
    assert monitor["endpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "10s"}]


def test_the_pod_monitor_finds_the_pods() -> None:
    objects = render({**POD_MONITOR, "simulator": {"enabled": True}})
    selector = only(objects, "PodMonitor")["spec"]["selector"]
    assert selector["matchExpressions"] == [
        {"key": "app.kubernetes.io/component", "operator": "In", "values": SCRAPED}
    ]
    assert not [it for it in of(objects, "Service") if it["spec"].get("clusterIP") == "None"]


def exported() -> set[str]:
    """Every series that our processes export, with the suffixes of its kind."""
    modules = {**vars(metrics), **vars(operator_metrics)}
    families = [
        family
        for collector in modules.values()
        if isinstance(collector, MetricWrapperBase)
        for family in collector.collect()
    ]
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    own = {it.name + end for it in families for end in suffixes.get(it.type, [""])}
    return own | {*metrics.AGES, *metrics.POOLS, "mpesa_operator_merchants"}


def test_alerts_ask_for_metrics_that_exist() -> None:
    for rule in rules(RULES):
        asked = set(re.findall(r"\bmpesa_\w+", rule["expr"]))
        assert asked <= exported(), rule


def test_alerts_can_be_left_out_and_what_is_recorded_stays() -> None:
    every = alert_names(RULES)
    left_out = {min(every), "MpesaCallbackSlow"}
    values = {"metrics": {"prometheusRule": {"enabled": True, "excludeAlerts": sorted(left_out)}}}
    assert alert_names(values) == every - left_out
    recorded = [rule for rule in rules(RULES) if "record" in rule]
    assert recorded == [rule for rule in rules(values) if "record" in rule]
    assert recorded


def test_rules_arrive_as_they_are_in_their_files() -> None:
    """Their own {{ }} belong to Prometheus: Helm adds the runbook's address, and nothing else."""
    arrived = copy.deepcopy(rules(RULES))
    for rule in arrived:
        if "alert" in rule:
            url = rule["annotations"].pop("runbook_url")
            assert url.endswith(f"/docs/runbooks/{rule['alert']}.md")
    written = [rule for group in groups_of_files() for rule in group["rules"]]
    assert arrived == written


def test_runbooks_can_be_elsewhere() -> None:
    values = {
        "metrics": {
            "prometheusRule": {"enabled": True, "runbookBaseUrl": "https://wiki.example/mpesa/"}
        }
    }
    urls = {rule["annotations"]["runbook_url"] for rule in rules(values) if "alert" in rule}
    assert "https://wiki.example/mpesa/MpesaConflict.md" in urls


def test_every_dashboard_is_a_config_map() -> None:
    objects = render({"metrics": {"dashboards": {"enabled": True}}})
    made = [it for it in of(objects, "ConfigMap") if "-dashboard-" in it["metadata"]["name"]]
    files = sorted((CHART / "files" / "dashboards").glob("*.json"))
    assert [list(it["data"]) for it in made] == [[path.name] for path in files]
    for it in made:
        assert it["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize("values", [SERVICE_MONITOR, POD_MONITOR, RULES])
def test_labels_select_the_right_prometheus(values: dict[str, Any]) -> None:
    key = next(iter(values["metrics"]))
    labelled = {"metrics": {key: {**values["metrics"][key], "labels": {"release": "p"}}}}
    kind = {"serviceMonitor": "ServiceMonitor", "podMonitor": "PodMonitor"}.get(
        key, "PrometheusRule"
    )
    assert only(render(labelled), kind)["metadata"]["labels"]["release"] == "p"
