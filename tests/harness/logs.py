"""A test may configure logging as a process does; the others have it as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog

from mpesa_gateway.telemetry import log, masking


@contextmanager
def logging_restored() -> Iterator[None]:
    """The root logger, structlog, and what a process hides, as they were before."""
    root = logging.getLogger()
    handlers, level, configured = list(root.handlers), root.level, structlog.get_config()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(masking, "_hidden", ())
        patched.setattr(log, "_stdout", None)
        patched.setattr("atexit.register", lambda *_: None)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            structlog.configure(**configured)
