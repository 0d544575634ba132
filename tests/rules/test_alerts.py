"""Each alert rings when it should and keeps silent when it should (promtool, on the chart)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from harness import shell
from harness.alerts import (
    RULES,
    Case,
    alert_names,
    alert_rules,
    failures,
    groups_of_files,
    promtool,
    write_rules,
)
from harness.payment_alerts import PAYMENT_CASES
from harness.platform_alerts import PLATFORM_CASES

CASES = PAYMENT_CASES + PLATFORM_CASES
# What the specification promises, in percent.
OBJECTIVES = {
    "callback_ack": 99.95,
    "callback_lag": 99.9,
    "webhook_first_attempt": 99.9,
    "initiate": 99.5,
}
BURNING = {
    "MpesaCallbackAckFailing": "callback_ack",
    "MpesaCallbackSlow": "callback_lag",
    "MpesaWebhookSlow": "webhook_first_attempt",
    "MpesaInitiateFailing": "initiate",
}


@pytest.mark.parametrize("name", sorted({case.alert for case in CASES}))
def test_the_alert_rings_when_it_should(name: str, tmp_path: Path) -> None:
    assert not failures([case for case in CASES if case.alert == name], tmp_path)


def test_a_wrong_expectation_is_found(tmp_path: Path) -> None:
    """promtool's own word is taken for it, so it must be able to say no."""
    case = next(it for it in CASES if it.alert == "MpesaCallbackStuck" and it.rings)
    for rings in ((), ("ticket",)):
        wrong = Case(case.alert, case.world, case.minute, rings, case.series)
        assert "FAILED" in failures([wrong], tmp_path)


def test_every_alert_has_a_world_in_which_it_rings_and_one_in_which_it_does_not() -> None:
    assert {it.alert for it in CASES if not it.rings} == set(alert_names())
    rung = {(case.alert, severity) for case in CASES for severity in case.rings}
    assert rung == {(rule["alert"], rule["labels"]["severity"]) for rule in alert_rules()}


def test_promtool_takes_the_rules_of_each_file(tmp_path: Path) -> None:
    files = sorted(map(str, RULES.glob("*.yaml")))
    done = shell.run(promtool(), "check", "rules", "--lint-fatal", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    done = shell.run(promtool(), "check", "rules", "--lint-fatal", str(write_rules(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_file_of_its_name() -> None:
    for path in RULES.glob("*.yaml"):
        groups = yaml.safe_load(path.read_text("utf-8"))["groups"]
        names = {rule.get("alert") for group in groups for rule in group["rules"]}
        assert names == ({None} if path.stem.startswith("slo-") else {path.stem}), path.name


def test_every_alert_says_what_it_means() -> None:
    for rule in alert_rules():
        assert rule["alert"].startswith("Mpesa")
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
        assert {"summary", "description"} <= set(rule["annotations"]), rule["alert"]
        assert len(rule["annotations"]["summary"]) <= 60, rule["alert"]


@pytest.mark.parametrize(("name", "slo"), BURNING.items())
def test_burn_rates_are_those_of_the_objective(name: str, slo: str) -> None:
    """14.4 times over 1 h and 5 m, 6 times over 6 h and 30 m, once over 3 d and 6 h."""
    text = " ".join(rule["expr"] for rule in alert_rules() if rule["alert"] == name)
    found = re.findall(rf"mpesa:{slo}:error_ratio_rate(\w+) > \((\S+) \* (\S+)\)", text)
    budget = f"{1 - OBJECTIVES[slo] / 100:.4f}".rstrip("0")
    windows = [("1h", "14.4"), ("5m", "14.4"), ("6h", "6"), ("30m", "6"), ("3d", "1"), ("6h", "1")]
    assert found == [(window, factor, budget) for window, factor in windows]


def test_what_alerts_ask_of_recording_rules_is_recorded() -> None:
    rules = [rule for group in groups_of_files() for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    asked = {name for rule in rules for name in re.findall(r"mpesa:\w+:\w+", rule["expr"])}
    assert asked == recorded
