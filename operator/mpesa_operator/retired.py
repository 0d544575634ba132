"""API keys that were in use once: no other namespace may claim one.

A client may go on with a key long after it was replaced or its merchant was deleted. Whoever could
claim its digest then would be paid in the old owner's place. So what leaves a published file is
written down, in the operator's own Secret, before the file is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from mpesa_operator.bundle import merchant_key
from mpesa_operator.claims import claims_of, is_key
from mpesa_operator.documents import parse_json

RETIRED_KEYS = "retired-api-keys"
# An entry has up to 200 bytes, and a Secret holds 1 MiB. A namespace pushes out its own only.
MAX_RETIRED = 5000
MAX_RETIRED_PER_NAMESPACE = 200

# Claim to an API key -> the merchant that had it, the oldest first.
Retired = Mapping[str, str]


def read_retired(value: bytes | None) -> dict[str, str]:
    """What the Secret says; nothing when it cannot be read."""
    try:
        document = parse_json(value or b"{}")
        return {str(claim): str(owner) for claim, owner in document.items()}
    except (ValueError, AttributeError):
        return {}


def write_retired(retired: Retired) -> bytes:
    """The value for the Secret."""
    return json.dumps(retired, separators=(",", ":")).encode()


def retire(
    retired: Retired,
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
    elsewhere: Mapping[str, bytes],
) -> Retired:
    """The same with the keys that are in files of `before` and in no file afterwards."""
    files = [*after.values(), *elsewhere.values()]
    kept = {claim for content in files for claim in claims_of(content)}
    found = dict(retired)
    for file, content in before.items():
        if after.get(file) == content:
            continue
        for claim in sorted(claims_of(content) - kept):
            if is_key(claim):
                found.pop(claim, None)
                found[claim] = merchant_key(file)
    return _bounded(found)


def _bounded(retired: dict[str, str]) -> dict[str, str]:
    """The newest of each namespace, then the newest of all."""
    counts: dict[str, int] = {}
    kept: list[tuple[str, str]] = []
    for claim, owner in reversed(retired.items()):
        namespace = owner.partition("/")[0]
        counts[namespace] = counts.get(namespace, 0) + 1
        if counts[namespace] <= MAX_RETIRED_PER_NAMESPACE:
            kept.append((claim, owner))
    return dict(reversed(kept[:MAX_RETIRED]))
