"""The same faults for the strawman of tests/naive and for the gateway: it loses, this one does not.

What the strawman shows is that the faults are real ones; were it 0 too, they would prove nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.columns import Counts, run_plan
from harness.crash import crash_stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SEEDS = [int(it) for it in os.environ.get("SEEDS", "1 2").split()]
STRAWMAN = Path(__file__).with_name("gateway.py")


def keep(counts: Counts) -> None:
    """Where scripts/naive_suite.py finds it."""
    directory = os.environ.get("MPESA_NAIVE_RESULTS")
    if directory:
        file = Path(directory) / f"{counts.seed}-{counts.gateway}.json"
        file.write_text(json.dumps({**asdict(counts), "harm": counts.harm}))


def test_plain_huey_does_everything_once_where_there_is_no_fault(
    own_directory: Path, empty_database_url: str, redis_url: str
) -> None:
    """So what it loses below, it loses by the faults."""
    with crash_stack(
        own_directory, empty_database_url, redis_url, program=[str(STRAWMAN)]
    ) as stack:
        counts = run_plan(stack, "plain Huey without a fault", SEEDS[0], faults_each=0)

    assert counts.harm == 0, counts
    assert counts.told_again == 0
    assert counts.callbacks >= counts.payments


@pytest.mark.parametrize("seed", SEEDS)
def test_plain_huey_loses(
    seed: int, own_directory: Path, empty_database_url: str, redis_url: str
) -> None:
    with crash_stack(
        own_directory, empty_database_url, redis_url, program=[str(STRAWMAN)]
    ) as stack:
        counts = run_plan(stack, "plain Huey, retries=5", seed)
    keep(counts)

    assert counts.lost > 0
    assert counts.double_charged > 0
    assert counts.never_told > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gateway_loses_nothing(
    seed: int, own_directory: Path, database_url: str, redis_url: str
) -> None:
    with crash_stack(own_directory, database_url, redis_url) as stack:
        counts = run_plan(stack, "mpesa-gateway", seed)
    keep(counts)

    assert counts.harm == 0, counts
    assert counts.callbacks >= counts.payments // 2, "too few callbacks to prove anything"
