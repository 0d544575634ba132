"""Layer A: for each scenario and each failpoint in it, a process dies there, and nothing is lost.

The failpoints of a scenario are those that it reaches without a fault. After each death the dead
process is replaced, and when all is quiet the witnesses are held against the database.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import pytest

from crash.conftest import Keep
from harness.crash import LONG_PIN_TIME_S, PIN_TIME_S, Asked, CrashStack, Row
from harness.evidence import check_counters, check_whole, gather
from harness.scenarios import PAID, SCENARIOS, Scenario
from harness.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# The issue's own: work goes on, and a backlog is gone, within 30 s.
RECOVERY_LIMIT_S = 30.0
TRIES = 3
# The API dies of these while a client waits for it: the customer needs longer for the PIN.
BEFORE_THE_PROMPT = ("initiate.", "token.", "daraja.token", "daraja.push", "push.", "budget.")
# What a worker does now and then, whatever arrives; and of that what takes seconds to come round.
ROUNDS = ("sweep.list", "ages.", "report.")
SLOW_ROUNDS = ("ages.", "report.")
ROUND_LIMIT_S = 8.0
WITH_A_FRESH_TOKEN = ("token.", "daraja.token")
POISON_PHONE = "254799990000"
POISON_KEY = "6f9b1c1e-0b43-4f43-9a53-0f3f6f5d7a11"


@dataclass
class Case:
    """What a death at one failpoint came to."""

    failpoint: str
    died: bool = False
    tries: int = 0
    recovery_s: float = 0.0
    status: str = ""
    problems: list[str] = field(default_factory=list)


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
    left_out = () if scenario is PAID else SLOW_ROUNDS
    return [name for name in sorted(set(names)) if not name.startswith(left_out)]


def run_case(stack: CrashStack, scenario: Scenario, name: str, numbers: Iterator[int]) -> Case:
    """Arm the failpoint and tell the story, until somebody died of it."""
    case = Case(name)
    while not case.died and not case.problems and case.tries < TRIES:
        case.tries += 1
        tell(stack, scenario, case, scenario.begin(name, next(numbers)))
    return case


def tell(stack: CrashStack, scenario: Scenario, case: Case, asked: Asked) -> None:
    early = case.failpoint.startswith(BEFORE_THE_PROMPT)
    stack.simulator.change(callback_delay=LONG_PIN_TIME_S if early else PIN_TIME_S)
    if case.failpoint.startswith(WITH_A_FRESH_TOKEN):
        stack.expire_tokens()
    stack.arm(case.failpoint)
    began = time.monotonic()
    scenario.tell(stack, asked)
    try:
        wait_until_quiet(stack, asked)
    except AssertionError as error:
        case.problems.append(f"L1 not settled within {RECOVERY_LIMIT_S:.0f} s: {error}")
    case.recovery_s = round(time.monotonic() - began, 2)
    if case.failpoint.startswith(ROUNDS):
        with contextlib.suppress(AssertionError):
            wait_for(stack.has_died, timeout_s=ROUND_LIMIT_S)
    case.died = stack.disarm()
    stack.wait_until_answering()
    found = gather(stack, [asked], faults=int(case.died), webhooks=scenario.webhooks)
    case.status = ", ".join(row["status"] for row in found.transactions)
    case.problems += found.problems()


def wait_until_quiet(stack: CrashStack, asked: Asked) -> None:
    """Its callbacks came, it ended, and its merchant was told."""

    def is_quiet() -> bool:
        stack.simulator.wait_until_idle()
        return stack.is_quiet(asked.phone)

    wait_for(is_quiet, timeout_s=RECOVERY_LIMIT_S, what="an end for this payment")


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
    assert poisoned(stack) == {"state": "RECEIVED", "attempts": 1}


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
