"""What the metrics of this process have counted since a moment."""

from __future__ import annotations

from prometheus_client import REGISTRY

Series = tuple[str, tuple[tuple[str, str], ...]]


def snapshot() -> dict[Series, float]:
    """Every series of this process, by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
    }


class Since:
    """What was counted since it was made: the registry is one for all tests of a process."""

    def __init__(self) -> None:
        self._before = snapshot()

    def of(self, name: str, **labels: str) -> float:
        """The sum over the series with these labels, whatever their others are."""
        return sum(
            value - self._before.get((series, pairs), 0.0)
            for (series, pairs), value in snapshot().items()
            if series == name and labels.items() <= dict(pairs).items()
        )

    def by(self, name: str, label: str) -> dict[str, float]:
        """What was counted, by the values of a label; those without any are left out."""
        values = {dict(pairs)[label] for series, pairs in snapshot() if series == name}
        found = {value: self.of(name, **{label: value}) for value in values}
        return {value: count for value, count in found.items() if count}
