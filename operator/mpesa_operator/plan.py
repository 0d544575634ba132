"""What should be so for one MerchantConfig: a pure function of what was observed.

`reconcile.py` asks twice: before it acts, and again with what came of it for the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.merchant import Credentials, Network
from mpesa_gateway.errors import InvalidInputError
from mpesa_operator.allowlist import intersect, parse_cidrs
from mpesa_operator.conditions import PUBLISHED, RESOLVED, Condition
from mpesa_operator.credentials import (
    Problem,
    SecretData,
    credentials_digest,
    resolve_credentials,
    resolve_signing_secret,
)
from mpesa_operator.daraja import Check, check_due
from mpesa_operator.entry import Published, build_entry, read_entry, with_flags
from mpesa_operator.keys import FreshKeys, Keyring, plan_keys
from mpesa_operator.platform import UNLOAD_PATIENCE, Platform, generated_name
from mpesa_operator.pods import PodView
from mpesa_operator.spec import MerchantSpec

_INCOMPLETE = Problem("CredentialsNotResolved", "The credentials are not complete yet.")


@dataclass(frozen=True, kw_only=True)
class Merchant:
    """A MerchantConfig: what is decided from. `deleted_at` is when its deletion was asked for."""

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: datetime
    spec: MerchantSpec
    status: Mapping[str, Any] = field(default_factory=dict)
    has_finalizer: bool = False
    deleted_at: datetime | None = None

    @property
    def key(self) -> str:
        """The merchant's name in the gateway."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Generated:
    """The Secret with the generated name. `owned` is False when it is somebody else's."""

    data: SecretData = field(repr=False)
    owned: bool
    resource_version: str = ""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything outside of the object that the plan depends on.

    `published` is the file as the pods may have it; `refused` says why the last write of it did not
    happen; `rival` is an older object with the same short code.
    """

    fresh: FreshKeys
    credentials: SecretData | None = field(default=None, repr=False)
    signing: SecretData | None = field(default=None, repr=False)
    generated: Generated | None = None
    published: bytes | None = field(default=None, repr=False)
    refused: Problem | None = None
    rival: str | None = None
    check: Check = field(default_factory=Check)
    pods: tuple[PodView, ...] = ()
    shard: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, and the facts that the status tells.

    `entry` None means that no file should be published. `secret` None leaves the Secret as it is.
    """

    entry: bytes | None = field(default=None, repr=False)
    secret: Mapping[str, bytes] | None = field(default=None, repr=False)
    add_finalizer: bool = False
    remove_finalizer: bool = False
    check: Credentials | None = field(default=None, repr=False)
    digest: str | None = None
    resolved: Condition
    published: Condition
    keyring: Keyring | None = field(default=None, repr=False)
    networks: tuple[Network, ...] = ()
    drain_until: datetime | None = None
    requeue_after: timedelta


def make_plan(merchant: Merchant, observed: Observed, now: datetime, platform: Platform) -> Plan:
    """What should be so now."""
    if merchant.deleted_at is not None:
        return _plan_removal(merchant, observed, now, until=merchant.deleted_at + platform.drain)
    return _plan_service(merchant, observed, now, platform)


# --- a merchant that is being deleted ----------------------------------------------------------


def _plan_removal(
    merchant: Merchant, observed: Observed, now: datetime, *, until: datetime
) -> Plan:
    """Callbacks are taken until the drain is over; then the file goes, then the finalizer."""
    entry = None
    if observed.published is not None and now < until:
        entry = with_flags(observed.published, draining=True)
    draining = entry is not None
    unloaded = all(pod.digest is None for pod in observed.pods) or now > until + UNLOAD_PATIENCE
    gone = observed.published is None and entry is None and unloaded
    message = "The MerchantConfig is being deleted: new payments are refused, callbacks settle."
    condition = Condition(PUBLISHED, "False", "Deleting", message)
    return Plan(
        entry=entry,
        remove_finalizer=gone and merchant.has_finalizer,
        resolved=Condition(RESOLVED, "Unknown", "Deleting", "The MerchantConfig is being deleted."),
        published=condition,
        drain_until=until if draining else None,
        requeue_after=until - now if draining else timedelta(seconds=1),
    )


# --- a merchant that is served -----------------------------------------------------------------


def _plan_service(
    merchant: Merchant, observed: Observed, now: datetime, platform: Platform
) -> Plan:
    old = _own_entry(merchant, observed)
    found = _resolve(merchant.spec, observed, old)
    resolved = _resolved(found.problem, served=old is not None)
    networks = _networks(merchant.spec, platform)
    blocked = _blocked(merchant, observed, platform)
    if isinstance(networks, Problem) or blocked is not None or found.credentials is None:
        reason = blocked or (networks if isinstance(networks, Problem) else _INCOMPLETE)
        return _blocked_plan(merchant, observed, platform, resolved, reason)
    keyring = plan_keys(
        observed.generated.data if observed.generated else None,
        old,
        rotation=merchant.spec.rotation,
        external=found.external,
        fresh=observed.fresh,
        now=now,
        overlap=platform.rotation_overlap,
    )
    entry = build_entry(
        merchant.key,
        merchant.spec,
        credentials=found.credentials,
        api_key_sha256=keyring.api_key_sha256,
        webhook_secrets=keyring.webhook_secrets,
        networks=networks if merchant.spec.callback.allowed_cidrs else (),
    )
    plan = Plan(
        entry=entry,
        secret=_changed(keyring, observed.generated),
        add_finalizer=not merchant.has_finalizer,
        resolved=resolved,
        published=_published(entry, observed),
        keyring=keyring,
        networks=networks,
        requeue_after=_requeue(keyring, now, platform),
    )
    if found.problem is not None:
        return plan
    return _with_check(plan, merchant, observed, found.credentials, now)


def _own_entry(merchant: Merchant, observed: Observed) -> Published | None:
    """What was published of this merchant; a file of another short code was somebody else's."""
    old = read_entry(observed.published)
    return old if old is not None and old.short_code == merchant.spec.short_code else None


@dataclass(frozen=True)
class _Found:
    """What can be used, and what is missing.

    What cannot be read is taken from the published file, so that a Secret that is away for a moment
    breaks nothing; the problem is told all the same.
    """

    credentials: Credentials | None = field(repr=False)
    external: str | None = field(repr=False)
    problem: Problem | None


def _resolve(spec: MerchantSpec, observed: Observed, old: Published | None) -> _Found:
    found = resolve_credentials(spec.credentials_secret_ref, observed.credentials)
    ref = spec.webhook.signing_secret_ref
    external = None if ref is None else resolve_signing_secret(ref, observed.signing)
    problem = None
    if isinstance(external, Problem):
        problem, external = external, old.webhook_secrets[0] if old else None
    if isinstance(found, Problem):
        return _Found(old.credentials if old else None, external, found)
    return _Found(None if problem and not old else found, external, problem)


def _networks(spec: MerchantSpec, platform: Platform) -> tuple[Network, ...] | Problem:
    """The networks that may call back; empty allows all."""
    wanted = spec.callback.allowed_cidrs
    if not wanted:
        return platform.networks
    networks = intersect(parse_cidrs(wanted), platform.networks)
    if not networks:
        # An empty list would mean everyone to the pods.
        return Problem(
            "AllowlistOutsidePlatform",
            "None of callback.allowedCIDRs is inside the gateway's own list: nobody could call.",
        )
    return networks


def _resolved(problem: Problem | None, *, served: bool) -> Condition:
    if problem is None:
        return Condition(RESOLVED, "True", "Resolved", "The Secret has all that is needed.")
    kept = " The last version that was complete stays in use." if served else ""
    return Condition(RESOLVED, "False", problem.reason, problem.message + kept)


def _blocked(merchant: Merchant, observed: Observed, platform: Platform) -> Problem | None:
    """Why the merchant must not be published as its spec says."""
    if merchant.spec.environment != platform.environment:
        return Problem(
            "EnvironmentMismatch",
            f"spec.environment is {merchant.spec.environment}, and this gateway serves"
            f" {platform.environment}.",
        )
    if observed.rival is not None:
        return Problem("ShortCodeConflict", _rival_sentence(merchant, observed.rival))
    if observed.generated is not None and not observed.generated.owned:
        return Problem(
            "SecretNotOwned",
            f"Secret {generated_name(merchant.name)} exists and does not belong to this"
            " MerchantConfig; it is not touched. Rename or delete it.",
        )
    return _webhook_problem(merchant.spec, platform)


def _rival_sentence(merchant: Merchant, rival: str) -> str:
    """Who is meant: named only to somebody who may see it."""
    namespace, _, name = rival.partition("/")
    who = f"MerchantConfig {name}" if namespace == merchant.namespace else "another namespace"
    return f"Short code {merchant.spec.short_code} was claimed earlier by {who}."


def _webhook_problem(spec: MerchantSpec, platform: Platform) -> Problem | None:
    """Pods would refuse the whole file for a URL that they do not dial."""
    if spec.webhook.url is None:
        return None
    try:
        parse_endpoint(spec.webhook.url, allow_private=platform.allow_private_webhooks)
    except InvalidInputError as error:
        return Problem("WebhookRefused", f"webhook.url {error.problems[0].message}.")
    return None


def _blocked_plan(
    merchant: Merchant,
    observed: Observed,
    platform: Platform,
    resolved: Condition,
    problem: Problem,
) -> Plan:
    """Nothing new is published. What was published stays, but for a suspension."""
    entry, message = None, problem.message
    if observed.published is not None and _own_entry(merchant, observed) is not None:
        suspended = merchant.spec.suspended
        entry = with_flags(observed.published, suspended=suspended, draining=False)
        message += " The last version stays in use."
    return Plan(
        entry=entry,
        resolved=resolved,
        published=Condition(PUBLISHED, "False", problem.reason, message),
        requeue_after=min(timedelta(seconds=5), platform.resync)
        if problem.reason in ("SecretNotOwned", "CredentialsNotResolved")
        else platform.resync,
    )


def _published(entry: bytes, observed: Observed) -> Condition:
    if observed.published == entry:
        return Condition(PUBLISHED, "True", "Published", "The pods are given the merchant's file.")
    if observed.refused is not None:
        return Condition(PUBLISHED, "False", observed.refused.reason, observed.refused.message)
    return Condition(PUBLISHED, "Unknown", "Publishing", "The merchant's file is being written.")


def _changed(keyring: Keyring, generated: Generated | None) -> Mapping[str, bytes] | None:
    same = generated is not None and dict(generated.data) == dict(keyring.data)
    return None if same else keyring.data


def _requeue(keyring: Keyring, now: datetime, platform: Platform) -> timedelta:
    """The next resync, or earlier when a replaced key ends."""
    if keyring.next_change is None:
        return platform.resync
    return min(platform.resync, max(keyring.next_change - now, timedelta(seconds=1)))


def _with_check(
    plan: Plan, merchant: Merchant, observed: Observed, credentials: Credentials, now: datetime
) -> Plan:
    digest = credentials_digest(merchant.uid, credentials)
    due = check_due(observed.check, digest, merchant.uid, now)
    return replace(plan, digest=digest, check=credentials if due else None)
