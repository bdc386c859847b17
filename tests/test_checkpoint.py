"""Where every walk stands: saved, found again, never ahead of its data."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import PATH, TARGET, FakeClock

from harvester.disk.checkpoint import FORMAT, CheckpointStore, Record
from harvester.disk.output import Folder, Journal, PartFile
from harvester.errors import ConfigError, StorageError
from harvester.model import Page, Position, Target

OTHER = Target("opens", "8")


class House:
    """A state folder, its store, and a part file."""

    def __init__(self, folder: Path, clock: FakeClock, sync_every: float = 0.0) -> None:
        self.folder, self.clock, self.sync_every = folder, clock, sync_every
        self.records: dict[int, Record] = {}
        self.store = self.opened()
        self.part = PartFile(folder / "7.ndjson.part")

    def opened(self) -> CheckpointStore:
        """The store, as one more run opens it."""
        store = CheckpointStore(
            self.folder / "state.sqlite", sync_every=self.sync_every, clock=self.clock
        )
        store.begin_run({"api": "v2"})
        return store

    def reopened(self) -> CheckpointStore:
        """The store, closed and opened by a next run."""
        self.store.close()
        self.store = self.opened()
        return self.store

    def taken(self, target: Target = TARGET) -> Record:
        """The record of a target that this run has not taken yet."""
        record = self.store.take(target)
        assert record is not None
        self.records[record.walk] = record
        return record

    def commit(self, walk: int, position: Position, cursor: int | None = 1) -> None:
        """Save a position after a page of ten rows."""
        self.store.commit(walk, position, 10, cursor, self.part, started_at="then")

    def finishing(self, walk: int, position: Position) -> None:
        """Save that every row is there."""
        record = replace(self.records[walk], position=position, digest=self.part.digest())
        self.store.finishing(replace(record, completed_at="end"))

    def complete(self, walk: int, manifest: Journal) -> None:
        """Save that the name and the line stand."""
        self.store.complete(walk, Folder(self.folder), manifest)

    def close(self) -> None:
        """Give the files back."""
        self.part.close()
        self.store.close()


@pytest.fixture
def house(tmp_path: Path, clock: FakeClock) -> Iterator[House]:
    """A house in a new folder."""
    house = House(tmp_path, clock)
    yield house
    house.close()


def test_a_new_walk_is_new(house: House) -> None:
    """Nothing is known of it but its name."""
    record = house.taken()
    assert (record.target, record.state, record.position) == (TARGET, "new", Position())
    assert (record.digest, record.restarts, record.kind) == (b"", 0, None)
    assert (record.started_at, record.completed_at) == (None, None)


def test_a_run_takes_a_walk_once(house: House) -> None:
    """A repeated id is told apart from a new one; the next run may take it again."""
    record = house.taken()
    assert house.store.take(TARGET) is None
    assert house.taken(OTHER).walk != record.walk
    assert house.taken(Target("clicks", "7")).walk != record.walk
    house.reopened()
    assert house.taken().walk == record.walk


def test_a_commit_is_found_by_the_next_run(house: House) -> None:
    """Position, digest and cursors, as they were."""
    walk = house.taken().walk
    offset = house.part.append(b"rows\n")
    position = Position(f"{PATH}?next=a", 1, 1, offset)
    house.commit(walk, position, -(2**63))
    position = position.after(Page(b"", 1, f"{PATH}?next=b"), offset)
    house.commit(walk, position, 7)
    position = position.after(Page(b"", 1, f"{PATH}?next=c"), offset)
    house.commit(walk, position, 7)
    house.reopened()
    record = house.taken()
    assert (record.state, record.position) == ("partial", position)
    assert (record.digest, record.started_at) == (house.part.digest(), "then")
    assert house.store.cursors(walk) == {-(2**63), 7}
    assert house.store.cursors(walk + 1) == set()


def test_a_commit_outlives_a_kill(house: House) -> None:
    """What was committed is there for whoever opens the file while it was never closed."""
    house.commit(house.taken().walk, Position("x", 1, 1, 0), 1)
    other = CheckpointStore(house.store.path)
    other.begin_run({})
    record = other.take(TARGET)
    assert record is not None
    assert record.position == Position("x", 1, 1, 0)
    other.close()


def test_a_restart_forgets_the_walk(house: House) -> None:
    """Position, digest and cursors are gone; how often it restarted is not."""
    walk = house.taken().walk
    house.commit(walk, Position("x", 3, 30, 0), 1)
    house.store.restart(walk, restarts=1)
    house.reopened()
    record = house.taken()
    assert (record.state, record.position, record.digest) == ("new", Position(), b"")
    assert record.restarts == 1
    assert house.store.cursors(walk) == set()


def test_a_failure_keeps_the_position(house: House) -> None:
    """The next try goes on from there; its next page forgets why it failed."""
    walk = house.taken().walk
    house.commit(walk, Position("x", 3, 30, 0), 1)
    house.store.fail(walk, "server_error")
    house.reopened()
    record = house.taken()
    assert (record.state, record.kind, record.position.pages) == ("failed", "server_error", 3)
    house.commit(walk, Position("y", 4, 40, 0), 2)
    house.reopened()
    record = house.taken()
    assert (record.state, record.kind) == ("partial", None)


def test_a_finished_walk_is_finishing_until_its_name_stands(house: House) -> None:
    """A kill in between is found by the next run, before anything is asked."""
    walk = house.taken().walk
    house.commit(walk, Position("x", 1, 1, 0), 1)
    house.finishing(walk, Position(None, 2, 2, 0))
    house.reopened()
    (record,) = house.store.finishing_walks()
    assert (record.walk, record.state, record.completed_at) == (walk, "finishing", "end")
    assert record.position.finished
    assert house.store.cursors(walk) == set()
    manifest = Journal(house.folder / "manifest.ndjson")
    manifest.append({"campaign_id": "7"})
    house.complete(walk, manifest)
    house.reopened()
    assert house.store.finishing_walks() == []
    assert house.taken().state == "complete"
    assert house.store.manifest_bytes() == manifest.size == 20
    manifest.close()


def test_walks_are_counted_by_state(house: House) -> None:
    """Those of this run only."""
    for number in range(4):
        house.taken(Target("opens", str(number)))
    walk = house.taken().walk
    house.commit(walk, Position("x", 1, 1, 0), 1)
    house.store.fail(house.taken(OTHER).walk, "not_found")
    assert house.store.counts() == {"pending": 4, "partial": 1, "failed": 1}
    house.reopened()
    assert house.store.counts() == {}
    house.taken()
    assert house.store.counts() == {"partial": 1}


def test_a_campaign_is_what_the_worst_of_its_walks_is(house: House) -> None:
    """With several reports a campaign is complete when all are, and failed when one is."""
    manifest = Journal(house.folder / "manifest.ndjson")
    for campaign_id in "123":
        for report in ("opens", "clicks"):
            house.taken(Target(report, campaign_id))
    for walk in (1, 3, 4, 5):
        house.finishing(walk, Position(None, 1, 0, 0))
        house.complete(walk, manifest)
    house.store.fail(6, "rejected")
    assert house.store.counts() == {"partial": 1, "complete": 1, "failed": 1}
    manifest.close()


def test_settings_and_runs_are_remembered(house: House) -> None:
    """What the directory was harvested with, and how many runs it had."""
    assert (house.store.run, house.store.settings()["api"]) == (1, "v2")
    house.reopened()
    assert house.store.run == 2
    assert house.store.manifest_bytes() == 0


def test_another_format_is_refused(house: House) -> None:
    """The error says which, and what to do."""
    house.store.close()
    db = sqlite3.connect(house.store.path)
    db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    with pytest.raises(ConfigError, match=f"has format {FORMAT + 1}.*--fresh"):
        house.opened()
    db = sqlite3.connect(house.store.path)
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.close()
    house.store = house.opened()


def test_a_state_that_is_no_database_is_told(tmp_path: Path) -> None:
    """Garbage in its place is storage trouble that names the file."""
    (tmp_path / "state.sqlite").write_bytes(b"garbage" * 1_000)
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        CheckpointStore(tmp_path / "state.sqlite")
    with pytest.raises(StorageError, match="gone"):
        CheckpointStore(tmp_path / "gone" / "state.sqlite")


def test_a_failed_change_changes_nothing(house: House) -> None:
    """The transaction is taken back, the error names the file, and no later one may speak of what
    it had written: the store takes nothing more until it is opened again."""
    walk = house.taken().walk
    house.commit(walk, Position("x", 1, 1, 0), 1)
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        house.commit(walk, Position("y", 1, 1, 0), 2)  # a page that is there already
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        house.commit(walk, Position("z", 2, 2, 0), 3)
    house.reopened()
    assert house.taken().position == Position("x", 1, 1, 0)
    house.commit(walk, Position("z", 2, 2, 0), 3)
    assert house.store.cursors(walk) == {1, 3}


# -- durability --------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were synced, in order."""
    names: list[str] = []
    real = os.fdatasync

    def fdatasync(file: int) -> None:
        names.append(os.readlink(f"/proc/self/fd/{file}").rpartition("/")[2])  # noqa: PTH115
        real(file)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return names


def test_no_checkpoint_is_ahead_of_its_data(house: House, synced: list[str]) -> None:
    """At the API's pace every commit syncs the part it speaks of, before it is durable itself."""
    walk = house.taken().walk
    for number in range(1, 4):
        house.part.append(b"rows\n")
        house.commit(walk, Position("x", number, number, 5 * number), number)
        assert synced == ["7.ndjson.part"] * number


def test_a_fast_run_groups_its_syncs(tmp_path: Path, clock: FakeClock, synced: list[str]) -> None:
    """Within `sync_every` seconds commits wait for the next durable one; none is left out."""
    house = House(tmp_path, clock, sync_every=0.1)
    walk = house.taken().walk
    synced.clear()
    for number in range(1, 6):
        house.commit(walk, Position("x", number, 0, 0), number)
    assert synced == []
    clock.advance(0.2)
    house.commit(walk, Position("x", 6, 0, 0), 6)
    assert synced == ["7.ndjson.part"]
    house.commit(walk, Position("x", 7, 0, 0), 7)
    house.store.sync()
    assert synced == ["7.ndjson.part"] * 2
    house.close()


def test_a_part_is_synced_before_it_is_closed(
    tmp_path: Path, clock: FakeClock, synced: list[str]
) -> None:
    """Once: what no commit speaks of any more needs no sync."""
    house = House(tmp_path, clock, sync_every=1e9)
    walk = house.taken().walk
    synced.clear()
    house.commit(walk, Position("x", 1, 0, 0), 1)
    house.store.forget(house.part)
    house.store.forget(house.part)
    assert synced == ["7.ndjson.part"]
    house.close()


def test_the_manifest_is_synced_before_a_walk_is_complete(house: House, synced: list[str]) -> None:
    """The state never calls complete what the manifest could lose."""
    walk = house.taken().walk
    house.finishing(walk, Position(None, 1, 0, 0))
    assert synced == []  # whoever calls it has synced the part
    manifest = Journal(house.folder / "manifest.ndjson")
    house.complete(walk, manifest)
    assert synced == ["manifest.ndjson"]
    manifest.close()


def test_a_disk_that_cannot_sync_saves_no_checkpoint(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit fails with it, and the position stays where it was."""
    walk = house.taken().walk

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(StorageError, match="Input/output error"):
            house.commit(walk, Position("x", 1, 1, 0), 1)
    house.reopened()
    assert house.taken().position == Position()
