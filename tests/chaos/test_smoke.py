"""The shortest chaos run: it kills, stops and cuts, and the checker has something to check."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.chaos import Run
from harness.chaos_evidence import ChaosEvidence, gather_chaos
from harness.chaos_losses import Losses
from harness.chaos_stack import chaos_stack
from harness.nemesis_plan import Fault
from mpesa_demo.ending import Ending

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SEED = 5
DURATION_S = 15.0
PAYMENTS_PER_S = 3.0
PLAN = [
    Fault(3.0, "swallow commits", "network", 6.0, 5),
    Fault(4.0, "kill worker", "worker-1"),
    Fault(5.0, "kill postgres", "postgres"),
    Fault(7.0, "flushall", "redis"),
    Fault(8.0, "stop api", "api-1", 3.0),
]


def test_a_short_run_loses_and_doubles_nothing_and_its_checker_can_tell(
    own_directory: Path,
) -> None:
    with Ending() as ending, chaos_stack(own_directory) as stack:
        pids = [pid for server in stack.servers.values() for pid in server.pids()]
        report = Run(stack, PLAN, SEED, DURATION_S, PAYMENTS_PER_S, ending).run()
        evidence = gather_chaos(stack, [])

    assert report["problems"] == []
    assert (report["lost"], report["double_charged"]) == (0, 0)
    assert report["kills"] == {"kill postgres": 1, "kill worker": 1}
    assert report["faults"] == dict.fromkeys(sorted(it.kind for it in PLAN), 1)
    assert report["network"]["swallowed"] > 0
    assert report["payments"] > 20
    assert report["callbacks_answered_200"] > 10
    assert not any(runs(pid) for pid in pids)
    check_the_checker(evidence)


def runs(pid: int) -> bool:
    """Whether it has not ended; one that nobody has waited for yet has ended."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def check_the_checker(evidence: ChaosEvidence) -> None:
    """What was found good is found bad once a witness says something else."""
    charged = evidence.ledger["debits"][0]
    twice = {**evidence.ledger, "debits": [*evidence.ledger["debits"], charged]}
    assert "S2" in " ".join(replace(evidence, ledger=twice).doubled())
    unheard = {
        **evidence.ledger,
        "callbacks": [
            {**it, "body": it["body"] + " "} if it["status"] == 200 else it
            for it in evidence.ledger["callbacks"]
        ],
    }
    assert "S1" in " ".join(replace(evidence, ledger=unheard).lost())
    gone = [it for it in evidence.transactions if it["phone"] != charged["phone"]]
    assert "S1" in " ".join(replace(evidence, transactions=gone).lost())
    # Even where rows may have been lost, an operator must be told of each.
    losing = replace(evidence, transactions=gone, losses=Losses(windows=((0.0, math.inf),)))
    assert any("no payment" in it for it in losing.lost())
    assert any("an id that we do not know" in it for it in losing.lost())
    (asked,) = [it for it in evidence.asked if it.phone == charged["phone"]]
    line = {"kind": "payment", "payment": asked.answers[0][1]["transaction_id"], "about": ""}
    told = replace(losing, losses=replace(losing.losses, lost=(line,)))
    assert not [it for it in told.lost() if "no payment" in it or "do not know" in it]
    untried = replace(evidence, attempts=[])
    assert "S8" in " ".join(untried.problems())
