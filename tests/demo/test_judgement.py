"""The demo's check can fail: every way in which a payment can end wrong is told in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from daraja_simulator.outcomes import OUTCOMES, get_outcome
from harness.collecting import every_case
from mpesa_demo.judgement import Observed, cannot_change, find_problems
from mpesa_demo.receiver import Received
from mpesa_demo.scenarios import ENDINGS, SCENARIOS, Scenario
from mpesa_gateway.clients.json_call import Answer

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
RECEIPT = "HOFY8I2GV0"


def as_expected(scenario: Scenario) -> Observed:
    """What a payment looks like that ended as it must."""
    expected = scenario.expected
    if expected.status is None:
        errors = [{"field": name} for name in expected.bad_fields]
        return Observed(answers=(Answer(expected.answer, {}, {"errors": errors}),))
    headers = {"retry-after": "30"} if expected.answer == 503 else {}
    first = Answer(expected.answer, headers, {"transaction_id": "t-1"})
    replay = Answer(expected.answer, {"idempotent-replayed": "true"}, first.body)
    failure = expected.failure
    view = {
        "transaction_id": "t-1",
        "status": expected.status,
        "amount": str(scenario.amount),
        "push": expected.push,
        "receipt": RECEIPT if expected.receipt else None,
        "failure": {"code": failure[0], "reason": failure[1]} if failure else None,
        "settled_by": expected.settled_by,
        "attention": "Look at it." if expected.attention else None,
        "next_step": {"action": expected.next_step} if expected.next_step else None,
        "conflicts": [{"kind": expected.conflict}] if expected.conflict else [],
    }
    debit = {"amount": scenario.amount, "receipt": RECEIPT}
    return Observed(
        answers=(first, *[replay] * (scenario.clients - 1)),
        view=view,
        webhooks=tuple(
            Received("t-1", f"transaction.{kind}", f"msg_{number}")
            for number, kind in enumerate(expected.webhooks)
        ),
        pushes=1,
        debits=(debit,) if scenario.charged else (),
        queries=expected.queries,
        quarantined=expected.quarantined,
    )


def seen(name: str, **changes: Any) -> list[str]:
    """The problems of a payment that differs from what is expected in this."""
    scenario = BY_NAME[name]
    return find_problems(scenario, dataclasses.replace(as_expected(scenario), **changes))


def viewed(name: str, **changes: Any) -> list[str]:
    """The problems of a payment whose transaction differs in this."""
    view = as_expected(BY_NAME[name]).view
    assert view is not None
    return seen(name, view={**view, **changes})


def test_every_outcome_of_the_simulator_has_a_payment() -> None:
    assert set(ENDINGS) == {outcome.name for outcome in OUTCOMES}
    for name in ENDINGS:
        assert get_outcome(BY_NAME[name].phone).name == name


def test_no_two_payments_have_a_phone_or_an_amount_in_common() -> None:
    assert len({it.phone for it in SCENARIOS}) == len(SCENARIOS)
    assert len({it.amount for it in SCENARIOS}) == len(SCENARIOS)


@every_case("scenario", SCENARIOS, ids=lambda it: it.name)
def test_nobody_is_told_completed_without_having_paid(scenario: Scenario) -> None:
    if scenario.expected.status == "COMPLETED":
        assert scenario.charged
    if scenario.charged and scenario.expected.status != "COMPLETED":
        assert scenario.expected.conflict or scenario.expected.attention


@every_case("scenario", SCENARIOS, ids=lambda it: it.name)
def test_what_is_as_expected_has_no_problems(scenario: Scenario) -> None:
    assert find_problems(scenario, as_expected(scenario)) == []
    assert not cannot_change(scenario, as_expected(scenario))


@every_case("scenario", SCENARIOS, ids=lambda it: it.name)
def test_what_was_not_looked_at_has_problems(scenario: Scenario) -> None:
    assert find_problems(scenario, Observed())


def twice(received: tuple[Received, ...]) -> tuple[Received, ...]:
    return (*received, *received)


PAID = as_expected(BY_NAME["paid"])
ANSWER = PAID.answers[0]
WEBHOOK = PAID.webhooks[0]


@every_case(
    ("name", "changes", "said"),
    [
        ("paid", {"answers": ()}, "not answered"),
        ("paid", {"error": "ConnectionRefusedError"}, "failed: ConnectionRefusedError"),
        ("paid", {"answers": (dataclasses.replace(ANSWER, status=500),)}, "answered 500"),
        ("paid", {"view": None}, "no transaction"),
        ("paid", {"pushes": 2}, "2 pushes reached Safaricom"),
        ("paid", {"pushes": 0}, "0 pushes reached Safaricom"),
        ("paid", {"debits": PAID.debits * 2}, "charged 2 times"),
        ("paid", {"debits": ()}, "was not charged"),
        ("paid", {"debits": ({"amount": 1, "receipt": RECEIPT},)}, "the debits are 1"),
        ("paid", {"debits": ({"amount": 100, "receipt": "OTHER"},)}, "not that of the debit"),
        ("cancelled", {"debits": PAID.debits}, "was charged"),
        ("paid", {"webhooks": ()}, "webhooks received: none"),
        ("paid", {"webhooks": twice(PAID.webhooks)}, "completed, completed"),
        (
            "paid",
            {"webhooks": (dataclasses.replace(WEBHOOK, type="transaction.failed"),)},
            "webhooks received: failed, expected completed",
        ),
        (
            "paid",
            {"webhooks": (dataclasses.replace(WEBHOOK, problem="X-Signature is wrong"),)},
            "does not verify: X-Signature is wrong",
        ),
        ("callback_late", {"webhooks": PAID.webhooks}, "expected completed, updated"),
        ("no_callback_unknown", {"webhooks": PAID.webhooks}, "expected none"),
        ("no_callback_cancelled", {"queries": 1}, "asked 1 times"),
        ("wrong_amount", {"quarantined": ()}, "in quarantine: none"),
        ("paid", {"quarantined": ("amount_mismatch",)}, "in quarantine: amount_mismatch"),
        ("busy", {"answers": (Answer(503, {}, {}),)}, "when to try again"),
        ("same key, 5 clients", {"answers": (ANSWER,)}, "not answered"),
        ("same key, 5 clients", {"answers": (ANSWER,) * 5}, "0 of 5"),
        ("bad request", {"view": PAID.view}, "a transaction was created"),
        ("bad request", {"pushes": 1}, "1 pushes reached Safaricom"),
        ("bad request", {"answers": (Answer(400, {}, {"errors": []}),)}, "bad fields none"),
    ],
)
def test_what_was_seen_wrong_is_told(name: str, changes: Mapping[str, Any], said: str) -> None:
    assert any(said in problem for problem in seen(name, **changes))


def test_one_key_that_made_two_transactions_is_told() -> None:
    scenario = BY_NAME["same key, 5 clients"]
    answers = as_expected(scenario).answers
    other = dataclasses.replace(answers[1], body={"transaction_id": "t-2"})
    problems = seen(scenario.name, answers=(*answers[:4], other))
    assert any("made 2 transactions" in problem for problem in problems)


@every_case(
    ("name", "changes", "said"),
    [
        ("paid", {"status": "PENDING"}, "is still PENDING, expected COMPLETED"),
        ("cancelled", {"status": "COMPLETED"}, "ended COMPLETED, expected FAILED"),
        ("no_callback_unknown", {"status": "FAILED"}, "ended FAILED, expected PENDING"),
        ("paid", {"push": "UNKNOWN"}, "its push is UNKNOWN"),
        ("paid", {"receipt": None}, "it has no receipt"),
        ("no_metadata", {"receipt": RECEIPT}, "expected none"),
        ("paid", {"settled_by": "query"}, "settled by a query"),
        ("wrong_amount", {"attention": None}, "does not ask for a person"),
        ("no_callback_unknown", {"attention": "Look."}, "asks for a person"),
        ("no_callback_unknown", {"next_step": {"action": "person"}}, "its next step is"),
        ("cancelled", {"failure": {"code": "1", "reason": "x"}}, "its failure is x (1)"),
        ("cancelled", {"failure": None}, "its failure is none"),
        ("query_contradicts", {"conflicts": []}, "its conflicts are none"),
        ("paid", {"conflicts": [{"kind": "second_receipt"}]}, "second_receipt"),
        ("paid", {"amount": "99"}, "COMPLETED with KES 99"),
    ],
)
def test_a_transaction_that_is_wrong_is_told(
    name: str, changes: Mapping[str, Any], said: str
) -> None:
    assert any(said in problem for problem in viewed(name, **changes))


@every_case(
    ("name", "change", "hopeless"),
    [
        ("paid", lambda it: {**it, "status": "FAILED"}, True),
        ("cancelled", lambda it: {**it, "failure": {"code": "1", "reason": "x"}}, True),
        ("no_callback_unknown", lambda it: {**it, "status": "FAILED"}, True),
        ("paid", lambda it: {**it, "status": "PENDING"}, False),
        ("callback_late", lambda it: {**it, "receipt": None}, False),
    ],
)
def test_only_what_is_final_and_wrong_is_not_waited_for(
    name: str, change: Callable[[Any], dict[str, Any]], hopeless: bool
) -> None:
    scenario = BY_NAME[name]
    observed = as_expected(scenario)
    observed = dataclasses.replace(observed, view=change(observed.view))
    assert cannot_change(scenario, observed) is hopeless
    assert find_problems(scenario, observed)
