"""A finished file and the pages of a top-up, made into the file that takes its place."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from harvester.campaign.topup import HighWaterMark, additions, boundary, pages, without_overlaps
from harvester.disk.checkpoint import Base
from harvester.disk.compress import Codec
from harvester.disk.part import Damaged, PartFile
from harvester.disk.storage import storage

_MEMBER = 500  # rows in one compressed member, as on a page
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Grown:
    """The new file: so many rows more, its size (bytes) and SHA-256."""

    added: int
    size: int
    digest: bytes


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


def _members(first: bytes, rest: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(rest)
    rows = [first, *islice(rest, _MEMBER - 1)]
    while rows:
        yield rows
        rows = list(islice(rest, _MEMBER))
