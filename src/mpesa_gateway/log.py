"""Logs: one JSON object a line on stdout, with file and line; nothing personal, nothing secret.

Every logger of the process goes through the same masking, libraries and tracebacks included.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from mpesa_gateway.masking import MAX_ITEMS, mask_value, shortened

# A line that would be longer is written with shorter values, at last without them.
MAX_LINE_LENGTH = 16 * 1024
SHORTER = (1000, 200, 40)
# Of one sentence, warnings and errors beyond so many in a window are counted, not written.
REPEATS = 60
WINDOW_S = 60.0
MAX_SENTENCES = 500
SUPPRESSED = "lines suppressed"
# What every line keeps.
_HEAD = ("event", "level", "logger", "timestamp", "filename", "lineno", "transaction_id")

# Loud libraries: their INFO lines would drown ours, or repeat what we log ourselves.
_QUIET = {
    "huey": logging.WARNING,
    "huey.consumer": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.error": logging.WARNING,
    "uvicorn.access": logging.CRITICAL,
    "urllib3": logging.ERROR,
    "psycopg.pool": logging.ERROR,
    "asyncio": logging.WARNING,
}


class Repeats(logging.Filter):
    """Lets a sentence of warning or worse through so often a window, and says what it kept back.

    The database keeps each conflict, quarantine and failed webhook; the log need not in a storm.
    """

    def __init__(self, time_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._time_s = time_s
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._ends_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.levelno < logging.WARNING:
            # A storm's end is told by whatever is said next.
            if self._counts and self._time_s() >= self._ends_at:
                self.tell()
            return True
        sentence = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
        if sentence == SUPPRESSED:
            return True
        if self._time_s() >= self._ends_at:
            self.tell()
        key = (record.name, str(sentence)[:200])
        with self._lock:
            if key not in self._counts and len(self._counts) >= MAX_SENTENCES:
                key = ("", "other sentences")
            self._counts[key] = self._counts.get(key, 0) + 1
            return self._counts[key] <= REPEATS

    def tell(self) -> None:
        """Begin a window, and write what the one before it kept back."""
        with self._lock:
            counts, self._counts = self._counts, {}
            self._ends_at = self._time_s() + WINDOW_S
        for (name, sentence), count in counts.items():
            if count > REPEATS:
                get_logger(name or __name__).warning(
                    SUPPRESSED, sentence=sentence, lines=count - REPEATS
                )


def mask_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask every value of a line, and drop what its name calls secret (structlog processor)."""
    bounded = _bounded(dict(event))
    # Ours, and another one in each line: the patterns need not look at it.
    timestamp = bounded.pop("timestamp", None)
    masked: EventDict = mask_value(bounded)
    return masked if timestamp is None else {**masked, "timestamp": timestamp}


def _bounded(event: EventDict) -> EventDict:
    """With the head first, so that it stays when a line has too many names."""
    if len(event) <= MAX_ITEMS:
        return event
    return {**{name: event[name] for name in _HEAD if name in event}, **event}


class BoundedRenderer:
    """Renders a line; one that is too long again with shorter values, at last its head alone."""

    def __init__(self, render: Callable[..., Any]) -> None:
        self._render = render

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        """The line."""
        line = str(self._render(logger, method, dict(event)))
        for length in SHORTER:
            if len(line) <= MAX_LINE_LENGTH:
                return line
            cut = {name: _cut(value, length) for name, value in event.items()}
            line = str(self._render(logger, method, {**cut, "truncated": True}))
        if len(line) > MAX_LINE_LENGTH:
            head = {name: _cut(event[name], 200) for name in _HEAD if name in event}
            line = str(self._render(logger, method, {**head, "truncated": True}))
        return line


def _cut(value: Any, length: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return shortened(value if isinstance(value, str) else str(value), length)


def configure_logging(log_format: str, level: str) -> None:
    """Send every logger of this process to stdout in one form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.CallsiteParameterAdder(
            {
                structlog.processors.CallsiteParameter.FILENAME,
                structlog.processors.CallsiteParameter.LINENO,
            }
        ),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            mask_event,
            BoundedRenderer(renderer),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    repeats = Repeats()
    handler.addFilter(repeats)
    atexit.register(repeats.tell)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger. Write a constant sentence, and what varies as keywords."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def begin(**values: object) -> None:
    """Work of its own begins in this context: what was said of other work is forgotten.

    The values are in each of its lines, as is what `tracing.follow` adds later.
    """
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**values)
