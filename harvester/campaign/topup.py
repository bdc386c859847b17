"""Growing a finished file by the events that came after it.

Events have no id. A top-up asks again from the latest stored event on, and that event comes too; so
of the rows at that moment, as many are dropped as are stored already, compared whole and counted:
two equal events in one millisecond are two.

While a walk is under way, new events push older ones to later offsets, and the rows at a page's
end come again at the head of the next. Whether that happened is seen by asking for the first page
once more; a short walk is then made again, in the hope of quiet, and where there is none such
overlaps are taken for repeats.

`TopUp` awaits; what stands below it reads and writes files, or is pure.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path

import anyio

from harvester import events
from harvester.campaign.context import RunContext
from harvester.campaign.moments import Moments
from harvester.campaign.walk import Walk, Walker
from harvester.disk.compress import Codec
from harvester.disk.part import Damaged, PartFile
from harvester.disk.saved_walk import Base, SavedWalk
from harvester.disk.storage import storage
from harvester.errors import CampaignError
from harvester.model import Position, Request
from harvester.runtime import stamp

_MAX_REWALKS = 2  # how often a walk is made again in the hope that nothing moves under it
_WORTH_ANOTHER_WALK = 20  # pages
_MEMBER = 500  # rows in one compressed member, as on a page
_CHUNK = 1 << 20


class FilterForgotten(Exception):
    """The cursor dropped `created_since`, in a report that begins with its oldest events: what the
    first page had comes again at the end. Only a walk without the filter can tell what is new."""


@dataclass(slots=True)
class HighWaterMark:
    """The latest moment that is stored (None: nothing is), and the rows that stand there.

    Rows without a time count as standing there: all that can be done is to compare them.
    """

    latest: datetime | None = None
    earliest: datetime | None = None
    rows: Counter[bytes] = field(default_factory=Counter)
    _undated: Counter[bytes] = field(default_factory=Counter)

    def add(self, row: bytes, moment: datetime | None) -> None:
        """Take one stored row into account."""
        if moment is None:
            self._undated[row] += 1
            return
        if self.earliest is None or moment < self.earliest:
            self.earliest = moment
        if self.latest is None or moment > self.latest:
            self.latest, self.rows = moment, Counter({row: 1})
        elif moment == self.latest:
            self.rows[row] += 1

    def left(self) -> Counter[bytes]:
        """Rows that will come again, with how often."""
        return self.rows + self._undated


@dataclass(frozen=True, slots=True)
class Grown:
    """The new file: so many rows more, its size (bytes) and SHA-256."""

    added: int
    size: int
    digest: bytes


class TopUp:
    """Tops up any number of campaigns; shared by all workers."""

    def __init__(self, context: RunContext, walker: Walker) -> None:
        self._context = context
        self._walker = walker

    async def walk(self, walk: Walk, base: Base) -> SavedWalk | None:
        """Walk what is new and write the grown file; give the walk as it is finished then.

        None if there is nothing new and all stays as it was. Raise `CampaignError`
        ("damaged_file") if the finished file is not what was finished.
        """
        stored = await self._read_base(walk, base)
        await self._walker.walk(walk)
        rewalks = _MAX_REWALKS
        while True:
            counts = [page.rows for page in self._context.store.pages(walk.saved)]
            shifted = len(counts) > 1 and await self._is_shifted(walk, counts[0])
            if shifted and rewalks and len(counts) <= _WORTH_ANOTHER_WALK:
                rewalks -= 1
            else:
                try:
                    grown = await self._grow(walk, stored, counts, shifted=shifted)
                    break
                except FilterForgotten:
                    walk.unfiltered = True
            await self._walker.walk_anew(walk)
        if grown is None:
            self._cancel(walk, base)
            return None
        at = Position(None, base.pages + walk.position.pages, base.rows + grown.added, grown.size)
        return replace(walk.saved, position=at, digest=grown.digest)

    async def _read_base(self, walk: Walk, base: Base) -> HighWaterMark:
        """Find out where the finished file ends in time."""
        context, report = self._context, walk.target.report
        final = context.layout.final(walk.target)
        time_field = context.api.reports[report].time_field
        try:
            stored = await anyio.to_thread.run_sync(
                read_boundary, final, base, context.codec, time_field
            )
        except Damaged as damage:
            raise CampaignError("damaged_file", f"{damage}: it cannot be topped up") from None
        walk.since = stored.latest
        if stored.earliest is not None and stored.latest is not None:
            first, last = stamp(stored.earliest), stamp(stored.latest)
            walk.saved = replace(walk.saved, first_event=first, last_event=last)
        return stored

    async def _grow(
        self, walk: Walk, stored: HighWaterMark, counts: list[int], *, shifted: bool
    ) -> Grown | None:
        context, target = self._context, walk.target
        return await anyio.to_thread.run_sync(
            partial(
                grow,
                context.layout.final(target),
                context.layout.part(target),
                context.layout.grown(target),
                codec=context.codec,
                date_field=context.api.reports[target.report].time_field,
                stored=stored,
                page_rows=counts,
                shifted=shifted,
                filtered=not walk.unfiltered,
            )
        )

    async def _is_shifted(self, walk: Walk, rows: int) -> bool:
        """Whether the first page is another one by now: then rows came twice at page ends."""
        context, first = self._context, self._walker.first_link(walk)
        read = partial(context.api.read_page, walk.target, first)
        again = await context.fetcher.fetch(Request(walk.target, first, read))
        with context.codec.open(context.layout.part(walk.target)) as lines:
            return b"".join(islice(lines, rows)) != again.ndjson

    def _cancel(self, walk: Walk, base: Base) -> None:
        walk.saved = self._context.store.cancel_top_up(walk.saved, base)
        with storage(walk.part.path):
            walk.part.path.unlink()
        self._context.emit(events.CampaignSkipped(walk.target, "complete"))


# -- files -----------------------------------------------------------------------------------------


def read_boundary(final: Path, base: Base, codec: Codec, date_field: str) -> HighWaterMark:
    """Where the finished file ends in time. Raise `Damaged` if it is not the file we finished."""
    with storage(final):
        if not final.exists():
            raise Damaged("the finished file is gone")
        with final.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != base.digest:
                raise Damaged("the finished file was changed")
        with codec.open(final) as lines:
            return boundary(lines, date_field)


def grow(
    final: Path,
    part: Path,
    grown: Path,
    *,
    codec: Codec,
    date_field: str,
    stored: HighWaterMark,
    page_rows: Sequence[int],
    shifted: bool,
    filtered: bool = True,
) -> Grown | None:
    """Write `grown`: all of `final`, then the rows of `part` that are new; None if there are none.

    `page_rows` are the rows of each page in `part`; `shifted` says that events arrived while they
    were read, `filtered` that only those since the boundary were asked for.
    """
    with storage(part), codec.open(part) as lines:
        each = pages(lines, page_rows)
        each = without_overlaps(each) if shifted else each
        new = additions(each, stored, date_field, filtered=filtered)
        first = next(new, None)
        return None if first is None else _write(final, grown, codec, first, new)


def _write(final: Path, grown: Path, codec: Codec, first: bytes, rest: Iterator[bytes]) -> Grown:
    added = 0
    grown.unlink(missing_ok=True)
    file = PartFile(grown)
    try:
        with final.open("rb") as old:
            while chunk := old.read(_CHUNK):
                file.append(chunk)
        for rows in _members(first, rest):
            added += len(rows)
            file.append(codec.encode(b"\n".join(rows) + b"\n"))
        file.sync()
        return Grown(added, file.offset, file.digest())
    finally:
        file.close()


def _members(first: bytes, rest: Iterator[bytes]) -> Iterator[list[bytes]]:
    rows = [first, *islice(rest, _MEMBER - 1)]
    while rows:
        yield rows
        rows = list(islice(rest, _MEMBER))


# -- rows ------------------------------------------------------------------------------------------


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
