"""The status of a MerchantConfig, from the plan and from what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mpesa_gateway.domain.bundle import file_digest
from mpesa_operator import conditions
from mpesa_operator.allowlist import list_hash
from mpesa_operator.claims import account, claims_of
from mpesa_operator.conditions import Condition, as_status, by_type, ready, time_text
from mpesa_operator.daraja import Check, Outcome, valid_condition
from mpesa_operator.keys import Keyring
from mpesa_operator.plan import Merchant, Observed, Plan
from mpesa_operator.platform_settings import Platform, generated_name
from mpesa_operator.pods import loaded, webhook_healthy
from mpesa_operator.seal import Seal

CHECKED = "checked-credentials-outcome"

# Present with None where there is nothing to say, so that a merge patch removes it.
OPTIONAL = (
    "callbackURL",
    "credentialsSecretName",
    "allowlist",
    "bundle",
    "rotation",
    "acceptedClaim",
    "checkedCredentials",
    "lastTokenCheckTime",
    "drainUntil",
)


def render_status(
    merchant: Merchant, plan: Plan, observed: Observed, now: datetime, platform: Platform
) -> dict[str, Any]:
    """The whole status. It holds no secret: names, counts and digests only."""
    status: dict[str, Any] = {
        "observedGeneration": merchant.generation,
        "merchantKey": merchant.key,
        "conditions": as_status(
            _conditions(merchant, plan, observed, now),
            before=by_type(merchant.status),
            generation=merchant.generation,
            now=now,
        ),
        **dict.fromkeys(OPTIONAL),
    }
    status["callbackURL"] = platform.callback_url or None
    if observed.generated is not None and observed.generated.owned:
        status["credentialsSecretName"] = generated_name(merchant.name)
    if observed.published is not None:
        status["bundle"] = {"shard": observed.shard, "hash": file_digest(observed.published)}
    if plan.keyring is not None:
        status["allowlist"] = {"count": len(plan.networks), "hash": list_hash(plan.networks)}
        status["rotation"] = _rotation(plan.keyring)
    if plan.drain_until is not None:
        status["drainUntil"] = time_text(plan.drain_until)
    check = observed.check
    if check.digest is not None and check.at is not None and check.outcome is not None:
        at = time_text(check.at)
        proof = observed.seal.seal(CHECKED, merchant.uid, check.digest, check.outcome, at)
        status["checkedCredentials"] = f"{check.digest}-{proof}"
        status["lastTokenCheckTime"] = at
    if is_accepted(merchant, observed.seal) or _accepts(merchant, plan, observed):
        status["acceptedClaim"] = _accepted_claim(merchant, observed.seal)
    return status


def _accepts(merchant: Merchant, plan: Plan, observed: Observed) -> bool:
    """Whether Daraja accepts the credentials that are published for the short code."""
    check = observed.check
    if check.outcome != "valid" or check.digest != plan.digest or observed.published is None:
        return False
    return account(merchant.spec) in claims_of(observed.published)


def _accepted_claim(merchant: Merchant, seal: Seal) -> str:
    return seal.seal("accepted-claim", merchant.uid, account(merchant.spec))


def is_accepted(merchant: Merchant, seal: Seal) -> bool:
    """Whether Daraja has accepted credentials of this object for its short code before."""
    proof = merchant.status.get("acceptedClaim")
    return seal.is_sealed(proof, "accepted-claim", merchant.uid, account(merchant.spec))


def _rotation(keyring: Keyring) -> dict[str, str] | None:
    rotation: dict[str, str] = keyring.applied.model_dump(by_alias=True, exclude_none=True)
    if keyring.previous_valid_until is not None:
        rotation["previousValidUntil"] = time_text(keyring.previous_valid_until)
    return rotation or None


def _conditions(
    merchant: Merchant, plan: Plan, observed: Observed, now: datetime
) -> list[Condition]:
    found = {
        conditions.RESOLVED: plan.resolved,
        conditions.VALID: valid_condition(observed.check, plan.digest, now),
        conditions.PUBLISHED: plan.published,
        conditions.LOADED: _loaded(observed),
        conditions.WEBHOOK_HEALTHY: webhook_healthy(observed.pods),
    }
    was_ready = _was_ready(merchant, observed)
    suspended = merchant.spec.suspended
    found[conditions.READY] = ready(found, suspended=suspended, was_ready=was_ready)
    rare = conditions.flags(found[conditions.READY], suspended=suspended)
    return [*(found[kind] for kind in conditions.TYPES), *rare]


def _loaded(observed: Observed) -> Condition:
    if observed.published is None:
        message = "There is no file that pods could load."
        return Condition(conditions.LOADED, "Unknown", "NotPublished", message)
    return loaded(file_digest(observed.published), observed.pods)


def _was_ready(merchant: Merchant, observed: Observed) -> bool:
    """Whether this generation with this very file was ready before."""
    before = by_type(merchant.status).get(conditions.READY, {})
    digest = (merchant.status.get("bundle") or {}).get("hash")
    return (
        before.get("status") == "True"
        and before.get("observedGeneration") == merchant.generation
        and observed.published is not None
        and digest == file_digest(observed.published)
    )


def is_same(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether writing the status would change nothing."""
    return {name: value for name, value in new.items() if value is not None} == dict(old)


def check_from_status(merchant: Merchant, seal: Seal) -> Check:
    """What an earlier operator found out, so that a restart asks Daraja nothing again.

    Who may edit the status must not be able to say it in the operator's place, so it is sealed.
    """
    status = merchant.status
    condition = by_type(status).get(conditions.VALID, {})
    outcome: Outcome | None = {
        "TokenIssued": "valid",
        "Rejected": "rejected",
        "DarajaUnreachable": "unreachable",
    }.get(condition.get("reason", ""))  # type: ignore[assignment]
    digest, _, proof = str(status.get("checkedCredentials") or "").partition("-")
    at = str(status.get("lastTokenCheckTime") or "")
    if outcome is None or not seal.is_sealed(proof, CHECKED, merchant.uid, digest, outcome, at):
        return Check()
    return Check(digest=digest, outcome=outcome, at=conditions.read_time(at))


def waits_for_pods(status: Mapping[str, Any]) -> bool:
    """Whether the merchant is published, and some pod has not confirmed it."""
    found = by_type(status)
    loaded_now = found.get(conditions.LOADED, {})
    return status.get("bundle") is not None and loaded_now.get("status") != "True"
