"""A walk as the state keeps it: a frozen value, a row of a table, and the checksum of that row."""

import zlib
from collections.abc import Iterator
from struct import Struct as Packing
from typing import Any

from msgspec import Struct, field, msgpack

from harvester.model import Page, Position, Target

STEERING = (
    "run", "state", "next", "pages", "rows", "bytes", "digest", "restarts", "kind", "started_at",
    "completed_at", "findings", "first_event", "last_event", "round",
    "base_pages", "base_rows", "base_bytes", "base_digest", "counted", "edge", "recent",
)  # fmt: skip
"""The columns that a run follows. A checksum is over the target and these."""

PAGES_IN_PACK = 16
"""A page is saved in the row of its walk; only so many together get a row of their own."""
_PACKED = Packing("<Iq")
_in_bytes = msgpack.Encoder().encode
_NAMES = ", ".join(STEERING)
SELECT = f"SELECT checksum, id, report, campaign_id, {_NAMES} FROM walks"
INSERT = (
    f"INSERT INTO walks (checksum, report, campaign_id, {_NAMES}) "
    f"VALUES (?, ?, ?{', ?' * len(STEERING)}) RETURNING id"
)
UPDATE = (
    f"UPDATE walks SET checksum = ?, {', '.join(f'{name} = ?' for name in STEERING)} WHERE id = ?"
)


class SavedPage(Struct, frozen=True):
    """A page of a walk under way: its rows, and the digest of the link it led to (0: the end)."""

    rows: int
    cursor: int


class Base(Struct, frozen=True):
    """The finished file that a top-up is to grow: its pages, rows, size (bytes) and SHA-256."""

    pages: int
    rows: int
    size: int
    digest: bytes


class SavedWalk(Struct, frozen=True, kw_only=True):
    """One walk as it was saved.

    `run` is the last run that was asked for it. `state` is new, partial, finishing, complete or
    failed; "damaged" where the checksum of the row is wrong. `digest` is the SHA-256 of the file up
    to the position, `kind` why the walk failed, `findings` JSON for the manifest, `round` the last
    round of top-ups that it was part of, `first_event` and `last_event` (ISO-8601) the earliest and
    the latest event at a page's edge, `counted` the API's count of the report when it was walked.

    Of a walk under way, `edge` is what the look at the next page's edge needs of the last one
    (`campaign.edges`), `recent` the latest pages, packed.
    """

    id: int
    target: Target
    run: int = 0
    state: str = "new"
    position: Position = field(default_factory=Position)
    digest: bytes = b""
    restarts: int = 0
    kind: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    findings: str | None = None
    first_event: str | None = None
    last_event: str | None = None
    round: int = 0
    base: Base | None = None
    counted: str | None = None
    edge: str | None = None
    recent: bytes = b""

    def has_pack(self) -> bool:
        """Whether the latest pages fill a pack: the next page begins another."""
        return len(self.recent) == PAGES_IN_PACK * _PACKED.size

    def recent_with(self, page: Page) -> bytes:
        """The latest pages once `page` is one of them."""
        before = b"" if self.has_pack() else self.recent
        return before + packed(page.rows, page.cursor)


def to_row(walk: SavedWalk) -> tuple[Any, ...]:
    """The values of the `STEERING` columns."""
    at, base = walk.position, walk.base
    return (
        walk.run, walk.state, at.next, at.pages, at.rows, at.offset, walk.digest, walk.restarts,
        walk.kind, walk.started_at, walk.completed_at, walk.findings, walk.first_event,
        walk.last_event, walk.round,
        *((base.pages, base.rows, base.size, base.digest) if base else (None,) * 4),
        walk.counted, walk.edge, walk.recent,
    )  # fmt: skip


def from_row(row: tuple[Any, ...]) -> SavedWalk:
    """The walk of a row: checksum, id, report, campaign id, then the `STEERING` columns."""
    stored, walk, report, campaign_id, *values = row
    target = Target(report, campaign_id)
    if checksum(report, campaign_id, *values) != stored:
        return SavedWalk(id=walk, target=target, state="damaged")
    run, state, next_, pages, rows, size, digest, restarts, kind, started_at, *values = values
    completed_at, findings, first_event, last_event, round_, *base, counted, edge, recent = values
    return SavedWalk(
        id=walk,
        target=target,
        run=run,
        state=state,
        position=Position(next_, pages, rows, size),
        digest=digest or b"",
        restarts=restarts,
        kind=kind,
        started_at=started_at,
        completed_at=completed_at,
        findings=findings,
        first_event=first_event,
        last_event=last_event,
        round=round_,
        base=Base(*base) if base[0] is not None else None,
        counted=counted,
        edge=edge,
        recent=recent or b"",
    )


def packed(rows: int, cursor: int | None) -> bytes:
    """A page in twelve bytes."""
    return _PACKED.pack(rows, cursor or 0)


def unpacked(pages: bytes) -> Iterator[SavedPage]:
    """The pages that were packed one after the other."""
    return (SavedPage(*each) for each in _PACKED.iter_unpack(pages))


def checksum(*values: object) -> int:
    """Of the values of a row. It finds what rots, not what is forged."""
    try:
        return zlib.crc32(_in_bytes(values))
    except UnicodeEncodeError:  # a text that is damaged
        return -1


def checksum_before_6(*values: object) -> int:
    """As the formats before 6 had it: over the repr, which takes longer."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogateescape"))
