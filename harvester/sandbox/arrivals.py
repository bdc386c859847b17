"""What came in since the world began: counted by report, with the time of each change."""

from bisect import bisect_right
from math import inf
from typing import Final

Key = tuple[int, str]
"""A mailing and the kind of its events."""


class Arrivals:
    """How many events each report got later, now or at an earlier moment."""

    def __init__(self) -> None:
        self._times: Final[dict[Key, list[float]]] = {}
        self._totals: Final[dict[Key, list[int]]] = {}

    def add(self, key: Key, count: int, at: float) -> None:
        """So many more events at `at` (Unix seconds)."""
        times, totals = self._times.setdefault(key, []), self._totals.setdefault(key, [])
        times.append(max(at, times[-1]) if times else at)
        totals.append(count + (totals[-1] if totals else 0))

    def total(self, key: Key, at: float = inf) -> int:
        """How many there were at a moment; without one, how many there are."""
        times = self._times.get(key)
        if times is None:
            return 0
        before = bisect_right(times, at)
        return self._totals[key][before - 1] if before else 0
