"""An output directory, opened for one run."""

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes import TARGET, FakeClock

from harvester.config import KNOWN, HarvestConfig
from harvester.disk.directory import Directory, open_directory
from harvester.disk.layout import Layout
from harvester.disk.ndjson_log import NdjsonLog
from harvester.errors import ConfigError, StopRun, StorageError
from harvester.model import Target

Open = Callable[..., AbstractContextManager[Directory]]


@pytest.fixture
def removed() -> list[tuple[int, int]]:
    """What was announced to be removed: files and bytes."""
    return []


@pytest.fixture
def opened(tmp_path: Path, clock: FakeClock, removed: list[tuple[int, int]]) -> Open:
    """Opens the directory of the test with some settings."""

    def opened(
        *,
        fresh: bool = False,
        provenance: bool = False,
        root: Path | None = None,
        **settings: Any,
    ) -> Any:
        config = HarvestConfig(**{"api": "v2", **settings})
        return open_directory(
            Layout(root or tmp_path / "out"),
            config.identity(),
            reports=config.reports,
            known_reports=KNOWN,
            fresh=fresh,
            provenance=provenance,
            tops_up=config.tops_up,
            durable=True,
            now=clock.now(),
            removing=lambda files, size: removed.append((files, size)),
        )

    return opened


def tree(root: Path) -> dict[str, bytes]:
    """Every file outside of the private folder, with its content."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in files
        if ".harvester" not in path.parts
    }


def test_a_new_directory_is_made(opened: Open, tmp_path: Path) -> None:
    """With its folders and empty reports."""
    with opened(root=tmp_path / "a" / "b") as directory:
        assert directory.store.run == 1
        directory.sync()
    assert (tmp_path / "a" / "b" / "opens").is_dir()
    assert set(tree(tmp_path / "a" / "b")) == {
        "manifest.ndjson",
        "errors.ndjson",
        "retries.ndjson",
        "runs.ndjson",
    }


async def test_a_directory_is_opened_again(opened: Open) -> None:
    """Reports are appended to, walks are found, runs are counted."""
    with opened() as directory:
        directory.store.take(TARGET)
        directory.errors.append({"n": 1})
    with opened(rate=1.0) as directory:
        assert directory.store.run == 2
        directory.errors.append({"n": 2})
        assert directory.errors.path.read_bytes() == b'{"n":1}\n{"n":2}\n'


async def test_the_manifest_is_cut_back_to_what_is_acknowledged(opened: Open) -> None:
    """A line that the state does not know of is written again when its walk is published."""
    with opened() as directory:
        directory.manifest.append({"n": 1})
        await directory.store.complete([], directory.manifest)
        directory.manifest.append({"n": 2})
    with opened() as directory:
        assert directory.manifest.path.read_bytes() == b'{"n":1}\n'


@pytest.mark.parametrize("provenance", [False, True])
def test_every_report_is_made_durable(
    opened: Open, monkeypatch: pytest.MonkeyPatch, *, provenance: bool
) -> None:
    """Each that the run keeps, that of the pages too."""
    synced: list[str] = []
    monkeypatch.setattr(NdjsonLog, "sync", lambda journal: synced.append(journal.path.name))
    with opened(provenance=provenance) as directory:
        assert synced == ["manifest.ndjson"]  # of what a killed run had left unsynced
        synced.clear()
        directory.sync()
    reports = ["manifest.ndjson", "errors.ndjson", "retries.ndjson"]
    assert synced == reports + ["pages.ndjson"] * provenance


def test_two_runs_do_not_share_a_directory(opened: Open) -> None:
    """The second is refused before it touches anything."""
    with opened() as directory:
        directory.errors.append({"n": 1})
        with pytest.raises(StopRun, match="another run works in"), opened(fresh=True):
            pass
    with opened() as directory:
        assert directory.errors.size > 0


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"page_size": 100}, "`page_size` was '500' and is '100'"),
        ({"since": "2026-01-31"}, "`since` was 'not given' and is '2026-01-31T00:00:00Z'"),
        ({"compress": "gzip"}, "`compress` was 'not given' and is 'gzip'"),
        ({"base_url": "https://h"}, "`base_url` was"),
    ],
)
def test_changed_settings_are_refused(opened: Open, settings: dict[str, Any], option: str) -> None:
    """Each by name, with both values; what is there is not touched and not mixed."""
    with opened() as directory:
        directory.errors.append({"n": 1})
        root = directory.layout.root
    before = tree(root)
    refused = pytest.raises(ConfigError, match="holds a harvest with other settings")
    with refused as caught, opened(**settings):
        pass
    assert option in str(caught.value)
    assert tree(root) == before
    with opened() as directory:
        assert directory.store.run == 2


@pytest.mark.parametrize(
    "name",
    [
        "manifest.ndjson",
        "opens/7.ndjson",
        "opens/7.ndjson.part",
        "opens/7.ndjson.grown.part",
        "opens/7.ndjson.gz",
        "opens/x.ndjson.zst.part",
    ],
)
def test_files_without_a_state_are_never_written_over(
    opened: Open, tmp_path: Path, name: str
) -> None:
    """They may be a finished harvest of another program."""
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="no state of it"), opened():
        pass
    assert path.read_bytes() == b"precious"


def test_other_peoples_files_are_no_trouble(opened: Open, tmp_path: Path) -> None:
    """What has none of our names stays, also when everything of ours is removed."""
    (tmp_path / "out" / "opens").mkdir(parents=True)
    for name in ("notes.txt", "opens/notes.csv"):
        (tmp_path / "out" / name).write_bytes(b"precious")
    with opened():
        pass
    with opened(fresh=True):
        pass
    assert (tmp_path / "out" / "notes.txt").read_bytes() == b"precious"
    assert (tmp_path / "out" / "opens" / "notes.csv").read_bytes() == b"precious"


async def test_fresh_forgets_everything(opened: Open, removed: list[tuple[int, int]]) -> None:
    """State, files and reports; how much it is was announced first; other settings are fine."""
    with opened() as directory:
        directory.store.take(TARGET)
        directory.errors.append({"n": 1})
        layout = directory.layout
    left = (layout.final(TARGET), layout.part(TARGET), layout.grown(TARGET), layout.summary)
    left = (*left, layout.report_page)
    for path in left:
        path.write_bytes(b"12345")
    with opened(fresh=True, page_size=100) as directory:
        assert directory.store.run == 1
        assert directory.errors.size == 0
        record = directory.store.take(TARGET)
        assert record is not None
        assert record.state == "new"
    assert removed == [(9, 25 + 8)]
    assert set(tree(layout.root)) == {
        "manifest.ndjson",
        "errors.ndjson",
        "retries.ndjson",
        "runs.ndjson",
    }


def test_fresh_in_a_new_directory_removes_nothing(
    opened: Open, removed: list[tuple[int, int]]
) -> None:
    """It is the same as without."""
    with opened(fresh=True):
        pass
    assert removed == [(0, 0)]


def test_fresh_also_takes_files_that_no_state_accounts_for(opened: Open, tmp_path: Path) -> None:
    """That is what the refusal advises."""
    (tmp_path / "out" / "opens").mkdir(parents=True)
    (tmp_path / "out" / "opens" / "7.ndjson").write_bytes(b"old")
    with opened(fresh=True):
        pass
    assert "opens/7.ndjson" not in tree(tmp_path / "out")


def test_fresh_leaves_a_directory_in_the_place_of_a_file(opened: Open, tmp_path: Path) -> None:
    """It is none of ours, and may hold anything: nothing ends half removed for it."""
    precious = tmp_path / "out" / "opens" / "7.ndjson" / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    (tmp_path / "out" / "opens" / "8.ndjson").touch()
    with opened(fresh=True):
        pass
    assert precious.exists()
    assert "opens/8.ndjson" not in tree(tmp_path / "out")


def test_a_directory_that_cannot_be_is_told(opened: Open, tmp_path: Path) -> None:
    """A file in its place is a mistake in the call."""
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ConfigError, match="`output`"), opened(root=root):
            pass


def test_a_folder_that_cannot_be_made_is_told(opened: Open, tmp_path: Path) -> None:
    """A file where a report's folder should be is storage trouble, and the lock is freed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "opens").write_text("")
    with pytest.raises(StorageError), opened():
        pass
    (tmp_path / "out" / "opens").unlink()
    with opened():
        pass


def test_a_top_up_keeps_where_the_harvest_began(opened: Open) -> None:
    """A later top-up asks new campaigns from there, too; it cannot be changed in between."""
    since = datetime(2026, 1, 31, tzinfo=UTC)
    with opened(since=since) as directory:
        assert directory.since == since
    for _ in range(2):
        with opened(since="last") as directory:
            assert directory.since == since
    with pytest.raises(ConfigError, match="`since`"), opened(since="2026-02-01"):
        pass


@pytest.mark.parametrize("killed_at", range(1, 7))
async def test_fresh_that_is_killed_leaves_no_state_that_calls_anything_done(
    opened: Open, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Without `fresh` the next run refuses what is left; with it all is new."""
    with opened() as directory:
        saved = directory.store.take(TARGET)
        assert saved is not None
        await directory.store.complete([saved], directory.manifest)
        final = directory.layout.final(TARGET)
        final.write_bytes(b"finished")
    real, removed = os.unlink, 0

    def unlink(*args: Any, **named: Any) -> None:
        nonlocal removed
        removed += 1
        if removed == killed_at:
            raise InterruptedError("killed")
        real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with contextlib.suppress(StorageError), opened(fresh=True):
            pass
    if killed_at == 1:
        with opened() as directory:
            assert final.read_bytes() == b"finished"
    else:
        with contextlib.suppress(ConfigError), opened() as directory:
            assert not final.exists()
            assert list(directory.store.walks_in("complete")) == []
    with opened(fresh=True) as directory:
        assert list(directory.store.walks_in("complete")) == []
        assert not final.exists()


async def test_a_copy_that_is_torn_is_refused(opened: Open) -> None:
    """A state whose pages are of different moments is found by SQLite's own check."""
    with opened() as directory:
        for number in range(2_000):
            directory.store.take(Target("opens", str(number)))
        directory.store.save()
        path = directory.store.path
    data = bytearray(path.read_bytes())
    size = len(data) // 4096
    middle = 4096 * (size // 2)
    data[middle : middle + 4096] = data[middle + 4096 : middle + 8192]
    copy = path.with_name("copy")
    copy.write_bytes(data)
    copy.replace(path)
    with pytest.raises((ConfigError, StorageError), match=r"a copy that was made|malformed"):  # noqa: SIM117
        with opened():
            pass
