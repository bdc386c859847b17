"""An output directory, opened for one run: locked, checked, its state and reports at hand."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.layout import Layout
from harvester.disk.lock import DirectoryLock, locked
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.storage import storage, sync_directory
from harvester.errors import ConfigError
from harvester.runtime import stamp

_OURS = ("*.ndjson", "*.ndjson.part", "*.ndjson.grown.part", "*.ndjson.gz*", "*.ndjson.zst*")


class Directory(Struct, frozen=True, kw_only=True):
    """What a run writes to."""

    layout: Layout
    lock: DirectoryLock
    store: CheckpointStore
    manifest: NdjsonLog
    errors: NdjsonLog
    retries: NdjsonLog
    runs: NdjsonLog
    pages: NdjsonLog | None
    since: datetime | None

    def compact_manifest(self) -> None:
        """Leave one line of each file, its last: a file that grew or was harvested again has older
        ones. A kill in between leaves the old manifest, or the new one and a state that finds it
        shorter than it was: then the next run looks whether a line is missing."""
        self.lock.check()
        self.manifest.check()
        if self.manifest.size != self.store.manifest_bytes():
            return  # a publication failed: what is beyond is not acknowledged
        if self.manifest.lines() > self.store.complete_count():
            self.manifest.keep_last("file")
            self.store.acknowledge(self.manifest)

    def sync(self) -> None:
        """Make everything durable, the files before the state that refers to them."""
        for log in (self.manifest, self.errors, self.retries, self.pages):
            if log is not None:
                log.sync()
        self.store.sync()


@contextmanager
def open_directory(
    layout: Layout,
    identity: dict[str, str],
    *,
    reports: Sequence[str],
    known_reports: Sequence[str],
    fresh: bool,
    provenance: bool,
    tops_up: bool,
    durable: bool,
    now: datetime,
    removing: Callable[[int, int], None],
) -> Iterator[Directory]:
    """Lock the directory and open what is in it, for the harvest that `identity` describes.

    `durable`: each commit is on the disk when it returns (see `GroupCommit`). `fresh` removes
    everything first, after `removing(files, bytes)` was called.

    Raises, with nothing changed, `StopRun` ("locked") if another run works in the directory, and
    `ConfigError` if it holds a harvest of other settings, or files that no state accounts for.
    """
    try:
        layout.state.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise ConfigError(f"cannot use {layout.root} (`output`): {wrong.strerror}") from None
    with ExitStack() as stack:
        lock = stack.enter_context(locked(layout, now=now))
        if fresh:
            _wipe(layout, known_reports, removing)
        elif not layout.database.exists():
            reject_untracked_files(layout, known_reports)
        store = CheckpointStore(layout.database, durable=durable, check=lock.check)
        stack.enter_context(closing(store))
        before = store.settings()
        reject_changed_settings(layout, before, identity)

        def opened(path: Path, *, keep: int | None = None) -> NdjsonLog:
            return stack.enter_context(closing(NdjsonLog(path, keep=keep)))

        manifest = opened(layout.manifest, keep=store.manifest_bytes())
        # What a killed run had renamed and listed, before a durable commit can refer to it.
        manifest.sync()
        for report in known_reports:
            if (layout.root / report).is_dir():
                sync_directory(layout.root / report)
        # A top-up gives no `since`: what the directory began with stays, nothing in a new one.
        own = {"since": before.get("since", ""), "reports_at": before.get("reports_at", "")}
        folders = [layout.root / report for report in reports]
        if before and not all(folder.is_dir() for folder in folders):
            own["reports_at"] = stamp(now)  # what is known of campaigns may be older than they are
        store.begin_run({**own, **identity}, tops_up=tops_up, now=stamp(now))
        for folder in folders:
            with storage(folder):
                folder.mkdir(exist_ok=True)
        sync_directory(layout.root)
        # Where the harvest begins; `--since last` asks new campaigns from there, too.
        since = store.settings().get("since")
        yield Directory(
            layout=layout,
            lock=lock,
            store=store,
            manifest=manifest,
            errors=opened(layout.errors),
            retries=opened(layout.retries),
            runs=opened(layout.runs),
            pages=opened(layout.pages) if provenance else None,
            since=datetime.fromisoformat(since) if since else None,
        )


def reject_changed_settings(layout: Layout, before: dict[str, str], now: dict[str, str]) -> None:
    """One directory holds one harvest: nothing could tell two apart again."""
    changed = [
        f"`{name}` was {before[name] or 'not given'!r} and is {value or 'not given'!r}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    if changed:
        raise ConfigError(
            f"{layout.root} holds a harvest with other settings ({'; '.join(changed)}): give the "
            "same ones, another `output`, or `fresh` to start over"
        )


def reject_untracked_files(layout: Layout, known_reports: Sequence[str]) -> None:
    """Files with names of a harvest but no state may be precious: they are not written over."""
    for path in (layout.manifest, *_files(layout, known_reports)):
        if path.exists():
            raise ConfigError(
                f"{layout.root} has files of a harvest ({path.name}) but no state of it: "
                "move them away, or give another `output`, or `fresh` to remove them"
            )


def _wipe(
    layout: Layout, known_reports: Sequence[str], removing: Callable[[int, int], None]
) -> None:
    """Remove a harvest, its state first: a kill in between leaves no state that calls it done.
    A directory in the place of a file is none of ours, and stays."""
    state = [*layout.state.glob(f"{layout.database.name}*"), *layout.state.glob("verified.json*")]
    found = (*_files(layout, known_reports), *layout.logs, layout.report_page)
    files = [path for path in found if path.is_symlink() or path.is_file()]
    removing(len(files), sum(path.lstat().st_size for path in files))
    with storage(layout.root):
        for path in [*state, *files]:
            path.unlink()


def _files(layout: Layout, known_reports: Sequence[str]) -> Iterator[Path]:
    for report in known_reports:
        if (folder := layout.root / report).is_dir():  # in a new directory none is
            for pattern in _OURS:
                yield from folder.glob(pattern)
