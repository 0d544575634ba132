"""Alert rules of the chart, and Prometheus' own test of them (promtool)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from harness import shell
from harness.helm import CHART, only, render
from harness.needs import need

ROOT = Path(__file__).resolve().parents[2]
RULES = CHART / "files" / "rules"
NAMESPACE = "shop"
VALUES = {"metrics": {"prometheusRule": {"enabled": True}}}
PAGE, TICKET, SILENT = ("page",), ("ticket",), ()
BOTH = ("page", "ticket")

A_DAY = 24 * 60

Rule = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What Prometheus sees, and which severities of the alert ring at that minute.

    `series` are promtool's: a name with labels, and values a minute apart (`0+2x60` counts two a
    minute, `_x9` is nine minutes without a sample). Each gets the label namespace. `fault` is the
    row of docs/alerts.md that the case proves.
    """

    alert: str
    world: str
    minute: int
    rings: tuple[str, ...]
    series: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)
    fault: str = ""

    def as_promtool(self) -> dict[str, Any]:
        """A test group of promtool's."""
        labels = {"namespace": NAMESPACE, **self.labels}
        expected = [{"exp_labels": {"severity": it, **labels}} for it in self.rings]
        return {
            "name": f"{self.alert}: {self.world}",
            "interval": "1m",
            "input_series": [
                {"series": with_namespace(name), "values": values}
                for name, values in self.series.items()
            ],
            "alert_rule_test": [
                {
                    "eval_time": f"{self.minute}m",
                    "alertname": self.alert,
                    "exp_alerts": expected,
                }
            ],
        }


def with_namespace(series: str) -> str:
    """The series with the label that Prometheus adds."""
    name, brace, labels = series.partition("{")
    own = f'namespace="{NAMESPACE}"'
    return f"{name}{{{own},{labels}" if brace else f"{name}{{{own}}}"


def groups_of_files() -> list[Rule]:
    """The rule groups as they stand in the chart's files."""
    return [
        group
        for path in sorted(RULES.glob("*.yaml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]


@cache
def rendered_groups() -> list[Rule]:
    """The rule groups as Helm renders them; those of the files where there is no Helm.

    That is enough: nothing in the files is a template, and a test of the chart compares the two.
    """
    if shutil.which("helm") is None:
        return groups_of_files()
    groups: list[Rule] = only(render(VALUES), "PrometheusRule")["spec"]["groups"]
    return groups


def alert_rules() -> list[Rule]:
    """Every alert rule; an alert may have one for each severity."""
    return [rule for group in rendered_groups() for rule in group["rules"] if "alert" in rule]


def alert_names() -> list[str]:
    """Every alert, once."""
    return sorted({rule["alert"] for rule in alert_rules()})


def promtool() -> str:
    """The program: on the PATH, or where scripts/prometheus has unpacked it."""
    unpacked = ROOT / ".tools" / "prometheus" / "usr" / "bin"
    found = shutil.which("promtool", path=f"{os.environ.get('PATH', '')}{os.pathsep}{unpacked}")
    need(found, "promtool is not on the PATH (make test-rules fetches it)")
    assert found is not None
    return found


def write_rules(directory: Path, *alerts: str) -> Path:
    """The rules as one file: all of them, or those alerts and what they ask for.

    Without the annotations: their wording is not what is tested.
    """
    groups = [
        {**group, "rules": [_unworded(rule) for rule in group["rules"]]}
        for group in rendered_groups()
        if not alerts or _belongs(group, alerts)
    ]
    path = directory / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    return path


def _unworded(rule: Rule) -> Rule:
    return {key: value for key, value in rule.items() if key != "annotations"}


def _belongs(group: Rule, alerts: tuple[str, ...]) -> bool:
    """Whether the group is one of these alerts, or records what one of them asks for."""
    asked = " ".join(rule["expr"] for rule in alert_rules() if rule["alert"] in alerts)
    return any(
        rule.get("alert") in alerts or rule.get("record", " ") in asked.split()
        for rule in group["rules"]
    )


def failures(cases: Iterable[Case], directory: Path) -> str:
    """What promtool finds wrong; empty when every case is as expected."""
    problems = ""
    chosen = list(cases)
    rules = write_rules(directory, *{case.alert for case in chosen})
    groups = yaml.safe_load(rules.read_text("utf-8"))["groups"]
    for interval, mine in (
        ("1m", [it for it in chosen if it.minute < A_DAY]),
        # Three days a minute at a time would take minutes; what was recorded is seen for five.
        ("4m", [it for it in chosen if it.minute >= A_DAY]),
    ):
        tests = {
            "rule_files": [rules.name],
            "evaluation_interval": interval,
            # What is recorded first, as it is by the second evaluation of a real Prometheus.
            "group_eval_order": [it["name"] for it in groups if "record" in it["rules"][0]],
            "tests": [case.as_promtool() for case in mine],
        }
        path = directory / f"tests-{interval}.yaml"
        path.write_text(yaml.safe_dump(tests), encoding="utf-8")
        done = shell.run(promtool(), "test", "rules", str(path))
        problems += "" if done.returncode == 0 else done.stdout + done.stderr
    return problems
