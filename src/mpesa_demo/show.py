"""The payments while they move: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mpesa_demo.judgement import TYPE_PREFIX
from mpesa_demo.payments import Payment

# As wide as a line of the progress and the summary is, where nobody's terminal says a width.
PLAIN_WIDTH = 120
# From this width on there is room for phones, and for straight columns.
WIDE = 96
NAME_WIDTH = 22
STATUS_WIDTH = 10
DETAIL_WIDTH = 19
DETAIL_AND_WEBHOOK_WIDTH = 30
# Lines of the live display that are not rows.
FRAME_LINES = 6

# Red is kept for what went wrong: a payment that fails as it should is no reason for alarm.
STATUS_STYLES = {"COMPLETED": "green", "FAILED": "yellow", "PENDING": "cyan"}


def _sign(sign: str, plain: str, style: str) -> Text:
    """The sign, or a plainer one where stdout cannot write it."""
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except UnicodeError:
        return Text(plain, style)
    return Text(sign, style)


RIGHT, WRONG = _sign("✓", "+", "bold green"), _sign("✗", "x", "bold red")
MOVING = _sign("·", ".", "dim")


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

    def _draw(self, payments: Sequence[Payment]) -> Text:
        console = self._console
        over = sum(payment.is_over for payment in payments)
        shown = _fitting(payments, console.height - FRAME_LINES)
        elapsed_s = time.monotonic() - self._started_at
        counts = f"{over} of {len(payments)} are where they should be · {elapsed_s:.1f} s"
        hidden = len(payments) - len(shown)
        more = f" · {hidden} rows hidden" if hidden else ""
        phone = f"{'phone':<14}" if console.width >= WIDE else ""
        heading = f"    {'':<{NAME_WIDTH}} {phone}KES     s  status    receipt            webhook"
        lines = [
            Text(heading, "dim"),
            *(live_line(payment, console.width) for payment in shown),
            Text(f"\n  {counts}{more}", "dim"),
            Text("  the slowest: a callback 10 s late, a push not answered for 15 s", "dim"),
        ]
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def _fitting(payments: Sequence[Payment], rows: int) -> list[Payment]:
    """As many as there is room for: first those that move, in the order of all."""
    if len(payments) <= rows:
        return list(payments)
    moving_first = sorted(payments, key=lambda it: it.is_over)[: max(rows, 1)]
    names = {payment.scenario.name for payment in moving_first}
    return [payment for payment in payments if payment.scenario.name in names]


def live_line(payment: Payment, width: int) -> Text:
    """A row of the live table."""
    scenario = payment.scenario
    phone = f"{masked(scenario.phone):<14}" if width >= WIDE else ""
    return Text.assemble(
        "  ",
        mark(payment),
        f" {scenario.name:<{NAME_WIDTH}} ",
        (phone, "dim"),
        f"{scenario.amount:>3}  ",
        (f"{payment.elapsed_s:4.1f}  ", "dim"),
        end_text(payment, width),
    )


def end_text(payment: Payment, width: int) -> Text:
    """Status, detail and webhooks in columns, which long webhooks move where it is narrow."""
    webhook = webhook_text(payment)
    room = DETAIL_WIDTH if width >= WIDE else DETAIL_AND_WEBHOOK_WIDTH - len(webhook)
    status, detail = status_text(payment), detail_text(payment)
    status.pad_right(max(STATUS_WIDTH - len(status), 0))
    detail.pad_right(max(min(room, DETAIL_WIDTH) - len(detail), 0))
    return Text.assemble(status, detail, webhook)


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
        f"{mark(payment)} {scenario.name:<{NAME_WIDTH}} {masked(scenario.phone)}"
        f"  KES {scenario.amount:>3}  {end_text(payment, WIDE)}"
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
