import hashlib
import string
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.clock import NOON
from harness.collecting import every_case
from harness.properties import repeatable
from mpesa_gateway.domain.ids import (
    SECRET_BYTES,
    CallbackToken,
    TokenKeys,
    derived_key,
    find_callback_token,
    parse_uuid,
    parse_uuid4,
    uuid7,
)
from mpesa_gateway.errors import InvalidInputError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
UUID4 = "550e8400-e29b-41d4-a716-446655440000"
# Words that Safaricom refuses in a callback URL [O].
FORBIDDEN_WORDS = ("mpesa", "m-pesa", "safaricom", "exe", "exec", "cmd", "sql", "query")

times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
randomness = st.binary(min_size=10, max_size=10)
keys = st.binary(min_size=32, max_size=32)
tokens = st.builds(
    CallbackToken, st.uuids(), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
)


def test_the_example_of_rfc_9562_comes_out():
    # Appendix A.6: 2022-02-22 14:22:22 in New York, with rand_a 0xCC3 and the rand_b given there.
    now = EPOCH + 0x017F22E279B0 * MILLISECOND
    random_bits = (0xCC3 << 64) | 0x18C4DC0C0C07398F
    assert str(uuid7(now, random_bits.to_bytes(10, "big"))) == (
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    )


@repeatable
@given(times, randomness)
def test_a_uuid7_has_the_fields_of_the_rfc(now, random_bytes):
    made = uuid7(now, random_bytes)
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert abs((made.int >> 80) - (now - EPOCH) / MILLISECOND) < 1


@repeatable
@given(times, times, randomness, randomness)
def test_uuid7s_are_ordered_by_their_time(one, other, first, second):
    earlier, later = sorted([one, other])
    assume(later - earlier >= MILLISECOND)
    assert uuid7(earlier, first) < uuid7(later, second)


@repeatable
@given(randomness, randomness)
def test_all_74_random_bits_are_used(one, other):
    kept = 0x0FFF_3FFF_FFFF_FFFF_FFFF
    same = (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")) & kept == 0
    assert (uuid7(NOON, one) == uuid7(NOON, other)) == same


@pytest.mark.parametrize("length", [0, 9, 11, 16])
def test_a_uuid7_needs_exactly_ten_random_bytes(length):
    with pytest.raises(AssertionError):
        uuid7(NOON, bytes(length))


@repeatable
@given(tokens)
def test_a_token_is_found_again_in_its_text(token):
    assert len(token.text) == 64
    assert find_callback_token(token.text) == token


@repeatable
@given(tokens)
def test_a_token_cannot_spell_a_word_that_safaricom_refuses(token):
    assert set(token.text) <= set("0123456789abcdef")
    assert not any(word in token.text for word in FORBIDDEN_WORDS)


@repeatable
@given(tokens, st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_a_token_matches_the_digest_of_its_own_secret_only(token, other):
    assert token.secret_sha256 == hashlib.sha256(token.secret).digest()
    assert token.matches(token.secret_sha256)
    assert token.matches(hashlib.sha256(other).digest()) == (other == token.secret)
    assert not token.matches(token.secret)


@repeatable
@given(tokens)
def test_no_text_of_a_token_object_shows_its_secret(token):
    shown = [repr(token), str(token), f"{token}", repr([token]), repr({"token": token})]
    assert not any(token.secret.hex() in text or repr(token.secret) in text for text in shown)
    assert all(str(token.transaction) in text for text in shown)


GOOD = "019c1000000070008000000000000001" + "5f" * 16


@every_case(
    "text",
    [
        "",
        GOOD[:-1],
        GOOD + "0",
        GOOD + "\n",
        " " + GOOD[1:],
        GOOD[:-1] + "g",
        GOOD[:-1] + "\u0663",
        GOOD[:-1] + "\uff11",
        GOOD[:32] + "/" + GOOD[33:],
        GOOD + "//",
        "/" + GOOD,
        GOOD[:-1] + "/",
        str(uuid.UUID(GOOD[:32])) + GOOD[32:],
        "0x" + GOOD[2:],
        GOOD[:32],
        "../" * 21 + "x",
        "%30" * 21 + "0",
    ],
)
def test_any_other_text_is_no_token(text):
    assert find_callback_token(GOOD) is not None
    assert find_callback_token(text) is None


@repeatable
@given(st.text(max_size=80) | st.text(string.hexdigits + "-/", min_size=60, max_size=68))
def test_a_text_is_a_token_only_if_it_is_64_hexadecimal_digits_and_perhaps_a_slash(text):
    digits = text.removesuffix("/")
    is_one = len(digits) == 64 and set(digits) <= set(string.hexdigits)
    assert (find_callback_token(text) is not None) == is_one


@repeatable
@given(tokens)
def test_case_and_a_final_slash_make_no_difference(token):
    for text in (token.text.upper(), token.text + "/", token.text.title() + "/"):
        assert find_callback_token(text) == token


@repeatable
@given(st.uuids(), keys, keys)
def test_a_token_is_recognised_by_the_key_that_made_it_and_by_no_other(transaction, key, other):
    assume(key != other)
    token = TokenKeys((key,)).make(transaction, bytes(SECRET_BYTES))
    assert token == TokenKeys((key, other)).make(transaction, b"x" * SECRET_BYTES)
    assert TokenKeys((other, key)).is_ours(token)
    assert not TokenKeys((other,)).is_ours(token)
    assert not TokenKeys().is_ours(token)


@repeatable
@given(st.uuids(), st.uuids(), keys)
def test_a_mac_is_of_one_payment_only(transaction, other, key):
    assume(transaction != other)
    token = TokenKeys((key,)).make(transaction, bytes(SECRET_BYTES))
    assert not TokenKeys((key,)).is_ours(CallbackToken(other, token.secret))


@repeatable
@given(st.uuids(), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_without_a_key_the_secret_is_the_randomness(transaction, secret):
    assert TokenKeys().make(transaction, secret) == CallbackToken(transaction, secret)


def test_keys_have_no_text():
    assert "secret" not in repr(TokenKeys((b"secret",)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((["ab", "c"], "x"), (["a", "bc"], "x")),
        ((["abc"], "x"), (["ab", "c"], "x")),
        ((["abc"], "x"), (["abc"], "y")),
        ((["1:a"], "x"), (["", "a"], "x")),
    ],
)
def test_a_derived_key_is_of_its_secrets_and_its_purpose(one, other):
    assert derived_key(*one) == derived_key(*one)
    assert derived_key(*one) != derived_key(*other)


def test_a_uuid_is_read_in_any_case():
    assert parse_uuid(UUID4, "id") == parse_uuid(UUID4.upper(), "id") == uuid.UUID(UUID4)


NOT_UUIDS = [
    "",
    UUID4.replace("-", ""),
    f"{{{UUID4}}}",
    f"urn:uuid:{UUID4}",
    UUID4 + "\n",
    " " + UUID4,
    UUID4[:-1],
    UUID4 + "0",
    UUID4[:-1] + "g",
    UUID4.replace("-", "_"),
    "\u0665" + UUID4[1:],
    uuid.UUID(UUID4),
    0,
    None,
    [UUID4],
]


@every_case("value", NOT_UUIDS, ids=repr)
@every_case("parse", [parse_uuid, parse_uuid4])
def test_any_other_form_of_a_uuid_is_refused_and_the_field_is_named(parse, value):
    with pytest.raises(InvalidInputError) as refused:
        parse(value, "some_field")
    assert [problem.field for problem in refused.value.problems] == ["some_field"]


@repeatable
@given(st.uuids(version=4))
def test_a_random_uuid_is_a_key(value):
    assert parse_uuid4(str(value), "idempotency_key") == value


@every_case(
    "text",
    [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "550e8400-e29b-11d4-a716-446655440000",
        "550e8400-e29b-31d4-a716-446655440000",
        "550e8400-e29b-51d4-a716-446655440000",
        "019c1000-0000-7000-8000-000000000001",
        # Version 4 by its digit, but of another variant.
        "550e8400-e29b-41d4-1716-446655440000",
        "550e8400-e29b-41d4-c716-446655440000",
        "550e8400-e29b-41d4-e716-446655440000",
    ],
)
def test_a_key_must_be_of_version_4_and_of_the_usual_variant(text):
    assert parse_uuid(text, "id") == uuid.UUID(text)
    with pytest.raises(InvalidInputError, match="version 4"):
        parse_uuid4(text, "idempotency_key")
