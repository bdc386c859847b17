"""The look at each page's edge: rows that came again are left out, rows below the mark too.

`overlap` decides; this module asks for the pages that a decision needs, and remembers where the
last pages of a walk began. Nothing more is asked where the rows themselves decide.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import anyio
import orjson
from msgspec import Struct, field
from msgspec.structs import asdict, replace

from harvester.api.base import Api
from harvester.api.next_link import counts_rows, has_cursor
from harvester.campaign.overlap import Edge, is_newest_first, tells
from harvester.campaign.rows import Row, RowReader
from harvester.disk.compress import Codec
from harvester.disk.part import PartFile
from harvester.errors import Moving
from harvester.model import Fetcher, Page, Request, Target

_LOOKS = 12  # requests beyond a walk's own, for one edge
_REMEMBERED = 64  # pages of which one can be asked again
_TAIL = 200  # rows at least that a page is compared with


class _Seen(Struct, frozen=True, kw_only=True):
    """A page that was taken: its link, the places (rows of the part file) where it began and
    ended, the offset of its rows there (bytes), and by how many rows the report had grown."""

    link: str
    begin: int
    end: int
    offset: int
    moved: int


class Trail(Struct):
    """The last pages of a walk. `lowest` and `highest` are the moments at the end and the
    beginning of the last one (None: not known); `counts_rows`: whether its cursors do (None:
    not known), and so shift."""

    pages: deque[_Seen] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    lowest: datetime | None = None
    highest: datetime | None = None
    counts_rows: bool | None = None
    resumed: bool = False

    def last(self) -> str | None:
        """The last page as text, for the state."""
        return orjson.dumps(asdict(self.pages[-1])).decode() if self.pages else None

    def resume(self, last: str | None) -> None:
        """Go on after the page that `last` says."""
        self.resumed = True
        if last is not None:
            self.pages.append(_Seen(**orjson.loads(last)))


class Edges(Struct, frozen=True, kw_only=True):
    """Fits pages to what a walk has taken."""

    fetcher: Fetcher
    api: Api
    codec: Codec
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
        if not has_cursor(link):  # the first page of a report, or of an activity
            trail.pages.clear()
            trail.lowest = trail.highest = None
            trail.counts_rows = None
            trail.resumed = resumed = False
        else:
            resumed = not trail.pages
            if trail.counts_rows is None:
                trail.counts_rows = counts_rows(link)
        if trail.counts_rows is False:
            return page
        moved = trail.pages[-1].moved if trail.pages else 0
        begin = trail.pages[-1].end if trail.pages else rows
        read = self.reader(target.report)
        if page.rows and (trail.pages or resumed) and not self._is_below(trail, page, read):
            found = await self._shift(target, trail, part, rows, link, page)
            page, shift = found
            moved, begin = moved + shift, begin - shift
            trail.counts_rows = trail.counts_rows or (True if shift else None)
        end = begin + page.rows
        seen = _Seen(link=link, begin=begin, end=end, offset=part.offset, moved=moved)
        trail.pages.append(seen)
        if page.rows:
            trail.highest, trail.lowest = (read(line).moment for line in _ends(page))
        return without_first(page, rows - begin)

    def _is_below(self, trail: Trail, page: Page, read: RowReader) -> bool:
        """Whether no row of the page can have come before: all are older, in a list that is newest
        first; or the list is of another order, which grows at its end."""
        if trail.lowest is None or trail.highest is None:
            return False
        if trail.highest < trail.lowest:
            return True
        first = read(page.ndjson[: page.ndjson.index(b"\n")]).moment
        return first is not None and first < trail.lowest

    async def _shift(
        self, target: Target, trail: Trail, part: PartFile, rows: int, link: str, page: Page
    ) -> tuple[Page, int]:
        """Which answer to take for the page, and by how many rows its report has grown."""
        read, wanted = self.reader(target.report), max(2 * page.rows, _TAIL)
        new = _rows(page, read)
        if not is_newest_first(new):
            return page, 0
        tail = await anyio.to_thread.run_sync(self._tail, trail, part, rows, wanted, read)
        taken = [row for row in tail if row.activity == new[0].activity]
        if not taken or not is_newest_first(taken):
            return page, 0
        least = rows - len(taken)  # the place of the first of them
        begin = trail.pages[-1].end if trail.pages else rows
        edge = Edge(taken, begin - least, trail.counts_rows is True)
        pages = [page]
        edge.see_page(new)
        before = _telling(trail, taken, least)
        looks = 0
        while (decision := edge.decide()) is None:
            if before is None or looks >= _LOOKS:
                raise Moving("its events move faster than its pages can be read in order")
            looks += 1
            if looks % 2:
                again = await self._ask(target, before.link)
                known = trail.pages[-1].moved - before.moved
                edge.see_before(_rows(again, read), before.begin - least, known)
            else:
                pages.append(await self._ask(target, link))
                if not pages[-1].rows:
                    raise Moving("a page has lost its rows")
                edge.see_page(_rows(pages[-1], read))
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


def _telling(trail: Trail, taken: Sequence[Row], least: int) -> _Seen | None:
    """The last page that shows a shift when it is asked again; else the last one."""
    for seen in reversed(trail.pages):
        if seen.begin >= least and tells(taken, seen.begin - least, seen.end - seen.begin):
            return seen
    return trail.pages[-1] if trail.pages else None


def without_first(page: Page, count: int) -> Page:
    """The page without its first rows."""
    if count <= 0:
        return page
    lines = page.ndjson.split(b"\n")[count:-1]
    return replace(page, ndjson=b"".join(line + b"\n" for line in lines), rows=len(lines))


def down_to(page: Page, since: datetime, read: RowReader, after: Callable[[], str | None]) -> Page:
    """The page without rows older than `since`. Where the older ones stand last, in a list that is
    newest first, nothing below is asked for: `after()` is the link that follows then."""
    if not page.rows or not any(_is_older(read(line), since) for line in _ends(page)):
        return page
    lines = page.ndjson.split(b"\n")[:-1]
    kept = [line for line in lines if not _is_older(read(line), since)]
    below = bool(kept) and kept[0] == lines[0] and _is_older(read(lines[-1]), since)
    newest_first = is_newest_first([read(line) for line in lines]) and (below or not kept)
    return replace(
        page,
        ndjson=b"".join(line + b"\n" for line in kept),
        rows=len(kept),
        next=after() if newest_first else page.next,
    )


def _is_older(row: Row, since: datetime) -> bool:
    return row.moment is not None and row.moment < since


def _rows(page: Page, read: RowReader) -> list[Row]:
    return [read(line) for line in page.ndjson.split(b"\n")[:-1]]


def _ends(page: Page) -> tuple[bytes, bytes]:
    """The first and the last line of a page that has rows."""
    lines = page.ndjson
    return lines[: lines.index(b"\n")], lines[lines.rfind(b"\n", 0, -1) + 1 : -1]
