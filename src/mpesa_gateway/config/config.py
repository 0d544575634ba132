"""The configuration: read once, from one mapping, into one frozen object.

Only `Config.from_env` reads the environment. It reports every problem at once, by variable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mpesa_gateway.config.production import (
    NOT_THE_PASSKEY,
    production_contradictions,
    production_rules_hold,
    unsafe_settings,
)
from mpesa_gateway.config.settings import (
    PREFIX,
    SETTINGS,
    SHORTEST_LEASE_S,
    Setting,
)
from mpesa_gateway.domain.durability import Expected
from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.ids import TokenKeys, derived_key
from mpesa_gateway.domain.merchant import (
    DEFAULT_MERCHANT,
    Ceilings,
    Credentials,
    Merchant,
    Network,
)
from mpesa_gateway.domain.production import PRODUCTION_URL, SANDBOX_URL, is_daraja_password
from mpesa_gateway.errors import ConfigError, InvalidInputError

# The variables that describe the merchant `default`: all of them, or with MERCHANTS_DIR none.
DEFAULT_MERCHANT_SETTINGS = (
    "INTERNAL_SECRET",
    "SAFARICOM_CONSUMER_KEY",
    "SAFARICOM_CONSUMER_SECRET",
    "SAFARICOM_PASSKEY",
    "SAFARICOM_SHORT_CODE",
)


# What the key of callback tokens is derived from where none is configured.
DERIVED_FROM = ("INTERNAL_SECRET", "SAFARICOM_CONSUMER_SECRET", "SAFARICOM_PASSKEY")
TOKEN_PURPOSE = "callback token"  # noqa: S105 - what a key is for


class Needs(Enum):
    """What a command needs of the configuration."""

    EVERYTHING = frozenset(setting.name for setting in SETTINGS)
    DATABASE = frozenset({"DATABASE_URL", "DB_MAX_CONNS", "LOG_FORMAT", "LOG_LEVEL"})
    REDIS = frozenset({"REDIS_URL", "LOG_FORMAT", "LOG_LEVEL"})
    # What a person on call uses: Redis only to wake a worker up, when it is known.
    COMMANDS = frozenset({"DATABASE_URL", "REDIS_URL", "DB_MAX_CONNS", "LOG_FORMAT", "LOG_LEVEL"})
    # What describes the merchants, wherever they come from; no database.
    MERCHANTS = frozenset(
        {
            *DEFAULT_MERCHANT_SETTINGS,
            "SAFARICOM_TILL_NUMBER",
            "SAFARICOM_BASE_URL",
            "ENVIRONMENT",
            "WEBHOOK_SECRET",
            "WEBHOOK_URL",
            "WEBHOOK_RETRY_SCHEDULE",
            "WEBHOOK_ALLOW_PRIVATE",
            "WEBHOOK_DENIED_CIDRS",
            "MAX_AMOUNT",
            "MAX_INITIATE_PER_MINUTE",
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
    metrics_port: int | None
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
    prompt_life: timedelta
    sweep_interval: timedelta
    lease: timedelta
    webhook_allow_private: bool
    webhook_denied_cidrs: tuple[Network, ...]
    metrics_merchant_label: bool
    metrics_merchant_max: int
    worker_concurrency: int
    pushes_in_flight: int
    ceilings: Ceilings
    prompts_per_phone_per_hour: int
    database_durability: Expected | None
    db_max_conns: int
    retain_callback_bodies: timedelta
    retain_attempts: timedelta
    merchants_dir: Path | None
    spool_dir: Path | None
    failpoints: Path | None
    otlp_endpoint: str
    traces_sample_ratio: float
    log_format: str
    log_level: str
    default_merchant: Merchant | None
    token_keys: TokenKeys
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str], needs: Needs = Needs.EVERYTHING) -> Config:
        """Read every setting that the command needs. Raises ConfigError with every problem."""
        reader = _Reader(env, needs.value)
        values = {setting.name: reader.read(setting) for setting in SETTINGS}
        problems, warnings = [*reader.problems, *_contradictions(values)], list[str]()
        if needs is Needs.EVERYTHING:
            problems += production_contradictions(values)
            wrong = {problem.split(" ", 1)[0] for problem in problems}
            unsafe = [it for it in unsafe_settings(values) if it.split(" ", 1)[0] not in wrong]
            (problems if production_rules_hold(values) else warnings).extend(unsafe)
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
                self._note(setting, f"is required and not set: {setting.summary}")
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
    merchant_settings = {
        *DEFAULT_MERCHANT_SETTINGS,
        "SAFARICOM_TILL_NUMBER",
        "WEBHOOK_SECRET",
        "WEBHOOK_URL",
        "CALLBACK_TOKEN_KEY",
        "MAX_AMOUNT",
        "MAX_INITIATE_PER_MINUTE",
    }
    fields = {
        name.lower(): value for name, value in values.items() if name not in merchant_settings
    }
    for name in ("database_url", "redis_url", "safaricom_callback_url"):
        fields[name] = fields[name] or ""
    for name in ("MERCHANTS_DIR", "SPOOL_DIR", "FAILPOINTS"):
        fields[name.lower()] = Path(values[name]) if values[name] else None
    if values["CALLBACK_TOKEN_REQUIRED"] is None:
        fields["callback_token_required"] = production_rules_hold(values)
    fields["ceilings"] = _ceilings(values)
    fields["default_merchant"] = _default_merchant(values)
    fields["token_keys"] = _token_keys(values)
    return fields


def _token_keys(values: dict[str, Any]) -> TokenKeys:
    """The configured keys, newest first, then the one derived from the merchant `default`.

    The derived key takes secrets that a merchant's own server does not have: the API key alone
    must never be enough to forge the callback of a payment whose id its caller was told.
    """
    keys = [derived_key([key], TOKEN_PURPOSE) for key in values["CALLBACK_TOKEN_KEY"] or ()]
    secrets = [values[name] for name in DERIVED_FROM]
    if all(secrets):
        keys.append(derived_key(secrets, TOKEN_PURPOSE))
    return TokenKeys(tuple(keys))


def _ceilings(values: dict[str, Any]) -> Ceilings:
    return Ceilings(Decimal(values["MAX_AMOUNT"]), values["MAX_INITIATE_PER_MINUTE"])


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
        webhook_url=values["WEBHOOK_URL"] or None,
        retry_schedule=values["WEBHOOK_RETRY_SCHEDULE"],
        max_amount=_ceilings(values).lower_amount(None),
        initiate_per_minute=_ceilings(values).lower_rate(None),
    )


def _contradictions(values: dict[str, Any]) -> list[str]:
    """What is right alone and wrong together, in every environment."""
    found = []
    lease, passkey = values["LEASE"], values["SAFARICOM_PASSKEY"]
    too_short = lease is not None and lease.total_seconds() < SHORTEST_LEASE_S
    if too_short and not values["FAILPOINTS"]:
        found.append(f"{PREFIX}LEASE must be at least {SHORTEST_LEASE_S:.0f}s")
    if passkey and is_daraja_password(passkey, values["SAFARICOM_SHORT_CODE"] or ""):
        found.append(f"{PREFIX}SAFARICOM_PASSKEY {NOT_THE_PASSKEY}")
    if url := values["WEBHOOK_URL"]:
        try:
            parse_endpoint(url, allow_private=bool(values["WEBHOOK_ALLOW_PRIVATE"]))
        except InvalidInputError as error:
            found.append(f"{PREFIX}WEBHOOK_URL {error.problems[0].message}")
    return found
