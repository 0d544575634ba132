"""`transactions resolve`: a person's audited word, and everything that it may not do."""

from __future__ import annotations

import json

import pytest

from commands.conftest import SILENT, Run, contradict_one, fail_one, parsed, puzzle_one
from harness.bodies import callback_body
from harness.gateway import Gateway
from mpesa_gateway.errors import NotFoundError, ResolutionRefusedError

WHO = ("--by", "wanjiru", "--reason", "compared with the M-PESA statement of 31 January")


def refusal(run: Run, env: dict[str, str], *arguments: str) -> str:
    result = run("transactions", "resolve", *arguments, env=env)
    assert isinstance(result.exception, ResolutionRefusedError), result.output
    return str(result.exception)


def test_a_person_ends_a_payment_as_completed_and_the_merchant_is_told(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = puzzle_one(gateway)
    assert gateway.transaction(transaction_id)["next_step"]["action"] == "person"
    arguments = ["resolve", transaction_id, *WHO, "--status", "COMPLETED", "--receipt"]
    shown = run("transactions", *arguments, "ujq1abcde9", env=env)
    gateway.clock.advance(seconds=5)
    gateway.sweep()

    assert shown.output == "The transaction is COMPLETED; its webhook is on its way.\n"
    view = gateway.transaction(transaction_id)
    assert (view["status"], view["settled_by"], view["receipt"], view["attention"]) == (
        "COMPLETED",
        "person",
        "UJQ1ABCDE9",
        None,
    )
    (webhook,) = [json.loads(it.body) for it in gateway.receiver.requests]
    assert webhook["type"] == "transaction.completed"
    assert webhook["metadata"]["MpesaReceiptNumber"] == "UJQ1ABCDE9"
    events = gateway.rows(
        "SELECT kind, detail FROM transaction_events WHERE source = 'person' ORDER BY id"
    )
    assert [it["kind"] for it in events] == ["resolved", "completed"]
    assert events[0]["detail"]["by"] == "wanjiru"
    assert "statement" in events[0]["detail"]["reason"]


def test_a_person_ends_a_payment_as_failed(gateway: Gateway, run: Run, env: dict[str, str]) -> None:
    transaction_id = puzzle_one(gateway)
    view = parsed(
        run(
            "transactions", "resolve", transaction_id, *WHO, "--status", "FAILED", "--json", env=env
        )
    )

    assert view["status"] == "FAILED"
    assert view["failure"] == {"code": None, "reason": "resolved_by_person"}
    assert view["result"]["message"]["en"].startswith("The payment was not received")
    assert [it["type"] for it in view["deliveries"]] == ["transaction.failed"]
    again = refusal(
        run, env, transaction_id, *WHO, "--status", "COMPLETED", "--receipt", "UJQ1ABCDE9"
    )
    assert "a final state never moves" in again
    assert gateway.transaction(transaction_id)["status"] == "FAILED"


def test_money_that_comes_after_a_person_said_failed_is_a_conflict(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = puzzle_one(gateway)
    run("transactions", "resolve", transaction_id, *WHO, "--status", "FAILED", env=env)
    phone = gateway.transaction(transaction_id)["phone"]
    body = callback_body(gateway.checkout_request_id(phone))
    gateway.post(gateway.callback_path(phone), body)
    gateway.work()

    view = gateway.transaction(transaction_id)
    assert view["status"] == "FAILED"
    assert [it["kind"] for it in view["conflicts"]] == ["paid_after_failed"]


def test_a_conflict_is_listed_as_stuck_until_a_person_closes_it(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = contradict_one(gateway)
    listed = run("transactions", "list", "--stuck", env=env).output
    assert transaction_id in listed
    assert "open conflict: paid_after_failed" in listed
    before = len(gateway.rows("SELECT FROM deliveries"))
    closed = run("transactions", "resolve", transaction_id, *WHO, env=env)

    assert "Conflict paid_after_failed is closed." in closed.output
    view = gateway.transaction(transaction_id)
    assert view["status"] == "FAILED", "a final state never moves"
    assert view["conflicts"][0]["closing_note"] == WHO[3]
    assert len(gateway.rows("SELECT FROM deliveries")) == before
    (row,) = gateway.rows("SELECT closed_by, closed_at FROM conflicts")
    assert row["closed_by"] == "wanjiru"
    assert "nothing found" in run("transactions", "list", "--stuck", env=env).output
    assert "no open conflict" in refusal(run, env, transaction_id, *WHO)


def test_a_note_leaves_the_payment_asking(gateway: Gateway, run: Run, env: dict[str, str]) -> None:
    transaction_id = puzzle_one(gateway)
    result = run("transactions", "resolve", transaction_id, *WHO, env=env)

    assert "Noted." in result.output
    view = parsed(run("transactions", "show", transaction_id, "--json", env=env))
    assert (view["status"], view["next_step"]["action"]) == ("PENDING", "person")
    assert view["events"][-1]["kind"] == "noted"
    assert "noted" in run("transactions", "show", transaction_id, env=env).output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--status", "COMPLETED"], "needs the receipt number"),
        (["--status", "FAILED", "--receipt", "UJQ1ABCDE9"], "belongs to COMPLETED only"),
        (["--receipt", "UJQ1ABCDE9"], "belongs to COMPLETED only"),
        (["--status", "COMPLETED", "--receipt", "no receipt"], "6 to 32 letters and digits"),
        (["--by", " "], "a name of"),
        (["--reason", " "], "a reason of"),
    ],
)
def test_a_word_that_is_not_whole_is_refused(
    gateway: Gateway, run: Run, env: dict[str, str], arguments: list[str], why: str
) -> None:
    transaction_id = puzzle_one(gateway)

    assert why in refusal(run, env, transaction_id, *WHO, *arguments)
    assert gateway.rows("SELECT FROM transaction_events WHERE source = 'person'") == []


def test_what_does_not_ask_for_a_person_is_not_ended_by_one(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = gateway.pay(SILENT)
    assert "goes on by itself (next: query)" in refusal(
        run, env, transaction_id, *WHO, "--status", "FAILED"
    )
    assert gateway.transaction(transaction_id)["status"] == "PENDING"


def test_a_receipt_settles_one_payment_only(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    paid = gateway.pay("254712340000")
    gateway.simulator.wait_until_idle()
    gateway.work()
    receipt = gateway.transaction(paid)["receipt"]
    transaction_id = puzzle_one(gateway)

    assert "belongs to another transaction" in refusal(
        run, env, transaction_id, *WHO, "--status", "COMPLETED", "--receipt", receipt
    )
    assert gateway.rows("SELECT FROM transaction_events WHERE source = 'person'") == []


def test_a_callback_that_waits_is_heard_before_a_person(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = puzzle_one(gateway)
    phone = gateway.transaction(transaction_id)["phone"]
    gateway.post(gateway.callback_path(phone), callback_body(gateway.checkout_request_id(phone)))

    assert "is about to be applied" in refusal(run, env, transaction_id, *WHO, "--status", "FAILED")


def test_who_and_why_are_required(run: Run, env: dict[str, str], gateway: Gateway) -> None:
    transaction_id = fail_one(gateway)
    for missing in (WHO[:2], WHO[2:]):
        assert run("transactions", "resolve", transaction_id, *missing, env=env).exit_code == 2
    nobody = run("transactions", "resolve", "00000000-0000-4000-8000-000000000000", *WHO, env=env)
    assert isinstance(nobody.exception, NotFoundError)


def test_the_timeline_is_in_order_of_time(gateway: Gateway, run: Run, env: dict[str, str]) -> None:
    transaction_id = contradict_one(gateway)
    run("transactions", "resolve", transaction_id, *WHO, env=env)
    view = parsed(run("transactions", "show", transaction_id, "--json", env=env))
    shown = run("transactions", "show", transaction_id, env=env).output

    api = gateway.transaction(transaction_id)
    assert {name: view[name] for name in api} == api, "the same object as the API, and more"
    timeline = view["timeline"]
    assert [it["at"] for it in timeline] == sorted(it["at"] for it in timeline)
    said = [(it["who"], it["what"]) for it in timeline]
    assert said[:2] == [("caller", "requested"), ("push", "accepted")]
    assert said.index(("callback", "received")) < said.index(("callback", "failed"))
    assert ("endpoint", "webhook_tried") in said
    assert ("callback", "conflict") in said
    assert ("person", "resolved") in said
    assert "conflict paid_after_failed" in shown
    assert "closed at" in shown
    assert SILENT not in shown


PAID_BY_QUERY = "254712344040"


def test_an_operator_adds_the_receipt_of_a_payment_that_a_query_completed(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = gateway.pay(PAID_BY_QUERY)
    gateway.clock.advance(seconds=91)
    gateway.sweep()
    assert gateway.transaction(transaction_id)["receipt"] is None
    shown = run("transactions", "resolve", transaction_id, *WHO, "--receipt", "tku7x2q9lm", env=env)
    gateway.clock.advance(seconds=5)
    gateway.sweep()

    assert "transaction.updated is on its way" in shown.output
    view = gateway.transaction(transaction_id)
    assert (view["status"], view["receipt"]) == ("COMPLETED", "TKU7X2Q9LM")
    told = json.loads(gateway.receiver.requests[-1].body)
    assert (told["type"], told["metadata"]["MpesaReceiptNumber"]) == (
        "transaction.updated",
        "TKU7X2Q9LM",
    )
    (event,) = gateway.rows("SELECT kind, detail FROM transaction_events WHERE source = 'person'")
    assert (event["kind"], event["detail"]["by"]) == ("resolved", "wanjiru")
    assert event["detail"]["receipt"] == "TKU7X2Q9LM"
    again = refusal(run, env, transaction_id, *WHO, "--receipt", "TKU7X2Q9LN")
    assert "a receipt never changes" in again
    other = fail_one(gateway)
    taken = refusal(run, env, other, *WHO, "--receipt", "TKU7X2Q9LM")
    assert "belongs to another transaction" in taken


def test_an_operator_records_what_the_statement_says_of_an_unrecognised_failure(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = gateway.pay(SILENT)
    body = callback_body(gateway.checkout_request_id(SILENT), code=5000)
    gateway.post(gateway.callback_path(SILENT), body)
    gateway.work()
    for waited in (61, 121):
        gateway.clock.advance(seconds=waited)
        gateway.sweep()
    assert gateway.transaction(transaction_id)["failure"]["reason"] == "unrecognised"
    arguments = ("transactions", "resolve", transaction_id, *WHO, "--receipt", "TKU7X2Q9LM")
    assert "stays FAILED" in run(*arguments, env=env).output
    assert "recorded before" in run(*arguments, env=env).output
    gateway.clock.advance(seconds=5)
    gateway.sweep()

    view = gateway.transaction(transaction_id)
    assert view["status"] == "FAILED"
    assert [(it["kind"], it["receipt"]) for it in view["conflicts"]] == [
        ("paid_after_failed", "TKU7X2Q9LM")
    ]
    told = json.loads(gateway.receiver.requests[-1].body)
    assert (told["type"], told["conflict"]["receipt"]) == ("transaction.conflict", "TKU7X2Q9LM")
    closed = run("transactions", "resolve", transaction_id, *WHO, env=env)
    assert "Conflict paid_after_failed is closed." in closed.output


def test_a_receipt_alone_does_not_end_a_pending_payment(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = puzzle_one(gateway)
    said = refusal(run, env, transaction_id, *WHO, "--receipt", "TKU7X2Q9LM")
    assert "--status COMPLETED" in said
