"""One tracking report as one version of the API lists it: rows by their position.

A *position* is a place in the report as the API lists it, from 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .stream import Stream


@dataclass(frozen=True, slots=True)
class View:
    """A report of one mailing, readable from any position.

    `event_at` gives the event at a position, `spell` the exact JSON text of an event's row.
    `resolution_ms`: the rows' times are rounded down to it.
    """

    stream: Stream
    count: int
    event_at: Callable[[int], int]
    spell: Callable[[int], str]
    oldest_first: bool = False
    resolution_ms: int = 1

    def __len__(self) -> int:
        return self.count

    def date_ms(self, position: int) -> int:
        """When the event at a position was, in epoch milliseconds, not rounded."""
        return self.stream.date_ms(self.event_at(position))

    def rows(self, positions: range) -> Iterator[str]:
        """The rows at these positions, in the API's order."""
        return (self.spell(self.event_at(position)) for position in positions)

    def since(self, since_ms: int | None) -> range:
        """The positions of the rows whose time is on or after a moment.

        They are a prefix of a newest-first list, and a suffix of an oldest-first list.
        """
        if since_ms is None:
            return range(self.count)
        newer = self._newer(-(-since_ms // self.resolution_ms) * self.resolution_ms)
        return range(self.count - newer, self.count) if self.oldest_first else range(newer)

    def after(self, date_ms: int) -> int:
        """The first position beyond every event of that millisecond."""
        if self.oldest_first:
            return self.count - self._newer(date_ms + 1)
        return self._newer(date_ms)

    def _newer(self, since_ms: int) -> int:
        """How many events are on or after a moment, by halving."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            position = self.count - 1 - middle if self.oldest_first else middle
            if self.date_ms(position) >= since_ms:
                low = middle + 1
            else:
                high = middle
        return low
