"""What was measured: values by name and round, and their medians."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


class Figures:
    """One value per round and name."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Note a round's value."""
        self.values.setdefault(name, []).append(value)

    def spread(self, name: str, values: Sequence[float], *shares: float) -> None:
        """Note a round's percentiles as ``name.p50`` and so on."""
        ordered = sorted(values)
        for share in shares:
            value = ordered[min(len(ordered) - 1, int(len(ordered) * share))]
            self.add(f"{name}.p{share * 100:g}", value)

    def median(self, name: str) -> float:
        """The median of the rounds."""
        return statistics.median(self.values[name])

    def ratio(self, name: str, floor: str) -> float:
        """The median of the rounds' ratios."""
        pairs = zip(self.values[name], self.values[floor], strict=True)
        return statistics.median(value / base for value, base in pairs)

    def __contains__(self, name: str) -> bool:
        return name in self.values
