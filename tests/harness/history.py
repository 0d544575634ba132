"""Payments that are over, written by SQL through the real schema: thousands in a moment."""

from __future__ import annotations

from pathlib import Path

import psycopg

_STATEMENTS = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")


def write_history(
    url: str,
    count: int,
    *,
    first: int = 1,
    at: str = "2026-01-31 12:00:00+00",
    merchant: str = "default",
    webhook_url: str = "https://shop.example/hook",
    state: str = "DELIVERED",
    attempts: int = 1,
) -> None:
    """`count` completed payments, all asked for `at`: a time of its own for each call.

    Each has its events, its callback by token, its webhook in that state and so many tries of it.
    """
    values = {
        "first": first,
        "last": first + count - 1,
        "at": at,
        "merchant": merchant,
        "url": webhook_url,
        "state": state,
        "attempts": attempts,
    }
    with psycopg.connect(url) as conn:
        for statement in _STATEMENTS.split(";\n"):
            if statement.strip():
                conn.execute(statement.encode(), values)
