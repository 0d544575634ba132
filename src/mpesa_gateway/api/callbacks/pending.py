"""A callback between its arrival and its answer, and how its waiter is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.merchant import Address
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.telemetry import tracing


@dataclass(eq=False)
class PendingCallback:
    """A callback that waits for its commit. `token` is None on the plain path."""

    token: CallbackToken | None
    body: bytes
    headers: dict[str, str]
    address: Address
    received_at: datetime
    future: asyncio.Future[Verdict] = field(repr=False)
    sha256: bytes = b""
    started_at_ns: int | None = None
    span: tracing.Span = tracing.NO_SPAN
    arrived_s: float = field(default_factory=time.monotonic)
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    # Committed, or refused: nothing is left to do about it.
    is_judged: bool = False
    # Its name in the spool, where there is one.
    entry: str | None = None


Result = tuple[PendingCallback, Verdict | Exception]


def answer(results: Sequence[Result]) -> None:
    """Tell each waiter, in its own event loop. One that hung up is passed over."""
    loops: dict[asyncio.AbstractEventLoop, list[Result]] = {}
    for result in results:
        loops.setdefault(result[0].future.get_loop(), []).append(result)
    for loop, answers in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, answers)
    if tracing.is_on():
        # After the answers, which nothing of a trace may hold up.
        for arrival, outcome in results:
            _end(arrival, outcome)


def give_up(future: asyncio.Future[Verdict]) -> None:
    """It has waited for as long as an answer may take."""
    if not future.done():
        future.set_exception(UnavailableError("Postgres is too slow"))


def _resolve(answers: list[Result]) -> None:
    for arrival, outcome in answers:
        if arrival.timer is not None:
            arrival.timer.cancel()
        if arrival.future.done():
            continue
        if isinstance(outcome, Verdict):
            arrival.future.set_result(outcome)
        elif isinstance(outcome, UnavailableError):
            arrival.future.set_exception(outcome)
        else:
            arrival.future.set_exception(UnavailableError("the callback could not be kept"))


def _end(arrival: PendingCallback, outcome: Verdict | Exception) -> None:
    arrival.span.set(
        outcome=outcome.value if isinstance(outcome, Verdict) else type(outcome).__name__
    )
    arrival.span.end()
