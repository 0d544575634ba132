"""POST /initiate: whole shillings, within the limits, never rounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.collecting import every_case
from harness.gateway import Gateway, Gateways
from harness.initiate import (
    LIMITED_KEY,
    RICH_KEY,
    SILENT,
    as_json,
    good,
    nothing_created,
    post,
    write_merchants,
)
from harness.problems import assert_problem
from harness.settings import API_KEY

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


@every_case("amount", AMOUNTS, ids=lambda it: repr(it)[:20])
def test_an_amount_that_is_not_whole_shillings_within_the_limit_is_refused(
    public: Gateway, amount: Any
) -> None:
    with nothing_created(public):
        assert_problem(post(public, good(amount=amount)), 400, "invalid-input", "amount")


@every_case(
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


@pytest.fixture(scope="module")
def generous(gateways: Gateways, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A platform that allows more than Safaricom does, and its merchants."""
    merchants = tmp_path_factory.mktemp("merchants")
    write_merchants(merchants)
    with gateways.start(
        webhook_allow_private="false", max_amount="1000000", merchants_dir=str(merchants)
    ) as gateway:
        yield gateway


def test_a_merchant_may_have_a_higher_limit_than_the_usual_one(generous: Gateway) -> None:
    with nothing_created(generous):
        response = post(generous, good(amount=300_001), key=RICH_KEY)
        assert_problem(response, 400, "invalid-input", "amount")

    # The gateway sends it, and leaves it to Safaricom to judge.
    response = post(generous, good("254701060000", amount=300_000), key=RICH_KEY)

    assert_problem(response, 502, "refused-by-safaricom")
    assert len(generous.simulator.ledger(phone="254701060000")["pushes"]) == 1


def test_the_platforms_ceiling_is_not_raised_by_a_merchant(public: Gateway) -> None:
    with nothing_created(public):
        response = post(public, good(amount=300_000), key=RICH_KEY)
        assert_problem(response, 400, "invalid-input", "amount")


@every_case(
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
