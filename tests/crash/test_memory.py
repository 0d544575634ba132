"""What only a process knows, while it dies: callbacks that were answered 503, and lost rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from harness.cases import RECOVERY_LIMIT_S, wait_until_quiet
from harness.crash import Asked, CrashStack, crash_stack
from harness.evidence import gather
from harness.scenarios import PAID
from harness.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# No query settles what the callback must settle.
SETTINGS = {"query_schedule": "1h"}
# As a loss is written again: payments, their outcomes, callbacks, and each one's line.
WHILE_WRITING_AGAIN = ("recovery.find.before", "recovery.list.after", "recovery.callbacks.before")
GUARDS = {
    "transaction_events": "append_only",
    "webhook_attempts": "guard_attempt",
    "transactions": "refuse_to_forget",
}


@pytest.fixture
def spool(own_directory: Path) -> Path:
    return own_directory / "spool"


@pytest.fixture
def stack(
    own_directory: Path, spool: Path, database_url: str, redis_url: str
) -> Iterator[CrashStack]:
    settings = {**SETTINGS, "spool_dir": str(spool)}
    with crash_stack(own_directory, database_url, redis_url, **settings) as running:
        yield running


def test_a_callback_that_was_answered_503_survives_the_death_of_who_held_it(
    stack: CrashStack, spool: Path
) -> None:
    asked = PAID.begin("held", 1)
    refuse_callbacks(stack)
    PAID.tell(stack, asked)
    wait_for(lambda: list(spool.glob("callback-*.entry")), what="the callback on the disk")
    wait_for(lambda: statuses(stack, asked) == [503], what="the answer to the callback")
    # It is tried again and again; the next try is the last thing that this process does.
    stack.arm("inbox.keep.before")
    wait_for(stack.has_died, timeout_s=RECOVERY_LIMIT_S, what="the death of the API")
    assert stack.rows("SELECT id FROM callbacks") == []
    stack.rows("DROP TRIGGER refuse ON callbacks")
    stack.wait_until_answering()
    wait_until_quiet(stack, asked)

    found = gather(stack, [asked], faults=1, webhooks=1)
    assert found.problems() == []
    assert statuses(stack, asked) == [503]
    assert [bool(row["receipt"]) for row in found.transactions] == [True]
    wait_for(lambda: not list(spool.glob("*.entry")), what="an empty spool")


def statuses(stack: CrashStack, asked: Asked) -> list[int]:
    """How each of its callbacks was answered."""
    return [it["status"] for it in stack.simulator.ledger(phone=asked.phone)["callbacks"]]


def refuse_callbacks(stack: CrashStack) -> None:
    """As Postgres does that has no room for them."""
    stack.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON callbacks"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


def test_a_death_while_lost_rows_are_written_again_debits_nobody_twice(stack: CrashStack) -> None:
    for name, number in zip(WHILE_WRITING_AGAIN, itertools.count(1), strict=False):
        asked = PAID.begin(name, number)
        PAID.tell(stack, asked)
        wait_until_quiet(stack, asked)
        wait_until_seen_by_the_api(stack)
        stack.arm(name)
        lose(stack, asked)
        wait_for(stack.has_died, timeout_s=RECOVERY_LIMIT_S, what=f"the death at {name}")
        stack.wait_until_answering()

        # The hold was written first, and outlives who wrote it.
        assert post_until_answered(stack, PAID.begin("held", 100 + number)) == "recovery", name
        # The same key again: the row is there, or the hold keeps it from being pushed.
        assert post_until_answered(stack, asked) in {"recovery", "201"}, name
        stack.rows(
            "UPDATE recovery_holds SET accepted_at = now(), accepted_by = 'a test',"
            " accepted_reason = 'it is known' WHERE accepted_at IS NULL"
        )
        wait_until_paid(stack, PAID.begin("again", 200 + number))
        assert post_until_answered(stack, asked) == "201", name
    phones = [it["phone"] for it in stack.simulator.ledger()["debits"]]
    assert len(phones) == len(set(phones))


def wait_until_seen_by_the_api(stack: CrashStack) -> None:
    """A look that begins now has ended: what comes and goes between two looks is not missed."""
    stack.pause_workers()
    stack.hits()
    for step in ("recovery.look.before", "recovery.look.after"):
        wait_for(lambda it=step: it in stack.hits(), what=f"the API's {step}")  # type: ignore[misc]
    stack.resume_workers()


def wait_until_paid(stack: CrashStack, asked: Asked) -> None:
    """Once each process has seen the operator's word."""
    wait_for(
        lambda: post_until_answered(stack, asked) == "201",
        timeout_s=RECOVERY_LIMIT_S,
        what="payments after the operator's word",
    )


def lose(stack: CrashStack, asked: Asked) -> None:
    """As a restore does: the payment and all that hangs on it, in one transaction."""
    mine = f"(SELECT id FROM transactions WHERE phone = '{asked.phone}')"
    steps = [
        *(f"ALTER TABLE {table} DISABLE TRIGGER {name}" for table, name in GUARDS.items()),
        *(
            f"DELETE FROM {table} WHERE transaction_id IN {mine}"
            for table in ("transaction_events", "webhook_attempts", "callbacks", "deliveries")
        ),
        f"DELETE FROM transactions WHERE phone = '{asked.phone}'",
        *(f"ALTER TABLE {table} ENABLE TRIGGER {name}" for table, name in GUARDS.items()),
    ]
    stack.rows("; ".join(steps))


def post_until_answered(stack: CrashStack, asked: Asked) -> str:
    """201, or the name of the problem; `unavailable` and what is under way are asked again."""

    def answer() -> str:
        try:
            response = stack.post(asked)
        except requests.RequestException:
            return ""
        if response.status_code == 201:
            return "201"
        said = str(response.json()["type"]).rpartition("/")[2]
        return "" if response.status_code in {409, 503} and said != "recovery" else said

    return wait_for(answer, timeout_s=RECOVERY_LIMIT_S, what="an answer")
