"""Logs: one JSON object a line on stdout, with file and line; nothing personal, nothing secret.

Every logger of the process goes through the same masking, libraries and tracebacks included.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import structlog
from structlog.typing import EventDict, WrappedLogger

from mpesa_gateway.telemetry.masking import MAX_ITEMS, mask, mask_value, shortened, shows_hidden

# A line that would be longer is written with shorter values, at last without them.
MAX_LINE_LENGTH = 16 * 1024
SHORTER = (1000, 200, 40)
# Of one sentence, warnings and errors beyond so many in a window are counted, not written.
REPEATS = 60
WINDOW_S = 60.0
MAX_SENTENCES = 500
SUPPRESSED = "lines suppressed"
UNWRITABLE = "a log line could not be written"
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
            self.tell_if_over()
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

    def tell_if_over(self) -> None:
        """A storm's end is told by whatever is said next."""
        if self._counts and self._time_s() >= self._ends_at:
            self.tell()

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
        return _writable(self._bounded_line(logger, method, event))

    def _bounded_line(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
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


def _writable(line: str) -> str:
    """The line in JSON's own escapes where a character ends lines, steers a terminal, or is none.

    Half a surrogate pair cannot be written: whoever sends one would silence the line it is in, and
    those that are written with it.
    """
    if line.isascii() and "\x7f" not in line:
        return line
    return line.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode()


_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


class _Handler(logging.StreamHandler[Any]):
    """Says that a line could not be written; logging itself would print its values unmasked."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        error = type(sys.exc_info()[1]).__name__
        line = {"event": UNWRITABLE, "level": "error", "logger": record.name, "error": error}
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()


class _Stdout(NamedTuple):
    """Where this process's JSON lines go."""

    handler: logging.StreamHandler[Any]
    repeats: Repeats


_ROOT = logging.getLogger()
# None as long as lines have another form.
_stdout: _Stdout | None = None


def quick_line(
    logger: logging.Logger, beginning: str, about: Mapping[str, Any], site: tuple[str, int]
) -> str | None:
    """A line of level INFO as JSON, as the whole chain would write it, at a tenth of its cost.

    For the one sentence that a process says most. `beginning` is JSON without its last brace, of
    values that are no caller's (`quick_beginning`); `about` is masked here. None when only the
    chain will do: another form, somebody else's handler, a secret of this process in the line.
    """
    stdout = _stdout
    if stdout is None or _ROOT.handlers != [stdout.handler]:
        return None
    stdout.repeats.tell_if_over()
    said = "".join([f', "{name}": {_quoted(mask(str(value)))}' for name, value in about.items()])
    line = (
        f'{beginning}{said}, "level": "info", "logger": "{logger.name}", "lineno": {site[1]},'
        f' "filename": "{site[0]}", "timestamp": "{_timestamp(time.time_ns() // 1000)}"}}'
    )
    return None if shows_hidden(line) else _writable(line)


# json.dumps would make an encoder for each value.
_quoted = json.JSONEncoder(ensure_ascii=False).encode


def _timestamp(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


def quick_beginning(event: str, **values: Any) -> str:
    """What such a line begins with, masked."""
    shown = mask_value({"event": event, **values})
    return json.dumps(shown, ensure_ascii=False, default=str)[:-1]


def write_quickly(lines: list[str]) -> None:
    """All of them at once."""
    if _stdout is None:
        return
    handler = _stdout.handler
    handler.acquire()
    try:
        # A pipe that broke costs these lines, as it costs any other.
        with contextlib.suppress(OSError, ValueError):
            handler.stream.write("\n".join([*lines, ""]))
            handler.flush()
    finally:
        handler.release()


def configure_logging(log_format: str, level: str) -> None:
    """Send every logger of this process to stdout in one form."""
    global _stdout  # noqa: PLW0603 - one per process
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
    handler = _Handler(sys.stdout)
    handler.setFormatter(formatter)
    repeats = Repeats()
    handler.addFilter(repeats)
    atexit.register(repeats.tell)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _stdout = _Stdout(handler, repeats) if log_format == "json" else None
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


def in_hand() -> dict[str, Any]:
    """What each line of the work in hand says beside its own words."""
    return structlog.contextvars.get_contextvars()
