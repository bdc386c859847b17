"""Where every walk stands, in one SQLite file: the truth that a resume starts from.

What a walk does often is saved together with what others did in the same turn of the event loop
(`GroupCommit`): it needs a running loop, and whoever must not go on before it is saved awaits it.
Everything else is committed when the call returns.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harvester.disk.group_commit import GroupCommit, Syncable
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import PartFile
from harvester.errors import ConfigError
from harvester.model import Position, Target
from harvester.runtime import Clock

FORMAT = 2
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE walks (
    id INTEGER PRIMARY KEY,
    report TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    run INTEGER NOT NULL,              -- the last run that was asked for it
    state TEXT NOT NULL DEFAULT 'new', -- new, partial, finishing, complete, failed
    next TEXT,                         -- the link to ask next, never with a secret
    pages INTEGER NOT NULL DEFAULT 0,
    rows INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,  -- up to here the part file is good
    digest BLOB,                       -- SHA-256 of those bytes
    restarts INTEGER NOT NULL DEFAULT 0,
    kind TEXT,                         -- why it failed
    started_at TEXT,
    completed_at TEXT,
    findings TEXT,                     -- JSON for the manifest: how the API's own counts compare
    base_pages INTEGER,                -- the finished file that a top-up is to grow; all NULL else
    base_rows INTEGER,
    base_bytes INTEGER,
    base_digest BLOB,
    round INTEGER NOT NULL DEFAULT 0,  -- the last round of top-ups that it is up to date with
    UNIQUE (report, campaign_id)
);
CREATE INDEX walks_by_run ON walks (run, campaign_id);
CREATE TABLE pages (                   -- of walks under way
    walk INTEGER,
    page INTEGER,
    rows INTEGER NOT NULL,
    cursor INTEGER,                    -- digest of the link it led to; NULL: the end
    PRIMARY KEY (walk, page)
) WITHOUT ROWID;
"""
_FROM_FORMAT_1 = "ALTER TABLE walks ADD COLUMN round INTEGER NOT NULL DEFAULT 0"
CAMPAIGNS_BY_STATE = """
SELECT state, count(*) FROM (
    SELECT CASE
        WHEN sum(state = 'failed') THEN 'failed'
        WHEN sum(state != 'complete') = 0 THEN 'complete'
        WHEN sum(pages) + sum(base_pages IS NOT NULL) THEN 'partial'
        ELSE 'pending'
    END AS state FROM walks WHERE {} GROUP BY campaign_id
) GROUP BY state
"""
_FORGET_PAGES = "DELETE FROM pages WHERE walk = ?"
_RECORD = (
    "id, report, campaign_id, state, next, pages, rows, bytes, digest, restarts, kind, "
    "started_at, completed_at, findings, round, base_pages, base_rows, base_bytes, base_digest"
)


@dataclass(frozen=True, slots=True)
class SavedWalk:
    """One walk as it was saved."""

    walk: int
    target: Target
    state: str
    position: Position
    digest: bytes
    restarts: int
    kind: str | None
    started_at: str | None
    completed_at: str | None
    findings: str | None
    round: int
    base: "Base | None"


@dataclass(frozen=True, slots=True)
class Base:
    """The finished file that a top-up is to grow."""

    pages: int
    rows: int
    size: int
    digest: bytes


class CheckpointStore:
    """The state of one output directory. Opened for writing by the run that holds the lock."""

    def __init__(self, path: Path, *, sync_every: float = 0.0, clock: Clock | None = None) -> None:
        self.path = path
        self.run = self.round = 0
        self._group = GroupCommit(path, sync_every=sync_every, clock=clock or Clock())
        try:
            self._create()
        except BaseException:
            self._group.close()
            raise

    def _create(self) -> None:
        ((version,),) = self._group.read("PRAGMA user_version")
        if version == 0:
            statements = [(statement, ()) for statement in _SCHEMA.split(";\n")]
            self._apply(*statements, (f"PRAGMA user_version = {FORMAT}", ()))
        elif version == 1:
            self._apply((_FROM_FORMAT_1, ()), (f"PRAGMA user_version = {FORMAT}", ()))
        elif version != FORMAT:
            raise ConfigError(
                f"{self.path} has format {version}, this version of harvester knows {FORMAT}: "
                "use the version that wrote it, or --fresh"
            )

    # -- one run -------------------------------------------------------------------------------

    def settings(self) -> dict[str, str]:
        """What the directory was harvested with; empty in a new one."""
        return dict(self._group.read("SELECT name, value FROM settings"))

    def begin_run(self, settings: dict[str, str], *, tops_up: bool = False) -> None:
        """Remember the settings, and count this run.

        Where finished files are to grow (`tops_up`), it goes on with the round of top-ups that was
        begun and not ended, or begins another.
        """
        before = self.settings()
        self.run = int(before.get("run", 0)) + 1
        self.round = int(before.get("round", 0))
        values = {**settings, "run": str(self.run)}
        if tops_up:
            self.round += before.get("round_under_way") != "yes"
            values |= {"round": str(self.round), "round_under_way": "yes"}
        self._apply(*(("REPLACE INTO settings VALUES (?, ?)", pair) for pair in values.items()))

    def end_round(self) -> None:
        """Every campaign was topped up, or failed: the next top-up begins a new round."""
        self._apply(("REPLACE INTO settings VALUES ('round_under_way', 'no')", ()))

    def take(self, target: Target) -> SavedWalk | None:
        """The walk of `target`, new or as it was left; None if this run has had it already."""
        rows = self._group.change(
            "INSERT INTO walks (report, campaign_id, run) VALUES (?, ?, ?) "
            "ON CONFLICT (report, campaign_id) DO UPDATE SET run = excluded.run "
            "WHERE walks.run < excluded.run "
            f"RETURNING {_RECORD}",
            (target.report, target.campaign_id, self.run),
        )
        self._group.commit_soon()
        return _record(rows[0]) if rows else None

    def cursors(self, walk: int) -> set[int]:
        """The digests of every link that the walk was led to."""
        rows = self._group.read(
            "SELECT cursor FROM pages WHERE walk = ? AND cursor IS NOT NULL", (walk,)
        )
        return {cursor for (cursor,) in rows}

    def page_rows(self, walk: int) -> list[int]:
        """The rows of each page of a walk under way, in order."""
        rows = self._group.read("SELECT rows FROM pages WHERE walk = ? ORDER BY page", (walk,))
        return [count for (count,) in rows]

    def counts(self) -> dict[str, int]:
        """How many campaigns of this run are complete, failed, partial or pending.

        With several reports, a campaign is what the worst of its walks is.
        """
        return dict(self._group.read(CAMPAIGNS_BY_STATE.format("run = ?"), (self.run,)))

    # -- one walk ------------------------------------------------------------------------------

    async def commit(
        self,
        walk: int,
        position: Position,
        rows: int,
        cursor: int | None,
        part: PartFile,
        *,
        started_at: str | None,
    ) -> None:
        """Save the position of a walk after a page of `rows` that stands in `part` already."""
        self._group.sync_before_commit(part)
        self._group.change(
            "UPDATE walks SET state = 'partial', kind = NULL, next = ?, pages = ?, rows = ?, "
            "bytes = ?, digest = ?, started_at = ? WHERE id = ?",
            (*_columns(position), part.digest(), started_at, walk),
        )
        self._group.change(
            "INSERT INTO pages VALUES (?, ?, ?, ?)", (walk, position.pages, rows, cursor)
        )
        await self._group.committed()

    def call_after_commit(self, then: Callable[[], None]) -> None:
        """Call `then` once all that is saved by the end of this turn stands, or failed to."""
        self._group.call_after_commit(then)

    def save(self) -> None:
        """Commit at once what is waiting to be."""
        self._group.commit()

    def restart(self, walk: int, *, restarts: int) -> None:
        """Forget the position: the walk starts over at its first page."""
        self._apply(
            (
                "UPDATE walks SET state = 'new', next = NULL, pages = 0, rows = 0, bytes = 0, "
                "digest = NULL, restarts = ? WHERE id = ?",
                (restarts, walk),
            ),
            (_FORGET_PAGES, (walk,)),
        )

    def fail(self, walk: int, kind: str) -> None:
        """The walk is over for this run; its position stays for the next try."""
        self._apply(("UPDATE walks SET state = 'failed', kind = ? WHERE id = ?", (kind, walk)))

    async def finishing(self, record: SavedWalk) -> None:
        """Every row is in a synced file: from here on only renaming and the manifest remain."""
        self._group.change(
            "UPDATE walks SET state = 'finishing', kind = NULL, next = ?, pages = ?, rows = ?, "
            "bytes = ?, digest = ?, started_at = ?, completed_at = ?, findings = ? "
            "WHERE id = ?",
            (
                *_columns(record.position),
                record.digest,
                record.started_at,
                record.completed_at,
                record.findings,
                record.walk,
            ),
        )
        self._group.change(_FORGET_PAGES, (record.walk,))
        await self._group.committed()

    def complete(self, walk: int, folder: Syncable, manifest: NdjsonLog) -> None:
        """The final name stands in its folder, and the manifest has its line.

        Saved soon, with others: until then a kill has it done again.
        """
        self._group.sync_before_commit(folder, manifest)
        self._group.change(
            "UPDATE walks SET state = 'complete', round = ?, base_pages = NULL, "
            "base_rows = NULL, base_bytes = NULL, base_digest = NULL WHERE id = ?",
            (self.round, walk),
        )
        self._group.change("REPLACE INTO settings VALUES ('manifest', ?)", (str(manifest.size),))
        self._group.commit_soon()

    def begin_top_up(self, record: SavedWalk) -> SavedWalk:
        """A finished file is to grow: keep what it is, and walk again from the first page."""
        self._apply(
            (
                "UPDATE walks SET state = 'new', next = NULL, pages = 0, rows = 0, bytes = 0, "
                "digest = NULL, restarts = 0, base_pages = pages, base_rows = rows, "
                "base_bytes = bytes, base_digest = digest WHERE id = ?",
                (record.walk,),
            ),
        )
        at = record.position
        base = Base(at.pages, at.rows, at.offset, record.digest)
        return replace(record, state="new", position=Position(), digest=b"", base=base)

    def begin_again(self, record: SavedWalk) -> SavedWalk:
        """A finished file is gone or damaged: the campaign is walked from its first page."""
        self.restart(record.walk, restarts=0)
        return replace(record, state="new", position=Position(), digest=b"", restarts=0)

    def cancel_top_up(self, walk: int) -> None:
        """A top-up found nothing new: the finished file stays what it is."""
        self._apply(
            (
                "UPDATE walks SET state = 'complete', round = ?, next = NULL, pages = base_pages, "
                "rows = base_rows, bytes = base_bytes, digest = base_digest, base_pages = NULL, "
                "base_rows = NULL, base_bytes = NULL, base_digest = NULL WHERE id = ?",
                (self.round, walk),
            ),
            (_FORGET_PAGES, (walk,)),
        )

    def manifest_bytes(self) -> int:
        """How much of the manifest is acknowledged; what is beyond was cut off by a kill."""
        return int(self.settings().get("manifest", 0))

    def finishing_walks(self) -> list[SavedWalk]:
        """The walks that a kill caught between their last page and their manifest line."""
        rows = self._group.read(
            f"SELECT {_RECORD} FROM walks WHERE state = 'finishing' ORDER BY id"
        )
        return [_record(row) for row in rows]

    def complete_walks(self) -> Iterator[SavedWalk]:
        """The walks whose file is finished and acknowledged, read a thousand at a time."""
        query = f"SELECT {_RECORD} FROM walks WHERE state = 'complete' AND id > ? ORDER BY id"
        after = 0
        while rows := self._group.read(f"{query} LIMIT 1000", (after,)):
            yield from map(_record, rows)
            after = rows[-1][0]

    def sync_before_commit(self, part: PartFile) -> None:
        """A part was found that an earlier run may have left unsynced."""
        self._group.sync_before_commit(part)

    def is_synced(self, part: PartFile) -> bool:
        """Whether the disk has all that commits told of a part."""
        return not self._group.awaits_sync(part)

    def discard_pending_sync(self, part: PartFile) -> None:
        """Somebody else has synced it, or tried to: a failed sync is final."""
        self._group.discard_pending_sync(part)

    def sync_and_release(self, part: PartFile) -> None:
        """A part is about to be closed: sync it now, unless it is."""
        if not self.is_synced(part):
            part.sync()
        self._group.discard_pending_sync(part)

    def sync(self) -> None:
        """Make everything durable that was committed."""
        self._group.sync()

    def close(self) -> None:
        """Give the file back."""
        self._group.close()

    def _apply(self, *statements: tuple[str, Sequence[object]]) -> None:
        """Make changes, and commit them at once."""
        for statement, values in statements:
            self._group.change(statement, values)
        self._group.commit()


def _columns(position: Position) -> tuple[str | None, int, int, int]:
    return position.next, position.pages, position.rows, position.offset


def _record(row: tuple[Any, ...]) -> SavedWalk:
    walk, report, campaign_id, state, next_, pages, rows, size, digest, *rest = row
    restarts, kind, started_at, completed_at, findings, round_, *base = rest
    return SavedWalk(
        walk,
        Target(report, campaign_id),
        state,
        Position(next_, pages, rows, size),
        digest or b"",
        restarts,
        kind,
        started_at,
        completed_at,
        findings,
        round_,
        Base(*base) if base[0] is not None else None,
    )
