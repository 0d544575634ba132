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
from mpesa_operator.bundle import LARGEST_ENTRY, ROTATION_ROOM
from mpesa_operator.claims import account, conflict, key_claim
from mpesa_operator.conditions import PUBLISHED, RESOLVED, Condition
from mpesa_operator.credentials import (
    Problem,
    SecretData,
    credentials_digest,
    resolve_api_key,
    resolve_credentials,
    resolve_signing_secret,
)
from mpesa_operator.daraja import Check, check_due
from mpesa_operator.keys import Brought, FreshKeys, Keyring, Provenance, plan_keys
from mpesa_operator.merchant_file import Published, build_entry, read_entry, with_flags
from mpesa_operator.platform_settings import UNLOAD_PATIENCE, Platform, generated_name
from mpesa_operator.pods import PodView
from mpesa_operator.seal import Seal
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
    """The Secret with the generated name. `owned` is False when it is somebody else's.

    `restored` says that the operator made it for an object of the same name that is gone: it comes
    from a backup, and is taken over with the next write.
    """

    data: SecretData = field(repr=False)
    owned: bool
    resource_version: str = ""
    restored: bool = False


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything outside of the object that the plan depends on.

    `published` is the file as the pods may have it; `refused` says why the last write of it did not
    happen; `rival` is the object that has the short code, when it is another one, and `displaced`
    that the file must go for it. `selected` is False once the platform has taken the namespace's
    label away. `holders` says which merchant has which claim.
    """

    fresh: FreshKeys
    seal: Seal
    credentials: SecretData | None = field(default=None, repr=False)
    signing: SecretData | None = field(default=None, repr=False)
    api_key: SecretData | None = field(default=None, repr=False)
    generated: Generated | None = None
    published: bytes | None = field(default=None, repr=False)
    refused: Problem | None = None
    rival: str | None = None
    displaced: bool = False
    selected: bool = True
    holders: Mapping[str, str] = field(default_factory=dict, repr=False)
    check: Check = field(default_factory=Check)
    pods: tuple[PodView, ...] = ()
    shard: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, and the facts that the status tells.

    `entry` None means that no file should be published. `secret` None leaves the Secret as it is.
    `problem` is why the spec is not published; whoever holds what it claims gets an event.
    """

    entry: bytes | None = field(default=None, repr=False)
    secret: Mapping[str, bytes] | None = field(default=None, repr=False)
    add_finalizer: bool = False
    remove_finalizer: bool = False
    check: Credentials | None = field(default=None, repr=False)
    digest: str | None = None
    resolved: Condition
    published: Condition
    problem: Problem | None = None
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
    blocked = _blocked(merchant, observed, platform) or _taken(merchant, observed, found.brought)
    if isinstance(networks, Problem) or blocked is not None or found.credentials is None:
        reason = blocked or (networks if isinstance(networks, Problem) else _INCOMPLETE)
        plan = _blocked_plan(merchant, observed, platform, resolved, reason)
        contends = observed.rival is not None and found.problem is None
        if not contends or found.credentials is None:
            return plan
        # The claim counts once Daraja has accepted the credentials, so it is asked all the same.
        return _with_check(plan, merchant, observed, found.credentials, now)
    keyring = plan_keys(
        observed.generated.data if observed.generated else None,
        old,
        provenance=Provenance(merchant.key, observed.seal),
        rotation=merchant.spec.rotation,
        brought=found.brought,
        fresh=observed.fresh,
        now=now,
        overlap=platform.rotation_overlap,
    )
    entry = _entry(merchant, found.credentials, keyring, networks)
    if isinstance(entry, Problem):
        return _blocked_plan(merchant, observed, platform, resolved, entry)
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
    """What was published of this object; a file of another uid or short code was another's.

    A file of an older operator has no uid.
    """
    old = read_entry(observed.published)
    if old is None or old.uid not in (None, merchant.uid):
        return None
    return old if old.short_code == merchant.spec.short_code else None


@dataclass(frozen=True)
class _Found:
    """What can be used, and what is missing.

    What cannot be read is taken from the published file, so that a Secret that is away for a moment
    breaks nothing; the problem is told all the same.
    """

    credentials: Credentials | None = field(repr=False)
    brought: Brought
    problem: Problem | None


def _resolve(spec: MerchantSpec, observed: Observed, old: Published | None) -> _Found:
    credentials = resolve_credentials(spec.credentials_secret_ref, observed.credentials)
    ref = spec.webhook.signing_secret_ref
    external = None if ref is None else resolve_signing_secret(ref, observed.signing)
    api_key = None if spec.api_key is None else resolve_api_key(spec.api_key, observed.api_key)
    problem = next((it for it in (credentials, external, api_key) if isinstance(it, Problem)), None)
    if isinstance(external, Problem):
        external = old.webhook_secrets[0] if old else None
    if isinstance(api_key, Problem):
        api_key = old.api_key_sha256[0] if old else None
    brought = Brought(external, api_key)
    if isinstance(credentials, Problem):
        return _Found(old.credentials if old else None, brought, problem)
    return _Found(credentials if problem is None or old else None, brought, problem)


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
    if not observed.selected:
        return Problem(
            "NamespaceNotSelected",
            "The platform does not serve merchants of this namespace (operator.namespaceSelector).",
        )
    if merchant.spec.environment != platform.environment:
        return Problem(
            "EnvironmentMismatch",
            f"spec.environment is {merchant.spec.environment}, and this gateway serves"
            f" {platform.environment}.",
        )
    if observed.rival is not None:
        claim = account(merchant.spec)
        return conflict(claim, holder=observed.rival, claimant=merchant.key)
    generated = observed.generated
    if generated is not None and not generated.owned and not generated.restored:
        return Problem(
            "SecretNotOwned",
            f"Secret {generated_name(merchant.name)} exists and does not belong to this"
            " MerchantConfig; it is not touched. Rename or delete it.",
        )
    return _webhook_problem(merchant.spec, platform)


def _taken(merchant: Merchant, observed: Observed, brought: Brought) -> Problem | None:
    """Why the API key that the merchant brings cannot be its own."""
    if brought.api_key_sha256 is None:
        return None
    claim = key_claim(brought.api_key_sha256)
    holder = observed.holders.get(claim, merchant.key)
    if holder == merchant.key:
        return None
    return conflict(claim, holder=holder, claimant=merchant.key)


def _webhook_problem(spec: MerchantSpec, platform: Platform) -> Problem | None:
    """Pods would refuse the whole file for a URL that they do not dial."""
    if spec.webhook.url is None:
        return None
    try:
        parse_endpoint(spec.webhook.url, allow_private=platform.allow_private_webhooks)
    except InvalidInputError as error:
        return Problem("WebhookRefused", f"webhook.url {error.problems[0].message}.")
    return None


def _entry(
    merchant: Merchant,
    credentials: Credentials,
    keyring: Keyring,
    networks: tuple[Network, ...],
) -> bytes | Problem:
    """The merchant's file; a Problem when it is too large without anything that was replaced.

    A replaced secret that does not fit signs no more, so that a rotation always has room.
    """
    for secrets in range(len(keyring.webhook_secrets), 0, -1):
        entry = build_entry(
            merchant.key,
            merchant.uid,
            merchant.spec,
            credentials=credentials,
            api_key_sha256=keyring.api_key_sha256,
            webhook_secrets=keyring.webhook_secrets[:secrets],
            networks=networks if merchant.spec.callback.allowed_cidrs else (),
        )
        if len(entry) <= LARGEST_ENTRY:
            break
    values = (*keyring.api_key_sha256[1:], *keyring.webhook_secrets[1:secrets])
    replaced = sum(len(value) + len('"",') for value in values)
    if len(entry) - replaced <= LARGEST_ENTRY - ROTATION_ROOM:
        return entry
    return Problem(
        "FileTooLarge",
        f"The merchant's file would have {len(entry) - replaced} bytes, and"
        f" {LARGEST_ENTRY - ROTATION_ROOM} are allowed; shorten webhook.allowedHosts or"
        " callback.allowedCIDRs.",
    )


def _blocked_plan(
    merchant: Merchant,
    observed: Observed,
    platform: Platform,
    resolved: Condition,
    problem: Problem,
) -> Plan:
    """Nothing new is published. What was published stays, but for a suspension."""
    entry, message = None, problem.message
    kept = observed.published is not None and not observed.displaced
    if kept and observed.published is not None and _own_entry(merchant, observed) is not None:
        suspended = merchant.spec.suspended or not observed.selected
        entry = with_flags(observed.published, suspended=suspended, draining=False)
        message += " The last version stays in use."
    return Plan(
        entry=entry,
        resolved=resolved,
        published=Condition(PUBLISHED, "False", problem.reason, message),
        problem=problem,
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
    owned = generated is not None and generated.owned
    same = owned and generated is not None and dict(generated.data) == dict(keyring.data)
    return None if same else keyring.data


def _requeue(keyring: Keyring, now: datetime, platform: Platform) -> timedelta:
    """The next resync, or earlier when a replaced key ends."""
    if keyring.next_change is None:
        return platform.resync
    return min(platform.resync, max(keyring.next_change - now, timedelta(seconds=1)))


def _with_check(
    plan: Plan, merchant: Merchant, observed: Observed, credentials: Credentials, now: datetime
) -> Plan:
    digest = credentials_digest(observed.seal, merchant.uid, credentials)
    due = check_due(observed.check, digest, merchant.uid, now)
    return replace(plan, digest=digest, check=credentials if due else None)
