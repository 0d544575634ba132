"""On whose behalf this thread calls out: look-ups and connections are shared by merchant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_MERCHANT: ContextVar[str] = ContextVar("merchant", default="")


@contextmanager
def on_behalf_of(merchant: str) -> Iterator[None]:
    """Count look-ups and connections inside as this merchant's."""
    token = _MERCHANT.set(merchant)
    try:
        yield
    finally:
        _MERCHANT.reset(token)


def current_merchant() -> str:
    """Return the merchant, empty for the gateway's own calls."""
    return _MERCHANT.get()
