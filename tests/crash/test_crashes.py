"""Layer A: for each scenario and each failpoint in it, a process dies there, and nothing is lost.

The failpoints of a scenario are those that it reaches without a fault. After each death the dead
process is replaced, and when all is quiet the witnesses are held against the database.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from crash.conftest import Keep
from harness.cases import RECOVERY_LIMIT_S, run_case, wait_until_quiet
from harness.crash import LEASE_S, Asked, CrashStack, Row
from harness.evidence import check_counters, check_whole, gather
from harness.scenarios import PAID, SCENARIOS, Scenario
from harness.waiting import wait_for
from mpesa_gateway.usecases.callbacks import POISON_AFTER

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# What a process does now and then, and not because of a payment: one scenario is enough.
SLOW_ROUNDS = ("ages.", "report.", "watch.", "high_water.", "recovery.look")
# Rarer than any case can wait for; tests/integration/test_months.py has two workers at it at once.
RARE_ROUNDS = ("months.",)
# Reached only where Safaricom takes its time over a push; that has a case of its own below.
RENEWAL = "push.renew"
RENEWALS = (f"{RENEWAL}.before", f"{RENEWAL}.after")
# Longer than it takes until a lease is renewed.
SLOW_PUSH_S = 2 * LEASE_S
POISON_PHONE = "254799990000"
POISON_KEY = "6f9b1c1e-0b43-4f43-9a53-0f3f6f5d7a11"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda it: it.name.replace(" ", "-"))
def test_a_death_at_any_failpoint_loses_and_doubles_nothing(
    scenario: Scenario, stack: CrashStack, keep: Keep
) -> None:
    numbers = itertools.count(1)
    names = discover(stack, scenario, numbers)
    whole = check_counters(stack)
    cases = [run_case(stack, scenario, name, numbers) for name in names]
    whole += check_whole(stack)
    keep(
        scenario.name,
        {"scenario": scenario.name, "cases": [asdict(it) for it in cases], "whole": whole},
    )

    assert len(names) >= 20, "the scenario reaches too few failpoints to prove anything"
    assert [it.failpoint for it in cases if not it.died] == [], "nobody died there"
    broken = {it.failpoint: it.problems for it in cases if it.problems}
    assert (broken, whole) == ({}, [])


def discover(stack: CrashStack, scenario: Scenario, numbers: Iterator[int]) -> list[str]:
    """Run it without a fault, with a token at hand and without; the failpoints that it reached."""
    names: list[str] = []
    for fresh_token in (True, False):
        stack.hits()
        if fresh_token:
            stack.expire_tokens()
        asked = scenario.begin("without a fault", next(numbers))
        scenario.tell(stack, asked)
        wait_until_quiet(stack, asked)
        names += stack.hits()
        found = gather(stack, [asked], faults=0, webhooks=scenario.webhooks)
        assert found.problems() == []
        assert len(found.webhooks) == scenario.webhooks, "a fault-free run told it more than once"
    left_out = (RENEWAL, *RARE_ROUNDS, *(() if scenario is PAID else SLOW_ROUNDS))
    return [name for name in sorted(set(names)) if not name.startswith(left_out)]


def test_a_death_while_a_lease_is_renewed_loses_and_doubles_nothing(
    stack: CrashStack, keep: Keep
) -> None:
    numbers = itertools.count(1)
    stack.simulator.change(push_delay=SLOW_PUSH_S)
    cases = [run_case(stack, PAID, name, numbers) for name in RENEWALS]
    whole = check_whole(stack)
    keep(
        "slow push",
        {"scenario": "slow push", "cases": [asdict(it) for it in cases], "whole": whole},
    )

    assert [it.died for it in cases] == [True] * len(RENEWALS)
    assert [it.problems for it in cases] == [[]] * len(RENEWALS)
    assert whole == []


# --- L4: a row that fails whenever it is worked on delays nobody ----------------------------------


def test_a_poisoned_row_delays_nobody_even_when_its_worker_dies(stack: CrashStack) -> None:
    numbers = itertools.count(1)
    poison(stack)
    stack.arm("callback.count_failure.before")
    stack.ask(Asked("poison", "default", POISON_PHONE, POISON_KEY, "10", "/hook/poison"))
    wait_for(stack.has_died, timeout_s=RECOVERY_LIMIT_S, what="the death before it is counted")
    stack.arm("callback.count_failure.after")
    beside = [PAID.begin("beside the poison", next(numbers)) for _ in range(10)]
    for asked in beside:
        PAID.tell(stack, asked)
        wait_until_quiet(stack, asked)
    wait_for(stack.has_died, timeout_s=RECOVERY_LIMIT_S, what="the death after it was counted")

    found = gather(stack, beside, faults=1, webhooks=1)
    assert [row["status"] for row in found.transactions] == ["COMPLETED"] * len(beside)
    assert found.problems() == []
    # Counted, and not only once where the machine took longer than its next try waits.
    row = poisoned(stack)
    assert row["attempts"] >= 1
    assert row["state"] == ("RECEIVED" if row["attempts"] < POISON_AFTER else "QUARANTINED")


def poison(stack: CrashStack) -> None:
    """Whose row cannot be ended."""
    stack.rows(
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.phone = '{POISON_PHONE}' AND NEW.status <> 'PENDING' THEN"
        " RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;"
        " CREATE TRIGGER poison BEFORE UPDATE ON transactions"
        " FOR EACH ROW EXECUTE FUNCTION poison()"
    )


def poisoned(stack: CrashStack) -> Row:
    (row,) = stack.rows(
        "SELECT c.state, c.attempts FROM callbacks c JOIN transactions t ON t.id = c.transaction_id"
        " WHERE t.phone = %s",
        POISON_PHONE,
    )
    return row
