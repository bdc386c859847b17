"""What an output directory holds, and what a run would do to it; nothing is sent or changed."""

import fcntl
import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import orjson

from harvester.disk.checkpoint import CAMPAIGNS_BY_STATE
from harvester.disk.compress import CODECS, DAMAGED
from harvester.disk.directory import reject_changed_settings, reject_untracked_files
from harvester.disk.layout import Layout
from harvester.errors import ConfigError

_CHUNK = 1 << 20
_Entry: TypeAlias = tuple[int, str, int]  # bytes, sha256, rows


@dataclass(frozen=True, slots=True)
class States:
    """Campaigns by state; with several reports, a campaign is what the worst of its walks is."""

    complete: int = 0
    failed: int = 0
    partial: int = 0
    pending: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.complete + self.failed + self.partial + self.pending


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the manifest says."""

    file: str
    problem: str


def read_states(layout: Layout) -> States:
    """How many campaigns the directory knows in each state."""
    with open_state(layout) as db:
        return States(**dict(db.execute(CAMPAIGNS_BY_STATE.format("TRUE"))))


def read_summary(layout: Layout) -> dict[str, Any] | None:
    """The last run's summary.json; None if no run has ended yet."""
    try:
        found = orjson.loads(layout.summary.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would find: its campaigns by state, and how many walks are still to make."""

    states: States
    walks: int


def classify(
    layout: Layout,
    ids: Iterable[str],
    reports: Sequence[str],
    *,
    for_good: str | None,
    top_up: bool = False,
) -> Forecast:
    """Sort campaigns into complete, failed (`for_good`: not tried again), partial and pending.

    With several reports a campaign is what the worst of its walks is.
    """
    counts: Counter[str] = Counter()
    walks = 0
    with _state_if_any(layout) as db:
        for campaign_id in ids:
            found = Counter(_disposition(db, each, campaign_id, for_good) for each in reports)
            walks += found["partial"] + found["pending"]
            if top_up:
                walks += found["complete"] - _topped_up(db, campaign_id, reports)
            counts[_worst(found.elements())] += 1
    return Forecast(States(**counts), walks)


def _worst(found: Iterable[str]) -> str:
    found = set(found)
    if "failed" in found or len(found) == 1:
        return "failed" if "failed" in found else found.pop()
    return "partial"


def _disposition(
    db: sqlite3.Connection | None, report: str, campaign_id: str, for_good: str | None
) -> str:
    row = (
        db
        and db.execute(
            "SELECT state, kind, pages FROM walks WHERE report = ? AND campaign_id = ?",
            (report, campaign_id),
        ).fetchone()
    )
    if not row:
        return "pending"
    state, kind, pages = row
    if state == "complete":
        return "complete"
    if state == "failed" and for_good is not None and kind == for_good:
        return "failed"
    return "partial" if pages else "pending"


def _topped_up(db: sqlite3.Connection | None, campaign_id: str, reports: Sequence[str]) -> int:
    """How many finished files of a campaign had their turn in the top-up that is under way."""
    if db is None:
        return 0
    query = (
        "SELECT count(*) FROM walks WHERE report = ? AND campaign_id = ? AND state = 'complete' "
        "AND round = (SELECT value FROM settings WHERE name = 'round') + 0 "
        "AND (SELECT value FROM settings WHERE name = 'round_under_way') = 'yes'"
    )
    return sum(db.execute(query, (report, campaign_id)).fetchone()[0] for report in reports)


@contextmanager
def _state_if_any(layout: Layout) -> Iterator[sqlite3.Connection | None]:
    if not layout.database.exists():
        yield None
        return
    with open_state(layout) as db:
        yield db


def check_directory(
    layout: Layout, identity: dict[str, str], *, known_reports: Sequence[str]
) -> None:
    """Raise the `ConfigError` that a run would: other settings, or files of unknown origin."""
    if layout.database.exists():
        with open_state(layout) as db:
            before = dict(db.execute("SELECT name, value FROM settings"))
        reject_changed_settings(layout, before, identity)
    else:
        reject_untracked_files(layout, known_reports)


@contextmanager
def open_state(layout: Layout) -> Iterator[sqlite3.Connection]:
    """The state, read only: a run may be under way beside us."""
    if not layout.database.exists():
        raise ConfigError(f"{layout.root} holds no harvest")
    try:
        # Without a log no run is under way: then nothing is written beside the file, and an
        # archive that cannot be written to can be read.
        log = layout.database.with_name(f"{layout.database.name}-wal")
        mode = "mode=ro" if log.exists() else "immutable=1"
        name = quote(str(layout.database.absolute()))
        with closing(sqlite3.connect(f"file:{name}?{mode}", uri=True)) as db:
            yield db
    except sqlite3.Error as wrong:
        raise ConfigError(f"cannot read the state of {layout.root}: {wrong}") from None


def verify(layout: Layout) -> Iterator[Finding]:
    """Hold every finished file against the manifest, and look for files that it does not name."""
    if not (layout.manifest.exists() or layout.database.exists()):
        raise ConfigError(f"{layout.root} holds no harvest")
    known: dict[str, _Entry] = {}  # the last line of a file is the one that counts
    if not layout.manifest.exists():
        yield Finding(layout.manifest.name, "is missing")
    with layout.manifest.open("rb") if layout.manifest.exists() else BytesIO() as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = orjson.loads(line)
                known[entry["file"]] = (entry["bytes"], entry["sha256"], entry["rows"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                yield Finding("manifest.ndjson", f"line {number} cannot be read")
    for name, expected in known.items():
        yield from _verify_file(layout.root / name, name, expected)
    for name in sorted(_finished_files(layout) - known.keys()):
        yield Finding(name, "is not in the manifest")
    yield from _unlisted(layout, known.keys())


def _verify_file(path: Path, name: str, expected: _Entry) -> Iterator[Finding]:
    if path.is_symlink() or not path.is_file():
        yield Finding(name, "is missing")
        return
    found = (path.stat().st_size, _sha256(path), _count_lines(path))
    for what, is_, should in zip(("bytes", "sha256", "rows"), found, expected, strict=True):
        if is_ != should:
            yield Finding(name, f"{what}: {is_} instead of {should}")


def _unlisted(layout: Layout, known: Iterable[str]) -> Iterator[Finding]:
    """Campaigns that the state calls complete and the manifest does not name."""
    if not layout.database.exists():
        return
    known = set(known)
    with open_state(layout) as db:
        (suffix,) = db.execute("SELECT value FROM settings WHERE name = 'compress'").fetchone() or (
            "",
        )
        ending = CODECS[suffix or None].suffix
        for report, campaign_id in db.execute(
            "SELECT report, campaign_id FROM walks WHERE state = 'complete'"
        ):
            name = f"{report}/{campaign_id}.ndjson{ending}"
            if name not in known:
                yield Finding(name, "is complete, but has no line in the manifest")


def _finished_files(layout: Layout) -> set[str]:
    return {
        str(path.relative_to(layout.root))
        for ending in (".ndjson", ".ndjson.gz", ".ndjson.zst")
        for path in layout.root.glob(f"*/*{ending}")
        if path.parent != layout.state
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _count_lines(path: Path) -> int | None:
    """The lines of a file, decompressed if it is compressed; None if that fails."""
    codec = next(codec for codec in reversed(CODECS.values()) if path.name.endswith(codec.suffix))
    try:
        with codec.open(path) as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))
    except DAMAGED:
        return None


def holder(layout: Layout) -> str | None:
    """The run that works in the directory now; None if there is none.

    To look is to hold the lock for a moment, beside others who look; `locked` waits for that long.
    """
    try:
        with layout.lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(200).decode("utf-8", "replace").strip()
    except OSError:
        return None
    return None
