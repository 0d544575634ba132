"""`recover`: webhooks that the database has lost, and what a statement has beyond the database."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from commands.conftest import SILENT, Run, contradict_one, parsed, puzzle_one
from harness.bodies import callback_body
from harness.callbacks import applied
from harness.gateway import Gateway
from harness.losing import lose
from harness.statement import portal_csv

PHONE, ANOTHER = "254712340000", "254712354042"


def paid(gateway: Gateway, receipt: str, phone: str = PHONE, amount: int = 10) -> dict[str, Any]:
    """A debit, as the ledger of Safaricom has it."""
    return {
        "receipt": receipt,
        "phone": phone,
        "amount": amount,
        "at": gateway.clock().isoformat(),
    }


def compare(run: Run, env: dict[str, str], tmp_path: Path, *debits: dict[str, Any]) -> Any:
    file = tmp_path / "statement.csv"
    file.write_text(portal_csv(debits), encoding="utf-8")
    return parsed(run("recover", "--statement", str(file), "--json", env=env))["statement"]


def forget_all_but_webhooks(gateway: Gateway) -> None:
    """As in a worker: it made no payment and took no callback."""
    recovery = gateway.services.recovery
    webhooks = recovery.acknowledged.copy().webhooks
    recovery.forget()
    for webhook in webhooks:
        recovery.remember_webhook(webhook)


def test_a_webhook_that_went_out_is_listed_when_its_payment_is_gone(
    gateway: Gateway, run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    transaction_id = gateway.pay(PHONE)
    applied(gateway, transaction_id)
    gateway.work()
    (told,) = gateway.receiver.requests
    receipt = json.loads(told.body)["metadata"]["MpesaReceiptNumber"]
    forget_all_but_webhooks(gateway)
    row = lose(gateway, transaction_id)
    gateway.services.recovery.examine()

    (line,) = parsed(run("recover", "--json", env=env))["lost_webhooks"]

    assert (line["payment"], line["merchant"]) == (transaction_id, row["merchant"])
    assert (line["type"], line["receipt"]) == ("transaction.completed", receipt)
    assert (line["webhook_id"], line["payment_status"]) == (told.webhook_id, None)
    shown = run("recover", env=env).output
    assert "Webhooks that were delivered" in shown
    assert "not here" in shown
    (open_line,) = compare(run, env, tmp_path, paid(gateway, receipt))["open"]
    assert open_line["finding"] == "told"
    assert row["merchant"] in open_line["todo"]


def test_a_webhook_of_a_payment_that_is_written_again_is_listed_and_recognised(
    gateway: Gateway, run: Run, env: dict[str, str]
) -> None:
    transaction_id = gateway.pay(PHONE)
    applied(gateway, transaction_id)
    gateway.work()
    gateway.services.recovery.examine()
    lose(gateway, transaction_id)
    gateway.services.recovery.examine()
    gateway.clock.advance(seconds=2)
    gateway.sweep()
    gateway.clock.advance(seconds=2)
    gateway.sweep()

    (line,) = parsed(run("recover", "--json", env=env))["lost_webhooks"]

    assert line["payment_status"] == "COMPLETED"
    assert {it.webhook_id for it in gateway.receiver.requests} == {line["webhook_id"]}


def test_delivered_webhooks_alone_show_that_the_database_lost_something(gateway: Gateway) -> None:
    transaction_id = gateway.pay(PHONE)
    applied(gateway, transaction_id)
    gateway.work()
    forget_all_but_webhooks(gateway)
    lose(gateway, transaction_id)

    gateway.services.recovery.examine()

    (row,) = gateway.rows("SELECT kind, written_again FROM lost_rows")
    assert row == {"kind": "webhook", "written_again": False}
    assert gateway.initiate(ANOTHER).status_code == 503


def test_webhooks_older_than_the_limit_are_forgotten(gateway: Gateway) -> None:
    transaction_id = gateway.pay(PHONE)
    applied(gateway, transaction_id)
    gateway.work()
    memory = gateway.services.recovery.acknowledged
    gateway.services.recovery.examine()
    gateway.clock.advance(seconds=14 * 60)
    gateway.services.recovery.examine()
    assert [str(it.payment) for it in memory.copy().webhooks] == [transaction_id]
    gateway.clock.advance(seconds=61)
    gateway.services.recovery.examine()
    assert memory.copy().webhooks == []


def test_each_payment_of_a_statement_is_matched_or_stands_on_a_line(
    gateway: Gateway, run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    transaction_id = gateway.pay(PHONE)
    applied(gateway, transaction_id)
    (row,) = gateway.rows("SELECT receipt FROM transactions")
    conflicting = contradict_one(gateway, ANOTHER, receipt="UJ22T8IYOV")
    silent = gateway.pay(SILENT)
    orphan = paid(gateway, "UJ22ORPHAN")
    gateway.execute(
        "INSERT INTO callbacks (by_token, body, body_sha256, received_at, last_received_at, state,"
        " outcome, applied_at, next_attempt_at, orphan_of) VALUES (FALSE, %s, sha256('x'), now(),"
        " now(), 'QUARANTINED', 'orphan', now(), now(), %s)",
        callback_body("ws_CO_1", receipt="UJ22ORPHAN"),
        uuid.uuid4(),
    )

    compared = compare(
        run,
        env,
        tmp_path,
        paid(gateway, row["receipt"]),
        paid(gateway, "UJ22T8IYOV", ANOTHER),
        orphan,
        paid(gateway, "UJ22SILENT", SILENT),
        paid(gateway, "UJ22NOBODY", "254799990000"),
        paid(gateway, "UJ22AMOUNT", SILENT, amount=11),
    )

    assert (compared["matched"], compared["orphans"], compared["other_rows"]) == (2, 1, 6)
    lines = {it["receipt"]: it for it in compared["open"]}
    assert {name: it["finding"] for name, it in lines.items()} == {
        "UJ22SILENT": "candidate",
        "UJ22NOBODY": "missing",
        "UJ22AMOUNT": "missing",
    }
    assert lines["UJ22SILENT"]["payments"] == [silent]
    assert (
        f"resolve {silent} --status completed --receipt UJ22SILENT" in (lines["UJ22SILENT"]["todo"])
    )
    assert lines["UJ22NOBODY"]["phone"] == "2547****000"
    assert conflicting not in str(compared)


def test_a_receipt_with_another_amount_and_a_callback_in_quarantine_stand_on_lines(
    gateway: Gateway, run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    transaction_id = gateway.pay(PHONE)
    applied(gateway, transaction_id)
    (row,) = gateway.rows("SELECT receipt FROM transactions")
    puzzled = puzzle_one(gateway)
    quarantined = gateway.simulator.ledger()["debits"][-1]

    compared = compare(run, env, tmp_path, paid(gateway, row["receipt"], amount=2500), quarantined)

    lines = {it["finding"]: it for it in compared["open"]}
    amount, callback = lines["amount"], lines["callback"]
    assert (amount["finding"], amount["payments"]) == ("amount", [transaction_id])
    assert amount["amount"] == "2500"
    assert (callback["finding"], callback["payments"]) == ("callback", [puzzled])
    (stored,) = gateway.rows("SELECT id FROM callbacks WHERE state = 'QUARANTINED'")
    assert callback["todo"].endswith(f"callbacks show {stored['id']}")


def test_candidates_of_another_state_and_several_of_them(
    gateway: Gateway, run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    failed = gateway.pay(SILENT)
    path, request = gateway.callback_path(SILENT), gateway.checkout_request_id(SILENT)
    gateway.post(path, callback_body(request, code=1032))
    gateway.work()

    (line,) = compare(run, env, tmp_path, paid(gateway, "UJ22FAILED", SILENT))["open"]

    assert line["payments"] == [failed]
    assert "--status" not in line["todo"]
    second = gateway.pay(SILENT)
    (line,) = compare(run, env, tmp_path, paid(gateway, "UJ22FAILED", SILENT))["open"]
    assert line["payments"] == [failed, second]
    assert "several" in line["todo"]


def test_the_page_says_what_to_do_for_each_line(
    gateway: Gateway, run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "statement.csv"
    file.write_text(portal_csv([paid(gateway, "UJ22NOBODY")]), encoding="utf-8")

    shown = run("recover", "--statement", str(file), env=env).output

    assert "Statement: 0 payments are in the database, 0 are orphans, 1 need you" in shown
    assert "UJ22NOBODY" in shown
    assert "deliver or refund by hand" in shown


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04 an xlsx", "Excel"),
        (b"\xd0\xcf\x11\xe0 an xls", "Excel"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"", "no row of titles"),
    ],
)
def test_a_file_that_is_no_statement_is_refused_in_a_sentence(
    run: Run, env: dict[str, str], tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "statement.csv"
    file.write_bytes(content)

    result = run("recover", "--statement", str(file), env=env)

    assert result.exit_code == 1
    assert says in result.output
    assert "Traceback" not in result.output
