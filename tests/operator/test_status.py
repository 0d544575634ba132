"""The status: every condition, which of them Ready follows, and when times move."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from harness.collecting import every_case
from harness.operating import (
    FRESH,
    HOUR,
    NOON,
    PLATFORM,
    SEAL,
    make_merchant,
    make_observed,
    plan,
    pods_with,
    settled,
)
from mpesa_operator.conditions import TYPES, by_type
from mpesa_operator.credentials import Problem
from mpesa_operator.daraja import Check
from mpesa_operator.keys import FreshKeys
from mpesa_operator.plan import Generated, Merchant, Observed
from mpesa_operator.platform_settings import CHECK_PATIENCE
from mpesa_operator.pods import PodView
from mpesa_operator.status import (
    check_from_status,
    is_accepted,
    is_same,
    render_status,
    waits_for_pods,
)


def render(
    merchant: Merchant, observed: Observed, now: datetime = NOON, **platform: Any
) -> dict[str, Any]:
    found = plan(merchant, observed, now, **platform)
    return render_status(merchant, found, observed, now, PLATFORM)


def said(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {it["type"]: (it["status"], it["reason"]) for it in status["conditions"]}


def good(merchant: Merchant | None = None, **changes: Any) -> Observed:
    """Published, loaded everywhere, checked."""
    merchant = merchant or make_merchant()
    digest = plan(merchant, make_observed()).digest
    observed = settled(merchant, check=Check(digest, "valid", NOON))
    return replace(observed, pods=pods_with(observed.published), **changes)


def as_stored(status: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if value is not None}


def test_all_is_well() -> None:
    status = render(make_merchant(), good())
    assert tuple(it["type"] for it in status["conditions"]) == TYPES
    assert said(status) == {
        "CredentialsResolved": ("True", "Resolved"),
        "CredentialsValid": ("True", "TokenIssued"),
        "Published": ("True", "Published"),
        "Loaded": ("True", "Loaded"),
        "WebhookHealthy": ("Unknown", "NoDeliveries"),
        "Ready": ("True", "Ready"),
    }
    assert {it["observedGeneration"] for it in status["conditions"]} == {3}
    assert as_stored(status) | {"conditions": [], "bundle": {}, "checkedCredentials": ""} == {
        "observedGeneration": 3,
        "merchantKey": "shops/duka",
        "callbackURL": "https://pay.example/callback",
        "credentialsSecretName": "duka-mpesa-gateway",
        "allowlist": {"count": 1, "hash": status["allowlist"]["hash"]},
        "lastTokenCheckTime": "2026-11-24T12:00:00Z",
        "acceptedClaim": SEAL.seal("accepted-claim", "uid-1", "account:sandbox/174379/"),
        "conditions": [],
        "bundle": {},
        "checkedCredentials": "",
    }


READY: dict[str, tuple[Observed, dict[str, Any], tuple[str, str]]] = {
    "no Secret": (make_observed(credentials=None), {}, ("False", "SecretNotFound")),
    "conflict": (make_observed(rival="shops/older"), {}, ("False", "ShortCodeConflict")),
    "not written": (
        make_observed(refused=Problem("WriteFailed", "No.")),
        {},
        ("False", "WriteFailed"),
    ),
    "being written": (make_observed(), {}, ("False", "Publishing")),
    "suspended": (
        good(make_merchant({"suspended": True})),
        {"suspended": True},
        ("True", "Suspended"),
    ),
    "rejected": (
        replace(good(), check=Check(good().check.digest, "rejected", NOON)),
        {},
        ("False", "Rejected"),
    ),
    "outage": (
        replace(good(), check=Check(good().check.digest, "unreachable", NOON)),
        {},
        ("True", "Ready"),
    ),
    "being checked": (
        replace(good(), check=Check(pending=good().check.digest, pending_since=NOON)),
        {},
        ("Unknown", "Checking"),
    ),
    "checked for too long": (
        replace(
            good(), check=Check(pending=good().check.digest, pending_since=NOON - CHECK_PATIENCE)
        ),
        {},
        ("True", "Ready"),
    ),
    "no pods": (replace(good(), pods=()), {}, ("False", "PodsUnreachable")),
    "pods behind": (replace(good(), pods=pods_with(b"older")), {}, ("False", "Propagating")),
}


@every_case(("observed", "spec", "expected"), READY.values(), ids=READY.keys())
def test_ready_says_the_first_thing_that_fails(
    observed: Observed, spec: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert said(render(make_merchant(spec), observed))["Ready"] == expected


def test_a_suspension_that_pods_have_not_loaded_is_still_propagating() -> None:
    merchant = make_merchant({"suspended": True})
    observed = replace(good(merchant), pods=pods_with(b"older"))
    assert said(render(merchant, observed))["Ready"] == ("False", "Propagating")


def test_what_keeps_being_served_says_what_is_missing() -> None:
    observed = replace(good(), credentials=None)
    found = said(render(make_merchant(), observed))
    assert found["Ready"] == ("False", "SecretNotFound")
    assert found["Published"] == ("True", "Published")
    assert found["CredentialsValid"] == ("Unknown", "NotChecked")


def test_pods_that_fall_silent_change_loaded_and_not_ready() -> None:
    before = as_stored(render(make_merchant(), good()))
    silent = tuple(replace(pod, reachable=False, digest=None) for pod in good().pods)
    observed = replace(good(), pods=silent)
    assert said(render(make_merchant(status=before), observed))["Ready"] == ("True", "Ready")
    # A new generation, another file, or a merchant that was not ready: then it must be confirmed.
    newer = make_merchant(status=before, generation=4)
    assert said(render(newer, observed))["Ready"] == ("False", "PodsUnreachable")
    other = make_merchant(status={**before, "bundle": {"hash": "0"}})
    assert said(render(other, observed))["Ready"] == ("False", "PodsUnreachable")
    assert said(render(make_merchant(), observed))["Ready"] == ("False", "PodsUnreachable")
    # One that says it has something else is no silence.
    behind = (*silent, PodView("api-2", "api", reachable=True, digest="older"))
    observed = replace(observed, pods=behind)
    assert said(render(make_merchant(status=before), observed))["Ready"] == (
        "False",
        "Propagating",
    )


def test_times_move_only_when_the_status_flips() -> None:
    first = as_stored(render(make_merchant(), good()))
    rejected = replace(good(), check=Check(good().check.digest, "rejected", NOON))
    later = render(make_merchant(status=first), rejected, NOON + HOUR)
    times = {name: it["lastTransitionTime"] for name, it in by_type(later).items()}
    moved = {name for name, time in times.items() if time == "2026-11-24T13:00:00Z"}
    assert moved == {"CredentialsValid", "Ready", "Stalled"}
    # Another reason for the same status is no transition.
    suspended = make_merchant({"suspended": True}, status=first)
    latest = render(suspended, good(suspended), NOON + 2 * HOUR)
    ready = by_type(latest)["Ready"]
    assert ready["reason"] == "Suspended"
    assert ready["lastTransitionTime"] == by_type(first)["Ready"]["lastTransitionTime"]
    assert "Stalled" not in by_type(latest)
    assert by_type(latest)["Suspended"]["status"] == "True"


def test_an_unchanged_status_is_not_written_again() -> None:
    first = render(make_merchant(), good())
    again = render(make_merchant(status=as_stored(first)), good(), NOON + HOUR)
    assert is_same(again, as_stored(first))
    assert not is_same(again, {})
    suspended = make_merchant({"suspended": True}, status=as_stored(first))
    assert not is_same(render(suspended, good(suspended)), as_stored(first))


def test_what_is_over_is_taken_out_of_the_status() -> None:
    status = render(make_merchant(), make_observed(credentials=None))
    for name in ("bundle", "allowlist", "credentialsSecretName", "checkedCredentials", "rotation"):
        assert name in status
        assert status[name] is None


def test_a_foreign_secret_is_not_named_as_ours() -> None:
    observed = make_observed(generated=Generated({}, owned=False))
    assert render(make_merchant(), observed)["credentialsSecretName"] is None


def test_a_rotation_is_told() -> None:
    rotated = make_merchant({"rotation": {"apiKey": "x"}})
    newer = FreshKeys("mpg_newer", "newer")
    status = render(rotated, replace(good(), fresh=newer))
    assert status["rotation"] == {
        "apiKey": "x",
        "previousValidUntil": "2026-11-25T12:00:00Z",
    }


def test_a_deletion_is_told() -> None:
    merchant = make_merchant(deleted_at=NOON)
    status = render(merchant, good())
    assert status["drainUntil"] == "2026-11-24T12:05:00Z"
    assert said(status)["Ready"] == ("False", "Deleting")


def test_no_secret_is_in_a_status() -> None:
    texts = str(render(make_merchant({"rotation": {"apiKey": "x"}}), good()))
    for value in (FRESH.api_key, FRESH.webhook_secret, "canary"):
        assert value not in texts


def test_a_restart_knows_what_was_checked() -> None:
    for outcome in ("valid", "rejected", "unreachable"):
        check = Check(good().check.digest, outcome, NOON)
        status = as_stored(render(make_merchant(), replace(good(), check=check)))
        assert check_from_status(make_merchant(status=status), SEAL) == check
    pending = Check(pending=good().check.digest, pending_since=NOON)
    status = as_stored(render(make_merchant(), replace(good(), check=pending)))
    assert check_from_status(make_merchant(status=status), SEAL) == Check()
    assert check_from_status(make_merchant(), SEAL) == Check()


def test_what_a_tenant_writes_into_the_status_is_no_check() -> None:
    refused = replace(good(), check=Check(good().check.digest, "rejected", NOON))
    status = as_stored(render(make_merchant(), refused))
    assert not is_accepted(make_merchant(status=status), SEAL)
    accepted = as_stored(render(make_merchant(), good()))
    forged = {**status, "conditions": accepted["conditions"], "acceptedClaim": "0" * 32}
    assert check_from_status(make_merchant(status=forged), SEAL) == Check()
    assert not is_accepted(make_merchant(status=forged), SEAL)
    # Nor is what the operator wrote into the status of another object.
    assert is_accepted(make_merchant(status=accepted), SEAL)
    other = make_merchant(status=accepted, uid="uid-2")
    assert check_from_status(other, SEAL) == Check()
    assert not is_accepted(other, SEAL)
    # Nor what was accepted for another till.
    till = {"transactionType": "CustomerBuyGoodsOnline", "tillNumber": "900900"}
    assert not is_accepted(make_merchant(till, status=accepted), SEAL)


def test_a_claim_that_was_accepted_once_stays_accepted() -> None:
    accepted = as_stored(render(make_merchant(), good()))
    later = make_merchant(status=accepted)
    refused = replace(good(), check=Check("another", "rejected", NOON))
    assert render(later, refused)["acceptedClaim"] == accepted["acceptedClaim"]


def test_who_waits_for_pods() -> None:
    assert not waits_for_pods(render(make_merchant(), good()))
    assert waits_for_pods(render(make_merchant(), replace(good(), pods=pods_with(b"older"))))
    assert not waits_for_pods(render(make_merchant(), make_observed(credentials=None)))


def test_webhook_health_is_what_the_workers_say() -> None:
    healthy = pods_with(good().published, webhooks="healthy")
    failing = pods_with(good().published, webhooks="failing")
    found = said(render(make_merchant(), replace(good(), pods=healthy)))
    assert found["WebhookHealthy"] == ("True", "Healthy")
    found = said(render(make_merchant(), replace(good(), pods=(*healthy, *failing))))
    assert found["WebhookHealthy"] == ("False", "Failing")
    assert found["Ready"] == ("True", "Ready")


def test_a_file_that_pods_refuse() -> None:
    pods = (PodView("api-1", "api", reachable=True, error="webhook.url: no."),)
    status = render(make_merchant(), replace(good(), pods=pods))
    assert said(status)["Ready"] == ("False", "FileRefused")
    assert by_type(status)["Loaded"]["message"] == "api-1 refused the file: webhook.url: no."


def test_many_pods_behind_are_counted_and_few_are_named() -> None:
    pods = tuple(PodView(f"api-{n}", "api", reachable=True) for n in range(6))
    message = by_type(render(make_merchant(), replace(good(), pods=pods)))["Loaded"]["message"]
    assert message == "6 of 6 pods have not loaded it yet: api-0, api-1, api-2 and others."


def test_the_wait_for_a_check_is_short() -> None:
    assert timedelta(0) < CHECK_PATIENCE <= timedelta(seconds=3)
