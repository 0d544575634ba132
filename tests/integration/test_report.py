"""What a pod reports of its merchants, for the operator."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from harness.gateway import Gateway
from harness.merchants import sha256_hex, write_file, write_merchant
from harness.settings import API_KEY, environment
from mpesa_gateway.config import Config
from mpesa_gateway.domain.bundle import bundle_sha256, file_digest
from mpesa_gateway.exporters.merchants import FRESH_S, LOOK_EVERY_S, WebhookHealth, report
from mpesa_gateway.merchants.directory import MerchantDirectory


@pytest.fixture
def directory(tmp_path: Path) -> MerchantDirectory:
    urls = {"database_url": "postgresql://unused", "redis_url": "redis://unused"}
    config = Config.from_env(
        environment(
            **urls,
            base_url="http://daraja.example",
            callback_url="http://gateway.example/callback",
            merchants_dir=str(tmp_path),
        )
    )
    return MerchantDirectory(config)


def test_without_files_there_is_nothing_to_report(directory: MerchantDirectory) -> None:
    directory.refresh()

    assert report(directory) == {
        "version": 1,
        "sha256": bundle_sha256({}),
        "merchants": {},
        "errors": {},
    }


def test_each_merchant_has_the_digest_of_its_file(
    directory: MerchantDirectory, tmp_path: Path
) -> None:
    duka = write_merchant(tmp_path, "shops.duka.json")
    soko = write_merchant(tmp_path, "shops.soko.json", name="shops/soko", key="key-of-soko")
    directory.refresh()
    said = report(directory, {"shops/duka": "failing", "shops/soko": "healthy"}.get)

    contents = {path.name: path.read_bytes() for path in (duka, soko)}
    assert said["sha256"] == bundle_sha256(contents)
    assert said["merchants"] == {
        "shops/duka": {"digest": file_digest(contents[duka.name]), "webhooks": "failing"},
        "shops/soko": {"digest": file_digest(contents[soko.name]), "webhooks": "healthy"},
    }


def test_a_broken_file_reports_the_version_that_is_still_in_use(
    directory: MerchantDirectory, tmp_path: Path
) -> None:
    good = write_merchant(tmp_path, "shops.duka.json").read_bytes()
    directory.refresh()
    write_file(tmp_path / "shops.duka.json", "{")
    directory.refresh()
    said = report(directory)

    assert said["merchants"] == {"shops/duka": {"digest": file_digest(good), "webhooks": None}}
    assert list(said["errors"]) == ["shops.duka.json"]
    assert said["sha256"] == bundle_sha256({"shops.duka.json": b"{"})


def test_of_two_files_for_one_merchant_the_first_counts(
    directory: MerchantDirectory, tmp_path: Path
) -> None:
    first = write_merchant(tmp_path, "a.json")
    write_merchant(tmp_path, "b.json", suspended=True)
    directory.refresh()
    said = report(directory)

    assert said["merchants"]["shops/duka"]["digest"] == file_digest(first.read_bytes())
    assert list(said["errors"]) == ["b.json"]


def park(gateway: Gateway, merchant: str, until: str | None) -> None:
    gateway.execute(
        "INSERT INTO failing_endpoints (merchant, origin, failures_in_row, failing_since,"
        " parked_until) VALUES (%s, 'https://shop.example', 10, now(), %s)",
        merchant,
        until,
    )


def test_a_merchant_with_a_parked_endpoint_is_failing(gateway: Gateway) -> None:
    elapsed = [0.0]
    health = WebhookHealth(gateway.pool, lambda: elapsed[0])
    assert health.of("shops/duka") is None, "nobody has looked yet"
    park(gateway, "shops/duka", "2026-01-01T00:00:00Z")
    park(gateway, "shops/soko", None)
    health.refresh()

    assert health.of("shops/duka") == "failing"
    assert health.of("shops/soko") == "healthy", "a failure or two park nothing"

    gateway.execute("DELETE FROM failing_endpoints")
    health.refresh()
    assert health.of("shops/duka") == "failing", "it looked a moment ago"
    elapsed[0] += LOOK_EVERY_S
    health.refresh()
    assert health.of("shops/duka") == "healthy"

    elapsed[0] += FRESH_S + 1
    assert health.of("shops/duka") is None, "what is not fresh is not said"


def test_a_key_in_two_files_opens_neither_and_both_are_named(
    directory: MerchantDirectory, tmp_path: Path
) -> None:
    write_merchant(tmp_path, "aaa.x.json", name="aaa/x", key="key-of-the-victim")
    shared, own = sha256_hex("key-of-the-victim"), sha256_hex("another-key-of-the-victim")
    write_merchant(tmp_path, "shopb.owner.json", name="shopb/owner", apiKeySHA256=[own, shared])
    directory.refresh()
    found = directory.current()

    assert found.find_by_key("key-of-the-victim") is None
    owner = found.find_by_key("another-key-of-the-victim")
    assert owner is not None
    assert owner.name == "shopb/owner"
    # Both are known: their payments settle, and the metric counts both files.
    assert set(found.by_name) >= {"aaa/x", "shopb/owner"}
    assert set(found.errors) == {"aaa.x.json", "shopb.owner.json"}
    assert REGISTRY.get_sample_value("mpesa_merchant_config_errors") == 2
    # The sentence reaches the merchant's status: it names nobody else.
    assert "shopb" not in found.errors["aaa.x.json"]
    assert "aaa" not in found.errors["shopb.owner.json"]


def test_the_platforms_own_key_is_no_tenants_to_block(
    directory: MerchantDirectory, tmp_path: Path
) -> None:
    write_merchant(tmp_path, "aaa.x.json", name="aaa/x", key=API_KEY)
    directory.refresh()
    merchant = directory.current().find_by_key(API_KEY)

    assert merchant is not None
    assert merchant.name == "default"
    assert set(directory.current().errors) == {"aaa.x.json"}


def test_two_files_of_one_merchant_share_its_key(
    directory: MerchantDirectory, tmp_path: Path
) -> None:
    write_merchant(tmp_path, "a.json")
    write_merchant(tmp_path, "b.json")
    directory.refresh()

    assert directory.current().find_by_key("key-of-duka") is not None
