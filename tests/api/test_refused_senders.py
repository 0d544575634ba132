"""A sender that is not on the allowlist: refused, and found the first time (field case FC3)."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.bodies import callback_body
from harness.callbacks import paid_silently, post
from harness.counters import Since
from harness.gateway import Gateway, Gateways
from harness.waiting import wait_for
from mpesa_gateway.api.refusals import WARNINGS_PER_MINUTE, Refusals, Seen
from mpesa_gateway.store.events import MAX_REFUSED_SENDERS
from mpesa_gateway.usecases.timeline import read_history

Phones = Callable[[str], str]
# One that some lists have and ours has not.
NEW = "196.201.212.128"


@pytest.fixture(scope="module")
def walled(gateways: Gateways) -> Iterator[Gateway]:
    with gateways.start(
        safaricom_ips="196.201.214.200,196.201.212.69", trusted_proxies="127.0.0.0/8"
    ) as gateway:
        yield gateway


def warnings(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [it.msg for it in caplog.records if isinstance(it.msg, dict)]
    return [it for it in lines if it["event"].startswith("callback refused")]


def refusals_of(gateway: Gateway, transaction_id: str) -> list[dict[str, Any]]:
    return gateway.rows(
        "SELECT e.source, e.detail FROM transaction_events e"
        " JOIN transactions t ON t.id = e.transaction_id"
        " WHERE t.internal_transaction_id = %s AND e.kind = 'sender_refused' ORDER BY e.id",
        transaction_id,
    )


@pytest.mark.parametrize("way", ["", "?long=way"])
def test_a_new_address_with_a_good_token_leaves_a_warning_an_event_and_a_count(
    walled: Gateway, new_phone: Phones, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    caplog.set_level(logging.WARNING)
    address = NEW if way else "196.201.212.132"
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    since = Since()
    for _ in range(3):
        response = post(walled, path + way, callback_body("ws_CO_1"), source=address)
        assert response.status_code == 403
    wait_for(lambda: refusals_of(walled, transaction_id), what="the event")

    assert refusals_of(walled, transaction_id) == [
        {"source": "callback", "detail": {"address": address, "header": "x-forwarded-for"}}
    ]
    (warning,) = warnings(caplog)
    assert warning["address"] == warning["forwarded_for"] == address
    assert warning["header"] == "x-forwarded-for"
    assert warning["has_good_token"] is True
    rejected = since.by("mpesa_callbacks_rejected_total", "reason")
    assert rejected == {"not_allowed_good_token": 3.0}
    history = read_history(
        walled.pool,
        walled.rows(
            "SELECT internal_transaction_id AS id FROM transactions WHERE"
            " internal_transaction_id = %s",
            transaction_id,
        )[0]["id"],
    )
    assert "sender_refused" in [it["what"] for it in history["timeline"]]


def test_an_address_that_no_header_names_is_the_connections(
    walled: Gateway, new_phone: Phones, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    assert post(walled, path, source="unknown").status_code == 403
    wait_for(lambda: refusals_of(walled, transaction_id), what="the event")
    (event,) = refusals_of(walled, transaction_id)
    assert event["detail"] == {"address": "127.0.0.1", "header": "connection"}


def test_a_refusal_without_a_token_is_a_warning_and_another_count(
    walled: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    since = Since()
    for _ in range(2):
        assert post(walled, "/callback", source="203.0.113.77").status_code == 403
    assert since.by("mpesa_callbacks_rejected_total", "reason") == {"not_allowed": 2.0}
    (warning,) = warnings(caplog)
    assert (warning["address"], warning["has_good_token"]) == ("203.0.113.77", False)


def test_a_token_that_is_not_ours_leaves_nothing(
    walled: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert post(walled, f"/callback/{'0' * 64}", source="203.0.113.78").status_code == 404
    assert warnings(caplog) == []


def test_whoever_has_a_token_cannot_fill_the_payments_history(
    walled: Gateway, new_phone: Phones
) -> None:
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    for number in range(3 * MAX_REFUSED_SENDERS):
        assert post(walled, path, source=f"203.0.113.{number}").status_code == 403
    wait_for(
        lambda: len(refusals_of(walled, transaction_id)) == MAX_REFUSED_SENDERS, what="the events"
    )


def test_many_addresses_are_not_many_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    refusals = Refusals()
    for number in range(10 * WARNINGS_PER_MINUTE):
        refusals.warn(ipaddress.ip_address(number), {}, has_good_token=False)
    assert len(warnings(caplog)) == WARNINGS_PER_MINUTE


def test_what_was_seen_longest_ago_is_forgotten_first() -> None:
    seen = Seen(most=2)
    assert [seen.is_new(it) for it in "abacb"] == [True, True, False, True, True]
