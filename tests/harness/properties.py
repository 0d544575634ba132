"""What property tests share: repeatable runs, and JSON of every kind."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# The same examples in every run: a failure on a machine is a failure everywhere.
# How fast a machine draws them says nothing of the code.
repeatable = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
# Also for a test that asks for no settings of its own.
settings.register_profile("repeatable", repeatable)
settings.load_profile("repeatable")

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()  # NaN and Infinity too: json.dumps writes them, hostile senders as well.
    | st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str)
    | st.text(max_size=40)
)


def json_values(scalars: st.SearchStrategy[Any] = _SCALARS) -> st.SearchStrategy[Any]:
    """Values that `json.dumps` takes."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    )


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()
