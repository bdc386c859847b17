"""Where every walk stands: saved, found again, never ahead of its data."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import PATH, TARGET, FakeClock

from harvester.disk.checkpoint import FORMAT, CheckpointStore, SavedWalk
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import PartFile
from harvester.disk.storage import Folder
from harvester.errors import ConfigError, StorageError
from harvester.model import Page, Position, Target

OTHER = Target("opens", "8")


class House:
    """A state folder, its store, and a part file."""

    def __init__(self, folder: Path, clock: FakeClock, sync_every: float = 0.0) -> None:
        self.folder, self.clock, self.sync_every = folder, clock, sync_every
        self.records: dict[int, SavedWalk] = {}
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

    def taken(self, target: Target = TARGET) -> SavedWalk:
        """The record of a target that this run has not taken yet."""
        record = self.store.take(target)
        assert record is not None
        self.records[record.walk] = record
        return record

    async def commit(self, walk: int, position: Position, cursor: int | None = 1) -> None:
        """Save a position after a page of ten rows."""
        await self.store.commit(walk, position, 10, cursor, self.part, started_at="then")

    async def finishing(self, walk: int, position: Position) -> None:
        """Save that every row is there."""
        record = replace(self.records[walk], position=position, digest=self.part.digest())
        await self.store.finishing(replace(record, completed_at="end"))

    def complete(self, walk: int, manifest: NdjsonLog) -> None:
        """Save that the name and the line stand."""
        self.store.complete(walk, Folder(self.folder), manifest)

    def note_commits(self, notes: list[str]) -> list[str]:
        """Have every transaction that ends well noted, too."""
        self.store._group._db.set_trace_callback(
            lambda statement: notes.append(statement) if statement == "COMMIT" else None
        )
        return notes

    def saved(self, walk: int) -> int:
        """The pages of a walk that somebody else would find, were this process killed now."""
        with closing(sqlite3.connect(self.store.path)) as db:
            ((pages,),) = db.execute("SELECT pages FROM walks WHERE id = ?", (walk,))
        return int(pages)

    def close(self) -> None:
        """Give the files back."""
        self.part.close()
        self.store.close()


async def turn() -> None:
    """Let this turn of the loop end, with all that is to be done at its end."""
    await asyncio.sleep(0)


@pytest.fixture
def house(tmp_path: Path, clock: FakeClock) -> Iterator[House]:
    """A house in a new folder."""
    house = House(tmp_path, clock)
    yield house
    house.close()


async def test_a_new_walk_is_new(house: House) -> None:
    """Nothing is known of it but its name."""
    record = house.taken()
    assert (record.target, record.state, record.position) == (TARGET, "new", Position())
    assert (record.digest, record.restarts, record.kind) == (b"", 0, None)
    assert (record.started_at, record.completed_at) == (None, None)


async def test_a_run_takes_a_walk_once(house: House) -> None:
    """A repeated id is told apart from a new one; the next run may take it again."""
    record = house.taken()
    assert house.store.take(TARGET) is None
    assert house.taken(OTHER).walk != record.walk
    assert house.taken(Target("clicks", "7")).walk != record.walk
    house.reopened()
    assert house.taken().walk == record.walk


async def test_a_commit_is_found_by_the_next_run(house: House) -> None:
    """Position, digest and cursors, as they were."""
    walk = house.taken().walk
    offset = house.part.append(b"rows\n")
    position = Position(f"{PATH}?next=a", 1, 1, offset)
    await house.commit(walk, position, -(2**63))
    position = position.after(Page(b"", 1, f"{PATH}?next=b"), offset)
    await house.commit(walk, position, 7)
    position = position.after(Page(b"", 1, f"{PATH}?next=c"), offset)
    await house.commit(walk, position, 7)
    house.reopened()
    record = house.taken()
    assert (record.state, record.position) == ("partial", position)
    assert (record.digest, record.started_at) == (house.part.digest(), "then")
    assert house.store.cursors(walk) == {-(2**63), 7}
    assert house.store.cursors(walk + 1) == set()


async def test_a_commit_outlives_a_kill(house: House) -> None:
    """What was committed is there for whoever opens the file while it was never closed."""
    await house.commit(house.taken().walk, Position("x", 1, 1, 0), 1)
    other = CheckpointStore(house.store.path)
    other.begin_run({})
    record = other.take(TARGET)
    assert record is not None
    assert record.position == Position("x", 1, 1, 0)
    other.close()


async def test_a_restart_forgets_the_walk(house: House) -> None:
    """Position, digest and cursors are gone; how often it restarted is not."""
    walk = house.taken().walk
    await house.commit(walk, Position("x", 3, 30, 0), 1)
    house.store.restart(walk, restarts=1)
    house.reopened()
    record = house.taken()
    assert (record.state, record.position, record.digest) == ("new", Position(), b"")
    assert record.restarts == 1
    assert house.store.cursors(walk) == set()


async def test_a_failure_keeps_the_position(house: House) -> None:
    """The next try goes on from there; its next page forgets why it failed."""
    walk = house.taken().walk
    await house.commit(walk, Position("x", 3, 30, 0), 1)
    house.store.fail(walk, "server_error")
    house.reopened()
    record = house.taken()
    assert (record.state, record.kind, record.position.pages) == ("failed", "server_error", 3)
    await house.commit(walk, Position("y", 4, 40, 0), 2)
    house.reopened()
    record = house.taken()
    assert (record.state, record.kind) == ("partial", None)


async def test_a_finished_walk_is_finishing_until_its_name_stands(house: House) -> None:
    """A kill in between is found by the next run, before anything is asked."""
    walk = house.taken().walk
    await house.commit(walk, Position("x", 1, 1, 0), 1)
    await house.finishing(walk, Position(None, 2, 2, 0))
    house.reopened()
    (record,) = house.store.finishing_walks()
    assert (record.walk, record.state, record.completed_at) == (walk, "finishing", "end")
    assert record.position.finished
    assert house.store.cursors(walk) == set()
    manifest = NdjsonLog(house.folder / "manifest.ndjson")
    manifest.append({"campaign_id": "7"})
    house.complete(walk, manifest)
    house.reopened()
    assert house.store.finishing_walks() == []
    assert house.taken().state == "complete"
    assert house.store.manifest_bytes() == manifest.size == 20
    manifest.close()


async def test_walks_are_counted_by_state(house: House) -> None:
    """Those of this run only."""
    for number in range(4):
        house.taken(Target("opens", str(number)))
    walk = house.taken().walk
    await house.commit(walk, Position("x", 1, 1, 0), 1)
    house.store.fail(house.taken(OTHER).walk, "not_found")
    assert house.store.counts() == {"pending": 4, "partial": 1, "failed": 1}
    house.reopened()
    assert house.store.counts() == {}
    house.taken()
    assert house.store.counts() == {"partial": 1}


async def test_a_campaign_is_what_the_worst_of_its_walks_is(house: House) -> None:
    """With several reports a campaign is complete when all are, and failed when one is."""
    manifest = NdjsonLog(house.folder / "manifest.ndjson")
    for campaign_id in "123":
        for report in ("opens", "clicks"):
            house.taken(Target(report, campaign_id))
    for walk in (1, 3, 4, 5):
        await house.finishing(walk, Position(None, 1, 0, 0))
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


async def test_the_format_before_is_brought_up_to_date(house: House) -> None:
    """Its walks are as they were, and of no round of top-ups yet."""
    walk = house.taken().walk
    house.store.close()
    db = sqlite3.connect(house.store.path)
    db.execute("ALTER TABLE walks DROP COLUMN round")
    db.execute("PRAGMA user_version = 1")
    db.close()
    house.store = house.opened()
    record = house.taken()
    assert (record.walk, record.round) == (walk, 0)


def test_a_state_that_is_no_database_is_told(tmp_path: Path) -> None:
    """Garbage in its place is storage trouble that names the file."""
    (tmp_path / "state.sqlite").write_bytes(b"garbage" * 1_000)
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        CheckpointStore(tmp_path / "state.sqlite")
    with pytest.raises(StorageError, match="gone"):
        CheckpointStore(tmp_path / "gone" / "state.sqlite")


async def test_a_failed_change_changes_nothing(house: House) -> None:
    """The transaction is taken back, the error names the file, and no later one may speak of what
    it had written: the store takes nothing more until it is opened again."""
    walk = house.taken().walk
    await house.commit(walk, Position("x", 1, 1, 0), 1)
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        await house.commit(walk, Position("y", 1, 1, 0), 2)  # a page that is there already
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        await house.commit(walk, Position("z", 2, 2, 0), 3)
    house.reopened()
    assert house.taken().position == Position("x", 1, 1, 0)
    await house.commit(walk, Position("z", 2, 2, 0), 3)
    assert house.store.cursors(walk) == {1, 3}


# -- durability --------------------------------------------------------------------------------


@contextmanager
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the disk sync nothing."""

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        yield


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


async def test_no_checkpoint_is_ahead_of_its_data(house: House, synced: list[str]) -> None:
    """At the API's pace every commit syncs the part it speaks of, before it is durable itself."""
    walk = house.taken().walk
    house.note_commits(synced)
    for number in range(1, 4):
        house.part.append(b"rows\n")
        await house.commit(walk, Position("x", number, number, 5 * number), number)
        assert synced == ["7.ndjson.part", "COMMIT"] * number


async def test_a_fast_run_groups_its_syncs(
    tmp_path: Path, clock: FakeClock, synced: list[str]
) -> None:
    """Within `sync_every` seconds commits wait for the next durable one; none is left out."""
    house = House(tmp_path, clock, sync_every=0.1)
    walk = house.taken().walk
    synced.clear()
    for number in range(1, 6):
        await house.commit(walk, Position("x", number, 0, 0), number)
    assert synced == []
    clock.advance(0.2)
    await house.commit(walk, Position("x", 6, 0, 0), 6)
    assert synced == ["7.ndjson.part"]
    await house.commit(walk, Position("x", 7, 0, 0), 7)
    house.store.sync()
    assert synced == ["7.ndjson.part"] * 2
    house.close()


def log_size(house: House) -> int:
    """The bytes of the write-ahead log."""
    return Path(f"{house.store.path}-wal").stat().st_size


async def save_many(house: House, seconds: float, commits: int = 300) -> AsyncIterator[int]:
    """Commit often, for fifty walks at a time, so many seconds apart; tell the log's size."""
    walks = [house.taken(Target("opens", str(number))).walk for number in range(50)]
    for number in range(1, commits + 1):
        at = Position("x" * 200, number, number, 0)
        await asyncio.gather(*(house.commit(walk, at, number) for walk in walks))
        yield log_size(house)
        house.clock.advance(seconds)


async def test_what_is_not_durable_is_not_made_so_by_sqlite(root: Path, clock: FakeClock) -> None:
    """However long the log grows: its commits may speak of files that are yet to be synced."""
    house = House(root, clock, sync_every=1e9)
    before = house.store.path.read_bytes()
    sizes = [size async for size in save_many(house, 0.0)]
    assert sizes[-1] > 8 << 20
    assert house.store.path.read_bytes() == before
    house.close()


@pytest.mark.parametrize("sync_every", [0.0, 1.0])
async def test_the_log_has_a_bound(root: Path, clock: FakeClock, sync_every: float) -> None:
    """It is taken into the database after a durable commit, and begun anew by the next one."""
    house = House(root, clock, sync_every=sync_every)
    sizes = [size async for size in save_many(house, 0.1)]
    assert 4 << 20 < sizes[-1] < 8 << 20
    assert house.store.path.stat().st_size > 200_000
    house.close()


async def test_a_part_is_synced_before_it_is_closed(
    tmp_path: Path, clock: FakeClock, synced: list[str]
) -> None:
    """Once: what no commit speaks of any more needs no sync."""
    house = House(tmp_path, clock, sync_every=1e9)
    walk = house.taken().walk
    synced.clear()
    await house.commit(walk, Position("x", 1, 0, 0), 1)
    house.store.sync_and_release(house.part)
    house.store.sync_and_release(house.part)
    assert synced == ["7.ndjson.part"]
    house.close()


async def test_the_manifest_is_synced_before_a_walk_is_complete(
    house: House, synced: list[str]
) -> None:
    """The state never calls complete what the manifest could lose."""
    walk = house.taken().walk
    await house.finishing(walk, Position(None, 1, 0, 0))
    assert synced == []  # whoever calls it has synced the part
    manifest = NdjsonLog(house.folder / "manifest.ndjson")
    house.note_commits(synced)
    house.complete(walk, manifest)
    assert synced == []  # soon, with others
    await turn()
    assert synced == ["manifest.ndjson", "COMMIT"]
    manifest.close()


async def test_a_disk_that_cannot_sync_saves_no_checkpoint(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit fails with it, and the position stays where it was."""
    walk = house.taken().walk
    with refused(monkeypatch), pytest.raises(StorageError, match="Input/output error"):
        await house.commit(walk, Position("x", 1, 1, 0), 1)
    house.reopened()
    assert house.taken().position == Position()


# -- together ----------------------------------------------------------------------------------


async def some_walks(house: House, count: int = 3) -> list[int]:
    """So many walks, taken in a turn that is over."""
    walks = [house.taken(Target("opens", str(number))).walk for number in range(count)]
    await turn()
    return walks


def positions(house: House, count: int = 3) -> list[Position]:
    """Where the next run finds those walks."""
    house.reopened()
    return [house.taken(Target("opens", str(number))).position for number in range(count)]


async def test_pages_of_one_turn_are_saved_by_one_transaction(house: House) -> None:
    """However many walks they are of; what comes in the next turn has the next one."""
    commits = house.note_commits([])
    walks = [house.taken(Target("opens", str(number))).walk for number in range(10)]
    await turn()
    assert len(commits) == 1
    for number in range(1, 4):
        at = Position("x", number, number, 0)
        await asyncio.gather(*(house.commit(walk, at, number) for walk in walks))
        assert len(commits) == 1 + number
        assert [house.saved(walk) for walk in walks] == [number] * 10


async def test_what_is_not_committed_yet_is_known_to_the_store_alone(house: House) -> None:
    """It reads what its turn has changed, and nobody else does until the turn has ended."""
    walk, *_ = await some_walks(house)
    saving = asyncio.create_task(house.commit(walk, Position("x", 1, 10, 0), 7))
    await turn()  # the task had its turn; the commit comes after it
    assert (house.store.cursors(walk), house.store.page_rows(walk)) == ({7}, [10])
    assert house.saved(walk) == 0
    await saving
    assert house.saved(walk) == 1


@pytest.mark.parametrize("soon", ["at once", "closed"])
async def test_nobody_need_wait_for_the_turn(house: House, soon: str) -> None:
    """What is to be saved soon is saved when the store is told to, and when it is closed."""
    house.taken(OTHER)
    walk = house.taken().walk
    if soon == "at once":
        house.store.save()
        assert house.saved(walk) == 0  # it is there
    house.reopened()
    assert house.taken().walk == walk


async def test_a_commit_that_fails_fails_every_walk_that_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told why, and nobody's position moves."""
    walks = await some_walks(house)
    saving = (house.commit(walk, Position("x", 1, 1, 0)) for walk in walks)
    with refused(monkeypatch):
        ends = await asyncio.gather(*saving, return_exceptions=True)
    assert [type(end) for end in ends] == [StorageError] * 3
    assert all("Input/output error" in str(end) for end in ends)
    assert [house.saved(walk) for walk in walks] == [0] * 3
    assert positions(house) == [Position()] * 3


async def test_a_change_that_fails_takes_back_those_of_its_turn(house: House) -> None:
    """Whoever came before it waits in vain, whoever comes after it is refused."""
    walks = await some_walks(house)
    before = Position("x", 1, 1, 0)
    await house.commit(walks[1], before)
    saving = [house.commit(walk, Position("y", 1, 1, 0)) for walk in walks]  # [1] has that page
    ends = await asyncio.gather(*saving, return_exceptions=True)
    assert [type(end) for end in ends] == [StorageError] * 3
    assert len({str(end) for end in ends}) == 1
    assert positions(house) == [Position(), before, Position()]


async def test_an_answer_is_settled_when_its_turn_is_committed(house: House) -> None:
    """Once, and not before all is saved that anybody changed in that turn."""
    mine, other, _ = await some_walks(house)
    found: list[tuple[int, int]] = []
    saving = asyncio.create_task(house.commit(other, Position("x", 1, 1, 0)))
    house.store.call_after_commit(lambda: found.append((house.saved(mine), house.saved(other))))
    assert found == []
    await house.commit(mine, Position("x", 1, 1, 0))
    await saving
    await house.commit(mine, Position("x", 2, 2, 0), 2)
    assert found == [(1, 1)]


async def test_who_waits_for_a_commit_goes_on_before_what_follows_the_answers(house: House) -> None:
    """Who is to be asked next is decided when all of them are there to be chosen from."""
    walks, order = await some_walks(house), []
    loop = asyncio.get_running_loop()

    async def walk(number: int) -> None:
        house.store.call_after_commit(lambda: loop.call_soon(order.append, "next") and None)
        await house.commit(number, Position("x", 1, 1, 0))
        order.append("saved")

    await asyncio.gather(*map(walk, walks))
    await turn()
    assert order == ["saved"] * 3 + ["next"] * 3


async def test_an_answer_is_settled_when_its_commit_failed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is held back for what will never be saved."""
    walk, *_ = await some_walks(house)
    found: list[int] = []
    house.store.call_after_commit(lambda: found.append(house.saved(walk)))
    with refused(monkeypatch), pytest.raises(StorageError):
        await house.commit(walk, Position("x", 1, 1, 0))
    await turn()
    assert found == [0]


async def test_an_answer_that_changes_nothing_is_settled_too(house: House) -> None:
    """After its turn, without a transaction."""
    commits, after_commit = house.note_commits([]), asyncio.Event()
    house.store.call_after_commit(after_commit.set)
    assert not after_commit.is_set()
    await turn()
    await turn()
    assert after_commit.is_set()
    assert commits == []


async def test_whoever_is_cancelled_while_it_waits_is_saved_all_the_same(house: House) -> None:
    """With the others, at the end of that turn."""
    walks = await some_walks(house)
    saving = [asyncio.create_task(house.commit(walk, Position("x", 1, 1, 0))) for walk in walks]
    await turn()
    saving[1].cancel()
    assert [house.saved(walk) for walk in walks] == [0] * 3
    await turn()
    assert [house.saved(walk) for walk in walks] == [1] * 3
    ends = await asyncio.gather(*saving, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), asyncio.CancelledError, type(None)]
    assert positions(house) == [Position("x", 1, 1, 0)] * 3


async def test_a_failure_that_nobody_waited_for_is_told_at_the_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that makes everything durable learns that a walk was not saved as complete."""
    walk = house.taken().walk
    await house.finishing(walk, Position(None, 1, 0, 0))
    manifest = NdjsonLog(house.folder / "manifest.ndjson")
    manifest.append({"campaign_id": "7"})
    with refused(monkeypatch):
        house.complete(walk, manifest)
        await turn()
    with pytest.raises(StorageError, match="Input/output error"):
        house.store.sync()
    house.reopened()
    assert [record.walk for record in house.store.finishing_walks()] == [walk]
    assert house.store.manifest_bytes() == 0
    manifest.close()


async def test_a_failure_that_a_walk_was_told_is_not_told_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ended the run already, and what was saved before is made durable."""
    walk = house.taken().walk
    await house.commit(walk, Position("x", 1, 1, 0), 1)
    with refused(monkeypatch), pytest.raises(StorageError, match="Input/output error"):
        await house.commit(walk, Position("y", 2, 2, 0), 2)
    house.store.sync()
    house.reopened()
    assert house.taken().position == Position("x", 1, 1, 0)
