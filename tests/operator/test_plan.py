"""What is decided for one merchant that is served."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness.collecting import every_case
from harness.merchantconfigs import DARAJA
from harness.operating import (
    FRESH,
    HOUR,
    NOON,
    PLATFORM,
    SECRET,
    make_merchant,
    make_observed,
    plan,
    pods_with,
    settled,
    sha,
)
from mpesa_operator.credentials import Problem
from mpesa_operator.daraja import Check
from mpesa_operator.keys import FreshKeys
from mpesa_operator.plan import Generated, Plan


def file_of(found: Plan) -> dict[str, Any]:
    assert found.entry is not None
    document: dict[str, Any] = json.loads(found.entry)
    return document


def test_a_new_merchant_gets_keys_a_finalizer_a_file_and_a_check() -> None:
    found = plan(make_merchant(has_finalizer=False), make_observed())
    assert found.secret == {
        "api-key": FRESH.api_key.encode(),
        "webhook-signing-secret": FRESH.webhook_secret.encode(),
    }
    assert found.add_finalizer
    assert not found.remove_finalizer
    assert file_of(found)["credentials"] == DARAJA
    assert found.check is not None
    assert (found.check.consumer_key, found.check.passkey) == (
        DARAJA["consumerKey"],
        DARAJA["passkey"],
    )
    assert found.resolved.status == "True"
    assert found.published.reason == "Publishing"


def test_a_plan_that_was_carried_out_asks_for_nothing_more() -> None:
    merchant = make_merchant()
    digest = plan(merchant, make_observed()).digest
    observed = settled(merchant, check=Check(digest, "valid", NOON))
    found = plan(merchant, observed, NOON + HOUR)
    assert found.entry == observed.published
    assert (found.secret, found.check, found.add_finalizer) == (None, None, False)
    assert found.published.reason == "Published"
    assert found.requeue_after == PLATFORM.resync


def test_the_same_input_gives_the_same_bytes() -> None:
    assert plan(make_merchant(), make_observed()).entry == (
        plan(make_merchant(), make_observed()).entry
    )


def test_nothing_secret_shows_in_a_plan_or_what_it_is_made_from() -> None:
    merchant = make_merchant()
    observed = settled(merchant)
    shown = repr(plan(merchant, observed)) + repr(plan(merchant, make_observed())) + repr(observed)
    for value in (*DARAJA.values(), FRESH.api_key, FRESH.webhook_secret):
        assert value not in shown


# --- credentials -------------------------------------------------------------------------------


@every_case(
    ("secret", "reason"),
    [
        (None, "SecretNotFound"),
        ({}, "KeyMissing"),
        ({**SECRET, "passkey": b""}, "EmptyValue"),
        ({**SECRET, "consumerKey": b" \n"}, "EmptyValue"),
        ({**SECRET, "consumerSecret": b"\xff\xfe"}, "InvalidValue"),
        ({**SECRET, "consumerSecret": b"two\nlines"}, "InvalidValue"),
        ({**SECRET, "consumerSecret": b"x" * 513}, "InvalidValue"),
    ],
)
def test_credentials_that_are_not_complete(secret: dict[str, bytes] | None, reason: str) -> None:
    found = plan(make_merchant(), make_observed(credentials=secret))
    assert (found.resolved.status, found.resolved.reason) == ("False", reason)
    assert found.published.reason == "CredentialsNotResolved"
    assert (found.entry, found.secret, found.check) == (None, None, None)
    assert found.requeue_after <= timedelta(seconds=5)
    assert "daraja" in found.resolved.message


def test_other_names_of_keys() -> None:
    keys = {"consumerKey": "key", "consumerSecret": "secret", "passkey": "lnm"}
    merchant = make_merchant({"credentialsSecretRef": {"name": "daraja", "keys": keys}})
    secret = {"key": b"a", "secret": b"b", "lnm": b"c\n"}
    found = plan(merchant, make_observed(credentials=secret))
    assert file_of(found)["credentials"] == {
        "consumerKey": "a",
        "consumerSecret": "b",
        "passkey": "c",
    }


def test_a_secret_that_vanished_keeps_the_last_credentials_and_only_them() -> None:
    published = settled(make_merchant()).published
    edited = make_merchant({"limits": {"maxAmount": 5}, "suspended": True})
    generated = settled(make_merchant()).generated
    found = plan(edited, make_observed(credentials=None, published=published, generated=generated))
    assert found.resolved.reason == "SecretNotFound"
    assert "stays in use" in found.resolved.message
    file = file_of(found)
    assert file["credentials"] == DARAJA
    assert (file["limits"], file["suspended"]) == ({"maxAmount": 5}, True)
    assert found.check is None


def test_the_file_of_another_short_code_is_not_our_past() -> None:
    published = settled(make_merchant({"shortCode": "600100"})).published
    found = plan(make_merchant(), make_observed(credentials=None, published=published))
    assert found.entry is None


def test_a_published_file_that_cannot_be_read_is_written_anew() -> None:
    found = plan(make_merchant(), make_observed(published=b"no json"))
    assert file_of(found)["apiKeySHA256"] == [sha(FRESH.api_key)]


# --- the webhook's secret ----------------------------------------------------------------------

OWN = {"webhook": {"signingSecretRef": {"name": "hooks", "key": "key"}}}


def test_a_signing_secret_of_the_merchants_own() -> None:
    found = plan(make_merchant(OWN), make_observed(signing={"key": b"theirs\n"}))
    assert file_of(found)["webhook"]["secrets"] == ["theirs"]
    assert found.secret is not None
    assert "webhook-signing-secret" not in found.secret


@pytest.mark.parametrize(
    ("signing", "reason"),
    [
        (None, "SecretNotFound"),
        ({}, "KeyMissing"),
        ({"key": b""}, "EmptyValue"),
        ({"key": b"whsec_!!"}, "InvalidValue"),
    ],
)
def test_a_signing_secret_that_cannot_be_used(
    signing: dict[str, bytes] | None, reason: str
) -> None:
    fresh = plan(make_merchant(OWN), make_observed(signing=signing))
    assert (fresh.resolved.reason, fresh.entry) == (reason, None)
    good = settled(make_merchant(OWN), signing={"key": b"theirs"})
    served = make_observed(signing=signing, published=good.published, generated=good.generated)
    found = plan(make_merchant(OWN), served)
    assert found.resolved.reason == reason
    assert found.entry == good.published


# --- what blocks a merchant --------------------------------------------------------------------

BLOCKED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "environment": ({"environment": "production"}, {}, "EnvironmentMismatch"),
    "short code": ({}, {"rival": "shops/older"}, "ShortCodeConflict"),
    "API key": (
        {"apiKey": {"sha256": "0" * 64}},
        {"holders": {f"api-key:{'0' * 64}": "shops/older"}},
        "ApiKeyConflict",
    ),
    "foreign Secret": ({}, {"generated": Generated({}, owned=False)}, "SecretNotOwned"),
    "allowlist": (
        {"callback": {"allowedCIDRs": ["10.0.0.0/8"]}},
        {},
        "AllowlistOutsidePlatform",
    ),
    "webhook": ({"webhook": {"url": "https://10.0.0.1/"}}, {}, "WebhookRefused"),
}


@every_case(("spec", "observed", "reason"), BLOCKED.values(), ids=BLOCKED.keys())
def test_what_blocks_a_merchant_publishes_and_writes_nothing(
    spec: dict[str, Any], observed: dict[str, Any], reason: str
) -> None:
    found = plan(make_merchant(spec), make_observed(**observed))
    assert (found.published.status, found.published.reason) == ("False", reason)
    assert (found.entry, found.secret) == (None, None)
    # Daraja is asked only where a claim may come to count by that.
    assert (found.check is not None) == (reason == "ShortCodeConflict")
    assert not found.add_finalizer


@every_case(("spec", "observed", "reason"), BLOCKED.values(), ids=BLOCKED.keys())
def test_what_blocks_a_merchant_that_is_served_leaves_its_file_but_for_a_suspension(
    spec: dict[str, Any], observed: dict[str, Any], reason: str
) -> None:
    good = settled(make_merchant())
    seen = {"published": good.published, "generated": good.generated, **observed}
    found = plan(make_merchant(spec), make_observed(**seen))
    assert found.entry == good.published
    assert found.published.reason == reason
    assert "stays in use" in found.published.message
    found = plan(make_merchant({**spec, "suspended": True}), make_observed(**seen))
    assert file_of(found) == {**json.loads(good.published or b""), "suspended": True}


def test_a_rival_is_named_only_within_the_namespace() -> None:
    near = plan(make_merchant(), make_observed(rival="shops/older"))
    assert "MerchantConfig older" in near.published.message
    far = plan(make_merchant(), make_observed(rival="secret-ns/secret-name"))
    assert "another namespace" in far.published.message
    assert "secret-n" not in far.published.message


def test_a_claim_that_was_never_accepted_goes_for_one_that_is() -> None:
    good = settled(make_merchant())
    seen = {"published": good.published, "generated": good.generated}
    found = plan(make_merchant(), make_observed(**seen, rival="other/x", displaced=True))
    assert (found.entry, found.published.reason) == (None, "ShortCodeConflict")


# --- an API key of the merchant's own ----------------------------------------------------------

OWN_KEY = "an-API-key-of-our-own-0123456789"
BROUGHT = {"apiKey": {"secretRef": {"name": "keys", "key": "k"}}}


@pytest.mark.parametrize(
    ("spec", "observed"),
    [
        (BROUGHT, {"api_key": {"k": f"{OWN_KEY}\n".encode()}}),
        ({"apiKey": {"sha256": sha(OWN_KEY)}}, {}),
    ],
)
def test_an_api_key_of_the_merchants_own(spec: dict[str, Any], observed: dict[str, Any]) -> None:
    found = plan(make_merchant(spec), make_observed(**observed))
    assert file_of(found)["apiKeySHA256"] == [sha(OWN_KEY)]
    assert found.secret is not None
    assert "api-key" not in found.secret


@every_case(
    ("data", "reason"),
    [
        (None, "SecretNotFound"),
        ({}, "KeyMissing"),
        ({"k": b"short"}, "WeakApiKey"),
        ({"k": b"a" * 64}, "WeakApiKey"),
        ({"k": b"a key with blanks 0123456789 0123456789"}, "WeakApiKey"),
    ],
)
def test_an_api_key_that_cannot_be_used(data: dict[str, bytes] | None, reason: str) -> None:
    fresh = plan(make_merchant(BROUGHT), make_observed(api_key=data))
    assert (fresh.resolved.reason, fresh.entry) == (reason, None)
    good = settled(make_merchant(BROUGHT), api_key={"k": OWN_KEY.encode()})
    seen = make_observed(api_key=data, published=good.published, generated=good.generated)
    assert plan(make_merchant(BROUGHT), seen).entry == good.published


def test_an_api_key_that_is_anothers_is_refused_and_nothing_is_written() -> None:
    holders = {f"api-key:{sha(OWN_KEY)}": "victims/shop"}
    claim = make_merchant({"apiKey": {"sha256": sha(OWN_KEY)}})
    found = plan(claim, make_observed(holders=holders))
    assert (found.entry, found.secret, found.check) == (None, None, None)
    assert (found.published.status, found.published.reason) == ("False", "ApiKeyConflict")
    assert "victims" not in found.published.message
    assert "shop." not in found.published.message
    assert found.problem is not None
    assert found.problem.holder == "victims/shop"
    own = {f"api-key:{sha(OWN_KEY)}": "shops/duka"}
    assert plan(claim, make_observed(holders=own)).problem is None


def test_a_private_webhook_where_the_platform_allows_it() -> None:
    merchant = make_merchant({"webhook": {"url": "https://10.0.0.1/"}})
    found = plan(merchant, make_observed(), allow_private_webhooks=True)
    assert file_of(found)["webhook"]["url"] == "https://10.0.0.1/"


# --- the allowlist -----------------------------------------------------------------------------


def test_the_allowlist_is_narrowed_to_what_both_allow() -> None:
    merchant = make_merchant({"callback": {"allowedCIDRs": ["196.201.214.0/24", "10.0.0.0/8"]}})
    found = plan(merchant, make_observed())
    assert file_of(found)["callback"]["allowedCIDRs"] == ["196.201.214.0/24"]
    assert [str(net) for net in found.networks] == ["196.201.214.0/24"]


def test_without_a_list_the_platforms_stands_and_the_file_narrows_nothing() -> None:
    found = plan(make_merchant(), make_observed())
    assert file_of(found)["callback"]["allowedCIDRs"] == []
    assert found.networks == PLATFORM.networks


def test_without_a_platform_list_the_merchants_stands() -> None:
    merchant = make_merchant({"callback": {"allowedCIDRs": ["10.0.0.0/8"]}})
    found = plan(merchant, make_observed(), networks=())
    assert file_of(found)["callback"]["allowedCIDRs"] == ["10.0.0.0/8"]


# --- publishing, checking, coming back ---------------------------------------------------------


def test_a_write_that_was_refused_is_told() -> None:
    refused = Problem("BundleTooLarge", "It is full.")
    found = plan(make_merchant(), make_observed(refused=refused))
    assert (found.published.status, found.published.reason) == ("False", "BundleTooLarge")


def test_an_edit_that_is_not_written_yet_is_not_published() -> None:
    observed = settled(make_merchant())
    found = plan(make_merchant({"limits": {"minAmount": 2}}), observed)
    assert found.entry != observed.published
    assert found.published.status == "Unknown"


def test_a_passkey_alone_is_nothing_to_ask_daraja_about() -> None:
    merchant = make_merchant()
    digest = plan(merchant, make_observed()).digest
    known = Check(digest, "valid", NOON)
    changed = make_observed(credentials={**SECRET, "passkey": b"new"}, check=known)
    found = plan(merchant, changed, NOON + HOUR)
    assert found.check is None
    assert file_of(found)["credentials"]["passkey"] == "new"
    changed = make_observed(credentials={**SECRET, "consumerKey": b"new"}, check=known)
    assert plan(merchant, changed, NOON + HOUR).check is not None


def test_the_next_turn_comes_when_an_old_key_ends() -> None:
    observed = replace(settled(make_merchant()), fresh=FreshKeys("mpg_newer", "newer"))
    rotated = make_merchant({"rotation": {"apiKey": "x"}})
    assert plan(rotated, observed).requeue_after == PLATFORM.resync
    soon = plan(rotated, observed, rotation_overlap=timedelta(seconds=30))
    assert soon.requeue_after == timedelta(seconds=30)


# --- deletion ----------------------------------------------------------------------------------


def test_deletion_drains_then_removes_then_lets_go() -> None:
    published = settled(make_merchant()).published
    merchant = make_merchant(deleted_at=NOON)
    pods = pods_with(published)
    draining = plan(merchant, make_observed(published=published, pods=pods))
    assert file_of(draining) == {**json.loads(published or b""), "draining": True}
    assert draining.published.reason == "Deleting"
    assert draining.drain_until == NOON + PLATFORM.drain
    assert draining.requeue_after == PLATFORM.drain
    after = NOON + PLATFORM.drain
    over = plan(merchant, make_observed(published=draining.entry, pods=pods), after)
    assert (over.entry, over.remove_finalizer) == (None, False)
    unpublished = plan(merchant, make_observed(pods=pods), after)
    assert not unpublished.remove_finalizer  # The pods still have it.
    assert plan(merchant, make_observed(pods=pods_with(None)), after).remove_finalizer


def test_a_pod_that_never_lets_go_does_not_hold_the_deletion_for_ever() -> None:
    pods = pods_with(settled(make_merchant()).published)
    merchant = make_merchant(deleted_at=NOON)
    late = NOON + PLATFORM.drain + timedelta(seconds=16)
    assert plan(merchant, make_observed(pods=pods), late).remove_finalizer


def test_a_deletion_without_a_file_does_not_wait() -> None:
    found = plan(make_merchant(deleted_at=NOON), make_observed())
    assert found.remove_finalizer
    others = plan(make_merchant(deleted_at=NOON, has_finalizer=False), make_observed())
    assert not others.remove_finalizer


def test_a_deletion_needs_no_secret() -> None:
    published = settled(make_merchant()).published
    merchant = make_merchant(deleted_at=NOON)
    found = plan(merchant, make_observed(credentials=None, published=published))
    assert file_of(found)["draining"] is True
