import ipaddress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.collecting import every_case
from harness.factories import make_merchant
from harness.properties import repeatable
from mpesa_gateway.domain.merchant import Ceilings, Credentials, is_allowed, parse_networks

SAFARICOM = parse_networks(["196.201.214.200", "196.201.213.0/24", "2c0f:fe38::/32"])
INSIDE = [ipaddress.ip_address(it) for it in ("196.201.214.200", "196.201.213.44", "2c0f:fe38::1")]
OUTSIDE = [
    ipaddress.ip_address(it)
    for it in ("196.201.214.201", "196.201.212.69", "2c0f:fe39::1", "::", "::ffff:196.201.214.200")
]


def test_a_paybill_is_paid_itself_and_a_till_by_its_own_number():
    assert make_merchant(short_code="174379").party_b == "174379"
    till = make_merchant(
        short_code="600100", till_number="5551234", transaction_type="CustomerBuyGoodsOnline"
    )
    assert till.party_b == "5551234"


def test_a_merchant_shows_no_secret():
    merchant = make_merchant(
        credentials=Credentials("shown-key", "shown-secret", "shown-passkey"),
        api_key_sha256=(b"shown-digest",),
        webhook_secrets=("shown-webhook",),
    )
    for text in (repr(merchant), str(merchant), repr(merchant.credentials)):
        assert "shown" not in text


def test_limits_are_safaricoms_unless_the_merchant_says_otherwise():
    merchant = make_merchant()
    assert (merchant.min_amount, merchant.max_amount) == (Decimal(1), Decimal(250_000))
    assert len(merchant.retry_schedule) == 4


@every_case("address", [*INSIDE, *OUTSIDE], ids=str)
def test_lists_that_are_empty_narrow_nothing(address):
    assert is_allowed(address)
    assert is_allowed(address, ())
    assert is_allowed(address, (), ())


@pytest.mark.parametrize("address", INSIDE, ids=str)
def test_an_address_of_the_list_is_allowed(address):
    assert is_allowed(address, SAFARICOM)
    assert is_allowed(address, (), SAFARICOM)


@every_case("address", OUTSIDE, ids=str)
def test_any_other_address_is_not(address):
    assert not is_allowed(address, SAFARICOM)
    assert not is_allowed(address, SAFARICOM, ())


def test_a_second_list_narrows_the_first_and_never_widens_it():
    first, second = parse_networks(["10.0.0.0/8"]), parse_networks(["10.1.0.0/16", "11.0.0.0/8"])
    allowed = [
        text
        for text in ("10.1.0.1", "10.2.0.1", "11.0.0.1", "12.0.0.1")
        if is_allowed(ipaddress.ip_address(text), first, second)
    ]
    assert allowed == ["10.1.0.1"]


@repeatable
@given(st.ip_addresses(), st.lists(st.ip_addresses(), min_size=1, max_size=3))
def test_a_list_of_addresses_allows_these_and_no_other(address, listed):
    assert is_allowed(address, parse_networks([str(it) for it in listed])) == (address in listed)


def test_an_address_inside_a_cidr_stands_for_the_cidr():
    assert parse_networks([" 196.201.214.207/28 ", "::1"]) == (
        ipaddress.ip_network("196.201.214.192/28"),
        ipaddress.ip_network("::1/128"),
    )


@every_case(
    "text",
    ["", "localhost", "196.201.214", "196.201.214.256", "196.201.214.200/33", "10.0.0.0-10.0.0.9"],
)
def test_what_is_no_network_is_named(text):
    with pytest.raises(ValueError, match="is no IP address or CIDR") as refused:
        parse_networks(["127.0.0.1", text])
    assert repr(text) in str(refused.value)


@every_case(
    ("ceiling", "own", "effective"),
    [(0, None, 0), (0, 0, 0), (0, 7, 7), (5, None, 5), (5, 0, 5), (5, 7, 5), (5, 3, 3)],
)
def test_a_merchant_may_only_lower_the_rate(ceiling: int, own: int | None, effective: int) -> None:
    assert Ceilings(initiate_per_minute=ceiling).lower_rate(own) == effective


@pytest.mark.parametrize(("own", "effective"), [(None, 100), (99, 99), (101, 100)])
def test_a_merchant_may_only_lower_the_amount(own: int | None, effective: int) -> None:
    ceilings = Ceilings(max_amount=Decimal(100))
    assert ceilings.lower_amount(None if own is None else Decimal(own)) == effective
