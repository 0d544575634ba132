"""Which namespaces the platform has opened to merchants, by their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mpesa_operator.cluster import Cluster

Labels = Mapping[str, str]
Selector = Mapping[str, Any]
# A namespace that is not known to be open is looked up again, this often at most.
LOOK_AGAIN_S = 2.0


def check_selector(selector: Any) -> Selector:
    """Return a label selector as Kubernetes writes it. Raises ValueError."""
    if not isinstance(selector, dict) or set(selector) - {"matchLabels", "matchExpressions"}:
        raise ValueError("is no label selector (matchLabels, matchExpressions)")
    labels, expressions = selector.get("matchLabels", {}), selector.get("matchExpressions", [])
    shaped = isinstance(labels, dict) and isinstance(expressions, list)
    if not shaped:
        raise ValueError("is no label selector (matchLabels, matchExpressions)")
    for one in expressions:
        known = isinstance(one, dict) and isinstance(one.get("key"), str)
        if not known or one.get("operator") not in _OPERATORS:
            raise ValueError("has a matchExpression without a key or with an unknown operator")
    return selector


def selects(selector: Selector, labels: Labels) -> bool:
    """Whether a namespace with these labels is selected. An empty selector selects all."""
    wanted = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        _OPERATORS[one["operator"]](labels.get(one["key"]), one.get("values") or [])
        for one in selector.get("matchExpressions") or []
    )


_OPERATORS: Mapping[str, Callable[[str | None, list[str]], bool]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
}


class Namespaces:
    """Remembers for one resync which namespaces are open."""

    def __init__(
        self, cluster: Cluster, selector: Selector, resync_s: float, clock: Callable[[], float]
    ) -> None:
        self._cluster = cluster
        self._selector = selector
        self._resync_s = resync_s
        self._clock = clock
        self._open: frozenset[str] = frozenset()
        self._looked_at = float("-inf")

    async def is_open(self, namespace: str) -> bool:
        """Whether merchants of the namespace are served. Raises ClusterError."""
        if not self._selector:
            return True
        age_s = self._clock() - self._looked_at
        if age_s > (self._resync_s if namespace in self._open else LOOK_AGAIN_S):
            self._looked_at = self._clock()
            found = await self._cluster.namespace_labels()
            self._open = frozenset(it for it in found if selects(self._selector, found[it]))
        return namespace in self._open
