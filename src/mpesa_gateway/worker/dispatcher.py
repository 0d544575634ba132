"""Runs one unit of work after another. Never raises: the row keeps what is not done."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable

from mpesa_gateway.domain.work import Work, WorkKind
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.failpoint import failpoint
from mpesa_gateway.services import Services
from mpesa_gateway.telemetry.log import begin, get_logger
from mpesa_gateway.usecases.pushes import end_expired_push
from mpesa_gateway.work_queue import Notifier, WorkQueue

LOGGER = get_logger(__name__)
# A thread goes from webhook to webhook for so long, then looks at the queue, and whether to stop.
CHAIN_S = 1.0


class Dispatcher:
    """Runs units of work, announced by a wake-up, the sweeper or an operator's command."""

    def __init__(self, services: Services, notifier: Notifier) -> None:
        self._services = services
        self._notifier = notifier
        # Gets the webhooks that have a slot of this process reserved: a worker's other threads.
        self.hand_over: Callable[[list[Work]], None] = notifier.notify

    def register(self, work_queue: WorkQueue) -> None:
        """Let the queue's consumer call `run`."""
        work_queue.consume(lambda work: self.run(work, send_here=True))

    def run(self, work: Work, *, send_here: bool = False) -> None:
        """Run one unit of work, and notify workers of what follows from it. Never raises.

        What fails stays in its row, and the sweeper picks it up.

        `send_here`: deliver the follow-up webhook on this thread instead of enqueueing it, which
        would cost a message and about 1 ms. The sweeper passes False, so that callbacks never wait
        for endpoints. If the process dies first, the sweeper picks the row up, as with any lost
        wake-up.
        """
        next_work: Work | None = work
        until = time.monotonic() + CHAIN_S
        while next_work is not None:
            # A context of its own: what its lines say of a payment ends with it.
            following = contextvars.copy_context().run(self._do_alone, next_work)
            reserved = [it for it in following if self._services.deliveries.is_reserved(it)]
            next_work = None
            if time.monotonic() < until:
                # The slot that this thread has just released is theirs, so no thread is woken up.
                next_work = _first_webhook(following if send_here and not reserved else reserved)
            self._announce([it for it in following if it is not next_work], reserved)

    def _announce(self, work: list[Work], reserved: list[Work]) -> None:
        """Hand over what has a slot of this process; anybody may do the rest."""
        if here := [it for it in work if it in reserved]:
            self.hand_over(here)
        if others := [it for it in work if it not in reserved]:
            self._notifier.notify(others)

    def _do_alone(self, work: Work) -> list[Work]:
        begin()
        failpoint(f"work.{work.kind.value}.begin")
        try:
            return self._do(work)
        except UnavailableError as error:
            LOGGER.warning("work waits for Postgres", kind=work.kind.value, problem=str(error))
        except Exception:
            LOGGER.exception("work failed", kind=work.kind.value, row=work.id)
            self._count_failure(work)
        return []

    def _do(self, work: Work) -> list[Work]:
        services = self._services
        if work.kind is WorkKind.CALLBACK:
            return services.callbacks.apply(work.id).work
        if work.kind is WorkKind.DELIVERY:
            return services.deliveries.attempt(work.id)
        if work.kind is WorkKind.QUERY:
            return services.queries.ask(work.id).work
        if work.kind is WorkKind.REDELIVERY:
            return services.redeliveries.advance(work.id)
        wait = services.config.query_schedule[0]
        effects = end_expired_push(services.pool, work.id, wait, services.clock())
        return effects.work if effects is not None else []

    def _count_failure(self, work: Work) -> None:
        if work.kind is not WorkKind.CALLBACK:
            return
        try:
            self._services.callbacks.count_failure(work.id)
        except UnavailableError:
            LOGGER.warning("a failure could not be counted", row=work.id)


def _first_webhook(work: list[Work]) -> Work | None:
    return next((it for it in work if it.kind is WorkKind.DELIVERY), None)
