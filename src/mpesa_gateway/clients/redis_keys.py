"""The names of all keys in Redis that the gateway reads.

They are made here only: a test writes hostile values under each of them, and finds a key that is
not on this list.
"""

from __future__ import annotations

TOKEN_PREFIX = "mpesa:token:"  # noqa: S105 - the beginning of names
BUDGET_PREFIX = "mpesa:budget:"
LOCK_SUFFIX = ":lock"
WORKED_SUFFIX = ":worked"
QUEUE_NAME = "mpesa"

# Regular expressions of whole names.
PATTERNS = {
    "token": r"mpesa:token:[0-9a-f]{24}",
    "lock": r"mpesa:token:[0-9a-f]{24}:lock",
    "worked": r"mpesa:token:[0-9a-f]{24}:worked",
    "budget": r"mpesa:budget:(push|query|initiate):.+",
    "queue": r"huey\.redis\.mpesa",
}


def token_key(app: str) -> str:
    """Where the app's token is, or that OAuth refused it."""
    return TOKEN_PREFIX + app


def lock_key(app: str) -> str:
    """Held by the process that fetches the app's token."""
    return TOKEN_PREFIX + app + LOCK_SUFFIX


def worked_key(app: str) -> str:
    """When Safaricom last accepted a token of the app."""
    return TOKEN_PREFIX + app + WORKED_SUFFIX


def budget_key(name: str) -> str:
    """A bucket of calls."""
    return BUDGET_PREFIX + name
