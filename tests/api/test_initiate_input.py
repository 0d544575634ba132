"""POST /initiate refuses bad input: which status, which fields, and that nothing came of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.gateway import Gateway, open_gateway
from harness.merchants import write_merchant
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.settings import API_KEY
from harness.wire import Wire, exchange, request_bytes
from mpesa_gateway.demo.embedded import EmbeddedPostgres, EmbeddedRedis

LIMIT = 64 * 1024
HOOK = "https://merchant.example.com/hook"
LIMITED_KEY = "key-of-the-merchant-with-limits"
HOSTS_KEY = "key-of-the-merchant-with-hosts"
RICH_KEY = "key-of-the-merchant-with-large-amounts"
# Accepted, and never called back about: nothing happens while a test looks.
SILENT = "4042"


@pytest.fixture(scope="module")
def public(
    postgres: EmbeddedPostgres,
    redis_server: EmbeddedRedis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway that lets webhooks reach the public internet only, with merchants of each kind."""
    merchants = tmp_path_factory.mktemp("merchants")
    _write_merchants(merchants)
    url = postgres.create_database("input", "template_gateway")
    with (
        RunningSimulator(Settings(callback_delay=0.0)) as simulator,
        Receiver() as receiver,
        open_gateway(
            url,
            redis_server.url(),
            simulator,
            receiver,
            webhook_allow_private="false",
            merchants_dir=str(merchants),
        ) as gateway,
    ):
        yield gateway
    postgres.drop_database("input")


def _write_merchants(directory: Path) -> None:
    write_merchant(
        directory,
        "limits.json",
        name="shops/limits",
        key=LIMITED_KEY,
        limits={"minAmount": 5, "maxAmount": 70},
    )
    write_merchant(
        directory,
        "hosts.json",
        name="shops/hosts",
        key=HOSTS_KEY,
        webhook={
            "url": "https://hooks.example.com/mine",
            "allowedHosts": ["other.example.com"],
            "secrets": ["a-webhook-secret"],
        },
    )
    write_merchant(
        directory, "rich.json", name="shops/rich", key=RICH_KEY, limits={"maxAmount": 300_000}
    )


def good(phone: str = "254712340000", **fields: Any) -> dict[str, Any]:
    """A good body; a field that is `...` is left out."""
    body = {
        "amount": "10",
        "phone": phone,
        "webhook_url": HOOK,
        "idempotency_key": str(uuid.uuid4()),
        **fields,
    }
    return {name: value for name, value in body.items() if value is not ...}


def post(gateway: Gateway, data: Any, *, key: str = API_KEY, **headers: str) -> requests.Response:
    """Bytes, an iterator of bytes (sent in chunks), or something to write as JSON."""
    content = json.dumps(data).encode() if isinstance(data, dict | list) else data
    return gateway.session.post(
        f"{gateway.url}/initiate",
        data=content,
        headers={"X-Internal-Secret": key, "Content-Type": "application/json", **headers},
        timeout=30,
    )


def written(gateway: Gateway) -> list[int]:
    """How much there is of everything that /initiate could make."""
    (counts,) = gateway.rows(
        "SELECT (SELECT count(*) FROM transactions) AS transactions,"
        " (SELECT count(*) FROM transaction_events) AS events,"
        " (SELECT count(*) FROM deliveries) AS deliveries,"
        " (SELECT count(*) FROM callbacks) AS callbacks"
    )
    ledger = gateway.simulator.ledger()
    return [*counts.values(), len(ledger["pushes"]), len(ledger["tokens"])]


@contextmanager
def nothing_created(gateway: Gateway) -> Iterator[None]:
    before = written(gateway)
    yield
    assert written(gateway) == before


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("at", list(range(1, 120, 17)))
def test_a_truncated_body_is_refused(public: Gateway, at: int) -> None:
    whole = json.dumps(good()).encode()
    assert at < len(whole)
    with nothing_created(public):
        assert_problem(post(public, whole[:at]), 400, "invalid-input", "body")


@pytest.mark.parametrize(
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


AMOUNTS: list[Any] = [
    *("10.50", "10.5", "0.1", "10.001", "10.000", "1e3", "1E1", " 10", "10 ", "+10", "-10"),
    *("", "0", "00", "010", "0.00", "-0", "1,000", "1_000", "10.", ".5", "0x10", "ten", "NaN"),
    *(
        "Infinity",
        "\u0663",
        "\uff11\uff10",
        "10\n",
        "\n10",
        "10\x00",
        "KES 10",
        "9" * 5000,
        "10" + "\ud800",
    ),
    *(0, -1, -10, 10.5, 0.1, 1e-7, 10.000001, 1e300, 10**20, 10**400, -(10**30)),
    *(True, False, None, [], ["10"], {}, {"amount": 10}),
    *(250_001, "250001", 10**9, "999999999999999999", 2.5e17),
]


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("amount", AMOUNTS, ids=lambda it: repr(it)[:20])
def test_an_amount_that_is_not_whole_shillings_within_the_limit_is_refused(
    public: Gateway, amount: Any
) -> None:
    with nothing_created(public):
        assert_problem(post(public, good(amount=amount)), 400, "invalid-input", "amount")


@pytest.mark.parametrize(
    "literal",
    [
        *(
            "1e400",
            "1e-400",
            "1E+999999",
            "-0",
            "0e5",
            "10.5",
            "10.00000000000000000000000000000001",
        ),
        *("1" * 4000, "9" * 60 + ".0", "1." + "0" * 40_000 + "1"),
    ],
    ids=lambda it: it[:16],
)
def test_no_json_number_is_rounded_or_expanded(public: Gateway, literal: str) -> None:
    body = as_json(good(amount="HERE")).replace(b'"HERE"', literal.encode())
    with nothing_created(public):
        assert_problem(post(public, body), 400, "invalid-input", "amount")


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


@pytest.mark.parametrize("phone", PHONES, ids=lambda it: repr(it)[:20])
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


@pytest.mark.parametrize("key", KEYS, ids=lambda it: repr(it)[:24])
def test_a_key_that_is_no_uuid_of_version_4_is_refused(public: Gateway, key: Any) -> None:
    with nothing_created(public):
        response = post(public, good(idempotency_key=key))
        assert_problem(response, 400, "invalid-input", "idempotency_key")


URLS: list[Any] = [
    *("", " ", "hook", "//merchant.example.com/hook", "https://", "https:///hook", "https://."),
    # Other schemes, and no encryption.
    *("http://merchant.example.com/hook", "ftp://merchant.example.com/", "file:///etc/passwd"),
    *("javascript:alert(1)", "gopher://merchant.example.com/", "HTTP://merchant.example.com/"),
    # Inner addresses, plainly written.
    *("https://127.0.0.1/", "https://127.0.0.1./", "https://10.1.2.3/", "https://192.168.0.1/"),
    *("https://172.16.0.1/", "https://169.254.169.254/latest/meta-data/", "https://0.0.0.0/"),
    *("https://100.64.0.1/", "https://224.0.0.1/", "https://255.255.255.255/"),
    *("https://[::1]/", "https://[::]/", "https://[fd00::1]/", "https://[fe80::1]/"),
    "https://[fe80::1%25eth0]/",
    # Inner addresses inside public-looking ones: mapped, compatible, NAT64, 6to4, Teredo, ISATAP.
    *("https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::127.0.0.1]/"),
    *("https://[64:ff9b::7f00:1]/", "https://[64:ff9b::10.0.0.1]/", "https://[64:ff9b:1::1]/"),
    *("https://[2002:7f00:1::]/", "https://[2001::1]/", "https://[2606:4700::5efe:7f00:1]/"),
    # Odd spellings that a resolver reads as an address.
    *("https://2130706433/", "http://2130706433/", "https://0x7f.1/", "http://0x7f.1/"),
    *("https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/", "https://127.0.1/"),
    *("https://0/", "https://1.2.3.4.5/", "https://8.8.8.08/", "https://[8.8.8.8]/"),
    *(
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://127\u30020\u30020\u30021/",
        "https://\u2460\u2461\u2466.0.0.1/",
    ),
    # Local names.
    *("https://localhost/", "https://LOCALHOST/", "https://localhost./", "https://a.localhost/"),
    *("https://metadata.google.internal/", "https://postgres/", "https://postgres.db.svc/"),
    *("https://postgres.db.svc.cluster.local/", "https://printer.local/", "https://x.home.arpa/"),
    # Credentials, and other ways to hide the host.
    *("https://user:password@merchant.example.com/", "https://user@merchant.example.com/"),
    *("https://@merchant.example.com/", "https://merchant.example.com:443@127.0.0.1/"),
    *("https://merchant.example.com\\@127.0.0.1/", "https:\\\\127.0.0.1\\"),
    *("https://merchant.example.com#@127.0.0.1/", "https://merchant.example.com/#part"),
    *("https://merchant.example.com/hook#", "https://[merchant.example.com]/"),
    # What does not belong into a URL.
    *(f"{HOOK}\n", f"{HOOK}\r\nX-Evil: 1", "https://merchant.exam\tple.com/", f" {HOOK}"),
    *(f"{HOOK}?a=b c", f"{HOOK}\x00", "https://mérchant.example.com/", f"{HOOK}/é"),
    *(
        "https://merchant..example.com/",
        "https://-x.example.com/",
        "https://a" + "b" * 63 + ".com/",
    ),
    *("https://merchant.example.com:22/", "https://merchant.example.com:0/"),
    *("https://merchant.example.com:65536/", "https://merchant.example.com:-1/"),
    *("https://merchant.example.com:x/", "https://merchant.example.com: 443/"),
    HOOK.ljust(2049, "a"),
    *(7, True, None, [], [HOOK], {"url": HOOK}),
]


@pytest.mark.parametrize("url", URLS, ids=lambda it: repr(it)[:40])
def test_a_webhook_url_that_is_not_a_plain_public_https_url_is_refused(
    public: Gateway, url: Any
) -> None:
    with nothing_created(public):
        assert_problem(post(public, good(webhook_url=url)), 400, "invalid-input", "webhook_url")


def test_a_webhook_url_is_needed_when_the_merchant_has_none(public: Gateway) -> None:
    with nothing_created(public):
        response = post(public, good(webhook_url=...))
        assert_problem(response, 400, "invalid-input", "webhook_url")


def test_a_webhook_url_may_be_left_out_when_the_merchant_has_one(public: Gateway) -> None:
    response = post(public, good(f"25470001{SILENT}", webhook_url=...), key=HOSTS_KEY)

    assert response.status_code == 201, response.text
    (row,) = public.rows("SELECT webhook_url FROM transactions WHERE merchant = 'shops/hosts'")
    assert row["webhook_url"] == "https://hooks.example.com/mine"


@pytest.mark.parametrize(
    "url", [HOOK, "https://hooks.example.com/mine", "https://other.example.com.evil.example/"]
)
def test_a_webhook_url_outside_the_merchants_hosts_is_refused(public: Gateway, url: str) -> None:
    with nothing_created(public):
        response = post(public, good(webhook_url=url), key=HOSTS_KEY)
        assert_problem(response, 400, "invalid-input", "webhook_url")


BAD_TEXTS = ["", " a", "-a", "a_b", "a/b", "a.b", "é", "a\n", "a\x00", "<b>", "\u202ea", "日本"]


@pytest.mark.parametrize("name", ["account_reference", "description"])
@pytest.mark.parametrize("value", [*BAD_TEXTS, 7, True, None, [], {}], ids=lambda it: repr(it)[:20])
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("amount", ["4", 1, "71", 100])
def test_the_merchants_own_limits_hold(public: Gateway, amount: Any) -> None:
    with nothing_created(public):
        response = post(public, good(amount=amount), key=LIMITED_KEY)
        assert_problem(response, 400, "invalid-input", "amount")


@pytest.mark.parametrize(
    ("key", "amount", "phone"),
    [
        (LIMITED_KEY, "5", f"25470101{SILENT}"),
        (LIMITED_KEY, "70", f"25470102{SILENT}"),
        (API_KEY, 250_000, f"25470104{SILENT}"),
        (API_KEY, 1, f"25470105{SILENT}"),
    ],
)
def test_an_amount_at_the_limit_is_accepted(
    public: Gateway, key: str, amount: Any, phone: str
) -> None:
    response = post(public, good(phone, amount=amount), key=key)

    assert response.status_code == 201, response.text
    (push,) = public.simulator.ledger(phone=phone)["pushes"]
    assert push["amount"] == int(amount)


def test_a_merchant_may_have_a_higher_limit_than_the_usual_one(public: Gateway) -> None:
    with nothing_created(public):
        response = post(public, good(amount=300_001), key=RICH_KEY)
        assert_problem(response, 400, "invalid-input", "amount")

    # The gateway sends it, and leaves it to Safaricom to judge.
    response = post(public, good("254701060000", amount=300_000), key=RICH_KEY)

    assert_problem(response, 502, "refused-by-safaricom")
    assert len(public.simulator.ledger(phone="254701060000")["pushes"]) == 1


@pytest.mark.parametrize(
    ("literal", "phone"),
    [
        (b'"10.00"', f"25470201{SILENT}"),
        (b'"10.0"', f"25470202{SILENT}"),
        (b'"10"', f"25470203{SILENT}"),
        (b"10", f"25470204{SILENT}"),
        (b"10.0", f"25470205{SILENT}"),
        (b"1e1", f"25470206{SILENT}"),
    ],
)
def test_every_spelling_of_ten_shillings_is_ten(
    public: Gateway, literal: bytes, phone: str
) -> None:
    response = post(public, as_json(good(phone, amount="HERE")).replace(b'"HERE"', literal))

    assert response.status_code == 201, response.text
    (row,) = public.rows("SELECT amount FROM transactions WHERE phone = %s", phone)
    assert str(row["amount"]) == "10.00"
    (push,) = public.simulator.ledger(phone=phone)["pushes"]
    assert push["amount"] == 10


@pytest.mark.parametrize(
    ("url", "phone"),
    [
        (HOOK, f"25470301{SILENT}"),
        ("https://merchant.example.com:8443/hook?a=b%20c", f"25470302{SILENT}"),
        ("https://8.8.8.8/hook", f"25470303{SILENT}"),
        ("https://[2606:4700:4700::1111]/", f"25470304{SILENT}"),
        ("https://xn--mrchant-9ya.example.com", f"25470305{SILENT}"),
        (HOOK.ljust(2048, "a"), f"25470306{SILENT}"),
    ],
    ids=lambda it: it[:40],
)
def test_a_plain_public_https_url_is_accepted_and_kept_as_written(
    public: Gateway, url: str, phone: str
) -> None:
    response = post(public, good(phone, webhook_url=url))

    assert response.status_code == 201, response.text
    (row,) = public.rows("SELECT webhook_url FROM transactions WHERE phone = %s", phone)
    assert row["webhook_url"] == url


@pytest.mark.parametrize("key", [V4, V4.upper()])
def test_a_uuid_of_version_4_is_accepted_in_either_case(public: Gateway, key: str) -> None:
    response = post(public, good(f"25470401{SILENT}", idempotency_key=key))

    assert response.status_code == 201, response.text
