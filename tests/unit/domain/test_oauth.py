"""What OAuth's answer says: a token, wrong credentials, or nothing about them."""

from __future__ import annotations

import json
from typing import Any

from harness.collecting import every_case
from mpesa_gateway.domain.oauth import DEFAULT_TOKEN_LIFE_S, classify_token, is_token

TOKEN_FAULT = (
    b'{"fault":{"faultstring":"Invalid Access Token","detail":'
    b'{"errorcode":"keymanagement.service.invalid_access_token"}}}'
)


def answer(**fields: Any) -> bytes:
    return json.dumps({"access_token": "abc", **fields}).encode()


@every_case(
    ("life", "seconds"),
    [
        ("3599", 3599),
        ("60", 60),
        ('"60"', 60),
        ("60.5", 60.5),
        ("86400", 86_400),
        *(
            (hostile, DEFAULT_TOKEN_LIFE_S)
            for hostile in (
                "86401", "0", "-1", '"-1"', "1" + "0" * 400, "1" + "0" * 4000, "1e400", "-1e400",
                "NaN", "Infinity", '"Infinity"', '"soon"', '""', "null", "true", "[]", "{}",
                '"\\u0663"', '"3599\\n"', '" 60"',
            )
        ),
    ],
)  # fmt: skip
def test_a_life_that_makes_no_sense_is_the_documented_one(life: str, seconds: float) -> None:
    found = classify_token(200, b'{"access_token": "abc", "expires_in": %s}' % life.encode())

    assert (found.token, found.expires_in_s) == ("abc", seconds)


@every_case("token", ["", " ", "a b", "€", "a\r\nX: b", "\x00", "a" * 4097, 7, None, True, ["abc"]])
def test_what_no_header_can_carry_is_no_token(token: object) -> None:
    found = classify_token(200, answer(access_token=token))

    assert not is_token(token)
    assert (found.token, found.refused) == (None, False)


@every_case("status", [400, 401])
@every_case(
    ("body", "refused"),
    [
        (b"", True),
        (b"<html>", True),
        (b'{"errorCode": "400.008.01", "errorMessage": "Invalid Authentication passed"}', True),
        (b'{"errorCode": "500.003.02", "errorMessage": "System is busy."}', False),
        (b'{"errorCode": "401.003.01", "errorMessage": "Invalid Access Token"}', False),
        (TOKEN_FAULT, False),
        (b'{"fault":{"detail":{"errorcode":"policies.ratelimit.QuotaViolation"}}}', False),
        (None, False),
    ],
)
def test_only_words_about_the_credentials_refuse_them(
    status: int, body: bytes | None, refused: bool
) -> None:
    found = classify_token(status, body)

    assert (found.token, found.refused) == (None, refused)
    assert found.message.startswith(f"OAuth answered {status}")


def test_the_documented_code_is_told() -> None:
    found = classify_token(400, b'{"errorCode": "400.008.01"}')

    assert found.message == "OAuth answered 400 400.008.01"


@every_case("status", [100, 204, 302, 403, 404, 429, 500, 503])
def test_a_token_with_another_status_is_none(status: int) -> None:
    found = classify_token(status, answer())

    assert (found.token, found.refused) == (None, False)
