"""The file that a top-up makes of a finished file and the pages that came; pure, but for files."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby, islice
from pathlib import Path

from msgspec import Struct, field

from harvester.campaign.rows import Row, RowReader
from harvester.disk.compress import Codec
from harvester.disk.part import Damaged, PartFile
from harvester.disk.saved_walk import Base
from harvester.disk.storage import storage

_MEMBER = 500  # rows in one compressed member, as on a page
_CHUNK = 1 << 20


class FilterForgotten(Exception):
    """The cursor dropped `created_since`, in a report that begins with its oldest events: what the
    first page had comes again at the end. Only a walk without the filter can tell what is new."""


class RowsGone(Exception):
    """The API no longer has rows that are stored."""


class HighWaterMark(Struct):
    """The latest moment that is stored (None: nothing is), and the rows that stand there.

    Rows without a time count as standing there: all that can be done is to compare them.
    """

    latest: datetime | None = None
    earliest: datetime | None = None
    rows: Counter[Row] = field(default_factory=Counter)
    _undated: Counter[Row] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Take one stored row into account."""
        moment = row.moment
        if moment is None:
            self._undated[row] += 1
            return
        if self.earliest is None or moment < self.earliest:
            self.earliest = moment
        if self.latest is None or moment > self.latest:
            self.latest, self.rows = moment, Counter({row: 1})
        elif moment == self.latest:
            self.rows[row] += 1

    def left(self) -> Counter[Row]:
        """Rows that will come again, with how often."""
        return self.rows + self._undated


Marks = Mapping[str, HighWaterMark]
"""The mark of each activity that has stored rows, by its id ("" in v2)."""


class Grown(Struct, frozen=True):
    """The new file: so many rows more, its size (bytes) and SHA-256."""

    added: int
    size: int
    digest: bytes


# -- files -----------------------------------------------------------------------------------------


def read_marks(final: Path, base: Base, codec: Codec, read: RowReader) -> Marks:
    """Where the finished file ends in time. Raise `Damaged` if it is not the file we finished."""
    with storage(final):
        if not final.exists():
            raise Damaged("the finished file is gone")
        with final.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != base.digest:
                raise Damaged("the finished file was changed")
        with codec.open(final) as lines:
            return marks_of(lines, read)


def grow(
    final: Path,
    part: Path,
    grown: Path,
    *,
    codec: Codec,
    read: RowReader,
    marks: Marks,
    page_rows: Sequence[int] = (),
    filtered: bool = True,
    order: Sequence[str] | None = None,
) -> Grown | None:
    """Write `grown`: all of `final` and the rows of `part` that are new; None if there are none.

    With `order`, the activities of the campaign, the new rows of each stand before its stored ones;
    without it they follow all stored rows. `page_rows` are the rows of each page in `part`;
    `filtered` says that only those since the mark were asked for. Raise `FilterForgotten` or
    `RowsGone`.
    """

    def new(lines: Iterable[bytes]) -> Iterator[bytes]:
        if order is not None:
            return (line for _, some in news(lines, marks, read, order) for line in some)
        mark = marks.get("", HighWaterMark())
        return additions(pages(iter(lines), page_rows), mark, read, filtered=filtered)

    with storage(part), codec.open(part) as lines:
        added = sum(1 for _ in new(lines))
    if not added:
        return None
    with storage(part), codec.open(part) as lines, codec.open(final) as stored:
        if order is None:
            head, rows = final, new(lines)
        else:
            head, rows = None, merged(news(lines, marks, read, order), stored, read)
        size, digest = _write(grown, codec, head, rows)
    return Grown(added, size, digest)


def _write(
    grown: Path, codec: Codec, head: Path | None, rows: Iterator[bytes]
) -> tuple[int, bytes]:
    grown.unlink(missing_ok=True)
    file = PartFile(grown)
    try:
        if head is not None:
            with head.open("rb") as old:
                while chunk := old.read(_CHUNK):
                    file.append(chunk)
        while some := list(islice(rows, _MEMBER)):
            file.append(codec.encode(b"\n".join(some) + b"\n"))
        file.sync()
        return file.offset, file.digest()
    finally:
        file.close()


# -- rows ------------------------------------------------------------------------------------------


def marks_of(lines: Iterable[bytes], read: RowReader) -> Marks:
    """Where each activity of a finished file ends in time. `lines` are its records."""
    found: dict[str, HighWaterMark] = {}
    for line in lines:
        row = read(line.rstrip(b"\n"))
        found.setdefault(row.activity, HighWaterMark()).add(row)
    return found


def pages(lines: Iterator[bytes], counts: Sequence[int]) -> Iterator[list[bytes]]:
    """The records of a part file, page by page as they came."""
    for count in counts:
        yield [line.rstrip(b"\n") for line in islice(lines, count)]


def additions(
    each: Iterable[list[bytes]], stored: HighWaterMark, read: RowReader, *, filtered: bool = True
) -> Iterator[bytes]:
    """The rows that are not stored yet, in the order they came.

    `filtered` says that the first page was asked for with `created_since`. Raises
    `FilterForgotten`: in a list that runs up, a later page that steps back is not filtered.
    """
    left = stored.left()
    rising, last = False, None
    for number, page in enumerate(each):
        found = [read(line) for line in page]
        moments = [row.moment for row in found]
        older = [_is_before(moment, stored.latest) for moment in moments]
        if page and number == 0:
            rising = filtered and not any(older) and _is_before(moments[0], moments[-1])
        if page and rising and _is_before(moments[0], last):
            raise FilterForgotten
        last = moments[-1] if page else last
        for line, row, is_old in zip(page, found, older, strict=True):
            if is_old:
                continue  # the filter is gone: an old row, stored long ago
            if left[row]:
                left[row] -= 1
                continue
            yield line


class _Groups:
    """The rows of a file, activity by activity in the order in which they stand there."""

    def __init__(self, lines: Iterable[bytes], read: RowReader) -> None:
        plain = (line.rstrip(b"\n") for line in lines)
        self._groups = groupby(plain, key=lambda line: read(line).activity)
        self._next = next(self._groups, None)

    def of(self, activity: str) -> Iterator[bytes]:
        """The rows of an activity, if it is the next one in the file."""
        if self._next is not None and self._next[0] == activity:
            yield from self._next[1]
            self._next = next(self._groups, None)

    def end(self) -> None:
        """Raise `RowsGone` if activities are left: they stand in another order now."""
        if self._next is not None:
            raise RowsGone


_News = Iterator[tuple[str, Iterator[bytes]]]


def news(lines: Iterable[bytes], marks: Marks, read: RowReader, order: Sequence[str]) -> _News:
    """The new rows of each activity, in order. Raise `RowsGone` where stored rows did not come."""
    groups = _Groups(lines, read)
    if not set(marks) <= set(order):
        raise RowsGone
    for activity in order:
        yield activity, _beyond(groups.of(activity), marks.get(activity, HighWaterMark()), read)
    groups.end()


def _beyond(lines: Iterator[bytes], mark: HighWaterMark, read: RowReader) -> Iterator[bytes]:
    left = mark.left()
    for line in lines:
        row = read(line)
        if left[row]:
            left[row] -= 1
        elif not _is_before(row.moment, mark.latest):
            yield line
    if any(left[row] for row in mark.rows):
        raise RowsGone


def merged(new: _News, stored: Iterable[bytes], read: RowReader) -> Iterator[bytes]:
    """The rows of a campaign: of each activity what is new, then what is stored."""
    groups = _Groups(stored, read)
    for activity, lines in new:
        yield from lines
        yield from groups.of(activity)
    groups.end()


def _is_before(moment: datetime | None, other: datetime | None) -> bool:
    return moment is not None and other is not None and moment < other
