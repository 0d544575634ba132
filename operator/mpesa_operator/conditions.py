"""The conditions of a MerchantConfig: what each is called, and when its time moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Status = Literal["True", "False", "Unknown"]

RESOLVED = "CredentialsResolved"
VALID = "CredentialsValid"
PUBLISHED = "Published"
LOADED = "Loaded"
WEBHOOK_HEALTHY = "WebhookHealthy"
READY = "Ready"
# These two are there only while they are true.
SUSPENDED = "Suspended"
STALLED = "Stalled"
# What only an edit can repair: whoever waits for Ready may stop waiting.
STALLING = (
    "AllowlistOutsidePlatform",
    "ApiKeyConflict",
    "EnvironmentMismatch",
    "FileTooLarge",
    "Rejected",
    "ShortCodeConflict",
    "WebhookRefused",
)
TYPES = (RESOLVED, VALID, PUBLISHED, LOADED, WEBHOOK_HEALTHY, READY)


@dataclass(frozen=True)
class Condition:
    """One condition. The reason is one word, the message a sentence."""

    type: str
    status: Status
    reason: str
    message: str


def by_type(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions of a status as the API server has it."""
    return {item["type"]: item for item in status.get("conditions") or []}


def as_status(
    conditions: Iterable[Condition],
    *,
    before: Mapping[str, Mapping[str, Any]],
    generation: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """The list for the status. lastTransitionTime moves only when the status flips."""
    rendered = []
    for condition in conditions:
        old = before.get(condition.type)
        flipped = old is None or old.get("status") != condition.status
        rendered.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "observedGeneration": generation,
                "lastTransitionTime": time_text(now)
                if old is None or flipped
                else old["lastTransitionTime"],
            }
        )
    return rendered


def time_text(moment: datetime) -> str:
    """As Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: str | None) -> datetime | None:
    """As Kubernetes writes times; None when there is none."""
    return None if not text else datetime.fromisoformat(text)


SUSPENDED_MESSAGE = "spec.suspended is true: new payments are refused, callbacks still settle."


def flags(ready: Condition, *, suspended: bool) -> list[Condition]:
    """The conditions that are there only while they are true."""
    found = []
    if suspended:
        found.append(Condition(SUSPENDED, "True", SUSPENDED, SUSPENDED_MESSAGE))
    if ready.status == "False" and ready.reason in STALLING:
        found.append(Condition(STALLED, "True", ready.reason, ready.message))
    return found


def ready(conditions: Mapping[str, Condition], *, suspended: bool, was_ready: bool) -> Condition:
    """Whether payments may start: the first thing that fails says why not.

    `was_ready` says that this very file was loaded before; then pods that cannot be asked for a
    moment do not make the merchant unready.
    """
    for kind in (RESOLVED, PUBLISHED, VALID, LOADED):
        condition = conditions[kind]
        if condition.status == "False":
            return Condition(READY, "False", condition.reason, condition.message)
    for kind in (RESOLVED, PUBLISHED, LOADED):
        condition = conditions[kind]
        if condition.status == "Unknown" and not (kind == LOADED and was_ready):
            return Condition(READY, "False", condition.reason, condition.message)
    if suspended:
        # As asked for, and so ready: a rollout must not wait for payments to start.
        return Condition(READY, "True", SUSPENDED, SUSPENDED_MESSAGE)
    if conditions[VALID].reason == "Checking":
        return Condition(READY, "Unknown", "Checking", conditions[VALID].message)
    message = "Every ready pod has loaded the merchant: payments can start."
    return Condition(READY, "True", "Ready", message)
