"""POST /initiate: which webhook URLs it takes."""

from __future__ import annotations

from typing import Any

import pytest

from harness.collecting import every_case
from harness.gateway import Gateway
from harness.initiate import (
    HOOK,
    HOSTS_KEY,
    SILENT,
    good,
    nothing_created,
    post,
)
from harness.problems import assert_problem

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


@every_case("url", URLS, ids=lambda it: repr(it)[:40])
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
