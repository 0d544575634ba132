"""Every `MPESA_*` variable: its default, its form, what it means.

`config.py` reads them; `docs/configuration.md` and `.env.example` are compared with this table by a
test. Values are parsed by functions that raise ValueError with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from mpesa_gateway.domain.duration import duration_text, parse_duration, parse_schedule
from mpesa_gateway.domain.merchant import parse_networks
from mpesa_gateway.domain.signature import signing_key

PREFIX = "MPESA_"
SANDBOX_URL = "https://sandbox.safaricom.co.ke"
PRODUCTION_URL = "https://api.safaricom.co.ke"
# Longer than a webhook may take; config holds it against LEASE, except in crash tests.
SHORTEST_LEASE_S = 12.0
SHORTEST_LEASE_IN_CRASH_TESTS_S = 1.0
SHORTEST_SWEEP_S = 0.05
# Safaricom is asked for a day; what it says until then may contradict what came before.
SHORTEST_RETENTION = timedelta(hours=24)


@dataclass(frozen=True)
class Setting:
    """One variable, without its prefix. `default` is text as in the environment, None if required.

    `secret` values may also come from the file that `<name>_FILE` names.
    """

    name: str
    default: str | None
    parse: Callable[[str], Any]
    meaning: str
    secret: bool = False


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


def listed(value: str) -> list[str]:
    """Comma-separated values, spaces around them dropped."""
    return [part.strip() for part in value.split(",") if part.strip()]


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
    """An absolute http(s) URL without query; the final slash is dropped."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is not an http or https URL")
    if parts.query or parts.fragment or " " in value:
        raise ValueError(f"{value!r} must not have a query, a fragment or spaces")
    return value.rstrip("/")


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


SETTINGS: tuple[Setting, ...] = (
    Setting("SERVER_HOST", "0.0.0.0", text, "Address the API listens on."),  # noqa: S104
    Setting("SERVER_PORT", "8080", whole(1, 65535), "API port."),
    Setting(
        "METRICS_PORT",
        "9090",
        whole(0, 65535),
        "`/metrics` of every process (one per pod); 0 switches it off.",
    ),
    Setting(
        "DATABASE_URL",
        None,
        store_url("postgres", "postgresql"),
        "Postgres; `sslmode` is honoured.",
        secret=True,
    ),
    Setting(
        "REDIS_URL",
        None,
        store_url("redis", "rediss", "unix"),
        "Redis; `rediss://` for TLS.",
        secret=True,
    ),
    Setting("INTERNAL_SECRET", None, api_key, "API key of the merchant `default`.", secret=True),
    Setting(
        "SAFARICOM_CONSUMER_KEY", None, text, "Daraja app of the merchant `default`.", secret=True
    ),
    Setting("SAFARICOM_CONSUMER_SECRET", None, text, "Its secret.", secret=True),
    Setting("SAFARICOM_PASSKEY", None, text, "Passkey of the short code.", secret=True),
    Setting(
        "SAFARICOM_SHORT_CODE",
        None,
        short_code,
        "Paybill; for a till the store or head-office number used at go-live.",
    ),
    Setting(
        "SAFARICOM_TILL_NUMBER",
        "",
        optional_short_code,
        "Till number; when set, `default` is a till (Buy Goods) and not a paybill.",
    ),
    Setting(
        "SAFARICOM_CALLBACK_URL",
        None,
        http_url,
        "Public URL that Safaricom calls; `/<token>` is added for each push.",
    ),
    Setting(
        "SAFARICOM_BASE_URL",
        SANDBOX_URL,
        http_url,
        "Daraja: sandbox, production or the simulator.",
    ),
    Setting(
        "SAFARICOM_IPS",
        "",
        networks,
        "Addresses and CIDRs that may call back; empty allows all (refused in production).",
    ),
    Setting(
        "ENVIRONMENT",
        "sandbox",
        one_of("sandbox", "production"),
        "`production` turns every unsafe setting into a start-up error.",
    ),
    Setting(
        "CALLBACK_TOKEN_REQUIRED",
        "",
        optional_boolean,
        "Whether only `/callback/{token}` may settle; true in production, else false.",
    ),
    Setting(
        "TRUSTED_PROXIES",
        "",
        networks,
        "CIDRs whose `X-Forwarded-For` is believed, walked from the right.",
    ),
    Setting(
        "WEBHOOK_SECRET",
        "",
        webhook_secret,
        "Signs the webhooks of `default`; `INTERNAL_SECRET` when empty.",
        secret=True,
    ),
    Setting(
        "WEBHOOK_RETRY_SCHEDULE",
        "1m,5m,15m,1h",
        retry_schedule,
        "Waits after the first try of a webhook.",
    ),
    Setting(
        "SAFARICOM_PUSH_PER_MINUTE",
        "0",
        whole(0, 1_000_000),
        "Pushes a minute per Daraja app, for the whole cluster; 0 is no limit.",
    ),
    Setting(
        "SAFARICOM_QUERY_PER_MINUTE",
        "5",
        whole(0, 1_000_000),
        "STK queries a minute per Daraja app, for the whole cluster; 0 is no limit.",
    ),
    Setting(
        "QUERY_SCHEDULE",
        "1m,2m,4m,8m,15m,30m,1h",
        schedule,
        "When a silent transaction is asked after; the last wait repeats for 24 h.",
    ),
    Setting(
        "SWEEP_INTERVAL",
        "5s",
        at_least(SHORTEST_SWEEP_S),
        "How often each worker looks for work that no wake-up announced.",
    ),
    Setting(
        "LEASE",
        "15s",
        at_least(SHORTEST_LEASE_IN_CRASH_TESTS_S),
        "How long a worker's claim lasts; 12 s at least, longer than a webhook's deadline.",
    ),
    Setting(
        "WEBHOOK_ALLOW_PRIVATE",
        "false",
        boolean,
        "Private and plain-http webhook endpoints, for development.",
    ),
    Setting(
        "WEBHOOK_DENIED_CIDRS",
        "",
        networks,
        "More CIDRs that no webhook may reach, such as public node addresses.",
    ),
    Setting(
        "METRICS_MERCHANT_LABEL",
        "false",
        boolean,
        "Count transactions by merchant too (`mpesa_merchant_transactions_total`).",
    ),
    Setting(
        "METRICS_MERCHANT_MAX",
        "100",
        whole(1, 10_000),
        "Merchants with a series of their own; all others share the label `other`.",
    ),
    Setting(
        "WORKER_CONCURRENCY",
        "10",
        whole(1, 256),
        "Threads of a worker that work; as many again only wait for slow endpoints.",
    ),
    Setting(
        "PUSHES_IN_FLIGHT",
        "128",
        whole(1, 1024),
        "Pushes that one API process holds open at once; more are answered 503.",
    ),
    Setting("DB_MAX_CONNS", "20", whole(2, 1000), "Postgres pool size of one process."),
    Setting(
        "RETAIN_CALLBACK_BODIES",
        "0s",
        retention,
        "How long raw callback bodies are kept once a payment is over; 0s is for ever.",
    ),
    Setting(
        "RETAIN_ATTEMPTS",
        "0s",
        retention,
        "How long the tries of ended webhooks are kept; 0s is for ever.",
    ),
    Setting(
        "MERCHANTS_DIR",
        "",
        text,
        "Directory of merchant files that the operator publishes; read again when it changes.",
    ),
    Setting(
        "FAILPOINTS",
        "",
        text,
        "Directory that tells a crash test's process where to die; refused in production.",
    ),
    Setting(
        "LOG_FORMAT",
        "json",
        one_of("json", "console"),
        "`json` for machines, `console` for people.",
    ),
    Setting(
        "OTLP_ENDPOINT",
        "",
        optional_http_url,
        "Where traces go (OTLP over HTTP; `/v1/traces` is added); empty means no traces.",
    ),
    Setting(
        "TRACES_SAMPLE_RATIO",
        "1",
        ratio,
        "Share of payments that are traced, 0 to 1, where the caller's `traceparent` does not say.",
    ),
    Setting("LOG_LEVEL", "info", one_of("debug", "info", "warning", "error"), "Least level."),
)
