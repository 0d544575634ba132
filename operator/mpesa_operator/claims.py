"""What only one merchant of the gateway may have: an API key, a short code with its till.

A key belongs to whom it was published for first. A short code belongs to whom it was published for
once Daraja has accepted that merchant's credentials; before that nobody is held up by a claim.
No sentence here names an object of another namespace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from mpesa_operator.credentials import Problem
from mpesa_operator.daraja import Outcome
from mpesa_operator.spec import MerchantSpec

API_KEY_CONFLICT = "ApiKeyConflict"
SHORT_CODE_CONFLICT = "ShortCodeConflict"
# How the claim to an API key begins.
API_KEY_CLAIM = "api-key:"
# As many files as a pod reads at most.
_FILES_REMEMBERED = 5000


def account(spec: MerchantSpec) -> str:
    """What a MerchantConfig claims: environment, short code and till number."""
    return _account(spec.environment, spec.short_code, spec.till_number)


def _account(environment: object, short_code: object, till_number: object) -> str:
    return f"account:{environment}/{short_code}/{till_number or ''}"


def key_claim(api_key_sha256: str) -> str:
    """The claim to an API key."""
    return f"{API_KEY_CLAIM}{api_key_sha256}"


def is_key(claim: str) -> bool:
    """Whether it is the claim to an API key."""
    return claim.startswith(API_KEY_CLAIM)


@lru_cache(maxsize=_FILES_REMEMBERED)
def claims_of(content: bytes) -> frozenset[str]:
    """What a merchant file claims; nothing when it cannot be read."""
    try:
        document = json.loads(content)
        own = _account(document["environment"], document["shortCode"], document.get("tillNumber"))
        return frozenset({own, *(key_claim(it) for it in document["apiKeySHA256"])})
    except (ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


def holders(files: Mapping[str, bytes]) -> dict[str, str]:
    """Which file has which claim."""
    return {claim: name for name, content in files.items() for claim in claims_of(content)}


def taken_claim(
    name: str, content: bytes, before: bytes | None, taken: Mapping[str, str]
) -> str | None:
    """The claim that the file has not had before and that another file has; None without one."""
    had = claims_of(before) if before is not None else frozenset()
    new = sorted(claims_of(content) - had)
    return next((claim for claim in new if not _is_own(taken.get(claim, name), name)), None)


def _is_own(holder: str, name: str) -> bool:
    """Whether the file has the claim itself, or its namespace has, as with a key that retired."""
    return holder == name or (holder.endswith(".") and name.startswith(holder))


def hand_over(taken: dict[str, str], name: str, before: bytes | None, after: bytes) -> None:
    """Note that the file has other claims now. A key that it had stays its own."""
    for claim in claims_of(before) if before is not None else ():
        if taken.get(claim) == name and not is_key(claim):
            del taken[claim]
    for claim in claims_of(after):
        taken.setdefault(claim, name)


def conflict(claim: str, *, holder: str, claimant: str) -> Problem:
    """The refusal of a claim. A holder is named only to its own namespace."""
    kind, _, what = claim.partition(":")
    namespace, _, name = holder.partition("/")
    near = namespace == claimant.partition("/")[0]
    who = f"MerchantConfig {name}" if near else "another namespace"
    if kind == "api-key":
        message = f"The API key belongs to {who}. Make a key of this merchant's own."
        return Problem(API_KEY_CONFLICT, message, holder)
    _, short_code, till = what.split("/")
    said = f"Short code {short_code}" + (f" with till {till}" if till else "")
    return Problem(SHORT_CODE_CONFLICT, f"{said} was claimed earlier by {who}.", holder)


WARNINGS = {
    API_KEY_CONFLICT: (
        "Another MerchantConfig claims an API key of this one. The claim was refused, and nothing"
        " changes here. Unless you know why, rotate the key: somebody else has it."
    ),
    SHORT_CODE_CONFLICT: (
        "Another MerchantConfig claims the short code of this one. The claim was refused, and"
        " nothing changes here."
    ),
}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What stands behind an object's claim to its short code.

    `published` says that its file has this very claim, `accepted` that Daraja has once accepted
    its credentials, `outcome` what Daraja said last, `resolved` that the credentials were found.
    """

    key: str
    created_at: datetime
    published: bool = False
    accepted: bool = False
    outcome: Outcome | None = None
    resolved: bool = False

    @property
    def rank(self) -> int:
        """Lower is stronger. What is published and was accepted cannot be taken."""
        if self.published:
            if self.accepted:
                return 0
            return 3 if self.outcome == "rejected" else 1
        if not self.resolved or self.outcome == "rejected":
            return 5
        return 2 if self.outcome == "valid" else 4


def first_claim(standings: Iterable[Standing]) -> Standing:
    """Who has the short code: the strongest claim, of equal ones the oldest object's."""
    return min(standings, key=lambda it: (it.rank, it.created_at, it.key))
