"""The tables of the state, and the way to them from older formats.

A campaign that is asked for is a row of `walks` for each report. Each row has a checksum over all
else that is in it, computed by `saved_walk.checksum`.
"""

from collections.abc import Iterator
from pathlib import Path

from harvester.disk.saved_walk import STEERING
from harvester.errors import ConfigError

FORMAT = 4
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER) WITHOUT ROWID;
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
    base_pages INTEGER,                -- the finished file that a top-up is to grow, or all NULL
    base_rows INTEGER,
    base_bytes INTEGER,
    base_digest BLOB,
    round INTEGER NOT NULL DEFAULT 0,  -- the last round of top-ups that it is up to date with
    first_event TEXT,
    last_event TEXT,
    activities TEXT,                   -- ids in the campaign's order, with commas between them
    checksum INTEGER,
    UNIQUE (report, campaign_id)
);
CREATE INDEX walks_by_run ON walks (run, campaign_id);
CREATE TABLE pages (                   -- of walks under way
    walk INTEGER,
    page INTEGER,
    rows INTEGER NOT NULL,
    cursor INTEGER,                    -- digest of the link it led to; NULL: the end
    checksum INTEGER,
    PRIMARY KEY (walk, page)
) WITHOUT ROWID;
"""
_FROM_1 = ("ALTER TABLE walks ADD COLUMN round INTEGER NOT NULL DEFAULT 0",)
_FROM_2 = (
    *(f"ALTER TABLE walks ADD COLUMN {name} TEXT" for name in ("first_event", "last_event")),
    *(f"ALTER TABLE {name} ADD COLUMN checksum INTEGER" for name in ("walks", "pages", "settings")),
    f"UPDATE walks SET checksum = checksum(report, campaign_id, {', '.join(STEERING)})",
    "UPDATE pages SET checksum = checksum(walk, page, rows, cursor)",
    "UPDATE settings SET checksum = checksum(name, value)",
)
_ADD_ACTIVITIES = "ALTER TABLE walks ADD COLUMN activities TEXT"
_BEFORE_4 = ", ".join(name for name in STEERING if name != "activities")
_FROM_3 = (
    _ADD_ACTIVITIES,
    # A row that was damaged stays so.
    f"UPDATE walks SET checksum = checksum(report, campaign_id, {', '.join(STEERING)}) "
    f"WHERE checksum = checksum(report, campaign_id, {_BEFORE_4})",
)


def steps_from(version: int, path: Path) -> Iterator[str]:
    """The statements that bring a state of this format (0: a new file) to `FORMAT`.

    Raise `ConfigError` if it is of a later one. They call the SQL function `checksum`.
    """
    if version not in range(FORMAT + 1):
        raise ConfigError(
            f"{path} has format {version}, this version of harvester knows {FORMAT}: "
            "use the version that wrote it, or --fresh"
        )
    if version == FORMAT:
        return
    if version == 0:
        yield from _SCHEMA.split(";\n")
    elif version == 3:
        yield from _FROM_3
    else:
        yield from (*(_FROM_1 if version == 1 else ()), _ADD_ACTIVITIES, *_FROM_2)
    yield f"PRAGMA user_version = {FORMAT}"
