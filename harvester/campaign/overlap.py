"""Where the next page of a report goes on, while events arrive at the report's head.

A cursor that counts rows shifts: each event that arrives between two requests pushes one row over
the page's edge, and it comes again. A *shift* is the number of rows by which the report has grown
since the last page was asked for. The rows that a walk has taken (newest first) and the rows of a
page say which shifts are possible; twins, two equal rows, can leave several. Then the page before
and the page itself are asked for again, in turn: the shift never falls, so each answer bounds the
others.

Everything here is pure. A place is an index into the rows that were taken; the place after them is
their number.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from msgspec import Struct, field

from harvester.campaign.rows import Row

_MOST_IN_A_MOMENT = 200
"""More events than arrive between two requests at the very moment of all rows at hand."""
BEYOND = 1 << 62
"""The shift of a page that lies before all rows that are at hand."""


def newest_first(rows: Iterable[Row]) -> list[Row] | None:
    """The rows, if every one has a moment and none is newer than the row before it."""
    found: list[Row] = []
    for row in rows:
        if row.moment is None or (found and _is_newer(row, found[-1])):
            return None
        found.append(row)
    return found


def may_come_again(taken: Iterable[Row], page: Iterable[Row], moment: datetime) -> bool:
    """Whether the last rows that were taken may be the first of the next page, where both the last
    (`taken`, the last one first) and the first (`page`) are of `moment`.

    The rows of that moment alone tell: of a list that is newest first no other ones are in both.
    """
    before, after = _of(moment, taken), _of(moment, page)
    if before is None or after is None:
        return True
    before.reverse()
    counts = range(1, min(len(before), len(after)) + 1)
    return any(after[:count] == before[-count:] for count in counts)


def _of(moment: datetime, rows: Iterable[Row]) -> list[Row] | None:
    """The rows of a moment; None if no row of another one follows."""
    found: list[Row] = []
    for row in rows:
        if row.moment != moment:
            return found
        found.append(row)
    return None


def possible_shifts(taken: Sequence[Row], page: Sequence[Row], place: int) -> frozenset[int]:
    """The shifts by which `page`, which would begin at `place` with no shift, fits `taken`.

    `taken` and `page` are not empty, and newest first. A page fits if it has the same rows where
    it lies over `taken`, no newer row after them, and no older row before them.
    """
    found = {shift for shift in range(place + len(page)) if _fits(taken, page, place - shift)}
    if place + len(page) < _MOST_IN_A_MOMENT and not _is_newer(taken[0], page[-1]):
        found.add(BEYOND)
    return frozenset(found)


def _fits(taken: Sequence[Row], page: Sequence[Row], begin: int) -> bool:
    first, last = max(begin, 0), min(begin + len(page), len(taken))
    if first < last:
        if page[first - begin] != taken[first]:
            return False  # most places end here
        if list(page[first - begin : last - begin]) != list(taken[first:last]):
            return False
    if begin < 0 and _is_newer(taken[0], page[min(-begin, len(page)) - 1]):
        return False
    rest = len(taken) - begin
    return not (rest < len(page) and _is_newer(page[max(rest, 0)], taken[-1]))


def _is_newer(row: Row, other: Row) -> bool:
    return row.moment is not None and other.moment is not None and row.moment > other.moment


def consistent(answers: Sequence[Collection[int]]) -> list[set[int]]:
    """The shifts of each answer that some sequence which never falls can have, in time order."""
    kept = [set(answer) for answer in answers]
    least = 0
    for shifts in kept:
        shifts -= {shift for shift in shifts if shift < least}
        least = min(shifts, default=BEYOND + 1)
    most = BEYOND
    for shifts in reversed(kept):
        shifts -= {shift for shift in shifts if shift > most}
        most = max(shifts, default=-1)
    return kept


class Decision(Struct, frozen=True):
    """`page` is the number of the page (0: the first that was seen) whose shift is known."""

    page: int
    shift: int


class Edge(Struct):
    """The edge between the rows that were taken and the next page, while it is looked into.

    Without shift the next page begins at `place` (0 to the number of rows taken). `counts_rows`
    says that the report's cursors are known to shift: a cursor by time does not.
    """

    taken: Sequence[Row]
    place: int
    counts_rows: bool = False
    _pages: list[tuple[Row, ...]] = field(default_factory=list)
    _answers: list[frozenset[int]] = field(default_factory=list)
    _own: list[int] = field(default_factory=list)  # of each page, which answer is its own
    _other_order: bool = False

    def see_page(self, page: Sequence[Row]) -> None:
        """The next page was asked for."""
        self._own.append(len(self._answers))
        self._answers.append(possible_shifts(self.taken, page, self.place))
        self._pages.append(tuple(page))
        self._other_order = False

    def see_before(self, page: Sequence[Row], place: int, known: int) -> None:
        """An earlier page was asked for again. It began at `place` when it was first seen; from
        then to the last page the report grew by `known` rows."""
        found = possible_shifts(self.taken, page, place) if page else frozenset((BEYOND,))
        later = (shift if shift == BEYOND else shift - known for shift in found)
        answer = frozenset(shift for shift in later if shift >= 0)
        if len(set(page)) > 1 and answer - {BEYOND}:
            answer -= {BEYOND}  # other events would have to be equal to these, one after the other
        self._answers.append(answer)
        # It came later and stands earlier, and is older all the same.
        self._other_order = bool(page) and 0 in answer and _is_newer(self._pages[-1][0], page[-1])

    @property
    def may_be_still(self) -> bool:
        """Whether the page as it was seen first fits without a shift."""
        return 0 in self._answers[0]

    def decide(self) -> Decision | None:
        """The page that can be taken, with its shift; None if what was seen does not say."""
        last = len(self._pages) - 1
        if self._other_order:
            return Decision(last, 0)
        kept = consistent(self._answers)
        if not all(kept):  # no shifts explain what was seen
            # Cursors by time: the page before moved, and the page did not.
            by_time = last > 0 and len(set(self._pages)) == 1 and self.may_be_still
            return Decision(last, 0) if by_time else None
        for number in range(last, -1, -1):
            shifts = kept[self._own[number]]
            if len(shifts) == 1 and BEYOND not in shifts:
                (shift,) = shifts
                if shift == 0 or self._shifts_are_seen(number):
                    return Decision(number, shift)
        return None

    def _shifts_are_seen(self, number: int) -> bool:
        """Whether the page itself shows that its cursor counts rows: a page that a cursor by time
        leads to stays as it is while the page before it moves."""
        own = self._answers[self._own[number]]
        return self.counts_rows or 0 not in own or len(set(self._pages)) > 1


def tells(taken: Sequence[Row], place: int, count: int) -> bool:
    """Whether a page of `count` rows, taken at `place`, shows any shift when it is asked again."""
    page = taken[max(place, 0) : place + count]
    shifts = possible_shifts(taken, page, place) if page else frozenset()
    return shifts == {0} or (shifts == {0, BEYOND} and len(set(page)) > 1)
