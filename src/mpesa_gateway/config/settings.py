"""Every `MPESA_*` variable: its default, its form, what it means.

`config.py` reads them, `forms.py` parses the values; `docs/configuration.md` and `.env.example` are
compared with this table by a test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpesa_gateway.config.forms import (
    api_key,
    at_least,
    boolean,
    durability,
    http_url,
    networks,
    one_of,
    optional_boolean,
    optional_http_url,
    optional_port,
    optional_short_code,
    ratio,
    retention,
    retry_schedule,
    schedule,
    short_code,
    store_url,
    text,
    token_keys,
    webhook_secret,
    whole,
)
from mpesa_gateway.config.redis_url import redis_url
from mpesa_gateway.domain.production import SANDBOX_URL

PREFIX = "MPESA_"
# For tests against the simulator, whose customers answer at once.
SHORTEST_PROMPT_S = 1.0
# Longer than a webhook may take; config holds it against LEASE, except in crash tests.
SHORTEST_LEASE_S = 12.0
SHORTEST_LEASE_IN_CRASH_TESTS_S = 1.0
SHORTEST_SWEEP_S = 0.05


@dataclass(frozen=True)
class Setting:
    """One variable, without its prefix. `default` is text as in the environment, None if required.

    `secret` values may also come from the file that `<name>_FILE` names. `example` is what
    `.env.example` has; that of a key or a password is refused under production rules.
    """

    name: str
    default: str | None
    parse: Callable[[str], Any]
    meaning: str
    secret: bool = False
    example: str = ""

    @property
    def summary(self) -> str:
        """The meaning as a part of a sentence, with what a value looks like."""
        text = self.meaning.rstrip(".")
        return f"{text}, such as {self.example}" if self.example else text


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "SERVER_HOST",
        "",
        text,
        "Address the API listens on; empty is every address of both IP families.",
    ),
    Setting("SERVER_PORT", "8080", whole(1, 65535), "API port."),
    Setting(
        "METRICS_PORT",
        "",
        optional_port,
        "`/metrics` and `/livez` of every process; empty is 9090 for the API and 9091 for the"
        " worker, 0 switches it off.",
    ),
    Setting(
        "DATABASE_URL",
        None,
        store_url("postgres", "postgresql"),
        "Postgres; `sslmode` and several hosts are honoured (docs/postgres.md).",
        secret=True,
        example="postgresql://mpesa:mpesa@localhost:5433/mpesa_gateway",
    ),
    Setting(
        "REDIS_URL",
        None,
        redis_url,
        "Redis; `rediss://` for TLS, `redis+sentinel://` for Sentinel (docs/redis.md).",
        secret=True,
        example="redis://localhost:6380/0",
    ),
    Setting(
        "INTERNAL_SECRET",
        None,
        api_key,
        "API key of the merchant `default`.",
        secret=True,
        example="change-me-to-32-random-characters",
    ),
    Setting(
        "SAFARICOM_CONSUMER_KEY",
        None,
        text,
        "Daraja app of the merchant `default`.",
        secret=True,
        example="your-consumer-key",
    ),
    Setting(
        "SAFARICOM_CONSUMER_SECRET",
        None,
        text,
        "Its secret.",
        secret=True,
        example="your-consumer-secret",
    ),
    Setting(
        "SAFARICOM_PASSKEY",
        None,
        text,
        "Passkey of the short code.",
        secret=True,
        example="your-passkey",
    ),
    Setting(
        "SAFARICOM_SHORT_CODE",
        None,
        short_code,
        "Paybill; for a till the store or head-office number used at go-live.",
        example="174379",
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
        example="https://pay.example.com/callback",
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
        "Addresses and CIDRs that may call back; empty allows all (refused under production"
        " rules).",
    ),
    Setting(
        "ENVIRONMENT",
        "sandbox",
        one_of("sandbox", "production"),
        "`production` turns every unsafe setting into a start-up error; required for real money.",
    ),
    Setting(
        "CALLBACK_TOKEN_REQUIRED",
        "",
        optional_boolean,
        "Whether only `/callback/{token}` may settle; true under production rules, else false.",
    ),
    Setting(
        "CALLBACK_TOKEN_KEY",
        "",
        token_keys,
        "Keys of the MAC in callback tokens, newest first, with commas; by default one is derived"
        " from the secrets of the merchant `default`.",
        secret=True,
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
        "Signs the webhooks of `default`; `INTERNAL_SECRET` when empty (refused under production"
        " rules).",
        secret=True,
    ),
    Setting(
        "WEBHOOK_URL",
        "",
        text,
        "Where webhooks of `default` go when a payment names no `webhook_url`; empty: it must name"
        " one.",
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
        "When a payment without a callback is queried; the last wait repeats for 24 h.",
    ),
    Setting(
        "PROMPT_LIFE",
        "90s",
        at_least(SHORTEST_PROMPT_S),
        "How long a prompt may be open on a phone: until then no second one is sent there, and a"
        " query's success is asked for again. Shorter only against the simulator.",
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
        "MAX_AMOUNT",
        "250000",
        whole(1, 100_000_000),
        "Greatest amount of one payment, in shillings; a merchant's own limit may only lower it.",
    ),
    Setting(
        "MAX_INITIATE_PER_MINUTE",
        "0",
        whole(0, 1_000_000),
        "Payments that one merchant may start in a minute; its own limit may only lower it. 0 is no"
        " limit.",
    ),
    Setting(
        "PROMPTS_PER_PHONE_PER_HOUR",
        "20",
        whole(0, 1000),
        "Prompts that one phone may get in an hour, from all merchants together; 0 is no limit.",
    ),
    Setting(
        "WORKER_CONCURRENCY",
        "10",
        whole(1, 256),
        "Threads of a worker that work; at least ten more only wait for endpoints.",
    ),
    Setting(
        "PUSHES_IN_FLIGHT",
        "128",
        whole(1, 1024),
        "Pushes that an API process holds open at once, shared by merchant; more are answered 503.",
    ),
    Setting(
        "DATABASE_DURABILITY",
        "",
        durability,
        "What protects the database, once somebody has decided it: `storage` (replicated below"
        " Postgres), `synchronous` (a standby) or `single` (backups only).",
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
        "SPOOL_DIR",
        "",
        text,
        "Directory in which the API keeps callbacks and outcomes of pushes that Postgres could not"
        " take, until it does; without one they are held in memory, and lost with the process.",
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
