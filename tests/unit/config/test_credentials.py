"""Credentials are pasted, and a paste brings white space: no door lets it in (FC5)."""

from __future__ import annotations

from pathlib import Path

from harness.collecting import every_case
from harness.merchants import merchant_file
from harness.settings import PASSKEY, environment
from mpesa_gateway.config import Config
from mpesa_gateway.config.merchant_file import MerchantFile

BLANKS = ["\n", "\r\n", " ", "\t", "\n\n", "\u00a0"]
ADDRESSES = {
    "database_url": "postgresql://x",
    "redis_url": "redis://x",
    "base_url": "http://127.0.0.1:1",
    "callback_url": "http://127.0.0.1:1/callback",
}


@every_case("blank", BLANKS, ids=repr)
def test_white_space_around_a_credential_is_dropped_in_a_merchant_file(blank: str) -> None:
    credentials = {
        "consumerKey": f"{blank}key{blank}",
        "consumerSecret": f"secret{blank}",
        "passkey": f"{blank}{PASSKEY}{blank}",
    }
    parsed = MerchantFile.model_validate(merchant_file(credentials=credentials)).credentials

    assert (parsed.consumer_key, parsed.consumer_secret, parsed.passkey) == (
        "key",
        "secret",
        PASSKEY,
    )


@every_case("blank", BLANKS, ids=repr)
def test_white_space_around_a_credential_is_dropped_in_the_environment(
    blank: str, tmp_path: Path
) -> None:
    env = environment(**ADDRESSES, safaricom_passkey=f"{blank}{PASSKEY}{blank}")
    (tmp_path / "secret").write_text(f"from-a-file{blank}", "utf-8")
    del env["MPESA_SAFARICOM_CONSUMER_SECRET"]
    env["MPESA_SAFARICOM_CONSUMER_SECRET_FILE"] = str(tmp_path / "secret")
    merchant = Config.from_env(env).default_merchant

    assert merchant is not None
    assert merchant.credentials.passkey == PASSKEY
    assert merchant.credentials.consumer_secret == "from-a-file"
