"""The steps of time in which events are shown."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

_MOST = 100  # three months of days, eight years of months
_LABELS = {"day": "%Y-%m-%d", "month": "%b %Y", "year": "%Y"}


@dataclass(frozen=True, slots=True)
class Periods:
    """A span of time in equal steps: `unit` is day, month or year, `labels` are their names."""

    unit: str
    labels: tuple[str, ...]

    def sums(self, days: Mapping[date, int]) -> list[int]:
        """Counts by day as counts by step."""
        found: Counter[str] = Counter()
        for day, count in days.items():
            found[f"{day:{_LABELS[self.unit]}}"] += count
        return [found[label] for label in self.labels]


def periods(first: date, last: date) -> Periods:
    """The finest steps from `first` to `last` of which there are at most 100; else years."""
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    for unit, form in _LABELS.items():
        found = Periods(unit, tuple(dict.fromkeys(f"{day:{form}}" for day in days)))
        if len(found.labels) <= _MOST:
            break
    return found
