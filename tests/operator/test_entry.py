"""The operator's files are those that the gateway's pods read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from harness.collecting import every_case
from harness.merchantconfigs import DARAJA
from harness.operating import (
    FRESH,
    OWNER,
    SEAL,
    make_merchant,
    make_observed,
    plan,
    settled,
    sha,
)
from harness.settings import environment
from mpesa_gateway.config import Config
from mpesa_gateway.config.merchant_file import MerchantFile
from mpesa_gateway.domain.merchant import Merchant, parse_networks
from mpesa_gateway.merchants.directory import MAX_FILE_BYTES
from mpesa_operator.bundle import LARGEST_ENTRY, ROTATION_ROOM
from mpesa_operator.keys import FreshKeys
from mpesa_operator.merchant_file import allowed_cidrs, read_entry, with_flags
from mpesa_operator.plan import Generated


def as_the_pods_read(content: bytes | None) -> Merchant:
    """The merchant, as an API pod has it."""
    env = environment(
        database_url="postgresql://localhost/none",
        redis_url="redis://localhost",
        base_url="https://sandbox.safaricom.co.ke",
        callback_url="https://pay.example/callback",
    )
    file = MerchantFile.model_validate_json(content or b"")
    return file.to_merchant(Config.from_env(env))


def test_a_paybill() -> None:
    merchant = as_the_pods_read(plan(make_merchant(), make_observed()).entry)
    assert merchant.name == "shops/duka"
    assert merchant.base_url == "https://sandbox.safaricom.co.ke"
    assert (merchant.short_code, merchant.party_b) == ("174379", "174379")
    assert merchant.credentials.consumer_key == DARAJA["consumerKey"]
    assert merchant.credentials.consumer_secret == DARAJA["consumerSecret"]
    assert merchant.credentials.passkey == DARAJA["passkey"]
    assert merchant.api_key_sha256 == (bytes.fromhex(sha(FRESH.api_key)),)
    assert merchant.webhook_secrets == (FRESH.webhook_secret,)
    assert merchant.allowed_networks == ()
    assert merchant.allowed_hosts == ()
    assert (merchant.suspended, merchant.draining) == (False, False)
    assert merchant.max_amount == Decimal(250000)


FULL: dict[str, Any] = {
    "transactionType": "CustomerBuyGoodsOnline",
    "tillNumber": "5123456",
    "callback": {"allowedCIDRs": ["196.201.214.0/24"]},
    "webhook": {
        "url": "https://shop.example/hooks",
        "allowedHosts": ["shop.example"],
        "retrySchedule": ["500ms", "5m"],
    },
    "limits": {"minAmount": 10, "maxAmount": 500000, "initiatePerMinute": 60},
    "suspended": True,
}


def test_a_till_with_everything() -> None:
    merchant = as_the_pods_read(plan(make_merchant(FULL), make_observed()).entry)
    assert (merchant.party_b, merchant.transaction_type) == ("5123456", "CustomerBuyGoodsOnline")
    assert merchant.allowed_networks == parse_networks(["196.201.214.0/24"])
    assert merchant.webhook_url == "https://shop.example/hooks"
    assert merchant.allowed_hosts == ("shop.example",)
    assert merchant.retry_schedule == (timedelta(seconds=0.5), timedelta(minutes=5))
    assert (merchant.min_amount, merchant.max_amount) == (Decimal(10), Decimal(250000))
    assert merchant.initiate_per_minute == 60
    assert merchant.suspended


def test_the_largest_file_that_a_merchantconfig_makes_is_read() -> None:
    largest = {
        **FULL,
        "callback": {
            "allowedCIDRs": [f"196.201.{212 + n // 32}.{n % 32 * 8}/29" for n in range(64)]
        },
        "webhook": {
            "url": "https://" + "a" * 60 + ".example/" + "x" * 430,
            "allowedHosts": ["a" * 60 + ".example", *(f"{n}." + "h" * 36 for n in range(63))],
            "retrySchedule": ["99999999ms"] * 32,
        },
    }
    long = dict.fromkeys(DARAJA, b"x" * 512)
    entry = plan(make_merchant(largest), make_observed(credentials=long)).entry
    assert entry is not None
    assert LARGEST_ENTRY - ROTATION_ROOM - 512 < len(entry) <= LARGEST_ENTRY - ROTATION_ROOM
    assert LARGEST_ENTRY < MAX_FILE_BYTES
    assert len(as_the_pods_read(entry).allowed_networks) == 64


def test_a_file_that_would_take_more_room_than_a_merchant_has_is_refused() -> None:
    hosts = [f"{n}." + "h" * 200 + ".example" for n in range(64)]
    found = plan(make_merchant({"webhook": {"allowedHosts": hosts}}), make_observed())
    assert (found.entry, found.published.reason) == (None, "FileTooLarge")
    assert str(LARGEST_ENTRY - ROTATION_ROOM) in found.published.message


def test_a_rotation_fits_into_the_largest_file_and_drops_secrets_before_keys() -> None:
    hosts = [f"{n}." + "h" * 84 for n in range(63)]
    own = {"allowedHosts": hosts, "signingSecretRef": {"name": "hooks", "key": "key"}}
    merchant = make_merchant({"webhook": own})
    seen = settled(merchant, signing={"key": b"s" * 512})
    for number in range(7):
        rotated = make_merchant({"webhook": own, "rotation": {"apiKey": str(number)}})
        signing = {"key": f"{number}".encode() * 512}
        fresh = FreshKeys(SEAL.make_api_key(OWNER), FRESH.webhook_secret)
        found = plan(rotated, replace(seen, signing=signing, fresh=fresh))
        assert found.entry is not None
        assert len(found.entry) <= LARGEST_ENTRY
        file = as_the_pods_read(found.entry)
        assert file.webhook_secrets[0] == signing["key"].decode()
        assert len(file.api_key_sha256) == number + 2
        generated = Generated(found.secret or {}, owned=True)
        seen = replace(seen, published=found.entry, generated=generated)


def test_one_try_only_is_not_the_default_schedule() -> None:
    merchant = make_merchant({"webhook": {"retrySchedule": []}})
    assert as_the_pods_read(plan(merchant, make_observed()).entry).retry_schedule == ()


def test_what_is_published_is_read_back() -> None:
    content = settled(make_merchant()).published
    published = read_entry(content)
    assert published is not None
    assert published.credentials.passkey == DARAJA["passkey"]
    assert published.api_key_sha256 == (sha(FRESH.api_key),)
    assert published.webhook_secrets == (FRESH.webhook_secret,)
    assert published.short_code == "174379"
    assert DARAJA["passkey"] not in repr(published)


@every_case("content", [None, b"", b"[]", b"{}", b'{"credentials": 1}', b"\xff"])
def test_what_is_no_file_is_none(content: bytes | None) -> None:
    assert read_entry(content) is None


def test_flags_change_and_nothing_else_does() -> None:
    content = settled(make_merchant()).published or b""
    assert with_flags(content) == content
    changed = with_flags(content, suspended=True, draining=True)
    assert json.loads(changed) == {**json.loads(content), "suspended": True, "draining": True}
    assert with_flags(changed, suspended=False, draining=False) == content
    merchant = as_the_pods_read(changed)
    assert (merchant.suspended, merchant.draining) == (True, True)


def test_the_networks_of_a_file() -> None:
    assert allowed_cidrs(plan(make_merchant(FULL), make_observed()).entry or b"") == [
        "196.201.214.0/24"
    ]
    assert allowed_cidrs(b"{}") == []
