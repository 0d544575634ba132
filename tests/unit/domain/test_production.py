"""Where real money moves, and what is refused there."""

from __future__ import annotations

import base64

from harness.collecting import every_case
from mpesa_gateway.domain.merchant import parse_networks
from mpesa_gateway.domain.production import (
    PRODUCTION_URL,
    SANDBOX_URL,
    TUNNEL_DOMAINS,
    TUNNEL_WORDS,
    find_callback_url_problem,
    is_daraja_password,
    is_local_host,
    is_sandbox,
    is_too_wide,
    moves_real_money,
)

LOCAL = (
    "localhost", "LOCALHOST", "db.localhost", "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.31.0.1",
    "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1", "postgres",
    "redis-master", "db.payments.svc", "db.payments.svc.cluster.local", "db.payments.svc.",
    "db.corp",
)  # fmt: skip
PUBLIC = (
    "", "8.8.8.8", "196.201.214.200", "172.32.0.1", "2001:4860:4860::8888", "64:ff9b::a00:1",
    "::ffff:8.8.8.8", "db.example.com", "localhost.example.com", "svc.example.com", "2130706433",
    "0x7f.1", "127.1", "0", "10.0.0.1.example.com", "a:b",
)  # fmt: skip


@every_case("host", LOCAL)
def test_a_host_of_ones_own_is_local(host: str) -> None:
    assert is_local_host(host)


@every_case("host", PUBLIC)
def test_every_other_host_is_not(host: str) -> None:
    assert not is_local_host(host)


@every_case(
    "url",
    [
        PRODUCTION_URL,
        "https://API.Safaricom.co.ke",
        "https://api.safaricom.co.ke.",
        "https://api.safaricom.co.ke:443/",
        "http://api.safaricom.co.ke",
        "https://sandbox.safaricom.co.ke.example.com",
        "https://sandbox.safaricom.co.ke@api.safaricom.co.ke",
        "https://sandbox.safaricom.co.ke\\@api.safaricom.co.ke",
        "https://proxy.example.com/daraja",
        "https://196.201.214.200",
        "https://[64:ff9b::c4c9:d6c8]",
        "https://[::1",
        "https://",
    ],
)
def test_money_is_real_wherever_it_is_not_certain_that_it_is_not(url: str) -> None:
    assert moves_real_money(url)


@every_case(
    "url",
    [
        SANDBOX_URL,
        "https://SANDBOX.safaricom.co.ke./",
        "http://127.0.0.1:8090",
        "http://[::1]:8090",
        "http://10.0.0.7",
        "http://simulator:8090",
        "http://daraja.example",
        "http://simulator.payments.svc.cluster.local:8090",
    ],
)
def test_the_sandbox_and_what_is_private_move_none(url: str) -> None:
    assert not moves_real_money(url)


def test_the_sandbox_is_known_by_its_host() -> None:
    assert is_sandbox("https://Sandbox.Safaricom.co.ke:443")
    assert not is_sandbox(PRODUCTION_URL)


@every_case(
    "texts",
    [
        ["0.0.0.0/0"],
        ["0.0.0.0/1", "128.0.0.0/1"],
        ["196.0.0.0/7"],
        [f"{first}.0.0.0/9" for first in (1, 2, 3)],
        ["196.0.0.0/8", "8.8.8.8"],
        ["::/0"],
        ["2001:4860::/31"],
        ["2001:4860::/32", "2001:4861::1"],
        ["196.201.214.200", "::/1"],
        [f"{first}.{second}.0.0/16" for first in (1, 2) for second in range(256)],
        ["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"],
        ["::/1", "8000::/1"],
        ["::ffff:0:0/96"],
        ["::ffff:0.0.0.0/97", "::ffff:128.0.0.0/97"],
    ],
)
def test_a_union_of_more_than_a_slash_8_is_too_wide(texts: list[str]) -> None:
    assert is_too_wide(parse_networks(texts))


@every_case(
    "texts",
    [
        [],
        ["196.201.214.200"],
        ["10.0.0.0/8"],
        ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/9"],
        ["2001:4860::/32", "2001:4860:1::/48"],
        ["196.201.212.0/24", "2001:db8::/32"],
        ["::ffff:196.201.214.0/120"],
        ["10.0.0.0/8", "::ffff:10.0.0.0/104"],
    ],
)
def test_a_union_within_it_is_not(texts: list[str]) -> None:
    assert not is_too_wide(parse_networks(texts))


@every_case(
    "url",
    [
        "https://localhost:5001/callback",
        "https://127.0.0.1/callback",
        "https://10.0.0.7/callback",
        "https://gateway.payments.svc.cluster.local/callback",
        "https://payments/callback",
        "https://abc123.ngrok-free.app/callback",
        "https://webhook.site/7d2c/callback",
        "https://user:pw@pay.example.com/callback",
        "https://paÿ.example.com/callback",
        "https://Pay.Example.com/callback",
        "http://pay.example.com/callback",
        "https://pay.example.com./callback/mpesa",
        "https://pay.example.com/SQL",
        "https://ngrok.example.com/callback",
        "https://[::1]/callback",
        "https://pay.example.com:22/callback",
        *(f"https://abc.{domain}/callback" for domain in TUNNEL_DOMAINS),
        *(f"https://{domain}/callback" for domain in TUNNEL_DOMAINS),
        *(f"https://my-{word}.example.com/callback" for word in TUNNEL_WORDS),
    ],
)
def test_a_url_that_safaricom_cannot_or_should_not_call(url: str) -> None:
    assert find_callback_url_problem(url) is not None


@every_case(
    "url",
    [
        "https://pay.example.com/callback",
        "https://pay.example.com:8443/callback",
        "https://196.201.214.1/callback",
        "https://[2a00:1450::1]/callback",
        "https://mythts.net/callback",
        "https://pay.example.com./callback",
    ],
)
def test_a_url_that_it_can_call(url: str) -> None:
    assert find_callback_url_problem(url) is None


def test_a_password_is_told_from_a_passkey() -> None:
    password = base64.b64encode(b"600100" + b"passkey" + b"20261002181102").decode()

    assert is_daraja_password(password, "600100")
    assert not is_daraja_password(password, "600101")
    assert not is_daraja_password(
        "bfb279f9aa9bdbcf158e97dd71a467cd2e0c893059b10f78e6b72ada1ed2c919", "174379"
    )
    assert not is_daraja_password("not base64!", "600100")
    assert not is_daraja_password("pässkey", "600100")
    assert not is_daraja_password(password, "")
