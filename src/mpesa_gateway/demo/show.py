"""The payments while they move: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mpesa_gateway.demo.judgement import TYPE_PREFIX
from mpesa_gateway.demo.payments import Payment

# As wide as a line of the progress and the summary is, where nobody's terminal says a width.
PLAIN_WIDTH = 120
# Below this width the phones are shortened.
WIDE = 92
# Lines of the live display that are not rows.
FRAME_LINES = 6

# Red is kept for what went wrong: a payment that fails as it should is no reason for alarm.
STATUS_STYLES = {"COMPLETED": "green", "FAILED": "yellow", "PENDING": "cyan"}
RIGHT, WRONG, MOVING = Text("✓", "bold green"), Text("✗", "bold red"), Text("·", "dim")


def open_console() -> Console:
    """Stdout, whatever it is; a character that it cannot show becomes a question mark."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(highlight=False, width=width)


class Screen(Protocol):
    """Shows payments; entered before the first look, left after the last."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, payments: Sequence[Payment]) -> None:
        """Show where each payment is now."""


def open_screen(console: Console) -> Screen:
    """A live table where it can be drawn, else lines."""
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        return LiveScreen(console)
    return PlainScreen(console)


class LiveScreen:
    """A table that is drawn anew with each look, and is gone at the end: the summary follows."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_at = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, payments: Sequence[Payment]) -> None:
        """Draw it."""
        self._live.update(self._draw(payments), refresh=True)

    def _draw(self, payments: Sequence[Payment]) -> Group:
        over = sum(payment.is_over for payment in payments)
        shown = _fitting(payments, self._console.height - FRAME_LINES)
        hidden = len(payments) - len(shown)
        elapsed_s = time.monotonic() - self._started_at
        counts = f"{over} of {len(payments)} are where they should be · {elapsed_s:.1f} s"
        more = f" · {hidden} of them not shown, for lack of room" if hidden else ""
        return Group(
            _live_table(shown, wide=self._console.width >= WIDE),
            Text(f"\n  {counts}{more}", "dim"),
            Text(
                "  the slowest: a callback 10 s late, a push that is not answered for 15 s", "dim"
            ),
        )


def _fitting(payments: Sequence[Payment], rows: int) -> list[Payment]:
    """As many as there is room for: first those that move, in the order of all."""
    if len(payments) <= rows:
        return list(payments)
    moving_first = sorted(payments, key=lambda it: it.is_over)[: max(rows, 1)]
    names = {payment.scenario.name for payment in moving_first}
    return [payment for payment in payments if payment.scenario.name in names]


def _live_table(payments: Sequence[Payment], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("", width=1)
    table.add_column("outcome", no_wrap=True, min_width=22)
    table.add_column("phone", no_wrap=True, style="dim")
    table.add_column("KES", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True, min_width=9)
    table.add_column("receipt", no_wrap=True, overflow="ellipsis", min_width=14)
    table.add_column("webhook", no_wrap=True, overflow="ellipsis", min_width=11)
    table.add_column("s", justify="right", no_wrap=True, style="dim", min_width=4)
    for payment in payments:
        scenario = payment.scenario
        table.add_row(
            mark(payment),
            scenario.name,
            masked(scenario.phone) if wide else f"…{scenario.phone[-4:]}",
            str(scenario.amount),
            status_text(payment),
            detail_text(payment),
            webhook_text(payment),
            f"{payment.elapsed_s:.1f}",
        )
    return table


class PlainScreen:
    """A line for each change, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_at = time.monotonic()
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._console.print()

    def show(self, payments: Sequence[Payment]) -> None:
        """Write what is new."""
        for payment in payments:
            line = plain_line(payment)
            if payment.started_at is None or self._shown.get(payment.scenario.name) == line:
                continue
            self._shown[payment.scenario.name] = line
            elapsed_s = time.monotonic() - self._started_at
            self._console.print(f"  {elapsed_s:5.1f} s  {line}", soft_wrap=True, markup=False)


def plain_line(payment: Payment) -> str:
    """Where a payment is, in one line."""
    scenario = payment.scenario
    return (
        f"{mark(payment)} {scenario.name:<24}{masked(scenario.phone)}  KES {scenario.amount:>3}"
        f"  {status_text(payment).plain:<11}{detail_text(payment).plain:<20}{webhook_text(payment)}"
    ).rstrip()


def masked(phone: str) -> str:
    """The ends of a number; the last four digits chose the outcome."""
    return f"{phone[:4]}****{phone[-4:]}"


def mark(payment: Payment) -> Text:
    """Whether it ended as it must, as far as can be told."""
    if not payment.is_over:
        return MOVING
    return WRONG if payment.problems else RIGHT


def status_text(payment: Payment) -> Text:
    """Its status, or how the request was answered when nothing was created."""
    status = payment.observed.status
    if status is not None:
        return Text(status, STATUS_STYLES.get(status, ""))
    if payment.observed.answers:
        return Text(f"HTTP {payment.observed.answers[0].status}", "yellow")
    return Text("asking" if payment.started_at is not None else "", "dim")


def detail_text(payment: Payment) -> Text:
    """The receipt, why it failed, or what it waits for."""
    view = payment.observed.view
    if view is None:
        return Text("nothing created", "dim") if payment.observed.answers else Text()
    if view["failure"] is not None:
        return Text(view["failure"]["reason"], "yellow")
    if view["attention"] is not None:
        return Text("needs a person", "cyan")
    if view["receipt"] is not None:
        return Text(view["receipt"])
    if view["status"] == "COMPLETED":
        return Text("no receipt", "dim")
    queries = payment.observed.queries
    return Text(("waiting", "asked once", "keeps asking")[min(queries, 2)], "dim")


def webhook_text(payment: Payment) -> Text:
    """What the merchant was told, and whether every signature holds."""
    webhooks = payment.observed.webhooks
    if not webhooks:
        return Text()
    types = "+".join(webhook.type.removeprefix(TYPE_PREFIX) for webhook in webhooks)
    sound = all(webhook.verified for webhook in webhooks)
    return Text.assemble(types, " ", RIGHT if sound else WRONG)
