"""The geometry of the pictures: numbers in, rectangles out. The template draws them as SVG.

All lengths are in units of the picture, which is 100 wide; labels stand beside it as text, so that
they keep their size where the picture is narrow.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate, pairwise

WIDTH = 100.0
_MOST_COLUMNS = 100  # three months of days, eight years of months


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle along the x axis: where it begins, how wide and how high it is (0 to 100)."""

    x: float
    width: float
    height: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """A span of time in equal steps. `unit` is day, month or year; `starts` their first days."""

    unit: str
    starts: tuple[date, ...]

    def label(self, start: date) -> str:
        """A step as people write it."""
        return f"{start:{_FORMATS[self.unit]}}"

    def sums(self, days: Mapping[date, int]) -> tuple[int, ...]:
        """Counts by day as counts by step."""
        found: Counter[date] = Counter()
        for day, count in days.items():
            found[_start(day, self.unit)] += count
        return tuple(found[start] for start in self.starts)


_FORMATS = {"day": "%Y-%m-%d", "month": "%b %Y", "year": "%Y"}


def periods(first: date, last: date) -> Periods:
    """The finest steps from `first` to `last` of which there are at most 100; else years."""
    for unit in ("day", "month", "year"):
        starts, end = [_start(first, unit)], _start(last, unit)
        while starts[-1] < end and (len(starts) <= _MOST_COLUMNS or unit == "year"):
            starts.append(_start(starts[-1] + timedelta(days=_STEP[unit]), unit))
        if len(starts) <= _MOST_COLUMNS:
            break
    return Periods(unit=unit, starts=tuple(starts))


_STEP = {"day": 1, "month": 31, "year": 366}  # days that lead into the next step, not past it


def _start(day: date, unit: str) -> date:
    return {"day": day, "month": day.replace(day=1), "year": day.replace(month=1, day=1)}[unit]


def columns(counts: Sequence[int]) -> tuple[Box, ...]:
    """A column for each count, the highest 100 high; one that is not zero can be seen."""
    most = max(counts, default=0)
    step = WIDTH / max(1, len(counts))
    gap = min(step * 0.25, 0.6)
    return tuple(
        Box(
            x=round(step * place + gap / 2, 2),
            width=round(step - gap, 2),
            height=round(max(1.5, 100 * count / most), 1),
        )
        for place, count in enumerate(counts)
        if count
    )


def stack(parts: Sequence[int], *, whole: int) -> tuple[Box, ...]:
    """The parts of a bar one after the other; together they are never wider than the picture."""
    scale = WIDTH / max(1, whole, sum(parts))
    ends = list(accumulate((part * scale for part in parts), initial=0.0))
    return tuple(
        Box(x=round(start, 3), width=round(end - start, 3)) for start, end in pairwise(ends)
    )
