"""One death at one failpoint: arm it, tell the story, wait until quiet, hear the witnesses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.crash import LONG_PIN_TIME_S, PIN_TIME_S, Asked, CrashStack
from harness.evidence import gather
from harness.scenarios import Scenario
from harness.waiting import wait_for

# The issue's own: work goes on, and a backlog is gone, within 30 s.
RECOVERY_LIMIT_S = 30.0
TRIES = 3
# The API dies of these while a client waits for it: the customer needs longer for the PIN.
BEFORE_THE_PROMPT = ("initiate.", "token.", "daraja.token", "daraja.push", "push.", "budget.")
# What a process does now and then, whatever arrives, comes round within this time.
ROUND_LIMIT_S = 8.0
WITH_A_FRESH_TOKEN = ("token.", "daraja.token")


@dataclass
class Case:
    """What a death at one failpoint came to."""

    failpoint: str
    died: bool = False
    tries: int = 0
    recovery_s: float = 0.0
    status: str = ""
    problems: list[str] = field(default_factory=list)


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
