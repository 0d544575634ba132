"""POST /initiate refuses bad input: which status, which fields, and that nothing came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from harness.collecting import every_case
from harness.gateway import Gateway
from harness.initiate import (
    SILENT,
    good,
    nothing_created,
    post,
)
from harness.problems import assert_problem
from harness.settings import API_KEY
from harness.wire import Wire, exchange, request_bytes

LIMIT = 64 * 1024


@every_case(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"amount": "10"',
        b'{"amount": "10",}',
        b"{'amount': '10'}",
        b'{"amount": 010}',
        b'{"amount": +10}',
        b"amount=10&phone=254712340000",
        b"null",
        b"true",
        b"12",
        b'"text"',
        b"[]",
        b'[{"amount": "10"}]',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"phone": "\xff"}',
        b'{"phone": "\xc0\xb1"}',
        b'{"phone": "\xed\xa0\x80"}',
        b'{"phone": "a\x00b"}',
        b'{"amount": NaN}',
        b'{"amount": Infinity}',
        b'{"amount": -Infinity}',
        b'{"amount": "10", "amount": "11"}',
        b'{"amount": "10", "a\\u006dount": "11"}',
        b'{"x": {"y": 1, "y": 2}}',
        b"{}{}",
        b"{} x",
        b'{"x": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"x": ' + b'{"x": ' * 17 + b"1" + b"}" * 18,
        b"[" * 30_000,
        b'{"x":' * 10_000,
        b'{"amount": ' + b"1" * 5000 + b"}",
        b'{"amount": 1e99999999999999999999}',
        b'{"amount": 1e-99999999999999999999}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_that_is_no_strict_json_object_is_refused_whole(
    public: Gateway, body: bytes
) -> None:
    with nothing_created(public):
        assert_problem(post(public, body), 400, "invalid-input", "body")


@every_case("at", list(range(1, 120, 17)))
def test_a_truncated_body_is_refused(public: Gateway, at: int) -> None:
    whole = json.dumps(good()).encode()
    assert at < len(whole)
    with nothing_created(public):
        assert_problem(post(public, whole[:at]), 400, "invalid-input", "body")


@every_case(
    "content_type",
    [
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application",
        ";application/json",
        "text/plain, application/json",
    ],
)
def test_another_content_type_is_refused(public: Gateway, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    with nothing_created(public):
        assert_problem(post(public, good(), **headers), 400, "invalid-input", "body")


def test_a_missing_content_type_is_refused(public: Gateway) -> None:
    body = json.dumps(good()).encode()
    data = request_bytes("POST", "/initiate", f"X-Internal-Secret: {API_KEY}", body=body)
    with nothing_created(public):
        assert_problem(exchange(public.url, data), 400, "invalid-input", "body")


@pytest.mark.parametrize(
    "content_type", ["application/json;charset=UTF-8", "Application/JSON", "application/json ; a=b"]
)
def test_json_with_parameters_is_json(public: Gateway, content_type: str) -> None:
    response = post(public, good(phone="07"), **{"Content-Type": content_type})

    assert_problem(response, 400, "invalid-input", "phone")


def in_chunks(size: int) -> Iterator[bytes]:
    for start in range(0, size, 16_384):
        yield b" " * min(16_384, size - start)


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT, 1024 * 1024, 6 * 1024 * 1024])
def test_a_body_above_64_kib_is_refused_whether_its_length_is_told_or_not(
    public: Gateway, size: int
) -> None:
    with nothing_created(public):
        assert_problem(post(public, b" " * size), 413, "body-too-large")
        assert_problem(post(public, in_chunks(size)), 413, "body-too-large")


def test_a_body_that_only_claims_to_be_huge_is_refused_without_being_awaited(
    public: Gateway,
) -> None:
    headers = [f"X-Internal-Secret: {API_KEY}", "Content-Type: application/json"]
    data = request_bytes("POST", "/initiate", *headers, length=10 * 1024**3)
    with nothing_created(public), Wire(public.url) as wire:
        wire.send(data + b"{")
        assert_problem(wire.read(), 413, "body-too-large")
        assert wire.is_cut()


def test_a_body_of_64_kib_is_read(public: Gateway) -> None:
    body = json.dumps(good(phone="07")).encode().ljust(LIMIT)

    assert_problem(post(public, body), 400, "invalid-input", "phone")
    assert_problem(post(public, iter([body[:99], body[99:]])), 400, "invalid-input", "phone")


PHONES: list[Any] = [
    *("", "0712345678", "712345678", "+254712345678", "00254712345678", "254 712 345 678"),
    *("25471234567", "2547123456789", "254712345678\n", "\n254712345678", " 254712345678"),
    *("254712345678 ", "25471234567a", "254-712-345-678", "255712345678", "25471234567\uff18"),
    *(
        "254\u0667\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668",
        "254712345678\x00",
        "254712345678;254712345679",
        "9" * 5000,
    ),
    *(254712345678, 254712345678.0, True, None, [], ["254712345678"], {}),
]


@every_case("phone", PHONES, ids=lambda it: repr(it)[:20])
def test_a_phone_that_is_not_254_and_nine_digits_is_refused(public: Gateway, phone: Any) -> None:
    with nothing_created(public):
        assert_problem(post(public, good(phone=phone)), 400, "invalid-input", "phone")


V4 = "4f6b1c2e-8a3d-4c5e-9f70-123456789abc"
KEYS: list[Any] = [
    "c232ab00-9414-11ec-b3c8-9f6bdeced846",  # version 1
    "2ed6657d-e927-568b-95e1-2665a8aea6a2",  # version 5
    "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",  # version 7
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "4f6b1c2e-8a3d-4c5e-cf70-123456789abc",  # version 4 of another variant
    "4f6b1c2e-8a3d-4c5e-1f70-123456789abc",
    V4.replace("-", ""),
    f"{{{V4}}}",
    f"urn:uuid:{V4}",
    f"{V4}\n",
    f" {V4}",
    f"{V4}0",
    V4[:-1],
    V4.replace("-", "_"),
    V4.replace("1", "\u0661"),
    "",
    "key-1",
    0x4F6B1C2E8A3D4C5E9F70123456789ABC,
    True,
    None,
    [V4],
    {"key": V4},
]


@every_case("key", KEYS, ids=lambda it: repr(it)[:24])
def test_a_key_that_is_no_uuid_of_version_4_is_refused(public: Gateway, key: Any) -> None:
    with nothing_created(public):
        response = post(public, good(idempotency_key=key))
        assert_problem(response, 400, "invalid-input", "idempotency_key")


BAD_TEXTS = ["", " a", "-a", "a_b", "a/b", "a.b", "é", "a\n", "a\x00", "<b>", "\u202ea", "日本"]


@every_case("name", ["account_reference", "description"])
@every_case("value", [*BAD_TEXTS, 7, True, [], {}], ids=lambda it: repr(it)[:20])
def test_a_text_for_the_phone_with_other_characters_is_refused(
    public: Gateway, name: str, value: Any
) -> None:
    with nothing_created(public):
        assert_problem(post(public, good(**{name: value})), 400, "invalid-input", name)


@pytest.mark.parametrize(("name", "most"), [("account_reference", 12), ("description", 13)])
def test_a_text_for_the_phone_has_a_limit(public: Gateway, name: str, most: int) -> None:
    with nothing_created(public):
        response = post(public, good(**{name: "A" * (most + 1)}))
        assert_problem(response, 400, "invalid-input", name)
    phone = f"25470{most:03d}{SILENT}"
    assert post(public, good(phone, **{name: "A" * most})).status_code == 201


@every_case(
    "name", ["Amount", "amount ", "currency", "", "__proto__", "\ud800", "x" * 5000, "merchant"]
)
def test_an_unknown_field_is_refused_by_its_name(public: Gateway, name: str) -> None:
    with nothing_created(public):
        response = post(public, good(**{name: "1"}))
        assert_problem(response, 400, "invalid-input", name[:64])


def test_every_missing_field_is_named_at_once(public: Gateway) -> None:
    with nothing_created(public):
        document = assert_problem(
            post(public, {}), 400, "invalid-input", "amount", "idempotency_key", "phone"
        )
        assert {error["message"] for error in document["errors"]} == {"is required"}


def test_every_bad_field_is_named_at_once(public: Gateway) -> None:
    body = {
        "amount": 10.5,
        "phone": "0712345678",
        "webhook_url": "https://127.0.0.1/",
        "idempotency_key": "1",
        "account_reference": "A" * 13,
        "description": "A" * 14,
        "currency": "KES",
        "callback": None,
    }
    with nothing_created(public):
        assert_problem(post(public, body), 400, "invalid-input", *body)


def test_an_error_never_repeats_what_was_sent(public: Gateway) -> None:
    body = good(phone="07123SECRET", amount="SECRET", idempotency_key="SECRET")
    body |= {"webhook_url": "https://SECRET:SECRET@x/", "description": "SECRET!"}

    assert "SECRET" not in post(public, body).text


@pytest.mark.parametrize("key", [V4, V4.upper()])
def test_a_uuid_of_version_4_is_accepted_in_either_case(public: Gateway, key: str) -> None:
    response = post(public, good(f"25470401{SILENT}", idempotency_key=key))

    assert response.status_code == 201, response.text
