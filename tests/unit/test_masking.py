"""No spelling of a phone, no id, token or secret gets through, wherever in a value it stands."""

from __future__ import annotations

import json
import string
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.collecting import every_case
from mpesa_gateway.telemetry import masking
from mpesa_gateway.telemetry.masking import MAX_ITEMS, MAX_VALUE_LENGTH, hide, mask, mask_value

SECRET = "c4narY-Secret!of(this)process"
CHECKOUT_REQUEST_ID = "ws_CO_191220191020363925"
TOKEN = uuid.UUID(int=2**100 + 77).hex + "9f" * 16


@pytest.fixture(autouse=True)
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_hidden", ())
    hide(SECRET)


digits = st.text(string.digits, min_size=8, max_size=8)
gaps = st.sampled_from(["", " ", "-", ".", " - "[:2], "\u00a0"])


@st.composite
def phones(draw: st.DrawFn) -> tuple[str, str]:
    """A phone in some spelling, and its national number."""
    national = draw(st.sampled_from("71")) + draw(digits)
    gap = draw(gaps)
    groups = gap.join([national[:3], national[3:6], national[6:]])
    prefix = draw(
        st.sampled_from(["254", "+254", "00254", "0", "+254 ", "254-", "(+254) ", "254(0)"])
    )
    return prefix + groups, national


# What stands around a canary. No digit touches it, and no letter before a digit.
words = st.text(
    st.characters(blacklist_categories=("Nd", "Nl", "No", "Lu", "Ll", "Cs")), max_size=20
)
shapes = st.sampled_from(
    [
        lambda it: it,
        lambda it: [it],
        lambda it: (1, it),
        lambda it: {it},
        lambda it: {"value": it},
        lambda it: {it: 1},
        lambda it: {"a": {"b": {"c": {"d": {"e": [it]}}}}},
        lambda it: it.encode(),
        ValueError,
        lambda it: json.dumps({"text": it}, ensure_ascii=False),
        lambda it: f"phone={it}&x=1",
        lambda it: repr([it]),
        lambda it: quote(f"+{it}"),
        lambda it: f"https://example.test/a?b={it}#c",
        lambda it: f"Failing row contains (1, {it}, null).",
        lambda it: f"line\n{it}\n",
    ]
)


def numbers(text: str) -> str:
    return "".join(filter(str.isdigit, text))


@given(phones(), words, words, shapes)
def test_no_phone_gets_through(phone: tuple[str, str], before: str, after: str, shape: Any) -> None:
    written, national = phone

    seen = str(mask_value(shape(f"{before} {written} {after}")))

    assert written not in seen
    assert national not in numbers(seen)


@given(st.sampled_from("71"), digits, st.sampled_from(["", "tel", "msisdn_", "n"]))
def test_a_phone_as_a_number_or_touching_letters_is_masked(
    first: str, rest: str, word: str
) -> None:
    national = first + rest

    assert national not in str(mask_value(int("254" + national)))
    assert national not in mask(f"{word}254{national}")
    assert national not in mask(f"for {national}.")


@given(words, words, shapes, st.sampled_from([SECRET, CHECKOUT_REQUEST_ID, TOKEN]))
def test_no_secret_id_or_token_gets_through(
    before: str, after: str, shape: Any, canary: str
) -> None:
    seen = str(mask_value(shape(f"{before} {canary} {after}")))

    assert canary not in seen
    assert quote(canary) not in seen or canary == SECRET


NAMES = [
    "password", "Password", "passkey", "consumer_secret", "consumerSecret", "consumerKey",
    "api_key", "apiKey", "X-API-Key", "authorization", "webhook_secret", "access_token",
    "CheckoutRequestID", "checkout_request_id", "callback_url", "CallBackURL", "credentials",
    "MPESA_INTERNAL_SECRET",
]  # fmt: skip
values = st.text(string.ascii_letters + string.digits + "+/=_.", min_size=8, max_size=40)


@given(st.sampled_from(NAMES), values)
def test_a_value_under_a_secret_name_is_dropped(name: str, value: str) -> None:
    canary = f"zq{value}"
    for shape in (
        {name: canary},
        {"outer": {name: [canary]}},
        f"{name}={canary}",
        f"{name}: {canary}",
        json.dumps({name: canary}),
        json.dumps({name: f"{canary} {canary}"}),
        json.dumps({"body": json.dumps({name: canary})}),
        repr({name: canary}),
        f"DETAIL:  Key ({name})=({canary}) already exists.",
    ):
        assert canary not in str(mask_value(shape)), shape


@every_case(
    ("text", "wanted"),
    [
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("sent Bearer abc.def-123", "abc.def-123"),
        ("postgresql://mpesa:s3cr3t@db:5432/x", "s3cr3t"),
        ("postgresql://mpesa:s3@cr3t@db:5432/x", "cr3t"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        (f"POST /callback/{TOKEN[:40]} 404", TOKEN[:40]),
        (f"\\x{TOKEN}", TOKEN),
        (TOKEN.upper(), TOKEN.upper()),
        # A callback's body in a row that broke a constraint, as Postgres and as Python show it.
        ("DETAIL:  Failing row contains (36, t, jane\nlane, {}, null).\nMore", "jane"),
        (f"value {chr(92)}x{b'07123'.hex()}45{b'678'.hex()}", b"07123".hex()),
        (repr(f"= {chr(92)}x{b'0712345678'.hex()}"), b"0712345678".hex()),
    ],
)
def test_credentials_are_known_by_their_form(text: str, wanted: str) -> None:
    assert wanted in text
    assert wanted not in mask(text)


def harmless() -> Iterator[Any]:
    yield from (None, True, 0, 254, 712345678, 99999999999, 1.712345678, "")
    yield from ("callback applied", "/callback/{token}", "10.0.71.234:8080", "254 shillings")
    yield "2026-11-25T04:15:43.123456Z"
    yield "0af7651916cd43dd8448eb211c80319c"
    yield "0192f3a4-7b1c-7d2e-8f90-254712345678"
    yield "msg_0af7651916cd43dd0712345678b12345"
    yield "174379 and 20191219102115"


@every_case("value", list(harmless()), ids=repr)
def test_what_is_none_of_these_stays_as_it_is(value: Any) -> None:
    assert mask_value(value) == value


@given(st.uuids())
def test_a_transaction_id_is_never_torn(value: uuid.UUID) -> None:
    assert mask(f"transaction {value} ended") == f"transaction {value} ended"


@given(
    st.recursive(
        st.text() | st.integers(), lambda it: st.lists(it) | st.dictionaries(st.text(), it)
    )
)
def test_masking_never_fails_and_is_stable(value: Any) -> None:
    once = mask_value(value)

    assert mask_value(once) == once or isinstance(once, dict)


def test_values_are_bounded() -> None:
    long = mask_value("a b " * 10_000_000)
    many = mask_value({str(number): "x" for number in range(1000)})

    assert len(long) <= MAX_VALUE_LENGTH + 3
    assert len(many) == MAX_ITEMS
    assert len(mask_value(list(range(1000)))) == MAX_ITEMS


def test_a_hidden_value_that_is_too_short_is_not_hidden() -> None:
    hide("ab", None, "")

    assert mask("about") == "about"


def test_the_end_of_a_traceback_stays() -> None:
    seen = mask_value("Traceback\n" + "  line\n" * 5000 + "ValueError: here")

    assert seen.startswith("Traceback")
    assert seen.endswith("ValueError: here")
