"""A history belongs to the object of a name."""

from __future__ import annotations

from harness.collecting import every_case
from mpesa_gateway.domain.ownership import ledger_of, public_name, split_ledger


@every_case(
    ("uid", "first", "ledger"),
    [
        (None, None, "shops/duka"),
        (None, "a", "shops/duka"),
        ("a", None, "shops/duka"),
        ("a", "a", "shops/duka"),
        ("b", "a", "shops/duka#b"),
    ],
)
def test_only_a_later_object_has_a_ledger_of_its_own(
    uid: str | None, first: str | None, ledger: str
) -> None:
    assert ledger_of("shops/duka", uid, first) == ledger
    assert public_name(ledger) == "shops/duka"


def test_a_ledger_says_whose_it_is() -> None:
    assert split_ledger("shops/duka") == ("shops/duka", None)
    assert split_ledger("shops/duka#b") == ("shops/duka", "b")
    assert split_ledger("default") == ("default", None)
