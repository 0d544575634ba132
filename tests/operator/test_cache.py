"""The objects that are known, who uses which Secret, and who has a short code."""

from __future__ import annotations

from typing import Any

from harness.merchantconfigs import merchant_config
from mpesa_operator import cache
from mpesa_operator.cache import Objects


def body(name: str = "duka", namespace: str = "shops", **changes: Any) -> dict[str, Any]:
    spec = changes.pop("spec", {})
    found = merchant_config(name, namespace, **spec)
    found["metadata"] |= {
        "uid": f"uid-of-{namespace}-{name}",
        "resourceVersion": "10",
        "generation": 1,
        "creationTimestamp": "2026-11-24T12:00:00Z",
        **changes,
    }
    return found


def known(*bodies: dict[str, Any]) -> Objects:
    found = Objects()
    for one in bodies:
        found.put(one)
    return found


def test_an_object_is_read() -> None:
    deleted = body(
        deletionTimestamp="2026-11-24T13:00:00Z", finalizers=["x", "mpesa-gateway.dev/drain"]
    )
    merchant = known(deleted).find("shops/duka")
    assert merchant is not None
    assert merchant.key == "shops/duka"
    assert merchant.has_finalizer
    assert merchant.deleted_at is not None
    assert (merchant.deleted_at - merchant.created_at).total_seconds() == 3600


def test_only_what_is_acted_upon_counts_as_a_change() -> None:
    found = Objects()
    assert found.put(body())
    assert not found.put(body(resourceVersion="11", labels={"a": "b"}))
    assert found.put(body(resourceVersion="12", generation=2))
    assert found.put(
        body(resourceVersion="13", generation=2, finalizers=["mpesa-gateway.dev/drain"])
    )
    assert not found.put(body(resourceVersion="12", generation=9))  # It came late.
    merchant = found.find("shops/duka")
    assert merchant is not None
    assert merchant.generation == 2


def test_an_object_that_went_is_not_brought_back_by_a_listing() -> None:
    found = known(body())
    assert found.remove("shops/duka") == set()
    assert not found.put(body(resourceVersion="9"))
    assert found.find("shops/duka") is None
    assert found.put(body(uid="another", resourceVersion="20"))
    assert found.remove("shops/never") == set()


def test_what_went_is_not_remembered_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr(cache, "REMEMBERED_GONE", 2)
    found = Objects()
    for name in ("a", "b", "c"):
        found.put(body(name))
        found.remove(f"shops/{name}")
    assert found.put(body("a"))
    assert not found.put(body("c"))


def test_an_object_that_cannot_be_read_is_counted_and_keeps_what_was_known() -> None:
    found = known(body())
    bad = body(resourceVersion="11", generation=2, spec={"shortCode": ...})
    assert not found.put(bad)
    assert found.invalid == {"shops/duka"}
    assert found.find("shops/duka") is not None
    assert found.put(body(resourceVersion="12", generation=3))
    assert found.invalid == set()


def test_who_reads_a_secret() -> None:
    hooks = {"webhook": {"signingSecretRef": {"name": "hooks", "key": "k"}}}
    found = known(body("a"), body("b", spec=hooks), body("c", "other"))
    assert found.users_of_secret("shops", "daraja") == {"shops/a", "shops/b"}
    assert found.users_of_secret("shops", "hooks") == {"shops/b"}
    assert found.users_of_secret("other", "daraja") == {"other/c"}
    found.put(body("b", resourceVersion="11", generation=2))
    assert found.users_of_secret("shops", "hooks") == set()
    found.remove("shops/a")
    assert found.users_of_secret("shops", "daraja") == {"shops/b"}


def same_account(found: Objects, key: str) -> set[str]:
    merchant = found.find(key)
    assert merchant is not None
    return found.same_account(merchant)


def test_a_claim_is_environment_short_code_and_till() -> None:
    tills = [
        body(
            name,
            spec={
                "transactionType": "CustomerBuyGoodsOnline",
                "shortCode": "600100",
                "tillNumber": till,
            },
        )
        for name, till in (("one", "900900"), ("same", "900900"), ("two", "900901"))
    ]
    production = body("p", spec={"environment": "production"})
    found = known(body("a"), body("b"), production, *tills)
    assert same_account(found, "shops/a") == {"shops/b"}
    assert same_account(found, "shops/p") == set()
    assert same_account(found, "shops/one") == {"shops/same"}
    assert same_account(found, "shops/two") == set()
    assert found.remove("shops/a") == {"shops/b"}
    assert same_account(found, "shops/b") == set()


def test_versions_that_are_no_numbers_are_taken_as_they_come() -> None:
    found = Objects()
    assert found.put(body(resourceVersion="abc"))
    assert found.put(body(resourceVersion="", generation=2))
    assert len(found) == 1
    assert [it.generation for it in found.merchants()] == [2]
