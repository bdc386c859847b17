"""What an output directory holds, and what a run would do with it; nothing is sent or changed."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import orjson
from msgspec import Struct, field

from harvester.disk.compress import CODECS
from harvester.disk.directory import reject_changed_settings, reject_untracked_files
from harvester.disk.finished import Recorded, differences
from harvester.disk.layout import Layout
from harvester.disk.lock import SILENT_FOR, described, is_foreign, read_record, this_host
from harvester.disk.state_format import CAMPAIGNS_BY_STATE
from harvester.errors import ConfigError

# A top-up that was begun keeps the finished file as its base.
_CAMPAIGN = """
SELECT sum(state = 'complete'), sum(state = 'failed' AND kind IS :for_good),
    sum(pages > 0 OR base_pages IS NOT NULL OR state = 'complete'),
    sum(state = 'finishing' -- only its file's name is missing
        OR state = 'complete' AND (NOT :top_up OR (round = :round AND :under_way)))
FROM walks WHERE report IN ({}) AND campaign_id = :campaign_id GROUP BY campaign_id
"""


class States(Struct, frozen=True, kw_only=True):
    """Campaigns by state; with several reports, a campaign is what the worst of its walks is."""

    complete: int = 0
    failed: int = 0
    partial: int = 0
    pending: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.complete + self.failed + self.partial + self.pending


class Content(Struct, frozen=True, kw_only=True):
    """What a directory holds: campaigns by state, failed walks by kind, rows and bytes of its
    files, finished or not; and what was asked of it, as the state names it."""

    campaigns: States
    failed: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0
    settings: dict[str, str] = field(default_factory=dict)


class Forecast(Struct, frozen=True):
    """What a run would find: its campaigns by state, and how many walks are still to make."""

    states: States
    walks: int


class Finding(Struct, frozen=True):
    """One thing that is not as the manifest says."""

    file: str
    what: str


# -- the state -------------------------------------------------------------------------------------


def read_content(layout: Layout) -> Content:
    """What the directory holds."""
    with _state(layout) as db:
        if db is None:
            raise ConfigError(f"{layout.root} holds no harvest")
        states = dict(db.execute(CAMPAIGNS_BY_STATE.format("TRUE")))
        kinds = (
            "SELECT kind, count(*) FROM walks WHERE state = 'failed' GROUP BY kind ORDER BY kind"
        )
        sums = (
            "SELECT coalesce(sum(rows + coalesce(base_rows, 0)), 0), "
            "coalesce(sum(bytes + coalesce(base_bytes, 0)), 0) FROM walks"
        )
        by_age = "SELECT report FROM walks GROUP BY report ORDER BY min(id)"
        reports = [name for (name,) in db.execute(by_age)]
        rows, size = db.execute(sums).fetchone()
        failures = {kind or "": number for kind, number in db.execute(kinds)}
        return Content(
            campaigns=States(**states),
            failed=failures,
            rows=rows,
            bytes=size,
            settings={**_settings(db), "report": ",".join(reports)},
        )


def read_summary(layout: Layout) -> dict[str, Any] | None:
    """The last run's summary.json; None if no run has ended yet."""
    try:
        found = orjson.loads(layout.summary.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def classify(
    layout: Layout,
    ids: Iterable[str],
    reports: Sequence[str],
    *,
    for_good: str | None,
    top_up: bool = False,
) -> Forecast:
    """Sort campaigns into complete, failed (for the kind `for_good`, which is not tried again),
    partial and pending."""
    states: Counter[str] = Counter()
    to_make = 0
    with _state(layout) as db:
        settings = _settings(db) if db else {}
        values = {
            "for_good": for_good or "",
            "top_up": top_up,
            "round": int(settings.get("round", 0)),
            "under_way": settings.get("round_under_way") == "yes",
            **{f"report{number}": report for number, report in enumerate(reports)},
        }
        query = _CAMPAIGN.format(", ".join(f":report{number}" for number in range(len(reports))))
        for campaign_id in ids:
            one = db.execute(query, {**values, "campaign_id": campaign_id}) if db else None
            found = one.fetchone() if one else None
            complete, refused, begun, up_to_date = found or (0, 0, 0, 0)
            if refused:
                states["failed"] += 1
            elif complete == len(reports):
                states["complete"] += 1
            else:
                states["partial" if begun else "pending"] += 1
            to_make += len(reports) - refused - up_to_date
    return Forecast(States(**states), to_make)


def _settings(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT name, value FROM settings"))


def check_directory(
    layout: Layout, identity: dict[str, str], *, known_reports: Sequence[str]
) -> None:
    """Raise the `ConfigError` that a run would: other settings, or files of unknown origin."""
    if not layout.database.exists():
        reject_untracked_files(layout, known_reports)
    with _state(layout) as db:
        reject_changed_settings(layout, _settings(db) if db else {}, identity)


@contextmanager
def _state(layout: Layout) -> Iterator[sqlite3.Connection | None]:
    """The state, read only: a run may be under way at the same time. None where there is none, or
    a run ended before it was made."""
    if not layout.database.exists():
        yield None
        return
    try:
        # Without a log no run is under way: then nothing is written beside the file, and an
        # archive that cannot be written to can be read.
        log = layout.database.with_name(f"{layout.database.name}-wal")
        mode = "mode=ro" if log.exists() else "immutable=1"
        name = quote(bytes(layout.database.absolute()))
        with closing(sqlite3.connect(f"file:{name}?{mode}", uri=True)) as db:
            ((made,),) = db.execute("PRAGMA user_version")
            yield db if made else None
    except sqlite3.Error as wrong:
        raise ConfigError(
            f"cannot read {layout.database}: {wrong}: restore the directory from a copy, or start "
            "over with `fresh`"
        ) from None


def holder(layout: Layout) -> str | None:
    """The run that works in the directory now; None if there is none.

    To look is to hold the lock for a moment, shared with others who look; `locked` waits for that
    long.
    """
    try:
        record, seen, held = read_record(layout.lock)
    except OSError:
        return None
    lives = held or (is_foreign(record, this_host()) and time.time() - seen < SILENT_FOR)
    return described(record) if lives else None


# -- the files -------------------------------------------------------------------------------------


def read_manifest(layout: Layout) -> tuple[dict[str, Recorded], list[Finding]]:
    """What the manifest says of each file, and what is wrong with the manifest itself."""
    if not (layout.manifest.is_file() or layout.database.exists()):
        raise ConfigError(f"{layout.root} holds no harvest")
    known: dict[str, Recorded] = {}  # the last line of a file is the one that counts
    if not layout.manifest.is_file():
        return known, [Finding(layout.manifest.name, "is missing")]
    wrong = []
    with layout.manifest.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = orjson.loads(line)
                known[entry["file"]] = (entry["bytes"], entry["sha256"], entry["rows"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                wrong.append(Finding(layout.manifest.name, f"line {number} cannot be read"))
    return known, wrong


def verify(layout: Layout) -> Iterator[Finding]:
    """Compare every finished file with the manifest, and look for files that it does not name."""
    known, wrong = read_manifest(layout)
    yield from wrong
    for name, expected in known.items():
        yield from (Finding(name, what) for what in differences(layout.root / name, expected))
    for name in sorted(_finished_files(layout) - known.keys()):
        yield Finding(name, "is not in the manifest")
    yield from _unlisted(layout, set(known))


def _unlisted(layout: Layout, known: set[str]) -> Iterator[Finding]:
    """Campaigns that the state calls complete and the manifest does not name."""
    with _state(layout) as db:
        if db is None:
            return
        ending = CODECS[_settings(db).get("compress") or None].suffix
        complete = "SELECT report, campaign_id FROM walks WHERE state = 'complete'"
        for report, campaign_id in db.execute(complete):
            name = f"{report}/{campaign_id}.ndjson{ending}"
            if name not in known:
                yield Finding(name, "is complete, but has no line in the manifest")


def _finished_files(layout: Layout) -> set[str]:
    return {
        str(path.relative_to(layout.root))
        for codec in CODECS.values()
        for path in layout.root.glob(f"*/*.ndjson{codec.suffix}")
        if path.parent != layout.state
    }
