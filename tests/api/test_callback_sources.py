"""Who may call back: the platform's list of addresses, narrowed by each merchant's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.bodies import callback_body
from harness.callbacks import MIB, assert_accepted, count_kept, kept, paid_silently, post
from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from harness.problems import assert_problem
from harness.settings import API_KEY

Phones = Callable[[str], str]
NARROW_KEY = "key-of-the-merchant-with-a-list"
WIDE_KEY = "key-of-the-merchant-with-a-wider-list"


@pytest.fixture(scope="module")
def walled(
    gateways: Gateways,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway behind a trusted proxy, with the platform's list and merchants' own lists."""
    merchants = tmp_path_factory.mktemp("merchants")
    write_merchant(
        merchants,
        "narrow.json",
        name="shops/narrow",
        key=NARROW_KEY,
        shortCode="600300",
        callback={"allowedCIDRs": ["196.201.214.200/31", "2001:db8:7::/48"]},
    )
    write_merchant(
        merchants,
        "wide.json",
        name="shops/wide",
        key=WIDE_KEY,
        shortCode="600400",
        callback={"allowedCIDRs": ["0.0.0.0/0", "::/0"]},
    )
    with gateways.start(
        merchants_dir=str(merchants),
        safaricom_ips="196.201.214.0/24, 196.201.212.69, 2001:db8::/32",
        trusted_proxies="127.0.0.1/32",
    ) as gateway:
        yield gateway


INSIDE, OUTSIDE = "196.201.214.206", "196.201.215.1"
IN_NARROW = "196.201.214.201"


@pytest.mark.parametrize(
    ("key", "source", "status"),
    [
        (API_KEY, INSIDE, 200),
        (API_KEY, "196.201.212.69", 200),
        (API_KEY, "2001:db8:9::1", 200),
        (API_KEY, f"::ffff:{INSIDE}", 200),
        (API_KEY, f"{INSIDE}:443", 200),
        (API_KEY, OUTSIDE, 403),
        (API_KEY, "2001:db9::1", 403),
        (API_KEY, f"::{INSIDE}", 403),
        (API_KEY, "unknown", 403),
        (API_KEY, "", 403),
        (API_KEY, None, 403),
        # A merchant's list narrows the platform's.
        (NARROW_KEY, IN_NARROW, 200),
        (NARROW_KEY, "2001:db8:7::1", 200),
        (NARROW_KEY, INSIDE, 403),
        (NARROW_KEY, "2001:db8:9::1", 403),
        (NARROW_KEY, OUTSIDE, 403),
        # It cannot widen it.
        (WIDE_KEY, INSIDE, 200),
        (WIDE_KEY, OUTSIDE, 403),
    ],
)
def test_both_lists_judge_the_callback_of_a_token(
    walled: Gateway, new_phone: Phones, key: str, source: str | None, status: int
) -> None:
    transaction_id, path = paid_silently(walled, new_phone("4042"), key=key)

    response = post(walled, path, b"{}", source=source)

    if status == 200:
        assert_accepted(response)
        assert len(kept(walled, transaction_id)) == 1
    else:
        assert_problem(response, 403, "forbidden")
        assert kept(walled, transaction_id) == []


@pytest.mark.parametrize(("source", "status"), [(INSIDE, 200), (OUTSIDE, 403), (None, 403)])
def test_the_platforms_list_judges_the_plain_path(
    walled: Gateway, source: str | None, status: int
) -> None:
    before = count_kept(walled)

    response = post(walled, "/callback", b"{}", source=source)

    assert response.status_code == status
    assert count_kept(walled) == before + (status == 200)
    if status == 200:
        assert_accepted(response)
    else:
        assert_problem(response, 403, "forbidden")


def test_size_is_judged_before_the_token_and_the_token_before_the_address(
    walled: Gateway, new_phone: Phones
) -> None:
    _, path = paid_silently(walled, new_phone("4042"))
    wrong_secret = path[:-32] + "0" * 32
    for where in (path, wrong_secret, "/callback/x", "/callback"):
        response = post(walled, where, b"0" * (MIB + 1), source=OUTSIDE)
        assert_problem(response, 413, "body-too-large")
    for where in (wrong_secret, "/callback/x", f"/callback/{'0' * 64}"):
        assert_problem(post(walled, where, b"{}", source=OUTSIDE), 404, "not-found")
    for where in (path, "/callback"):
        assert_problem(post(walled, where, b"{}", source=OUTSIDE), 403, "forbidden")


def test_an_answer_tells_no_address_and_no_token(walled: Gateway, new_phone: Phones) -> None:
    _, path = paid_silently(walled, new_phone("4042"))
    for where, source in [(path, OUTSIDE), (f"{path}0", INSIDE)]:
        text = post(walled, where, b"{}", source=source).text
        assert "196.201" not in text
        assert path[-32:] not in text


def test_a_plain_callback_from_outside_the_merchants_list_is_put_aside(
    walled: Gateway, new_phone: Phones
) -> None:
    transaction_id, _ = paid_silently(walled, new_phone("4042"), key=NARROW_KEY)
    view = walled.get(f"/transactions/{transaction_id}", key=NARROW_KEY).json()
    body = callback_body(view["checkout_request_id"], receipt="UJ22T8IYO1")

    assert_accepted(post(walled, "/callback", body, source=INSIDE))
    walled.work()

    (row,) = kept(walled, transaction_id)
    assert (row["state"], row["outcome"]) == ("QUARANTINED", "source_not_allowed")
    again = walled.get(f"/transactions/{transaction_id}", key=NARROW_KEY).json()
    assert again["status"] == "PENDING"

    assert_accepted(post(walled, "/callback", body, source=IN_NARROW))
    walled.work()
    again = walled.get(f"/transactions/{transaction_id}", key=NARROW_KEY).json()
    assert again["status"] == "COMPLETED"
