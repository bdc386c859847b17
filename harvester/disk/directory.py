"""An output directory, opened for one run: locked, checked, its state and reports at hand."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.layout import Layout
from harvester.disk.lock import locked
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.storage import Folder, storage
from harvester.errors import ConfigError
from harvester.runtime import Clock

_NAMES = {
    "api": "--api",
    "base_url": "--base-url",
    "report": "--report",
    "since": "--since",
    "page_size": "--page-size",
    "compress": "--compress",
}
_OURS = ("*.ndjson", "*.ndjson.part", "*.ndjson.grown.part", "*.ndjson.gz*", "*.ndjson.zst*")


@dataclass(frozen=True, slots=True)
class Directory:
    """What a run writes to."""

    layout: Layout
    store: CheckpointStore
    manifest: NdjsonLog
    errors: NdjsonLog
    retries: NdjsonLog
    pages: NdjsonLog | None
    since: datetime | None

    def sync(self) -> None:
        """Make everything durable, the files before the state that speaks of them."""
        for journal in (self.manifest, self.errors, self.retries, self.pages):
            if journal is not None:
                journal.sync()
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
    sync_every: float,
    clock: Clock,
    removing: Callable[[int, int], None],
) -> Iterator[Directory]:
    """Lock the directory and open what is in it, for the harvest that `identity` tells.

    Raises `ConfigError`, with nothing changed, if another run holds it, if it holds a harvest of
    other settings, or files that no state accounts for. `fresh` removes all of it first, after
    `removing(files, bytes)` was called.
    """
    try:
        layout.state.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise ConfigError(f"cannot use {layout.root} (--output): {wrong.strerror}") from None
    with ExitStack() as stack:
        stack.enter_context(locked(layout, now=clock.now()))
        if fresh:
            _wipe(layout, known_reports, removing)
        elif not layout.database.exists():
            reject_untracked_files(layout, known_reports)
        store = CheckpointStore(layout.database, sync_every=sync_every, clock=clock)
        stack.enter_context(closing(store))
        before = store.settings()
        reject_changed_settings(layout, before, identity)
        with storage(layout.root):
            for report in reports:
                (layout.root / report).mkdir(exist_ok=True)
        manifest = NdjsonLog(layout.manifest, keep=store.manifest_bytes())
        stack.enter_context(closing(manifest))
        # What a killed run had renamed and listed, before a durable commit can speak of it.
        manifest.sync()
        for report in reports:
            Folder(layout.root / report).sync()
        # A top-up gives no `since`: what the directory began with stays, nothing in a new one.
        store.begin_run({"since": before.get("since", ""), **identity}, tops_up=tops_up)
        errors = stack.enter_context(closing(NdjsonLog(layout.errors)))
        retries = stack.enter_context(closing(NdjsonLog(layout.retries)))
        pages = stack.enter_context(closing(NdjsonLog(layout.pages))) if provenance else None
        yield Directory(layout, store, manifest, errors, retries, pages, _since(store))


def _since(store: CheckpointStore) -> datetime | None:
    """What the directory was begun with: `--since last` asks new campaigns from there, too."""
    text = store.settings().get("since")
    return datetime.fromisoformat(text) if text else None


def reject_changed_settings(layout: Layout, before: dict[str, str], now: dict[str, str]) -> None:
    """One directory holds one harvest: mixing two could never be told apart again."""
    changed = [
        f"{_NAMES[name]} was {before[name] or 'not given'!r} and is {value or 'not given'!r}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    if changed:
        raise ConfigError(
            f"{layout.root} holds a harvest with other settings ({'; '.join(changed)}): give the "
            "same ones, another --output, or --fresh to start over"
        )


def reject_untracked_files(layout: Layout, known_reports: Sequence[str]) -> None:
    """Files with our names but no state: finished by whom? Never written over."""
    for path in (layout.manifest, *_files(layout, known_reports)):
        if path.exists():
            raise ConfigError(
                f"{layout.root} has files of a harvest ({path.name}) but no state of it: "
                "move them away, or give another --output, or --fresh to remove them"
            )


def _wipe(
    layout: Layout, known_reports: Sequence[str], removing: Callable[[int, int], None]
) -> None:
    """Remove a harvest, its state first: a kill in between leaves no state that calls it done."""
    reports = (layout.manifest, layout.errors, layout.retries, layout.pages, layout.summary)
    state = list(layout.state.glob(f"{layout.database.name}*"))
    files = [*_files(layout, known_reports), *(path for path in reports if path.exists())]
    removing(len(files), sum(path.stat().st_size for path in files))
    with storage(layout.root):
        for path in [*state, *files]:
            path.unlink()


def _files(layout: Layout, known_reports: Sequence[str]) -> Iterator[Path]:
    for report in known_reports:
        for pattern in _OURS:
            yield from (layout.root / report).glob(pattern)
