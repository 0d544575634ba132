"""What the demo says at the end: every payment, both sides' books, and what to try next."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mpesa_demo.books import Books, describe_transactions, find_disagreements
from mpesa_demo.payments import Payment
from mpesa_demo.show import NAME_WIDTH, RIGHT, WRONG, end_text

ID_WIDTH = 36
# Where the second half of its second line begins.
INDENT = 2 + 2 + ID_WIDTH + 2
NARROWEST_REASON = 30


def print_summary(
    console: Console, payments: Sequence[Payment], books: Books, *, took_s: float
) -> bool:
    """Say how it went; whether all is as it must be."""
    disagreements = list(find_disagreements(books))
    wrong = [payment for payment in payments if payment.problems]
    for payment in payments:
        _print_payment(console, payment)
    console.print()
    for line in _books_lines(books):
        _print(console, line)
    console.print()
    for sentence in disagreements:
        _print(console, Text.assemble("  ", WRONG, f" {sentence}"))
    _print(console, _verdict(payments, wrong, disagreements, took_s))
    return not wrong and not disagreements


def _print(console: Console, line: Text) -> None:
    """One line, whatever the width: no padding, and nothing is cut off."""
    line.rstrip()
    console.print(line, soft_wrap=True)


def _print_payment(console: Console, payment: Payment) -> None:
    """Two lines: what it is and how it ended; its id and why."""
    scenario, view = payment.scenario, payment.observed.view
    mark = WRONG if payment.problems else RIGHT
    head = f" {scenario.name:<{NAME_WIDTH}}  KES {scenario.amount:>3}  "
    _print(console, Text.assemble("  ", mark, head, end_text(payment, console.width)))
    name = "no transaction" if view is None else str(view["transaction_id"])
    first, *more = _why(console, payment)
    style = "red" if payment.problems else "dim"
    _print(console, Text.assemble((f"    {name:<{ID_WIDTH}}  ", "dim"), (first, style)))
    for line in more:
        _print(console, Text(" " * INDENT + line, style))


def _why(console: Console, payment: Payment) -> list[str]:
    """What is wrong, or what the gateway did; folded on a terminal, whole in a file."""
    sentence = "; ".join(payment.problems) or payment.scenario.story
    if not console.is_terminal:
        return [sentence]
    return textwrap.wrap(sentence, max(console.width - INDENT, NARROWEST_REASON))


def _books_lines(books: Books) -> Iterator[Text]:
    """Safaricom's side against the gateway's, a line for each thing that must agree."""
    header = ("", "Safaricom's ledger", "the gateway's database")
    yield Text("    {:<14} {:<24} {}".format(*header), "dim")
    for right, what, theirs, ours in _books_rows(books):
        mark = RIGHT if right else WRONG
        yield Text.assemble("  ", mark, f" {what:<14} {theirs:<24} {ours}")


def _books_rows(books: Books) -> Iterator[tuple[bool, str, str, str]]:
    completed = books.transactions["COMPLETED"]
    yield (
        books.pushes == books.created,
        "payments",
        f"{books.pushes} pushes, {books.accepted} accepted",
        describe_transactions(books),
    )
    yield (
        not books.unexplained and books.debits == completed + books.explained_elsewhere,
        "money",
        f"{books.debits} debits, KES {books.debited:,}",
        f"{completed} COMPLETED, {books.explained_elsewhere} put before a person",
    )
    yield not books.charged_twice, "double charges", str(books.charged_twice), ""
    yield (
        books.callbacks_sent == books.callbacks_kept,
        "callbacks",
        f"{books.callbacks_sent} sent",
        f"{books.callbacks_kept} kept, {books.quarantined} of them in quarantine",
    )
    wrong = f"{books.unverified} with a wrong signature"
    yield (
        not books.unverified and not books.unknown_webhooks,
        "webhooks",
        "",
        f"{books.webhooks}, {wrong if books.unverified else 'both signatures of each verified'}",
    )


def _verdict(
    payments: Sequence[Payment],
    wrong: Sequence[Payment],
    disagreements: Sequence[str],
    took_s: float,
) -> Text:
    if not wrong and not disagreements:
        sentence = f"All {len(payments)} payments are where they should be, after {took_s:.0f} s."
        return Text(f"  {sentence}", "bold green")
    names = ", ".join(payment.scenario.name for payment in wrong)
    sentence = f"{len(wrong)} of {len(payments)} payments ended wrong: {names}." if wrong else ""
    books = "The books do not agree." if disagreements else ""
    return Text(f"  {sentence} {books}".rstrip(), "bold red")


def print_next(console: Console) -> None:
    """What to try after the demo."""
    program = program_name()
    _print(console, Text("Next", "bold"))
    for command, meaning in (
        (f"{program} demo --keep", "the same, and it stays up"),
        (f"{program} simulator", "a Safaricom for your own tests"),
        (f"{program} --help", "every other command"),
    ):
        width = len(program) + len(" demo --keep")
        _print(console, Text.assemble(f"  {command:<{width}}  ", (meaning, "dim")))


def program_name() -> str:
    """How this program was called, so that its commands can be pasted."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m mpesa_gateway"
    return called.name if shutil.which(called.name) == str(called) else str(called)
