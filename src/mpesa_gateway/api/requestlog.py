"""What is counted and said of each answered request, whichever way it was answered."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import PurePath

from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import (
    SUPPRESSED,
    get_logger,
    quick_beginning,
    quick_line,
    write_quickly,
)

# The caller's own name of a request: in its lines, and sent back.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
NO_ROUTE = "none"
UNLOGGED = frozenset({"/health", "/livez", "/readyz"})
# Refusals come in floods: of one kind, so many lines in a window, and then their number.
REFUSALS = 100
WINDOW_S = 10.0

_SENTENCE = "request"
_LOGGER = get_logger(__name__)
_STDLIB_LOGGER = logging.getLogger(__name__)


class RequestLog:
    """Counts each answer, and writes one line of it, with the route's template.

    The path may hold a callback token. The lines of one turn of the event loop are written
    together, at its end.
    """

    def __init__(self, time_s: Callable[[], float] = time.monotonic) -> None:
        self._time_s = time_s
        self._lines: list[str] = []
        self._refused: Counter[tuple[str, int]] = Counter()
        self._window_ends_at = float("-inf")

    def note(
        self,
        *,
        method: str,
        route: str | None,
        status: int,
        took_s: float,
        about: Mapping[str, str],
    ) -> None:
        """One answer. `about` is what its line says beside: whose it was, which payment's."""
        count, observe = _counters(route or NO_ROUTE, status)
        count()
        observe(took_s)
        if route in UNLOGGED or not _STDLIB_LOGGER.isEnabledFor(logging.INFO):
            return
        if self._refused:
            self._tell_if_over()
        if status >= 400 and not self._may_tell(route or NO_ROUTE, status):
            return
        ms = round(took_s * 1000, 1)
        beginning = f'{_beginning(method, route, status)}, "ms": {ms}'
        site = (_FILE_NAME, sys._getframe().f_lineno)  # noqa: SLF001 - as logging itself does
        line = quick_line(_STDLIB_LOGGER, beginning, about, site)
        if line is None:
            _LOGGER.info(_SENTENCE, method=method, route=route, status=status, ms=ms, **about)
            return
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._write)
        self._lines.append(line)

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        write_quickly(lines)

    def _may_tell(self, route: str, status: int) -> bool:
        """Whether this refusal has a line of its own."""
        if not self._refused:
            self._window_ends_at = self._time_s() + WINDOW_S
        self._refused[route, status] += 1
        return self._refused[route, status] <= REFUSALS

    def _tell_if_over(self) -> None:
        """What a window kept back is told by the first request behind it."""
        if self._time_s() < self._window_ends_at:
            return
        refused, self._refused = self._refused, Counter()
        for (route, status), count in refused.items():
            if count > REFUSALS:
                _LOGGER.warning(
                    SUPPRESSED,
                    sentence=_SENTENCE,
                    route=route,
                    status=status,
                    lines=count - REFUSALS,
                )


_FILE_NAME = PurePath(__file__).name


@lru_cache(maxsize=512)
def _beginning(method: str, route: str | None, status: int) -> str:
    return quick_beginning(_SENTENCE, method=method, route=route, status=status)


@lru_cache(maxsize=512)
def _counters(route: str, status: int) -> tuple[Callable[[], None], Callable[[float], None]]:
    """The two series, looked up once."""
    return (
        metrics.http_requests_total.labels(route, str(status)).inc,
        metrics.http_request_seconds.labels(route).observe,
    )
