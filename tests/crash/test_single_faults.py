"""One fault at one place: quick cases, each of which one planted bug cannot get past.

tests/planted has the bugs; scripts/planted_suite.py demands that each is caught by the case that
its header names. Without a bug all of these pass, as part of `make test-crash`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from harness.cases import RECOVERY_LIMIT_S, run_case, wait_until_quiet
from harness.crash import Asked, CrashStack, crash_stack
from harness.evidence import check_counters, check_whole, gather
from harness.receiver import Answer
from harness.scenarios import PAID, Scenario, once
from harness.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CUT = Scenario("push answer cut", "5040", once)
CONTRADICTED = Scenario("query contradicts callback", "7002", once)
DEATHS = (
    (PAID, "inbox.keep.before"),
    (PAID, "work.callback.begin"),
    (PAID, "daraja.push.after"),
    (PAID, "webhook.post.before"),
    (PAID, "webhook.post.after"),
    (CUT, "push.record.before_commit"),
)
# Long enough that nobody takes over from a worker that is only told to wait a moment.
LONG_LEASE = "4s"
THIRD_COPY_WAIT_S = 1.0
# Queries are due after one and after two seconds: by then a failure would be believed.
QUERIES_MADE_S = 4.0


@pytest.mark.parametrize(
    ("scenario", "name"), DEATHS, ids=lambda it: getattr(it, "name", it).replace(" ", "-")
)
def test_a_death_at_this_failpoint_loses_and_doubles_nothing(
    scenario: Scenario, name: str, stack: CrashStack
) -> None:
    case = run_case(stack, scenario, name, itertools.count(1))

    assert case.problems == []
    assert case.died


def test_without_a_fault_everything_is_done_once(stack: CrashStack) -> None:
    asked = PAID.begin("without a fault", 1)
    PAID.tell(stack, asked)
    wait_until_quiet(stack, asked)
    found = gather(stack, [asked], faults=0, webhooks=1)

    assert found.problems() == []
    assert len(found.webhooks) == 1
    assert [*check_counters(stack), *check_whole(stack)] == []


def test_redis_emptied_between_the_200_and_the_work_loses_nothing(stack: CrashStack) -> None:
    asked = PAID.begin("FLUSHALL", 1)
    stack.pause_workers()
    PAID.tell(stack, asked)
    wait_for(lambda: statuses(stack, asked), timeout_s=RECOVERY_LIMIT_S, what="a callback")
    stack.empty_redis()
    stack.resume_workers()
    wait_until_quiet(stack, asked)

    assert statuses(stack, asked) == [200]
    assert gather(stack, [asked], faults=0, webhooks=1).problems() == []


def statuses(stack: CrashStack, asked: Asked) -> list[int]:
    """How each of its callbacks was answered."""
    return [it["status"] for it in stack.simulator.ledger(phone=asked.phone)["callbacks"]]


def test_no_query_settles_what_a_callback_in_the_inbox_will_settle(stack: CrashStack) -> None:
    stack.simulator.change(late_delay=0.0)
    asked = CONTRADICTED.begin("the callback cannot be applied yet", 1)
    stack.rows(
        "CREATE FUNCTION not_yet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'not yet'; END $$;"
        " CREATE TRIGGER not_yet BEFORE UPDATE ON callbacks FOR EACH ROW"
        " WHEN (NEW.state = 'APPLIED') EXECUTE FUNCTION not_yet()"
    )
    CONTRADICTED.tell(stack, asked)
    wait_for(lambda: statuses(stack, asked) == [200], what="a callback")
    threading.Event().wait(QUERIES_MADE_S)
    stack.rows("DROP TRIGGER not_yet ON callbacks")
    wait_until_quiet(stack, asked)
    found = gather(stack, [asked], faults=0, webhooks=1)

    assert found.problems() == []
    assert [row["status"] for row in found.transactions] == ["COMPLETED"]


# --- A worker that comes back after its lease -----------------------------------------------------


class SlowEndpoint:
    """Holds the first request until a second worker has taken over, and then refuses it.

    The second is held for a moment, in which nobody else may try.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._second_came = threading.Event()
        self._third_came = threading.Event()

    def act(self, handler: BaseHTTPRequestHandler) -> None:
        number = next(self._numbers)
        if number == 1:
            self._second_came.wait(RECOVERY_LIMIT_S)
        elif number == 2:
            self._second_came.set()
            self._third_came.wait(THIRD_COPY_WAIT_S)
        else:
            self._third_came.set()
        handler.send_response(500 if number == 1 else 200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@pytest.fixture
def patient_stack(own_directory: Path, database_url: str, redis_url: str) -> Iterator[CrashStack]:
    with crash_stack(own_directory, database_url, redis_url, lease=LONG_LEASE) as running:
        yield running


def test_a_worker_that_answers_after_its_lease_decides_nothing(patient_stack: CrashStack) -> None:
    stack = patient_stack
    stack.receiver.default = Answer(act=SlowEndpoint().act)
    asked = PAID.begin("a lease runs out", 1)
    PAID.tell(stack, asked)
    wait_until_quiet(stack, asked)

    # The lease that ran out explains one more copy, and no more than one.
    found = gather(stack, [asked], faults=1, webhooks=1)
    assert found.problems() == []
    assert len(found.webhooks) == 2
