"""What a pod reports of its merchants, for the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.gateway import Gateway
from harness.merchants import write_file, write_merchant
from harness.settings import environment
from mpesa_gateway.config import Config
from mpesa_gateway.domain.bundle import bundle_sha256, file_digest
from mpesa_gateway.merchants import MerchantDirectory
from mpesa_gateway.report import FRESH_S, LOOK_EVERY_S, WebhookHealth, report


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
