"""The production rules: what must not be so where real money moves.

They hold where `ENVIRONMENT` says so and where the base URL does (`domain/production.py`).
Elsewhere each finding is a warning at every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mpesa_gateway.config.settings import PREFIX, SETTINGS
from mpesa_gateway.config.transport import (
    is_http_in_the_clear,
    is_postgres_in_the_clear,
    is_redis_in_the_clear,
)
from mpesa_gateway.domain.merchant import Merchant, Network
from mpesa_gateway.domain.production import (
    find_callback_url_problem,
    is_daraja_password,
    is_sandbox,
    is_too_wide,
    moves_real_money,
)
from mpesa_gateway.domain.signature import SECRET_PREFIX, signing_key
from mpesa_gateway.domain.transaction import PROMPT_LIFE

SHORTEST_SECRET = 32
NOT_THE_PASSKEY = (
    "is a push's Password (base64 of short code, passkey and time) and not the passkey: copy the"
    " passkey itself from Safaricom's portal or go-live mail"
)
# The keys and passwords of `.env.example`. An address there is an example that may be true.
PLACEHOLDERS = {
    it.name: it.example for it in SETTINGS if it.secret and it.example and "://" not in it.example
}
Values = Mapping[str, Any]


def production_rules_hold(values: Values) -> bool:
    """Whether unsafe settings are errors: real money, or what is called production."""
    url = values["SAFARICOM_BASE_URL"]
    return values["ENVIRONMENT"] == "production" or (url is not None and moves_real_money(url))


def production_contradictions(values: Values) -> list[str]:
    """Where the word and the money disagree: always an error."""
    url = values["SAFARICOM_BASE_URL"]
    if url is None:
        return []
    if values["ENVIRONMENT"] == "sandbox" and moves_real_money(url):
        why = "leads to real money: it is neither the sandbox nor a private address"
        return [f"{PREFIX}ENVIRONMENT must be production: {PREFIX}SAFARICOM_BASE_URL {why}"]
    if values["ENVIRONMENT"] == "production" and is_sandbox(url):
        return [f"{PREFIX}SAFARICOM_BASE_URL is the sandbox: its payments are not real money"]
    return []


def unsafe_settings(values: Values) -> list[str]:
    """What must not be so under production rules: one sentence for each variable."""
    found = {
        "SAFARICOM_IPS": _allowlist_problem(values["SAFARICOM_IPS"]),
        "CALLBACK_TOKEN_REQUIRED": _token_problem(values),
        "TRUSTED_PROXIES": _proxies_problem(values["TRUSTED_PROXIES"]),
        "WEBHOOK_ALLOW_PRIVATE": (
            "lets webhooks reach private addresses and go unencrypted"
            if values["WEBHOOK_ALLOW_PRIVATE"]
            else None
        ),
        "FAILPOINTS": (
            "is for crash tests: whoever can write there could end this process at any step"
            if values["FAILPOINTS"]
            else None
        ),
        "PROMPT_LIFE": _prompt_problem(values["PROMPT_LIFE"]),
        "SAFARICOM_BASE_URL": _base_url_problem(values["SAFARICOM_BASE_URL"]),
        "SAFARICOM_CALLBACK_URL": _callback_url_problem(values["SAFARICOM_CALLBACK_URL"]),
        "INTERNAL_SECRET": _length_problem(values["INTERNAL_SECRET"]),
        "WEBHOOK_SECRET": _webhook_secret_problem(values),
        **_transport_problems(values),
    }
    for name, placeholder in PLACEHOLDERS.items():
        if values[name] == placeholder:
            found[name] = "is the placeholder of .env.example, which everybody knows"
    return [f"{PREFIX}{name} {sentence}" for name, sentence in found.items() if sentence]


def check_merchant(merchant: Merchant, environment: str) -> None:
    """Hold a merchant file against the same rules. Raises ValueError with what it has wrong."""
    credentials, url = merchant.credentials, merchant.base_url
    if is_daraja_password(credentials.passkey, merchant.short_code):
        raise ValueError(f"credentials.passkey: {NOT_THE_PASSKEY}")
    if environment != "production":
        if moves_real_money(url):
            raise ValueError(
                "environment: the file leads to real money, and this gateway runs with"
                f" {PREFIX}ENVIRONMENT=sandbox"
            )
        return
    if is_sandbox(url):
        raise ValueError("environment: the sandbox's payments are not real money")
    if problem := _base_url_problem(url):
        raise ValueError(f"baseUrl: {problem}")
    given = {credentials.consumer_key, credentials.consumer_secret, credentials.passkey}
    if given & set(PLACEHOLDERS.values()):
        raise ValueError("credentials: a placeholder of .env.example is no credential")


def _allowlist_problem(networks: tuple[Network, ...] | None) -> str | None:
    if not networks:
        return "is empty and lets every address call back: list Safaricom's addresses"
    if is_too_wide(networks):
        return "lets too many addresses call back: together they cover more than a /8 (IPv6: /32)"
    return None


def _proxies_problem(networks: tuple[Network, ...] | None) -> str | None:
    if networks and is_too_wide(networks):
        return (
            "trusts too many addresses, more than a /8 (IPv6: /32): each of them could forge where"
            " a callback comes from"
        )
    return None


def _token_problem(values: Values) -> str | None:
    required = values["CALLBACK_TOKEN_REQUIRED"]
    if required or (required is None and production_rules_hold(values)):
        return None
    state = "is false" if required is False else "is not set and false outside production"
    return f"{state}: anyone who learns or guesses a CheckoutRequestID could settle a payment"


def _prompt_problem(prompt_life: timedelta | None) -> str | None:
    if prompt_life is None or prompt_life >= PROMPT_LIFE:
        return None
    seconds = PROMPT_LIFE.total_seconds()
    return f"is below {seconds:.0f}s: a second prompt would end one that is open"


def _base_url_problem(url: str | None) -> str | None:
    if url is not None and not url.startswith("https://"):
        return "is not https: credentials would travel in the clear"
    return None


def _callback_url_problem(url: str | None) -> str | None:
    return None if url is None else find_callback_url_problem(url)


def _length_problem(secret: str | None) -> str | None:
    if secret and len(secret) < SHORTEST_SECRET:
        return f"is shorter than {SHORTEST_SECRET} characters"
    return None


def _webhook_secret_problem(values: Values) -> str | None:
    """Of merchant `default` only; where there is none, nothing is signed with it."""
    key, secret = values["INTERNAL_SECRET"], values["WEBHOOK_SECRET"]
    if not key:
        return _length_problem(secret)
    if not secret:
        return "is not set: webhooks would be signed with the API key; generate a whsec_ secret"
    if signing_key(secret) == signing_key(key):
        return f"is {PREFIX}INTERNAL_SECRET: whoever verifies webhooks could charge phones"
    if not secret.startswith(SECRET_PREFIX):
        return f"does not begin with {SECRET_PREFIX}: generate a Standard Webhooks secret"
    return _length_problem(secret)


def _transport_problems(values: Values) -> dict[str, str | None]:
    postgres, redis, otlp = (values[it] for it in ("DATABASE_URL", "REDIS_URL", "OTLP_ENDPOINT"))
    clear = "reaches an address that is not private without TLS"
    return {
        "DATABASE_URL": (
            f"{clear}: add sslmode=verify-full (or require)"
            if postgres and is_postgres_in_the_clear(postgres)
            else None
        ),
        "REDIS_URL": (
            f"{clear}: use rediss://" if redis and is_redis_in_the_clear(redis) else None
        ),
        "OTLP_ENDPOINT": f"{clear}: use https://" if otlp and is_http_in_the_clear(otlp) else None,
    }
