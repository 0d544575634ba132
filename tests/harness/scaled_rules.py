"""The chart's alert rules, sixty times as fast: a minute of theirs is a second.

Windows, `offset` and `for` are divided, and so is what counts errors in a window (`rate * 3600`).
Ages are left as they are: they are compared with the patience of people and with our own rounds
(a sweep, a heartbeat), and a sixtieth of it would be shorter than one round. So MpesaCallbackStuck,
MpesaWebhookStuck, MpesaPaymentsStuckPending, MpesaConfigStale and MpesaOperatorSilent cannot ring
here; promtool has them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from harness.alerts import rendered_groups

FACTOR = 60
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?P<before>\[|offset )(?P<number>\d+)(?P<unit>[smhd])\b")
_COUNT = re.compile(r"\* (3600|21600|259200) >")


def scaled(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule with a sixtieth of its times, without its words."""
    expr = _DURATION.sub(
        lambda it: it["before"] + _shorter(it["number"] + it["unit"]), rule["expr"]
    )
    expr = _COUNT.sub(lambda it: f"* {int(it[1]) // FACTOR} >", expr)
    found: dict[str, Any] = {it: rule[it] for it in ("alert", "record", "labels") if it in rule}
    found["expr"] = expr
    if "for" in rule:
        found["for"] = _shorter(rule["for"])
    return found


def _shorter(duration: str) -> str:
    seconds = int(duration[:-1]) * _SECONDS[duration[-1]]
    if seconds % FACTOR == 0:
        return f"{seconds // FACTOR}s"
    return f"{seconds * 1000 // FACTOR}ms"


def write_scaled_rules(path: Path) -> Path:
    """All of them, as one file for Prometheus."""
    groups = [
        {"name": group["name"], "rules": [scaled(rule) for rule in group["rules"]]}
        for group in rendered_groups()
    ]
    path.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    return path
