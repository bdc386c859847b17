"""The tables of the state, and the way to them from older formats.

A campaign that is asked for is a row of `walks` for each report, and one of `campaigns` for what
the API says of it. Each row has a checksum over all else that is in it, computed by
`saved_walk.checksum`.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from harvester.disk import saved_campaign
from harvester.disk.saved_walk import STEERING
from harvester.errors import ConfigError

FORMAT = 6
_CAMPAIGNS = """
CREATE TABLE campaigns (               -- what the API says of a campaign: see `SavedCampaign`
    campaign_id TEXT PRIMARY KEY,
    detail TEXT,
    detail_at TEXT,
    detail_sends INTEGER,
    counts TEXT,
    counted_at TEXT,
    checksum INTEGER
) WITHOUT ROWID
"""
_PAGES = """
CREATE TABLE pages (                   -- of walks under way, but for `walks.recent`
    walk INTEGER,
    page INTEGER,                      -- the number of the last one that is packed here
    packed BLOB NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (walk, page)
) WITHOUT ROWID
"""
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
    counted TEXT,                      -- the API's count that its file is not older than
    edge TEXT,                         -- of the last page: what the next page's edge needs
    recent BLOB,                       -- the latest pages, see `SavedPage`
    checksum INTEGER,
    UNIQUE (report, campaign_id)
);
CREATE INDEX walks_by_run ON walks (run, campaign_id);
"""
CAMPAIGNS_BY_STATE = """
SELECT state, count(*) FROM (
    SELECT CASE
        WHEN sum(state = 'failed') THEN 'failed'
        WHEN sum(state != 'complete') = 0 THEN 'complete'
        WHEN sum(pages > 0 OR base_pages IS NOT NULL OR state = 'complete') THEN 'partial'
        ELSE 'pending'
    END AS state FROM walks WHERE {} GROUP BY campaign_id
) GROUP BY state
"""
_SUM_3, _SUM_4, _SUM = (
    f"old_checksum(report, campaign_id, {', '.join(names)})"
    for names in (STEERING[:-3], STEERING[:-2], STEERING)
)
_FROM_1 = ("ALTER TABLE walks ADD COLUMN round INTEGER NOT NULL DEFAULT 0",)
_FROM_2 = (
    *(f"ALTER TABLE walks ADD COLUMN {name} TEXT" for name in ("first_event", "last_event")),
    *(f"ALTER TABLE {name} ADD COLUMN checksum INTEGER" for name in ("walks", "pages", "settings")),
    f"UPDATE walks SET checksum = {_SUM_3}",
    "UPDATE pages SET checksum = old_checksum(walk, page, rows, cursor)",
    "UPDATE settings SET checksum = old_checksum(name, value)",
)
_FROM_3 = (
    "ALTER TABLE walks ADD COLUMN counted TEXT",
    # What is damaged stays so.
    f"UPDATE walks SET checksum = {_SUM_4} WHERE checksum = {_SUM_3}",
    "ALTER TABLE pages ADD COLUMN edge TEXT",
    "UPDATE pages SET checksum = old_checksum(walk, page, rows, cursor, edge) "
    "WHERE checksum = old_checksum(walk, page, rows, cursor)",
)
_FROM_4 = (
    "ALTER TABLE walks ADD COLUMN edge TEXT",
    "ALTER TABLE walks ADD COLUMN recent BLOB",
    "UPDATE walks SET edge = "
    "(SELECT edge FROM pages WHERE walk = walks.id ORDER BY page DESC LIMIT 1)",
    f"UPDATE walks SET checksum = {_SUM} WHERE checksum = {_SUM_4}",
    "ALTER TABLE pages RENAME TO single",
    _PAGES,
    "INSERT INTO pages SELECT walk, page, packed(rows, cursor), "
    "old_checksum(walk, page, packed(rows, cursor)) FROM single "
    "WHERE checksum = old_checksum(walk, page, rows, cursor, edge)",
    "DROP TABLE single",
    "DROP TABLE IF EXISTS campaigns",  # what the API says is asked for again
    _CAMPAIGNS,
)
_FROM_5 = tuple(
    f"UPDATE {table} SET checksum = checksum({columns}) WHERE checksum = old_checksum({columns})"
    for table, columns in (
        ("walks", f"report, campaign_id, {', '.join(STEERING)}"),
        ("pages", "walk, page, packed"),
        ("settings", "name, value"),
        ("campaigns", ", ".join(saved_campaign.COLUMNS[:-1])),
    )
)
_STEPS = (_FROM_1, _FROM_2, _FROM_3, _FROM_4, _FROM_5)


def steps_from(version: int, path: Path) -> Iterator[str]:
    """The statements that bring a state of this format (0: a new file) to `FORMAT`.

    Raise `ConfigError` if it is of a later one. They call the SQL functions `checksum`,
    `old_checksum` and `packed`.
    """
    if version not in range(FORMAT + 1):
        raise ConfigError(
            f"{path} has format {version}, this version of harvester knows {FORMAT}: "
            "use the version that wrote it, or `fresh`"
        )
    if version == FORMAT:
        return
    if version == 0:
        yield from (*_SCHEMA.split(";\n"), _PAGES, _CAMPAIGNS)
    else:
        yield from chain.from_iterable(_STEPS[version - 1 :])
    yield f"PRAGMA user_version = {FORMAT}"
