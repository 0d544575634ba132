import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.clock import NOON
from harness.collecting import every_case
from harness.properties import repeatable
from mpesa_gateway.domain.signature import (
    SECRET_PREFIX,
    SignatureError,
    body_signature,
    signing_key,
    verify_webhook,
    webhook_headers,
)

KEY = b"thirty-two bytes of a real key!!"
WHSEC = SECRET_PREFIX + base64.b64encode(KEY).decode()
PLAIN = "a plain secret"
# The example of the Standard Webhooks reference implementation.
EXAMPLE_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EXAMPLE_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

plain_secrets = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda it: not it.startswith(SECRET_PREFIX)
)
encoded_secrets = st.binary(min_size=1, max_size=64).map(
    lambda it: SECRET_PREFIX + base64.b64encode(it).decode()
)
secrets = plain_secrets | encoded_secrets


def test_the_published_example_comes_out():
    headers = webhook_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        [EXAMPLE_SECRET],
        b'{"test": 2432232314}',
        datetime.fromtimestamp(1614265330, UTC),
    )
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == EXAMPLE_SIGNATURE


def test_x_signature_is_the_plain_hmac_of_the_body():
    # RFC 4231, test case 2.
    assert body_signature("Jefe", b"what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_a_secret_is_its_text_unless_it_says_that_it_is_base64():
    assert signing_key(WHSEC) == KEY
    assert signing_key(PLAIN) == PLAIN.encode()
    assert signing_key("WHSEC_" + "AAAA") == b"WHSEC_AAAA"
    assert signing_key("shops whsec_AAAA") == b"shops whsec_AAAA"
    assert signing_key("s\u00fc\u00df") == "s\u00fc\u00df".encode()


@every_case("rest", ["", "=", "a", "abc", "ab cd", "ab\ncd", "ab-_", "a\u00e9bc", "AAAA!", "===="])
def test_what_says_that_it_is_base64_must_be(rest):
    with pytest.raises(ValueError, match="must go on in base64"):
        signing_key(SECRET_PREFIX + rest)


@repeatable
@given(st.lists(secrets, min_size=1, max_size=3), st.binary(max_size=200).map(bytes.hex))
def test_an_outside_library_accepts_the_webhook_with_each_of_its_secrets(keys, text):
    # Its check of the timestamp asks the real clock.
    body = json.dumps({"said": text}).encode()
    headers = webhook_headers("msg_1", keys, body, datetime.now(UTC))
    for secret in keys:
        witness = standardwebhooks.Webhook(signing_key(secret))
        assert witness.verify(body.decode(), headers) == {"said": text}
    assert headers["X-Signature"] == (
        hmac.new(signing_key(keys[0]), body, hashlib.sha256).hexdigest()
    )


@repeatable
@given(secrets, secrets)
def test_an_outside_library_refuses_another_secret(secret, other):
    assume(signing_key(secret).rstrip(b"\0") != signing_key(other).rstrip(b"\0"))
    headers = webhook_headers("msg_1", [secret], b"{}", datetime.now(UTC))
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(signing_key(other)).verify("{}", headers)


@pytest.mark.parametrize(
    "forged",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(int(datetime.now(UTC).timestamp()) - 60)},
        {"webhook-signature": "v1,AAAA"},
    ],
    ids=lambda it: next(iter(it)),
)
def test_an_outside_library_refuses_what_was_changed_on_the_way(forged):
    headers = webhook_headers("msg_1", [WHSEC], b'{"a":1}', datetime.now(UTC))
    witness = standardwebhooks.Webhook(KEY)
    assert witness.verify('{"a":1}', headers) == {"a": 1}
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        witness.verify('{"a":1}', {**headers, **forged})
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        witness.verify('{"a":2}', headers)


def test_while_a_secret_rotates_both_sign_and_the_newest_is_first():
    headers = webhook_headers("msg_1", ["new", "old"], b"{}", NOON)
    new, old = headers["webhook-signature"].split(" ")
    assert new == webhook_headers("msg_1", ["new"], b"{}", NOON)["webhook-signature"]
    assert old == webhook_headers("msg_1", ["old"], b"{}", NOON)["webhook-signature"]
    assert headers["X-Signature"] == body_signature("new", b"{}")


def test_every_attempt_is_signed_for_its_own_time():
    first = webhook_headers("msg_1", [PLAIN], b"{}", NOON)
    second = webhook_headers("msg_1", [PLAIN], b"{}", NOON + timedelta(minutes=1))
    assert second["webhook-timestamp"] == str(int(first["webhook-timestamp"]) + 60)
    assert second["webhook-signature"] != first["webhook-signature"]
    assert second["X-Signature"] == first["X-Signature"]
    assert second["webhook-id"] == first["webhook-id"]


def test_headers_are_ascii_and_hold_no_secret():
    headers = webhook_headers("msg_1", [PLAIN, WHSEC], b"{}", NOON)
    text = " ".join([*headers, *headers.values()])
    assert text.isascii()
    assert text.isprintable()
    for secret in (PLAIN, WHSEC, WHSEC.removeprefix(SECRET_PREFIX), KEY.decode()):
        assert secret not in text


SIGNED_AT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def signed(body: bytes = b"{}", *secrets: str) -> dict[str, str]:
    return webhook_headers("msg_1", secrets or ("secret",), body, SIGNED_AT)


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_genuine_webhook_is_accepted_for_five_minutes(seconds: int) -> None:
    verify_webhook("secret", signed(), b"{}", SIGNED_AT + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-86_400, -301, 301, 400 * 86_400])
def test_a_webhook_of_another_time_is_refused(seconds: int) -> None:
    now = SIGNED_AT + timedelta(seconds=seconds)
    with pytest.raises(SignatureError, match="five minutes"):
        verify_webhook("secret", signed(), b"{}", now)


def test_any_age_is_accepted_without_a_clock() -> None:
    verify_webhook("secret", signed(), b"{}", None)


def test_either_secret_fits_while_they_are_replaced() -> None:
    headers = signed(b"{}", "new", "old")
    for secret in ("new", "old"):
        verify_webhook(secret, headers, b"{}", SIGNED_AT)


@every_case(
    ("change", "body"),
    [
        ({"webhook-id": "msg_2"}, b"{}"),
        ({}, b"{} "),
        ({"webhook-timestamp": "1769860801"}, b"{}"),
        ({"webhook-timestamp": "+1769860800"}, b"{}"),
        ({"webhook-timestamp": ""}, b"{}"),
        ({"webhook-id": ""}, b"{}"),
        ({"webhook-signature": "v1,"}, b"{}"),
        ({"webhook-signature": "v1,\u20ac"}, b"{}"),
    ],
)
def test_a_webhook_that_was_changed_is_refused(change: dict[str, str], body: bytes) -> None:
    with pytest.raises(SignatureError):
        verify_webhook("secret", {**signed(), **change}, body, SIGNED_AT)
