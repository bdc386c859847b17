"""The look at each page's edge: rows that came again are left out, rows below the mark too.

`overlap` decides; this module asks for the pages that a decision needs, and remembers where the
last pages of a walk began. Nothing more is asked where the rows themselves decide.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import anyio
import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from harvester.api.base import Api
from harvester.api.next_link import counts_rows, has_cursor
from harvester.campaign.heads import Head, Heads, digest_of
from harvester.campaign.overlap import Edge, may_come_again, newest_first, tells
from harvester.campaign.rows import Row, RowReader
from harvester.disk.compress import Codec
from harvester.disk.part import PartFile
from harvester.errors import Moving
from harvester.model import Fetcher, Page, Request, Target

_LOOKS = 12  # requests beyond a walk's own, for one edge
_REMEMBERED = 64  # pages of which one can be asked again
_TAIL = 200  # rows at least that a page is compared with
_AT_HAND = 4_096  # bytes: the rows that are looked at before any others


class _Seen(Struct, frozen=True, kw_only=True):
    """A page that was taken: its link, the places (rows of the part file) where it began and
    ended, the offset of its rows there (bytes), and by how many rows the report had grown."""

    link: str
    begin: int
    end: int
    offset: int
    moved: int


class _Last(_Seen, frozen=True, kw_only=True, omit_defaults=True):
    """The last page as the state keeps it, with the heads of its walk."""

    head: Head | None = None
    unproven: frozenset[Head] = frozenset()


class Trail(Struct):
    """The last pages of a walk. `highest` and `lowest` are the moments at the beginning and the end
    of the last one (None: not known), `end` its last bytes; `counts_rows`: whether its cursors do
    (None: not known), and so shift."""

    pages: deque[_Seen] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    highest: datetime | None = None
    lowest: datetime | None = None
    end: bytes = b""
    counts_rows: bool | None = None
    resumed: bool = False
    heads: Heads = field(default_factory=Heads)

    def last(self) -> str | None:
        """The last page as text, for the state."""
        if not self.pages:
            return None
        page, heads = self.pages[-1], self.heads
        last = _Last(
            link=page.link,
            begin=page.begin,
            end=page.end,
            offset=page.offset,
            moved=page.moved,
            head=heads.current,
            unproven=heads.unproven,
        )
        return msgspec.json.encode(last).decode()

    def resume(self, last: str | None) -> None:
        """Go on after the page that `last` says."""
        self.resumed = True
        if last is not None:
            seen = msgspec.json.decode(last, type=_Last)
            self.heads.current, self.heads.unproven = seen.head, seen.unproven
            self.pages.append(seen)

    def see(self, page: Page, ends: tuple[datetime | None, datetime | None]) -> None:
        """Remember where a page that has rows ends."""
        self.highest, self.lowest = ends
        self.end = page.ndjson[-_AT_HAND:]


class Edges(Struct, frozen=True, kw_only=True):
    """Fits pages to what a walk has taken."""

    fetcher: Fetcher
    api: Api
    codec: Codec
    now: Callable[[], datetime]
    readers: dict[str, RowReader] = field(default_factory=dict)

    def reader(self, report: str) -> RowReader:
        """The reader of a report's rows."""
        if report not in self.readers:
            self.readers[report] = RowReader(self.api.reports[report].time_field)
        return self.readers[report]

    async def fit(
        self, target: Target, trail: Trail, part: PartFile, rows: int, link: str, page: Page
    ) -> Page:
        """The page without the rows that came before. `rows` stand in `part`.

        Raise `Moving` if what the API answers does not say which rows those are.
        """
        if is_first := not has_cursor(link):  # of a report, or of an activity
            trail.pages.clear()
            trail.lowest = trail.highest = None
            trail.counts_rows = trail.heads.current = None
            trail.resumed = resumed = False
        else:
            resumed = not trail.pages
            if len(trail.pages) < 2 and trail.counts_rows is None:  # the first cursor tells
                trail.counts_rows = counts_rows(link)
        read = self.reader(target.report)
        ends = read.ends(page.ndjson) if page.rows else (None, None)
        moved = trail.pages[-1].moved if trail.pages else 0
        begin = trail.pages[-1].end if trail.pages else rows
        if (
            trail.counts_rows is not False
            and page.rows
            and (trail.pages or resumed)
            and not _is_below(trail, page, ends[0], read, is_whole=begin == rows)
        ):
            asked = page
            page, shift = await self._shift(target, trail, part, rows, link, page)
            ends = ends if page is asked else read.ends(page.ndjson)
            moved, begin = moved + shift, begin - shift
            if shift:
                trail.counts_rows, trail.heads.current = True, None
        end = begin + page.rows
        seen = _Seen(link=link, begin=begin, end=end, offset=part.offset, moved=moved)
        trail.pages.append(seen)
        if page.rows:
            trail.see(page, ends)
            if is_first and has_cursor(page.next or ""):
                trail.heads.see(link, page, *ends, self.now())
        return without_first(page, rows - begin)

    async def prove(self, target: Target, trail: Trail) -> None:
        """Look at each head again: no edge has shifted, as it was taken to be. Raise `Moving` where
        one is not what it was."""
        for link, digest in sorted(trail.heads.unproven):
            if digest_of(await self._ask(target, link)) != digest:
                raise _moved()
        trail.heads.unproven = frozenset()

    async def _shift(
        self, target: Target, trail: Trail, part: PartFile, rows: int, link: str, page: Page
    ) -> tuple[Page, int]:
        """Which answer to take for the page, and by how many rows its report has grown."""
        read, wanted = self.reader(target.report), max(2 * page.rows, _TAIL)
        new = newest_first(map(read, _lines(page)))
        if new is None:
            return page, 0
        tail = await anyio.to_thread.run_sync(self._tail, trail, part, rows, wanted, read)
        taken = newest_first(row for row in tail if row.activity == new[0].activity)
        if not taken:
            return page, 0
        least = rows - len(taken)  # the place of the first of them
        begin = trail.pages[-1].end if trail.pages else rows
        edge = Edge(taken, begin - least, trail.counts_rows is True)
        pages = [page]
        edge.see_page(new)
        decision = edge.decide()
        if decision is None and edge.may_be_still and trail.heads.wait():
            return page, 0
        if trail.heads.waited and (decision is None or decision.shift):
            raise _moved()
        before = _telling(trail, taken, least)
        looks = 0
        while (decision := edge.decide()) is None:
            if before is None or looks >= _LOOKS:
                raise Moving("its events move faster than its pages can be read in order")
            looks += 1
            if looks % 2:
                again = await self._ask(target, before.link)
                known = trail.pages[-1].moved - before.moved
                edge.see_before([*map(read, _lines(again))], before.begin - least, known)
            else:
                pages.append(await self._ask(target, link))
                if not pages[-1].rows:
                    raise Moving("a page has lost its rows")
                edge.see_page([*map(read, _lines(pages[-1]))])
        return pages[decision.page], decision.shift

    async def _ask(self, target: Target, link: str) -> Page:
        read = partial(self.api.read_page, target, link)
        return await self.fetcher.fetch(Request(target, link, read))

    def _tail(
        self, trail: Trail, part: PartFile, rows: int, wanted: int, read: RowReader
    ) -> list[Row]:
        """The last rows of a part file: about as many as are wanted."""
        known = [seen for seen in trail.pages if seen.begin <= rows - wanted]
        first = known[-1] if known else trail.pages[0] if trail.pages else None
        if not known and trail.resumed:  # what came before it is known to the file alone
            first = None
        if first is not None:
            found = part.read(first.offset)
            lines = self.codec.decode(found).split(b"\n")[:-1] if found else []
        else:
            with self.codec.open(part.path) as file:
                lines = [line.rstrip(b"\n") for line in deque(file, maxlen=wanted)]
        return [read(line) for line in lines]


def _is_below(
    trail: Trail, page: Page, first: datetime | None, read: RowReader, *, is_whole: bool
) -> bool:
    """Whether no row of the page, which begins at the moment `first`, can have come before.

    All are older, in a list that is newest first; or the list is of another order, which grows at
    its end; or the rows at the edge itself tell. `is_whole`: the last page was taken to its end.
    """
    if trail.lowest is None or trail.highest is None:
        return False
    if trail.highest < trail.lowest:
        return True
    if first is None or first > trail.lowest:
        return False
    if first < trail.lowest:
        return True
    before = trail.end.split(b"\n")[-2:0:-1]  # but the first, which may be cut
    after = page.ndjson[:_AT_HAND].split(b"\n")[:-1]
    return is_whole and not may_come_again(map(read, before), map(read, after), first)


def _telling(trail: Trail, taken: Sequence[Row], least: int) -> _Seen | None:
    """The last page that shows a shift when it is asked again; else the last one."""
    for seen in reversed(trail.pages):
        if seen.begin >= least and tells(taken, seen.begin - least, seen.end - seen.begin):
            return seen
    return trail.pages[-1] if trail.pages else None


def _moved() -> Moving:
    return Moving("events came to a report that was at rest")


def without_first(page: Page, count: int) -> Page:
    """The page without its first rows."""
    if count <= 0:
        return page
    lines = _lines(page)[count:]
    return replace(page, ndjson=b"".join(line + b"\n" for line in lines), rows=len(lines))


def down_to(page: Page, since: datetime, read: RowReader, after: Callable[[], str | None]) -> Page:
    """The page without rows older than `since`. Where the older ones stand last, in a list that is
    newest first, nothing below is asked for: `after()` is the link that follows then."""
    if not page.rows or not any(_is_older(moment, since) for moment in read.ends(page.ndjson)):
        return page
    lines = _lines(page)
    rows = [*map(read, lines)]
    kept = [line for line, row in zip(lines, rows, strict=True) if not _is_older(row.moment, since)]
    below = bool(kept) and kept[0] == lines[0] and _is_older(rows[-1].moment, since)
    is_newest_first = (below or not kept) and newest_first(rows) is not None
    return replace(
        page,
        ndjson=b"".join(line + b"\n" for line in kept),
        rows=len(kept),
        next=after() if is_newest_first else page.next,
    )


def _is_older(moment: datetime | None, since: datetime) -> bool:
    return moment is not None and moment < since


def _lines(page: Page) -> list[bytes]:
    return page.ndjson.split(b"\n")[:-1]
