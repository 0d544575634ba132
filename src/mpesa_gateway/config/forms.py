"""The forms of settings: functions that parse a value or raise ValueError with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from mpesa_gateway.domain.durability import Expected
from mpesa_gateway.domain.duration import duration_text, parse_duration, parse_schedule
from mpesa_gateway.domain.merchant import parse_networks
from mpesa_gateway.domain.signature import signing_key

# Safaricom is asked for a day; what it says until then may contradict what came before.
SHORTEST_RETENTION = timedelta(hours=24)
SHORTEST_KEY = 32


def text(value: str) -> str:
    """Any text."""
    return value


def boolean(value: str) -> bool:
    """`true` or `false`."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return words[value.lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither true nor false") from None


def optional_boolean(value: str) -> bool | None:
    """`true`, `false`, or nothing."""
    return boolean(value) if value else None


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number within limits."""

    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
        return int(value)

    return parse


def optional_port(value: str) -> int | None:
    """A port, 0 for none, or nothing."""
    return whole(0, 65535)(value) if value else None


def ratio(value: str) -> float:
    """From 0 to 1."""
    try:
        parsed = float(value)
    except ValueError:
        parsed = -1.0
    if not 0 <= parsed <= 1:
        raise ValueError(f"{value!r} is not a number from 0 to 1")
    return parsed


def one_of(*words: str) -> Callable[[str], str]:
    """One of a few words."""

    def parse(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return value.lower()

    return parse


def durability(value: str) -> Expected | None:
    """`storage`, `synchronous`, `single`, or nothing."""
    return Expected(one_of(*Expected)(value)) if value else None


def listed(value: str) -> list[str]:
    """Comma-separated values, spaces around them dropped. An empty one is a mistake."""
    parts = [part.strip() for part in value.split(",")] if value.strip() else []
    if not all(parts):
        raise ValueError("has an empty item between its commas")
    return parts


def networks(value: str) -> Any:
    """Comma-separated addresses and CIDRs."""
    return parse_networks(listed(value))


def schedule(value: str) -> Any:
    """Comma-separated waits."""
    waits = parse_schedule(listed(value))
    if not waits:
        raise ValueError("at least one wait is needed, such as 1m")
    return waits


def retry_schedule(value: str) -> Any:
    """Comma-separated waits; none at all means one try only."""
    return parse_schedule(listed(value))


def at_least(seconds: float) -> Callable[[str], Any]:
    """A duration that is not shorter than so many seconds."""

    def parse(value: str) -> Any:
        duration = parse_duration(value)
        if duration.total_seconds() < seconds:
            raise ValueError(f"{value!r} is shorter than {seconds:g}s")
        return duration

    return parse


def retention(value: str) -> Any:
    """A duration of a day at least, such as 2160h (90 days); zero keeps for ever."""
    duration = parse_duration(value)
    if timedelta(0) < duration < SHORTEST_RETENTION:
        raise ValueError(f"{value!r} is shorter than {duration_text(SHORTEST_RETENTION)}")
    return duration


def http_url(value: str) -> str:
    """An absolute http(s) URL without query; the final slash is dropped.

    The host is written in lower case: Safaricom has refused a callback URL for its capitals.
    """
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is not an http or https URL")
    if parts.query or parts.fragment or " " in value:
        raise ValueError(f"{value!r} must not have a query, a fragment or spaces")
    user, at, host = parts.netloc.rpartition("@")
    path = value.partition("://")[2][len(parts.netloc) :]
    return f"{parts.scheme}://{user}{at}{host.lower()}{path}".rstrip("/")


def optional_http_url(value: str) -> str:
    """An absolute http(s) URL, or nothing."""
    return http_url(value) if value else ""


def store_url(*schemes: str) -> Callable[[str], str]:
    """A URL with one of these schemes. The value is not repeated: it may hold a password."""

    def parse(value: str) -> str:
        if not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must begin with {' or '.join(f'{s}://' for s in schemes)}")
        return value

    return parse


def short_code(value: str) -> str:
    """Five to seven digits."""
    if not value.isascii() or not value.isdigit() or not 5 <= len(value) <= 7:
        raise ValueError(f"{value!r} is not five to seven digits")
    return value


def optional_short_code(value: str) -> str | None:
    """Five to seven digits, or nothing."""
    return short_code(value) if value else None


def api_key(value: str) -> str:
    """A key that fits an HTTP header, and signs webhooks where no other secret does."""
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("must be printable ASCII without spaces around it")
    return webhook_secret(value)


def webhook_secret(value: str) -> str:
    """Any text; what begins with `whsec_` must go on in base64."""
    signing_key(value)
    return value


def token_keys(value: str) -> tuple[str, ...]:
    """Keys with commas between them, long enough to resist guessing. Errors repeat none."""
    keys = tuple(listed(value))
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise ValueError(f"holds a key that is shorter than {SHORTEST_KEY} characters")
    return keys
