"""The configuration: read once, from one mapping, into one frozen object.

Only `Config.from_env` reads the environment. It reports every problem at once, by variable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mpesa_gateway.domain.merchant import (
    DEFAULT_MERCHANT,
    Credentials,
    Merchant,
    Network,
)
from mpesa_gateway.errors import ConfigError
from mpesa_gateway.settings import (
    PREFIX,
    PRODUCTION_URL,
    SANDBOX_URL,
    SETTINGS,
    SHORTEST_LEASE_S,
    Setting,
)

SHORTEST_SECRET = 32
# Safaricom refuses these in C2B URLs (Daraja 3.0 pages); whether in STK ones too is unclear.
REFUSED_WORDS = ("mpesa", "m-pesa", "safaricom", "exe", "exec", "cmd", "sql", "query")
_EVERYONE = {"0.0.0.0/0", "::/0"}

# The variables that describe the merchant `default`: all of them, or with MERCHANTS_DIR none.
DEFAULT_MERCHANT_SETTINGS = (
    "INTERNAL_SECRET",
    "SAFARICOM_CONSUMER_KEY",
    "SAFARICOM_CONSUMER_SECRET",
    "SAFARICOM_PASSKEY",
    "SAFARICOM_SHORT_CODE",
)


class Needs(Enum):
    """What a command needs of the configuration."""

    EVERYTHING = frozenset(setting.name for setting in SETTINGS)
    DATABASE = frozenset({"DATABASE_URL", "DB_MAX_CONNS", "LOG_FORMAT", "LOG_LEVEL"})
    # What a person on call uses: Redis only to wake a worker up, when it is known.
    COMMANDS = frozenset({"DATABASE_URL", "REDIS_URL", "DB_MAX_CONNS", "LOG_FORMAT", "LOG_LEVEL"})
    # What describes the merchants, wherever they come from; no database.
    MERCHANTS = frozenset(
        {
            *DEFAULT_MERCHANT_SETTINGS,
            "SAFARICOM_TILL_NUMBER",
            "SAFARICOM_BASE_URL",
            "WEBHOOK_SECRET",
            "WEBHOOK_RETRY_SCHEDULE",
            "WEBHOOK_ALLOW_PRIVATE",
            "MERCHANTS_DIR",
            "LOG_FORMAT",
            "LOG_LEVEL",
        }
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting, checked. Field names are the variables' names in lower case."""

    server_host: str
    server_port: int
    metrics_port: int
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    safaricom_callback_url: str
    safaricom_base_url: str
    safaricom_ips: tuple[Network, ...]
    environment: str
    callback_token_required: bool
    trusted_proxies: tuple[Network, ...]
    webhook_retry_schedule: tuple[timedelta, ...]
    safaricom_push_per_minute: int
    safaricom_query_per_minute: int
    query_schedule: tuple[timedelta, ...]
    sweep_interval: timedelta
    lease: timedelta
    webhook_allow_private: bool
    webhook_denied_cidrs: tuple[Network, ...]
    metrics_merchant_label: bool
    metrics_merchant_max: int
    worker_concurrency: int
    pushes_in_flight: int
    db_max_conns: int
    retain_callback_bodies: timedelta
    retain_attempts: timedelta
    merchants_dir: Path | None
    failpoints: Path | None
    otlp_endpoint: str
    traces_sample_ratio: float
    log_format: str
    log_level: str
    default_merchant: Merchant | None
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str], needs: Needs = Needs.EVERYTHING) -> Config:
        """Read every setting that the command needs. Raises ConfigError with every problem."""
        reader = _Reader(env, needs.value)
        values = {setting.name: reader.read(setting) for setting in SETTINGS}
        problems, warnings = [*reader.problems, *_contradictions(values)], []
        if needs is Needs.EVERYTHING:
            production = values["ENVIRONMENT"] == "production"
            wrong = {problem.split(" ", 1)[0] for problem in problems}
            unsafe = [it for it in _unsafe(values) if it.split(" ", 1)[0] not in wrong]
            problems += unsafe if production else []
            warnings += [] if production else unsafe
        if problems:
            raise ConfigError(problems)
        return cls(warnings=tuple(warnings), **_fields(values))

    def secrets(self) -> list[str | None]:
        """What the environment gave that no log may show, whatever stands around it.

        Those of merchant files are too many to look for in each line.
        """
        found: list[str | None] = [
            *_passwords(self.database_url),
            *_passwords(self.redis_url),
        ]
        merchant = self.default_merchant
        if merchant is not None:
            credentials = merchant.credentials
            found += [credentials.consumer_key, credentials.consumer_secret, credentials.passkey]
            found += merchant.webhook_secrets
        return found

    def base_url_for(self, environment: str) -> str:
        """Daraja's address for a merchant of that environment; one set here on purpose wins."""
        if self.safaricom_base_url not in (SANDBOX_URL, PRODUCTION_URL):
            return self.safaricom_base_url
        return PRODUCTION_URL if environment == "production" else SANDBOX_URL


class _Reader:
    """Reads one variable after the other and remembers what was wrong."""

    def __init__(self, env: Mapping[str, str], needed: frozenset[str]) -> None:
        self._env = env
        self._needed = needed
        self.problems: list[str] = []
        described = any(self._is_set(name) for name in DEFAULT_MERCHANT_SETTINGS)
        self._optional = (
            set(DEFAULT_MERCHANT_SETTINGS)
            if self._is_set("MERCHANTS_DIR") and not described
            else set()
        )
        if needed == Needs.COMMANDS.value:
            self._optional.add("REDIS_URL")

    def _is_set(self, name: str) -> bool:
        return bool(self._env.get(PREFIX + name) or self._env.get(f"{PREFIX}{name}_FILE"))

    def read(self, setting: Setting) -> Any:
        """The parsed value; None where it is missing or wrong, and then a problem is noted."""
        raw = self._raw(setting) if setting.name in self._needed else None
        if raw is None:
            raw = setting.default
        if raw is None:
            if setting.name in self._needed and setting.name not in self._optional:
                self._note(setting, "is required and not set")
            return None
        try:
            return setting.parse(raw)
        except ValueError as error:
            self._note(setting, str(error))
            return None

    def _raw(self, setting: Setting) -> str | None:
        name = PREFIX + setting.name
        value, file = self._env.get(name) or None, self._env.get(f"{name}_FILE") or None
        if not setting.secret or file is None:
            return value.strip() if value else None
        if value is not None:
            self._note(setting, f"is set, and {name}_FILE too; set one of them")
            return None
        try:
            return Path(file).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            self._note(setting, f"cannot be read from {name}_FILE: {type(error).__name__}")
            return None

    def _note(self, setting: Setting, problem: str) -> None:
        message = f"{PREFIX}{setting.name} {problem}"
        if not any(known.startswith(f"{PREFIX}{setting.name} ") for known in self.problems):
            self.problems.append(message)


def _passwords(url: str) -> list[str]:
    """The password in a URL, as it is written and as it is meant."""
    try:
        written = urlsplit(url).password
    except ValueError:
        # What Postgres accepts and Python does not; nothing may fail because of a log.
        return []
    return [written, unquote(written)] if written else []


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of Config from the parsed values."""
    merchant_settings = {*DEFAULT_MERCHANT_SETTINGS, "SAFARICOM_TILL_NUMBER", "WEBHOOK_SECRET"}
    fields = {
        name.lower(): value for name, value in values.items() if name not in merchant_settings
    }
    for name in ("database_url", "redis_url", "safaricom_callback_url"):
        fields[name] = fields[name] or ""
    for name in ("MERCHANTS_DIR", "FAILPOINTS"):
        fields[name.lower()] = Path(values[name]) if values[name] else None
    if values["CALLBACK_TOKEN_REQUIRED"] is None:
        fields["callback_token_required"] = values["ENVIRONMENT"] == "production"
    fields["default_merchant"] = _default_merchant(values)
    return fields


def _default_merchant(values: dict[str, Any]) -> Merchant | None:
    key = values["INTERNAL_SECRET"]
    if key is None:
        return None
    till = values["SAFARICOM_TILL_NUMBER"]
    return Merchant(
        name=DEFAULT_MERCHANT,
        base_url=values["SAFARICOM_BASE_URL"],
        short_code=values["SAFARICOM_SHORT_CODE"],
        transaction_type="CustomerBuyGoodsOnline" if till else "CustomerPayBillOnline",
        till_number=till,
        credentials=Credentials(
            values["SAFARICOM_CONSUMER_KEY"],
            values["SAFARICOM_CONSUMER_SECRET"],
            values["SAFARICOM_PASSKEY"],
        ),
        api_key_sha256=(hashlib.sha256(key.encode()).digest(),),
        webhook_secrets=(values["WEBHOOK_SECRET"] or key,),
        retry_schedule=values["WEBHOOK_RETRY_SCHEDULE"],
    )


def _contradictions(values: dict[str, Any]) -> list[str]:
    """What is right alone and wrong together, in every environment."""
    lease = values["LEASE"]
    if lease is None or values["FAILPOINTS"] or lease.total_seconds() >= SHORTEST_LEASE_S:
        return []
    return [f"{PREFIX}LEASE must be at least {SHORTEST_LEASE_S:.0f}s"]


def _unsafe(values: dict[str, Any]) -> list[str]:
    """What must not be so in production: a sentence each. Elsewhere these are warnings."""
    checks = [
        ("SAFARICOM_IPS", _open(values["SAFARICOM_IPS"]), "lets every address call back"),
        (
            "CALLBACK_TOKEN_REQUIRED",
            values["CALLBACK_TOKEN_REQUIRED"] is False,
            "is false: anyone who learns a CheckoutRequestID could settle a payment",
        ),
        (
            "TRUSTED_PROXIES",
            bool(values["TRUSTED_PROXIES"]) and _open(values["TRUSTED_PROXIES"]),
            "trusts every address: anyone could forge where a callback comes from",
        ),
        (
            "WEBHOOK_ALLOW_PRIVATE",
            bool(values["WEBHOOK_ALLOW_PRIVATE"]),
            "lets webhooks reach private addresses and go unencrypted",
        ),
        (
            "FAILPOINTS",
            bool(values["FAILPOINTS"]),
            "is for crash tests: whoever can write there could end this process at any step",
        ),
        ("SAFARICOM_BASE_URL", *_base_url_problem(values["SAFARICOM_BASE_URL"])),
        ("SAFARICOM_CALLBACK_URL", *_callback_url_problem(values["SAFARICOM_CALLBACK_URL"])),
        *(_secret_check(values, name) for name in ("INTERNAL_SECRET", "WEBHOOK_SECRET")),
    ]
    return [f"{PREFIX}{name} {sentence}" for name, wrong, sentence in checks if wrong]


def _open(networks: tuple[Network, ...] | None) -> bool:
    return not networks or any(str(network) in _EVERYONE for network in networks)


def _base_url_problem(url: str | None) -> tuple[bool, str]:
    if url is not None and not url.startswith("https://"):
        return True, "is not https: credentials would travel in the clear"
    return url == SANDBOX_URL, "is the sandbox: its payments are not real money"


def _callback_url_problem(url: str | None) -> tuple[bool, str]:
    if url is None:
        return False, ""
    if urlsplit(url).scheme != "https":
        return True, "is not https: Safaricom calls production only over https"
    found = [word for word in REFUSED_WORDS if word in url.lower()]
    return bool(found), f"contains {', '.join(found)}: Safaricom refuses such URLs"


def _secret_check(values: dict[str, Any], name: str) -> tuple[str, bool, str]:
    secret = values[name]
    short = bool(secret) and len(secret) < SHORTEST_SECRET
    return name, short, f"is shorter than {SHORTEST_SECRET} characters"
