"""Monitors, rules and dashboards: they ask for what is there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from harness import shell
from harness.helm import CHART, Object, of, only, pod_templates, render
from harness.needs import need
from mpesa_gateway import metrics

RULES = {"metrics": {"prometheusRule": {"enabled": True}}}
SERVICE_MONITOR = {"metrics": {"serviceMonitor": {"enabled": True, "interval": "10s"}}}
POD_MONITOR = {"metrics": {"podMonitor": {"enabled": True}}}
SCRAPED = ["api", "worker", "operator"]


def alerts(values: dict[str, Any]) -> dict[str, Object]:
    groups = only(render(values), "PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


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
    families = [
        family
        for collector in vars(metrics).values()
        if isinstance(collector, MetricWrapperBase)
        for family in collector.collect()
    ]
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    own = {it.name + end for it in families for end in suffixes.get(it.type, [""])}
    return own | set(metrics.AGES)


def test_alerts_ask_for_metrics_that_exist() -> None:
    found = alerts(RULES)
    assert found
    for name, rule in found.items():
        asked = set(re.findall(r"\bmpesa_\w+", rule["expr"]))
        assert asked, name
        operators = {it for it in asked if it.startswith("mpesa_operator_")}
        assert asked - operators <= exported(), name


def test_every_alert_says_what_it_means() -> None:
    for name, rule in alerts(RULES).items():
        assert name.startswith("Mpesa")
        assert rule["labels"]["severity"] in {"page", "warning", "info", "critical"}
        assert {"summary", "description"} <= set(rule["annotations"]), name


def test_alerts_can_be_left_out() -> None:
    every = set(alerts(RULES))
    values = {"metrics": {"prometheusRule": {"enabled": True, "excludeAlerts": [min(every)]}}}
    assert set(alerts(values)) == every - {min(every)}


def test_rules_arrive_as_they_are_in_their_files() -> None:
    """Their own {{ }} belong to Prometheus: Helm must leave them alone."""
    written = [
        rule
        for path in sorted((CHART / "files" / "rules").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]
    assert list(alerts(RULES).values()) == written


def test_every_dashboard_is_a_config_map() -> None:
    objects = render({"metrics": {"dashboards": {"enabled": True}}})
    made = [it for it in of(objects, "ConfigMap") if "-dashboard-" in it["metadata"]["name"]]
    files = sorted((CHART / "files" / "dashboards").glob("*.json"))
    assert [list(it["data"]) for it in made] == [[path.name] for path in files]
    for it in made:
        assert it["metadata"]["labels"]["grafana_dashboard"] == "1"


PROMTOOL_TESTS = {
    "rule_files": ["rules.yaml"],
    "evaluation_interval": "1m",
    "tests": [
        {
            "interval": "1m",
            "input_series": [
                {"series": 'mpesa_webhook_exhausted_total{namespace="a"}', "values": "0x9 1x90"},
                {"series": 'mpesa_webhook_exhausted_total{namespace="b"}', "values": "7x100"},
                {"series": 'mpesa_merchant_config_errors{namespace="a",pod="x"}', "values": "0x99"},
                {
                    "series": 'mpesa_merchant_config_errors{namespace="a",pod="y"}',
                    "values": "0x19 2x9 0x70",
                },
            ],
            "alert_rule_test": [
                {"eval_time": "5m", "alertname": "MpesaWebhookExhausted", "exp_alerts": []},
                {
                    "eval_time": "15m",
                    "alertname": "MpesaWebhookExhausted",
                    "exp_alerts": [{"exp_labels": {"severity": "warning", "namespace": "a"}}],
                },
                {"eval_time": "90m", "alertname": "MpesaWebhookExhausted", "exp_alerts": []},
                {"eval_time": "22m", "alertname": "MpesaMerchantFileUnusable", "exp_alerts": []},
                {
                    "eval_time": "27m",
                    "alertname": "MpesaMerchantFileUnusable",
                    "exp_alerts": [{"exp_labels": {"severity": "warning", "namespace": "a"}}],
                },
                {"eval_time": "40m", "alertname": "MpesaMerchantFileUnusable", "exp_alerts": []},
            ],
        }
    ],
}


def test_alerts_ring_when_they_should(tmp_path: Path) -> None:
    """Prometheus' own test of the rendered rules; annotations are ours to word."""
    need(shutil.which("promtool"), "promtool is not on the PATH")
    spec = only(render(RULES), "PrometheusRule")["spec"]
    for group in spec["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(PROMTOOL_TESTS), encoding="utf-8")
    done = shell.run("promtool", "test", "rules", str(tmp_path / "tests.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    need(shutil.which("promtool"), "promtool is not on the PATH")
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(only(render(RULES), "PrometheusRule")["spec"]), "utf-8")
    done = shell.run("promtool", "check", "rules", str(rules))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", [SERVICE_MONITOR, POD_MONITOR, RULES])
def test_labels_select_the_right_prometheus(values: dict[str, Any]) -> None:
    key = next(iter(values["metrics"]))
    labelled = {"metrics": {key: {**values["metrics"][key], "labels": {"release": "p"}}}}
    kind = {"serviceMonitor": "ServiceMonitor", "podMonitor": "PodMonitor"}.get(
        key, "PrometheusRule"
    )
    assert only(render(labelled), kind)["metadata"]["labels"]["release"] == "p"
