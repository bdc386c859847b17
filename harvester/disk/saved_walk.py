"""A walk as the state keeps it: a frozen value, a row of a table, and the checksum of that row."""

import zlib
from typing import Any, NamedTuple

from msgspec import Struct, field

from harvester.model import Position, Target

STEERING = (
    "run", "state", "next", "pages", "rows", "bytes", "digest", "restarts", "kind", "started_at",
    "completed_at", "findings", "first_event", "last_event", "round",
    "base_pages", "base_rows", "base_bytes", "base_digest", "counted",
)  # fmt: skip
"""The columns that a run follows. A checksum is over the target and these."""


_NAMES = ", ".join(STEERING)
SELECT = f"SELECT checksum, id, report, campaign_id, {_NAMES} FROM walks"
INSERT = (
    f"INSERT INTO walks (checksum, report, campaign_id, {_NAMES}) "
    f"VALUES (?, ?, ?{', ?' * len(STEERING)}) RETURNING id"
)
UPDATE = (
    f"UPDATE walks SET checksum = ?, {', '.join(f'{name} = ?' for name in STEERING)} WHERE id = ?"
)


class SavedPage(NamedTuple):
    """A page of a walk under way: its rows, the digest of the link it led to, and what the look at
    the next page's edge needs of it (`campaign.edges`)."""

    rows: int
    cursor: int | None
    edge: str | None = None


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


def to_row(walk: SavedWalk) -> tuple[Any, ...]:
    """The values of the `STEERING` columns."""
    at, base = walk.position, walk.base
    return (
        walk.run, walk.state, at.next, at.pages, at.rows, at.offset, walk.digest, walk.restarts,
        walk.kind, walk.started_at, walk.completed_at, walk.findings, walk.first_event,
        walk.last_event, walk.round,
        *((base.pages, base.rows, base.size, base.digest) if base else (None,) * 4),
        walk.counted,
    )  # fmt: skip


def from_row(row: tuple[Any, ...]) -> SavedWalk:
    """The walk of a row: checksum, id, report, campaign id, then the `STEERING` columns."""
    stored, walk, report, campaign_id, *values = row
    target = Target(report, campaign_id)
    if checksum(report, campaign_id, *values) != stored:
        return SavedWalk(id=walk, target=target, state="damaged")
    run, state, next_, pages, rows, size, digest, restarts, kind, started_at, *values = values
    completed_at, findings, first_event, last_event, round_, *base, counted = values
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
    )


def checksum(*values: object) -> int:
    """Of the values of a row. It finds what rots, not what is forged."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogateescape"))
