"""Real gateways, really broken, watched by a real Prometheus with the chart's rules, sped up."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.alerts import alert_rules
from harness.faulty_worlds import HEALTHY, PHASES, Phase, Run, ringing_of, run_all
from harness.scaled_rules import scaled

BY_PHASE = [
    pytest.param(phase, id=", ".join(phase.faults))
    for phases in PHASES.values()
    for phase in phases
]
pytestmark = pytest.mark.timeout(400)
# The tests' Postgres has fsync off, which this alert is about: it is right, in every world.
NOT_DURABLE = ("MpesaDatabaseNotDurable", "ticket")


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    # Short, because of Postgres's socket.
    with tempfile.TemporaryDirectory(prefix="mpesa-test-") as directory:
        yield run_all(Path(directory))


def test_a_healthy_gateway_rings_nothing(run: Run) -> None:
    assert HEALTHY in run.scraped
    assert run.ever[HEALTHY] == {NOT_DURABLE}


@pytest.mark.parametrize("phase", BY_PHASE)
def test_a_fault_rings_what_the_page_says(
    run: Run, phase: Phase, record_testsuite_property: Callable[[str, object], None]
) -> None:
    seen, wanted = run.seen[phase.faults], ringing_of(*phase.faults)
    record_testsuite_property(", ".join(phase.faults), f"{seen.after_s:.0f} s")
    assert wanted
    assert not wanted & seen.before
    assert wanted <= seen.rang


@pytest.mark.parametrize("world", PHASES)
def test_nothing_else_rings(run: Run, world: str) -> None:
    told = ringing_of(*(fault for phase in PHASES[world] for fault in phase.faults))
    assert run.ever[world] == told | {NOT_DURABLE}


def test_the_rules_are_those_of_the_chart_sixty_times_as_fast() -> None:
    rules = {it["alert"]: scaled(it) for it in alert_rules() if it["labels"]["severity"] == "page"}
    missing = rules["MpesaCallbacksMissing"]
    assert (missing["for"], "[30s] offset 2s" in missing["expr"]) == ("5s", True)
    assert "errors_rate1h * 60 > 4" in rules["MpesaInitiateFailing"]["expr"]
