"""The environment of a gateway under test."""

from __future__ import annotations

API_KEY = "test-api-key-of-the-default-merchant"
PASSKEY = "test-passkey-0123456789"
SHORT_CODE = "174379"


def environment(
    *, database_url: str, redis_url: str, base_url: str, callback_url: str, **extra: str
) -> dict[str, str]:
    """MPESA_* variables, quick ones. `extra` names come without the prefix, in lower case."""
    values = {
        "server_host": "127.0.0.1",
        "metrics_port": "0",
        "database_url": database_url,
        "redis_url": redis_url,
        "internal_secret": API_KEY,
        "safaricom_consumer_key": "test-consumer-key",
        "safaricom_consumer_secret": "test-consumer-secret",
        "safaricom_passkey": PASSKEY,
        "safaricom_short_code": SHORT_CODE,
        "safaricom_callback_url": callback_url,
        "safaricom_base_url": base_url,
        "safaricom_query_per_minute": "0",
        # A test's phones are few: their last digits say how the payment ends.
        "prompts_per_phone_per_hour": "0",
        "webhook_allow_private": "true",
        "sweep_interval": "200ms",
        **extra,
    }
    return {f"MPESA_{name.upper()}": value for name, value in values.items()}
