"""Logs: one JSON object a line on stdout, with file and line; nothing personal, nothing secret.

Every logger of the process goes through the same masking, libraries and tracebacks included.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from mpesa_gateway.domain.phone import mask_phone

MAX_VALUE_LENGTH = 4000
_PHONE = re.compile(r"(?<![0-9A-Za-z])\+?(?:254|0)[17][0-9]{8}(?![0-9A-Za-z])", re.ASCII)
_CHECKOUT_REQUEST_ID = re.compile(r"ws_CO_[A-Za-z0-9_]+")
_TOKEN_IN_PATH = re.compile(r"(/callback/)[^\s\"'?#]+")
_LONG_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")
_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@")
_CREDENTIAL = re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=._~-]+", re.IGNORECASE)
_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")
# Values under these names are dropped whole, whatever they look like.
_SECRET_NAMES = re.compile(
    r"secret|password|passkey|api_?key|consumer_?key|authorization|credential|access_token",
    re.IGNORECASE,
)

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


def mask(text: str) -> str:
    """The text without whole phone numbers, CheckoutRequestIDs, callback tokens or credentials."""
    text = _CHECKOUT_REQUEST_ID.sub("ws_CO_***", text)
    text = _TOKEN_IN_PATH.sub(r"\1***", text)
    text = _LONG_HEX.sub("***", text)
    text = _PHONE.sub(lambda match: mask_phone(match[0]), text)
    text = _URL_PASSWORD.sub(r"\1:***@", text)
    text = _CREDENTIAL.sub(r"\1 ***", text)
    return _WEBHOOK_SECRET.sub("whsec_***", text)


def _masked(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict) and depth < 4:
        return {
            mask(str(key)): "***" if _SECRET_NAMES.search(str(key)) else _masked(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set) and depth < 4:
        return [_masked(item, depth + 1) for item in value]
    text = mask(value if isinstance(value, str) else str(value))
    if isinstance(value, int | float):
        return value if text == str(value) else text
    return text if len(text) <= MAX_VALUE_LENGTH else text[:MAX_VALUE_LENGTH] + "…"


def mask_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask every value of a line, and drop what its name calls secret (structlog processor)."""
    masked: EventDict = _masked(dict(event))
    return masked


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
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
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
