"""What the demo says at the end is what happened, and a wrong end is named."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from harness.collecting import every_case
from mpesa_demo.books import find_disagreements, read_books
from mpesa_demo.client import Ledger
from mpesa_demo.judgement import Observed
from mpesa_demo.payments import Payment, Snapshot
from mpesa_demo.receiver import Received
from mpesa_demo.scenarios import SCENARIOS
from mpesa_demo.show import PlainScreen, masked
from mpesa_demo.summary import print_summary

PHONE = "254712340000"
VIEW: dict[str, Any] = {
    "transaction_id": "01a20ab3-d654-74f3-876d-ab63cf6dfbc2",
    "phone": PHONE,
    "status": "COMPLETED",
    "receipt": "HOFY8I2GV0",
    "failure": None,
    "attention": None,
}
WEBHOOK = Received(VIEW["transaction_id"], "transaction.completed", "msg_1")
PUSH = {"phone": PHONE, "accepted": True}
DEBIT = {"phone": PHONE, "amount": 100, "receipt": "HOFY8I2GV0"}


def snapshot(
    *,
    views: list[dict[str, Any]] | None = None,
    pushes: int = 1,
    debits: int = 1,
    callbacks: int = 0,
) -> Snapshot:
    """One payment that was paid, unless said otherwise; its callbacks are not kept."""
    ledger = Ledger([PUSH] * pushes, [DEBIT] * debits, [{}] * callbacks, [])
    return Snapshot([VIEW] if views is None else views, [], ledger)


def disagreements(seen: Snapshot, webhooks: tuple[Received, ...] = (WEBHOOK,)) -> str:
    return " / ".join(find_disagreements(read_books(seen, webhooks)))


def test_books_that_agree() -> None:
    assert disagreements(snapshot()) == ""


@every_case(
    ("seen", "said"),
    [
        (snapshot(debits=2), "1 customers were charged more than once"),
        (snapshot(pushes=2), "2 pushes reached Safaricom for 1 transactions"),
        (snapshot(debits=0), "0 debits, but 1 transactions COMPLETED"),
        (snapshot(callbacks=1), "1 callbacks were sent, 0 are kept"),
        (snapshot(views=[]), "1 debits are not told of anywhere"),
        (snapshot(views=[{**VIEW, "status": "FAILED"}]), "1 debits are not told of anywhere"),
    ],
)
def test_books_that_do_not_agree(seen: Snapshot, said: str) -> None:
    assert said in disagreements(seen)


@pytest.mark.parametrize("told", [{"attention": "Look."}, {"conflicts": [{"kind": "paid"}]}])
def test_money_behind_another_state_is_explained_by_what_a_person_is_told(
    told: dict[str, Any],
) -> None:
    assert disagreements(snapshot(views=[{**VIEW, "status": "FAILED", **told}])) == ""


@pytest.mark.parametrize(
    ("webhook", "said"),
    [
        (Received(VIEW["transaction_id"], "x", "msg_1", "wrong"), "does not verify"),
        (Received("", "x", "msg_1"), "transactions that do not exist"),
    ],
)
def test_webhooks_that_are_wrong_are_told(webhook: Received, said: str) -> None:
    assert said in disagreements(snapshot(), (webhook,))


def payment(*problems: str) -> Payment:
    observed = Observed(view=VIEW, webhooks=(WEBHOOK,))
    return Payment(SCENARIOS[0], {}, observed=observed, problems=list(problems), over_after_s=1.0)


def summary(*payments: Payment, seen: Snapshot | None = None) -> tuple[bool, str]:
    out = io.StringIO()
    console = Console(file=out, width=120, highlight=False)
    books = read_books(seen or snapshot(), [WEBHOOK])
    fine = print_summary(console, payments, books, took_s=12)
    return fine, out.getvalue()


def test_the_summary_names_each_transaction() -> None:
    fine, text = summary(payment())
    assert fine
    for part in (VIEW["transaction_id"], "COMPLETED", "HOFY8I2GV0", "completed ✓"):
        assert part in text
    assert "All 1 payments are where they should be" in text
    assert "✗" not in text


def test_a_payment_that_ended_wrong_is_named_with_its_reasons() -> None:
    fine, text = summary(payment(), payment("ended COMPLETED, expected FAILED", "no receipt"))
    assert not fine
    assert "ended COMPLETED, expected FAILED; no receipt" in text
    assert "1 of 2 payments ended wrong: paid." in text


def test_books_that_do_not_agree_spoil_the_summary() -> None:
    fine, text = summary(payment(), seen=snapshot(debits=2))
    assert not fine
    assert "✗ double charges 1" in text
    assert "The books do not agree." in text


def test_no_line_ends_with_spaces() -> None:
    _, text = summary(payment())
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_plain_progress_has_a_line_for_each_change_and_no_whole_phone() -> None:
    out = io.StringIO()
    screen = PlainScreen(Console(file=out, width=120))
    shown = payment("not yet")
    shown.started_at = 1.0
    screen.show([shown])
    screen.show([shown])
    shown.problems = []
    screen.show([shown])
    assert len(out.getvalue().splitlines()) == 2
    assert masked(SCENARIOS[0].phone) in out.getvalue()
    assert SCENARIOS[0].phone not in out.getvalue()
