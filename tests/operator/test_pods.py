"""Pods' reports: what is understood, and what is not."""

from __future__ import annotations

import json

import pytest

from harness.collecting import every_case
from mpesa_operator.pods import PodAddress, PodView, Report, Snapshot, read_report

BODY = {
    "version": 1,
    "sha256": "abc",
    "merchants": {
        "shops/duka": {"digest": "d1", "webhooks": "failing"},
        "shops/kiosk": {"digest": "d2", "webhooks": None},
    },
    "errors": {"shops.bad.json": "x" * 1000},
}


def test_a_report_is_read() -> None:
    report = read_report(json.dumps(BODY).encode())
    assert report.digests == {"shops/duka": "d1", "shops/kiosk": "d2"}
    assert report.webhooks == {"shops/duka": "failing"}
    assert len(report.errors["shops.bad.json"]) == 256


@every_case(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        json.dumps({**BODY, "version": 2}).encode(),
        json.dumps({**BODY, "merchants": []}).encode(),
        json.dumps({**BODY, "errors": None}).encode(),
    ],
)
def test_what_is_no_report_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_report(body)


def test_a_merchant_without_a_digest_matches_none() -> None:
    odd = {**BODY, "merchants": {"shops/duka": "yes"}}
    assert read_report(json.dumps(odd).encode()).digests == {"shops/duka": "None"}


def test_a_view_of_one_merchant() -> None:
    api, worker = (
        PodAddress("api-1", "api", "10.0.0.1", 9090),
        PodAddress("worker-1", "worker", "fd00::1", 9090),
    )
    snapshot = Snapshot(((api, read_report(json.dumps(BODY).encode())), (worker, None)))
    assert snapshot.view("shops/duka", "shops.duka.json") == (
        PodView("api-1", "api", reachable=True, digest="d1", webhooks="failing"),
        PodView("worker-1", "worker", reachable=False),
    )
    (bad, _) = snapshot.view("shops/bad", "shops.bad.json")
    assert (bad.digest, bad.error) == (None, "x" * 256)
    assert Snapshot(((api, Report()),)).view("shops/duka", "shops.duka.json")[0].digest is None


def test_addresses() -> None:
    assert PodAddress("p", "api", "10.0.0.1", 9090).url == "http://10.0.0.1:9090/merchants"
    assert PodAddress("p", "api", "fd00::1", 9090).url == "http://[fd00::1]:9090/merchants"
