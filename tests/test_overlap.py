"""Where the next page of a moving report goes on: a server of pure lists, any arrivals, twins."""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement, product

import pytest

from harvester.campaign.overlap import (
    BEYOND,
    Edge,
    consistent,
    may_come_again,
    newest_first,
    possible_shifts,
    tells,
)
from harvester.campaign.rows import Row, RowReader

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(minute: int, who: str = "a") -> Row:
    """An event at a minute of the hour."""
    return Row(START + timedelta(minutes=minute), "", (b"%d" % minute, who.encode()))


def rows(text: str) -> list[Row]:
    """`3a 3b 2a`: events by minute and contact."""
    return [row(int(each[:-1]), each[-1]) for each in text.split()]


@pytest.mark.parametrize(
    ("taken", "page", "shifts"),
    [
        ("5a 4a", "3a 2a", {0}),
        ("5a 4a", "4a 3a", {0, 1}),
        ("5a 4a", "5a 4a", {2}),
        ("5a 4a", "4b 3a", {0}),
        ("6a 5b 5a", "5b 5a 4a", {0, 2}),
        ("5a 4a 4a", "4a 3a", {0, 1}),
        ("5a 4a 4a", "4a 4a 3a", {0, 1, 2}),
        ("5a 4a", "4a 4a", {0, 1}),
        ("5a 4a", "6a 5a 4a 3a", {3}),
        ("5a 4a 3a", "5a 4a", {3}),
        ("5a 4a", "6a 6b", {BEYOND}),
        ("5a 4a", "7a 5a", {3, BEYOND}),
        ("5a", "5a", {0, 1, BEYOND}),
    ],
)
def test_a_page_says_by_how_much_the_report_may_have_grown(
    taken: str, page: str, shifts: set[int]
) -> None:
    """The same rows over the same places, nothing newer after them, nothing older before them."""
    assert possible_shifts(rows(taken), rows(page), len(rows(taken))) == shifts


def test_where_the_rows_of_the_edge_differ_nothing_came_again() -> None:
    """Rows of the edge's minute alone say so, of all lists of up to four rows, whenever the whole
    look would: it is never weaker, and it does not look where equal rows meet."""
    some = [*combinations_with_replacement(rows("6a 5b 5a 4b 4a"), 4)]
    lists = {each[start:] for each in some for start in range(4)}
    decided = 0
    for taken, page in product(lists, lists):
        if taken[-1].moment != page[0].moment or page[0].moment is None:
            continue
        if not may_come_again(reversed(taken), page, page[0].moment):
            decided += 1
            assert possible_shifts(taken, page, len(taken)) == {0}
        else:
            moments = [{each.moment for each in rows} for rows in (taken, page)]
            assert 1 in map(len, moments) or possible_shifts(taken, page, len(taken)) != {0}
    assert decided > 100


def test_shifts_never_fall() -> None:
    """Each answer bounds those before and after it; what nothing explains leaves none."""
    assert consistent([{0, 1}, {0}]) == [{0}, {0}]
    assert consistent([{0, 3}, {1, 2}, {0, 1, 3}]) == [{0}, {1, 2}, {1, 3}]
    assert consistent([{3}, {1}]) == [set(), set()]
    assert not all(consistent([{0, 1}, {2}, {0, 1}]))


def test_a_page_of_one_moment_tells_nothing() -> None:
    """Rows that came at the same moment look the same."""
    assert tells(rows("5a 4a 3a"), 1, 2)
    assert not tells(rows("5a 5a"), 0, 2)
    assert not tells(rows("5a 4a 4a 4a"), 2, 1)
    assert not tells(rows("5a"), 0, 2)


def test_rows_are_compared_by_what_never_changes() -> None:
    """A deleted contact changes the bytes of its rows; another link is another event."""
    read = RowReader("created_time")
    plain = b'{"contact_id":"1","created_time":"2026-01-01T00:00:00Z","link_id":"7"}'
    assert read(plain) == read(plain[:-1] + b',"deleted_at":"2026-01-02T00:00:00Z"}')
    assert read(plain) != read(plain.replace(b'"7"', b'"8"'))
    assert read(plain).moment == START
    assert read(b'{"a":"\\ud800","created_time":"2026-01-01T00:00:00"}').moment == START
    assert read(b'{"created_time":5}').moment is None
    assert read(b'{"a":1}') != read(b'{"a":2}')


def test_newest_first_is_seen_in_the_rows() -> None:
    """Equal moments are in order; a row without one is in none."""
    assert newest_first(rows("5a 5b 4a")) == rows("5a 5b 4a")
    assert newest_first(rows("4a 5a")) is None
    assert newest_first([Row(None, "", ())]) is None


# -- a server that moves -----------------------------------------------------------------------


@dataclass
class Server:
    """A report that grows at its head. Cursors count rows, or go by the time before `start`."""

    chance: random.Random
    listed: list[tuple[float, Row]]
    limit: int
    by_time: bool
    arrivals: float
    most: int
    twins: float
    asked: int = 0
    clock: float = 1e6

    def _arrive(self) -> None:
        if self.chance.random() < self.arrivals:
            for _ in range(self.chance.randint(1, self.most)):
                self.listed.insert(0, self._event())

    def _event(self) -> tuple[float, Row]:
        if self.listed and self.chance.random() < self.twins:
            before = self.listed[0][1]
            self.clock += 0.001
            return self.clock, before
        self.clock += self.chance.choice([0.01, 1.0, 30.0, 90.0])
        return self.clock, row(int(self.clock // 60), self.chance.choice("abcdefghij"))

    def page(self, cursor: float | int | None) -> tuple[list[Row], float | int | None]:
        """The rows, and the cursor that follows."""
        self._arrive()
        self.asked += 1
        if cursor is None or not self.by_time:
            begin = int(cursor or 0)
        else:
            begin = next((n for n, (at, _) in enumerate(self.listed) if at < cursor), 1 << 30)
        some = self.listed[begin : begin + self.limit]
        more = begin + self.limit < len(self.listed)
        after: float | int = some[-1][0] if self.by_time and some else begin + len(some)
        return [each for _, each in some], after if more else None


@dataclass
class Reader:
    """Reads a report as the walker does, with a dozen looks at an edge; None: set aside."""

    server: Server
    taken: list[Row] = field(default_factory=list)

    def read(self) -> list[Row] | None:
        """All rows, or None."""
        trail: deque[tuple[float | int | None, int, int]] = deque(maxlen=64)
        cursor: float | int | None = None
        moved = place = idle = 0
        while idle < 50:
            page, following = self.server.page(cursor)
            if self.taken and page:
                found = self._edge(trail, cursor, page, following, moved, place)
                if found is None:
                    return None
                page, following, shift = found
            else:
                shift = 0
            moved += shift
            begin = place - shift
            trail.append((cursor, begin, moved))
            place = begin + len(page)
            had = len(self.taken)
            self.taken += page[had - begin :]
            idle = 0 if len(self.taken) > had else idle + 1
            if following is None:
                return self.taken
            cursor = following
        return None

    def _edge(
        self,
        trail: Sequence[tuple[float | int | None, int, int]],
        cursor: float | int | None,
        page: list[Row],
        following: float | int | None,
        moved: int,
        place: int,
    ) -> tuple[list[Row], float | int | None, int] | None:
        least = max(0, len(self.taken) - 2 * self.server.limit - 50)
        tail = self.taken[least:]
        edge = Edge(tail, place - least)
        edge.see_page(page)
        seen = [(page, following)]
        looks = self._looks(trail, moved)
        for _ in range(12):
            if (decision := edge.decide()) is not None:
                return *seen[decision.page], decision.shift
            before, begin, known = next(looks)
            edge.see_before(self.server.page(before)[0], begin - least, known)
            if (decision := edge.decide()) is not None:
                return *seen[decision.page], decision.shift
            page, following = self.server.page(cursor)
            seen.append((page, following))
            edge.see_page(page)
        return None

    def _looks(
        self, trail: Sequence[tuple[float | int | None, int, int]], moved: int
    ) -> Iterator[tuple[float | int | None, int, int]]:
        places = [*(begin for _, begin, _ in trail), len(self.taken)]
        best = len(trail) - 1
        for number in range(len(trail) - 1, -1, -1):
            count = places[number + 1] - places[number]
            if tells(self.taken, places[number], count):
                best = number
                break
        cursor, begin, known = trail[best]
        while True:
            yield cursor, begin, moved - known


def read_one(seed: int) -> tuple[bool, bool, int, int]:
    """Read one random report. Gives whether it was set aside, whether it moved too fast for
    anything else, the requests, and the least there could be."""
    chance = random.Random(seed)
    limit = chance.choice([1, 2, 3, 5, 10, 50, 500])
    most = chance.choice([1, max(1, limit - 1), limit, 2 * limit])
    arrivals = chance.choice([0.0, 0.1, 0.4, 1.0]) if limit > 1 else chance.choice([0.0, 0.2])
    server = Server(
        chance, [], limit, chance.random() < 0.3, arrivals, most, chance.choice([0, 0.2])
    )
    server.listed = [server._event() for _ in range(chance.randint(0, 6 * limit))][::-1]
    before = [each for _, each in server.listed]
    taken = Reader(server).read()
    fast = arrivals > 0 and most >= limit
    if taken is None:
        return True, fast, server.asked, 0
    world = [each for _, each in server.listed]
    cuts = range(len(world) - len(before) + 1)
    assert any(taken == world[cut:] for cut in cuts), f"seed {seed}: not the rows of one moment"
    return False, fast, server.asked, max(1, -(-len(taken) // limit))


@pytest.mark.parametrize("block", range(3))
def test_a_report_that_moves_is_read_as_it_was_at_one_moment(block: int) -> None:
    """Whatever arrives between any two requests, in whatever order of twins: each row once, in
    order, or the report is set aside."""
    for seed in range(block * 100, block * 100 + 100):
        read_one(seed)


@pytest.mark.long
@pytest.mark.parametrize("block", range(20))
def test_two_thousand_reports_that_move(block: int) -> None:
    """The same at length."""
    for seed in range(1_000 + block * 100, 1_100 + block * 100):
        read_one(seed)
