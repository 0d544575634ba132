"""How much of a stranger's body is held: token and address are judged before the rest is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.bodies import callback_body
from harness.callbacks import MIB, kept, paid_silently
from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from harness.settings import API_KEY
from harness.waiting import wait_for
from harness.wire import Wire, request_bytes
from mpesa_gateway.api.bodies import (
    BODY_TIMEOUT_S,
    MAX_READING_BYTES,
    READING,
    UNJUDGED_LIMIT,
    Reading,
)
from mpesa_gateway.errors import UnavailableError

Phones = Callable[[str], str]
LISTED_KEY = "key-of-the-listed-merchant"
STRANGER = "X-Forwarded-For: 198.51.100.7"
SAFARICOM = "X-Forwarded-For: 196.201.214.200"
# Soon: long before a body that does not come would be given up.
SOON_S = BODY_TIMEOUT_S / 2


@pytest.fixture(scope="module")
def walled(gateways: Gateways, tmp_path_factory: Any) -> Iterator[Gateway]:
    """Merchant `default` may be called back from one network, `shops/listed` from one address."""
    merchants: Path = tmp_path_factory.mktemp("merchants")
    write_merchant(
        merchants,
        "listed.json",
        name="shops/listed",
        key=LISTED_KEY,
        shortCode="600300",
        callback={"allowedCIDRs": ["196.201.214.9"]},
    )
    with gateways.start(
        merchants_dir=str(merchants),
        safaricom_ips="196.201.214.0/24",
        trusted_proxies="127.0.0.1/32",
    ) as gateway:
        yield gateway


def answer_to_a_beginning(gateway: Gateway, path: str, *headers: str, sent: int = 1) -> int:
    """The status that a request of a megabyte has when only its first bytes came."""
    began = time.monotonic()
    with Wire(gateway.url) as wire:
        wire.send(request_bytes("POST", path, *headers, length=MIB) + b"0" * sent)
        status = wire.read().status
    assert time.monotonic() - began < SOON_S
    return status


def test_what_is_no_token_or_no_address_of_the_list_is_refused_at_the_first_byte(
    walled: Gateway,
) -> None:
    assert answer_to_a_beginning(walled, "/callback/nobody", SAFARICOM) == 404
    assert answer_to_a_beginning(walled, "/callback", STRANGER) == 403


def test_a_large_body_is_judged_by_its_token_before_it_is_read(
    walled: Gateway, new_phone: Phones
) -> None:
    _, path = paid_silently(walled, new_phone("4042"))
    _, narrow = paid_silently(walled, new_phone("4042"), key=LISTED_KEY)

    assert answer_to_a_beginning(walled, f"/callback/{'0' * 64}", SAFARICOM) == 404
    assert answer_to_a_beginning(walled, path[:-32] + "0" * 32, SAFARICOM) == 404
    assert answer_to_a_beginning(walled, path, STRANGER) == 403
    assert answer_to_a_beginning(walled, narrow, SAFARICOM) == 403


def test_a_body_of_unknown_length_is_judged_at_64_kib(walled: Gateway) -> None:
    chunk = b"4000\r\n" + b"0" * 0x4000 + b"\r\n"
    with Wire(walled.url) as wire:
        head = request_bytes(
            "POST", f"/callback/{'0' * 64}", SAFARICOM, "Transfer-Encoding: chunked"
        )
        wire.send(head + chunk * (UNJUDGED_LIMIT // 0x4000 + 2))
        assert wire.read().status == 404


def test_a_true_token_may_bring_a_megabyte(walled: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    with Wire(walled.url) as wire:
        wire.send(request_bytes("POST", path, SAFARICOM, body=b"0" * MIB))
        assert wire.read().status == 200

    (row,) = kept(walled, transaction_id)
    assert len(row["body"]) == MIB


def test_the_next_request_on_the_connection_is_served_after_a_refusal(walled: Gateway) -> None:
    with Wire(walled.url) as wire:
        wire.send(request_bytes("POST", "/callback/nobody", SAFARICOM, body=b"0" * 500_000))
        assert wire.read().status == 404
        wire.send(request_bytes("GET", "/livez"))
        assert wire.read().status == 200


def test_bodies_that_do_not_end_have_one_budget_and_whole_ones_need_none(
    walled: Gateway, new_phone: Phones
) -> None:
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    size = MIB - 1
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(walled.url)) for _ in range(MAX_READING_BYTES // MIB)]
        for wire in wires:
            wire.send(request_bytes("POST", "/callback", SAFARICOM, length=MIB) + b"0" * size)
        wait_for(lambda: READING.bytes > MAX_READING_BYTES - 2 * MIB, what="the bodies to be held")
        late = stack.enter_context(Wire(walled.url))
        late.send(request_bytes("POST", "/callback", SAFARICOM, length=MIB) + b"0" * size)
        refused = late.read()
        whole = stack.enter_context(Wire(walled.url))
        whole.send(request_bytes("POST", path, SAFARICOM, body=callback_body("ws_CO_x")))
        accepted = whole.read()

    assert refused.status == 503
    assert refused.headers["retry-after"]
    assert accepted.status == 200
    assert len(kept(walled, transaction_id)) == 1
    wait_for(lambda: READING.bytes == 0, what="what was given up to be forgotten")


@pytest.mark.parametrize("path", ["/callback/{token}", "/initiate"])
def test_what_is_held_is_given_back_when_the_client_goes(
    walled: Gateway, new_phone: Phones, path: str
) -> None:
    _, callback = paid_silently(walled, new_phone("4042"))
    where = callback if "token" in path else path
    with Wire(walled.url) as wire:
        head = request_bytes(
            "POST", where, SAFARICOM, f"X-Internal-Secret: {API_KEY}", length=60_000
        )
        wire.send(head + b"0" * 50_000)
        wait_for(lambda: READING.bytes > 0, what="the body to be held")

    wait_for(lambda: READING.bytes == 0, what="what was given up to be forgotten")


def test_the_budget_is_for_all_together() -> None:
    reading = Reading(100)
    one, other = reading.hold(), reading.hold()
    one.grow(60)
    other.grow(40)
    with pytest.raises(UnavailableError):
        one.grow(61)
    other.release()
    one.grow(100)
    one.release()
    one.release()

    assert reading.bytes == 0
