"""Growing a finished file by the events that came after it. Pure, but for reading lines.

Events have no id. What is asked again begins at the latest event we have, and includes it; so of
the rows at that moment, as many are dropped as are stored already, compared whole and counted:
two equal events in one millisecond are two.

While a walk is under way, new events push older ones to later offsets, and the rows at a page's
end come again at the head of the next. Whether that happened is seen by asking for the first page
once more; a short walk is then made again, in the hope of quiet, and where there is none such
overlaps are taken for repeats.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec


class FilterForgotten(Exception):
    """The cursor dropped `created_since`, in a report that begins with its oldest events: what the
    first page had comes again at the end. Only a walk without the filter tells."""


@dataclass(slots=True)
class HighWaterMark:
    """The latest moment that is stored (None: nothing is), and the rows that stand there.

    Rows without a date count as standing there: all that can be done is to compare them.
    """

    latest: datetime | None = None
    rows: Counter[bytes] = field(default_factory=Counter)
    _undated: Counter[bytes] = field(default_factory=Counter)

    def add(self, row: bytes, moment: datetime | None) -> None:
        """Take one stored row into account."""
        if moment is None:
            self._undated[row] += 1
        elif self.latest is None or moment > self.latest:
            self.latest, self.rows = moment, Counter({row: 1})
        elif moment == self.latest:
            self.rows[row] += 1

    def left(self) -> Counter[bytes]:
        """Rows that will come again, with how often."""
        return self.rows + self._undated


def boundary(lines: Iterable[bytes], date_field: str) -> HighWaterMark:
    """Where a finished file ends in time. `lines` are its records."""
    found = HighWaterMark()
    moment_of = Moments(date_field)
    for line in lines:
        found.add(line.rstrip(b"\n"), moment_of(line))
    return found


def pages(lines: Iterator[bytes], counts: Sequence[int]) -> Iterator[list[bytes]]:
    """The records of a part file, page by page as they came."""
    for count in counts:
        yield [line.rstrip(b"\n") for line in islice(lines, count)]


def without_overlaps(each: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
    """Pages without the rows at their head that were the tail of the page before."""
    before: list[bytes] = []
    for page in each:
        yield page[overlap(before, page) :]
        before = page


def overlap(before: Sequence[bytes], after: Sequence[bytes]) -> int:
    """The longest tail of `before` that is a head of `after`."""
    for length in range(min(len(before), len(after)), 0, -1):
        if before[-length:] == after[:length]:
            return length
    return 0


def additions(
    each: Iterable[list[bytes]], stored: HighWaterMark, date_field: str, *, filtered: bool = True
) -> Iterator[bytes]:
    """The rows that are not stored yet, in the order they came.

    `filtered` says that the first page was asked for with `created_since`. Raises
    `FilterForgotten`: in a list that runs up, a later page that steps back is not filtered.
    """
    moment_of, left = Moments(date_field), stored.left()
    rising, last = False, None
    for number, page in enumerate(each):
        moments = [moment_of(row) for row in page]
        older = [_is_before(moment, stored.latest) for moment in moments]
        if page and number == 0:
            rising = filtered and not any(older) and _is_before(moments[0], moments[-1])
        if page and rising and _is_before(moments[0], last):
            raise FilterForgotten
        last = moments[-1] if page else last
        for row, is_old in zip(page, older, strict=True):
            if is_old:
                continue  # the filter is gone: an old row, stored long ago
            if left[row]:
                left[row] -= 1
                continue
            yield row


def _is_before(moment: datetime | None, other: datetime | None) -> bool:
    return moment is not None and other is not None and moment < other


class Moments:
    """Reads the moment of a record from its date field; None if there is none."""

    def __init__(self, date_field: str) -> None:
        shape: Any = msgspec.defstruct(
            "Row", [("moment", str | None, None)], rename={"moment": date_field}
        )
        self._decode = msgspec.json.Decoder(shape).decode

    def __call__(self, row: bytes) -> datetime | None:
        try:
            text = self._decode(row).moment
            moment = datetime.fromisoformat(text) if text else None
        except (msgspec.DecodeError, ValueError):
            return None
        return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
