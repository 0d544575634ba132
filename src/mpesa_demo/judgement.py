"""Whether a payment ended as it must: what was seen against what was expected, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mpesa_demo.receiver import Received
from mpesa_demo.scenarios import PENDING, Expected, Scenario
from mpesa_gateway.clients.json_call import Answer

TYPE_PREFIX = "transaction."


@dataclass(frozen=True)
class Observed:
    """What was seen of one payment, by everybody who saw something.

    `answers` are those of POST /initiate, one for each client, and `error` why there is none.
    `view` is GET /transactions/{id}, None when there is no such transaction; its conflicts are
    known only when it was read alone. `pushes`, `debits` and `queries` are the simulator's,
    `quarantined` the reasons why callbacks were put aside.
    """

    answers: tuple[Answer, ...] = ()
    error: str | None = None
    view: Mapping[str, Any] | None = None
    webhooks: tuple[Received, ...] = ()
    pushes: int = 0
    debits: tuple[Mapping[str, Any], ...] = ()
    queries: int = 0
    quarantined: tuple[str, ...] = ()

    @property
    def status(self) -> str | None:
        """The transaction's status, None when there is no transaction."""
        return None if self.view is None else str(self.view["status"])


def find_problems(scenario: Scenario, observed: Observed) -> list[str]:
    """What is not as it must be; nothing when all is."""
    expected = scenario.expected
    problems = [*_answers(scenario, observed), *_safaricom(scenario, observed)]
    if expected.status is None:
        if observed.view is not None:
            problems.append("a transaction was created, none was expected")
        return problems
    if observed.view is None:
        return [*problems, "there is no transaction"]
    problems += _state(expected, observed.view)
    problems += _money(expected, observed)
    problems += _webhooks(expected, observed.webhooks)
    return problems


def cannot_change(scenario: Scenario, observed: Observed) -> bool:
    """Whether it went wrong for good, so that waiting is of no use."""
    expected = scenario.expected
    if observed.error is not None:
        return True
    if any(answer.status != expected.answer for answer in observed.answers):
        return True
    if observed.view is None or observed.status == PENDING:
        return False
    return observed.status != expected.status or _failure(observed.view) != expected.failure


def _failure(view: Mapping[str, Any]) -> tuple[str, str] | None:
    failure = view["failure"]
    return (failure["code"], failure["reason"]) if failure else None


def _answers(scenario: Scenario, observed: Observed) -> Iterator[str]:
    if observed.error is not None:
        yield f"POST /initiate failed: {observed.error}"
        return
    if len(observed.answers) < scenario.clients:
        yield "POST /initiate was not answered"
        return
    expected = scenario.expected
    for answer in observed.answers:
        if answer.status != expected.answer:
            yield f"POST /initiate answered {answer.status}, expected {expected.answer}"
            return
    first = observed.answers[0]
    if expected.answer == 503 and "retry-after" not in first.headers:
        yield "the 503 says nothing about when to try again"
    named = tuple(sorted(it["field"] for it in (first.body or {}).get("errors", [])))
    if named != expected.bad_fields:
        yield f"it names the bad fields {_list(named)}, expected {_list(expected.bad_fields)}"
    yield from _same_key(observed.answers)


def _same_key(answers: tuple[Answer, ...]) -> Iterator[str]:
    """One key, one answer: the first client's, and a replay for every other one."""
    ids = {(answer.body or {}).get("transaction_id") for answer in answers}
    if len(ids) > 1:
        yield f"one idempotency key made {len(ids)} transactions"
    replayed = sum(answer.replayed for answer in answers)
    if replayed != len(answers) - 1:
        yield f"{replayed} of {len(answers)} answers are marked as replayed"


def _state(expected: Expected, view: Mapping[str, Any]) -> Iterator[str]:
    status = view["status"]
    if status != expected.status:
        verb = "is still" if status == PENDING else "ended"
        yield f"{verb} {status}, expected {expected.status}"
        return
    if view["push"] != expected.push:
        yield f"its push is {view['push']}, expected {expected.push}"
    if _failure(view) != expected.failure:
        yield f"its failure is {_pair(_failure(view))}, expected {_pair(expected.failure)}"
    if expected.settled_by is not None and view["settled_by"] != expected.settled_by:
        yield f"it was settled by a {view['settled_by']}, expected a {expected.settled_by}"
    if bool(view["attention"]) != expected.attention:
        yield "it asks for a person" if view["attention"] else "it does not ask for a person"
    step = view["next_step"]
    if expected.next_step is not None and (step or {}).get("action") != expected.next_step:
        yield f"its next step is {step}, expected {expected.next_step}"
    if "conflicts" in view:
        conflicts = [conflict["kind"] for conflict in view["conflicts"]]
        if conflicts != ([expected.conflict] if expected.conflict else []):
            yield f"its conflicts are {_list(conflicts)}, expected {expected.conflict or 'none'}"


def _money(expected: Expected, observed: Observed) -> Iterator[str]:
    """COMPLETED only with a debit of that amount, and the receipt is that of the debit."""
    assert observed.view is not None
    view = observed.view
    if view["status"] == "COMPLETED":
        amounts = [str(debit["amount"]) for debit in observed.debits]
        if amounts != [view["amount"]]:
            yield f"COMPLETED with KES {view['amount']}, but the debits are {_list(amounts)}"
    receipt = view["receipt"]
    if bool(receipt) != expected.receipt:
        yield f"it has the receipt {receipt}, expected none" if receipt else "it has no receipt"
    elif receipt and receipt not in {debit["receipt"] for debit in observed.debits}:
        yield f"its receipt {receipt} is not that of the debit"


def _safaricom(scenario: Scenario, observed: Observed) -> Iterator[str]:
    """What the simulator's ledger and the quarantine say."""
    expected = scenario.expected
    wanted = 0 if expected.status is None else 1
    if observed.pushes != wanted:
        yield f"{observed.pushes} pushes reached Safaricom, expected {wanted}"
    if len(observed.debits) > 1:
        yield f"the customer was charged {len(observed.debits)} times"
    elif len(observed.debits) != int(scenario.charged):
        yield "the customer was charged" if observed.debits else "the customer was not charged"
    if observed.queries < expected.queries:
        yield f"Safaricom was asked {observed.queries} times, expected {expected.queries} at least"
    if observed.quarantined != expected.quarantined:
        yield (
            f"in quarantine: {_list(observed.quarantined)}, expected {_list(expected.quarantined)}"
        )


def _webhooks(expected: Expected, webhooks: tuple[Received, ...]) -> Iterator[str]:
    types = tuple(webhook.type.removeprefix(TYPE_PREFIX) for webhook in webhooks)
    if types != expected.webhooks:
        yield f"webhooks received: {_list(types)}, expected {_list(expected.webhooks)}"
    for webhook in webhooks:
        if webhook.problem is not None:
            yield f"a webhook's signature does not verify: {webhook.problem}"
    if len({webhook.webhook_id for webhook in webhooks}) != len(webhooks):
        yield "two webhooks have the same id"


def _pair(failure: tuple[str, str] | None) -> str:
    return "none" if failure is None else f"{failure[1]} ({failure[0]})"


def _list(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(words) or "none"
