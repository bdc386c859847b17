"""Where every walk stands: saved, found again, never ahead of its data."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes import PATH, TARGET, FakeClock
from msgspec.structs import replace
from workbench import Workbench, disk_calls, no_sync, turn

from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.group_commit import TURNS
from harvester.disk.part import Damaged
from harvester.disk.saved_campaign import COLUMNS, SavedCampaign
from harvester.disk.saved_walk import (
    PAGES_IN_PACK,
    STEERING,
    SavedPage,
    SavedWalk,
    checksum_before_6,
)
from harvester.disk.state_format import FORMAT
from harvester.errors import ConfigError, StorageError
from harvester.model import Position, Target

OTHER = Target("opens", "8")


def at(pages: int, link: str | None = "x", offset: int = 0) -> Position:
    """A position after so many pages of ten rows."""
    return Position(link, pages, 10 * pages, offset)


# -- one walk ----------------------------------------------------------------------------------


async def test_a_new_walk_is_new(bench: Workbench) -> None:
    """Nothing is known of it but its name."""
    saved = bench.take()
    assert saved == SavedWalk(id=saved.id, target=TARGET, run=1)
    assert (saved.state, saved.position, saved.base) == ("new", Position(), None)


async def test_a_run_takes_a_walk_once(bench: Workbench) -> None:
    """A repeated id is known from a new one; the next run may take it again."""
    saved = bench.take()
    assert bench.store.take(TARGET) is None
    assert bench.take(OTHER).id != saved.id
    assert bench.take(Target("clicks", "7")).id != saved.id
    bench.begin()
    assert bench.take().id == saved.id


async def test_every_field_is_found_by_the_next_run(bench: Workbench) -> None:
    """As it was, but for the run."""
    part = bench.part()
    offset = part.append(b"rows\n")
    saved = replace(
        bench.take(), restarts=1, started_at="then", first_event="a", last_event="b", findings="{}"
    )
    saved = await bench.commit(saved, part, at=at(1, f"{PATH}?next=a", offset), cursor=-(2**63))
    saved = await bench.commit(saved, part, at=at(2, f"{PATH}?next=b", offset), cursor=7)
    bench.begin()
    assert bench.take() == replace(saved, run=2)
    assert bench.store.pages(saved) == [SavedPage(10, -(2**63)), SavedPage(10, 7)]
    saved = await bench.commit(bench.store.restart(saved), part, at=at(1, None), cursor=None)
    bench.begin()
    assert bench.take() == replace(saved, run=3)


async def test_a_commit_outlives_a_kill(bench: Workbench) -> None:
    """What was committed is there for another process while the file was never closed."""
    await bench.commit(bench.take(), bench.part(), at=at(1))
    with bench.killed() as other:
        found = other.take(TARGET)
    assert found is not None
    assert found.position == at(1)


async def test_a_restart_forgets_the_walk(bench: Workbench) -> None:
    """Position, digest, events and cursors are gone; how often it restarted is not."""
    saved = replace(bench.take(), first_event="a", last_event="b")
    saved = await bench.commit(saved, bench.part(), at=at(1))
    saved = bench.store.restart(saved, restarts=1)
    bench.begin()
    assert bench.take() == replace(saved, run=2)
    assert (saved.state, saved.position, saved.digest) == ("new", Position(), b"")
    assert (saved.first_event, saved.last_event, saved.restarts) == (None, None, 1)
    assert bench.store.pages(saved) == []


async def test_a_failure_keeps_the_position(bench: Workbench) -> None:
    """The next try goes on from there; its next page forgets why it failed."""
    part = bench.part()
    saved = await bench.commit(bench.take(), part, at=at(1))
    bench.store.fail(saved, "server_error")
    bench.begin()
    saved = bench.take()
    assert (saved.state, saved.kind, saved.position) == ("failed", "server_error", at(1))
    await bench.commit(saved, bench.part(), at=at(2))
    bench.begin()
    saved = bench.take()
    assert (saved.state, saved.kind) == ("partial", None)


async def test_a_finished_walk_is_finishing_until_its_name_stands(bench: Workbench) -> None:
    """A kill in between is found by the next run, before anything is asked."""
    saved = await bench.commit(bench.take(), bench.part(), at=at(1))
    saved = replace(saved, position=at(2, None), completed_at="end")
    await bench.store.finishing([saved])
    bench.begin()
    (found,) = bench.store.walks_in("finishing")
    assert found == replace(saved, state="finishing")
    assert bench.store.pages(replace(saved, position=Position(), recent=b"")) == []
    bench.manifest.append({"campaign_id": "7"})
    await bench.store.complete([found], bench.manifest)
    bench.begin()
    assert list(bench.store.walks_in("finishing")) == []
    assert list(bench.store.walks_in("complete")) == [replace(saved, state="complete", recent=b"")]
    assert bench.store.manifest_bytes() == bench.manifest.size == 20
    assert bench.store.counts() == {}  # it is none of this run's until it is taken
    assert bench.take().state == "complete"


async def test_a_top_up_keeps_what_is_finished(bench: Workbench) -> None:
    """Until it is complete, and where it finds nothing new."""
    saved = replace(bench.take(), position=at(2, None, 9), digest=b"d", first_event="a")
    await bench.store.complete([saved], bench.manifest)
    bench.begin(tops_up=True)
    complete = bench.take()
    saved = bench.store.begin_top_up(complete)
    assert (saved.position, saved.first_event) == (Position(), "a")
    assert saved.base is not None
    bench.begin(tops_up=True)
    assert bench.take() == replace(saved, run=3)
    saved = bench.store.cancel_top_up(saved, saved.base)
    assert saved == replace(complete, round=1)


async def test_walks_are_counted_by_state(bench: Workbench) -> None:
    """Those of this run only."""
    for number in range(4):
        bench.take(Target("opens", f"9{number}"))
    await bench.commit(bench.take(), bench.part(), at=at(1))
    bench.store.fail(bench.take(OTHER), "not_found")
    assert bench.store.counts() == {"pending": 4, "partial": 1, "failed": 1}
    bench.begin()
    assert bench.store.counts() == {}
    bench.take()
    assert bench.store.counts() == {"partial": 1}


async def test_a_campaign_is_what_the_worst_of_its_walks_is(bench: Workbench) -> None:
    """With several reports a campaign is complete when all are, and failed when one is."""
    walks = [bench.take(Target(report, each)) for each in "123" for report in ("opens", "clicks")]
    done = [replace(walks[number], position=at(1, None)) for number in (0, 2, 3, 4)]
    await bench.store.complete(done, bench.manifest)
    bench.store.fail(walks[5], "rejected")
    assert bench.store.counts() == {"partial": 1, "complete": 1, "failed": 1}


# -- the file ----------------------------------------------------------------------------------


def test_settings_and_runs_are_remembered(bench: Workbench) -> None:
    """What the directory was harvested with, and how many runs it had."""
    assert (bench.store.run, bench.store.settings()["report"]) == (1, "opens")
    bench.begin()
    assert bench.store.run == 2
    assert bench.store.manifest_bytes() == 0


def altered(bench: Workbench, *statements: str) -> None:
    """End the run, and change its state behind its back."""
    bench.close()
    with closing(sqlite3.connect(bench.layout.database)) as db, db:
        for statement in statements:
            db.execute(statement)


def test_another_format_is_refused(bench: Workbench) -> None:
    """The error says which, and what to do."""
    altered(bench, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(ConfigError, match=f"has format {FORMAT + 1}.*`fresh`"):
        bench.begin()
    altered(bench, f"PRAGMA user_version = {FORMAT}")
    bench.begin()


def formerly(bench: Workbench, version: int) -> None:
    """End the run, and make its state one of an older format."""
    bench.close()
    with closing(sqlite3.connect(bench.layout.database)) as db, db:
        tables = {"walks": ("report", "campaign_id", *STEERING), "campaigns": COLUMNS[:-1]}
        tables |= {"settings": ("name", "value"), "pages": ("walk", "page", "packed")}
        for table, columns in tables.items():
            rows = db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            where = " AND ".join(f"{name} IS ?" for name in columns)
            for row in rows:
                db.execute(
                    f"UPDATE {table} SET checksum = ? WHERE {where}",
                    (checksum_before_6(*row), *row),
                )
        db.execute("PRAGMA user_version = 5")
    if version < 5:
        before_5(bench, version)


def before_5(bench: Workbench, version: int) -> None:
    """With a row for each page, and without what came later."""
    columns = {
        name
        for name, since in {"round": 2, "first_event": 3, "last_event": 3, "counted": 4}.items()
        if since > version
    }
    kept = [name for name in STEERING[:-2] if name not in columns]
    with closing(sqlite3.connect(bench.layout.database)) as db, db:
        page = (1, 1, 10, 7, "e") if version > 3 else (1, 1, 10, 7)
        marks = ", ".join("?" * len(page))
        db.execute("DROP TABLE pages")
        db.execute(
            "CREATE TABLE pages (walk INTEGER, page INTEGER, rows INTEGER, cursor INTEGER"
            f"{', edge TEXT' if version > 3 else ''}, checksum INTEGER, PRIMARY KEY (walk, page))"
        )
        db.execute(f"INSERT INTO pages VALUES ({marks}, ?)", (*page, checksum_before_6(*page)))
        rows = db.execute(f"SELECT id, report, campaign_id, {', '.join(kept)} FROM walks")
        for walk, *values in rows.fetchall():
            db.execute(
                "UPDATE walks SET checksum = ? WHERE id = ?", (checksum_before_6(*values), walk)
            )
        for name in (*columns, "edge", "recent"):
            db.execute(f"ALTER TABLE walks DROP COLUMN {name}")
        if version < 4:
            db.execute("DROP TABLE campaigns")
        if version < 3:
            for table in ("walks", "pages", "settings"):
                db.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        db.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", range(1, 5))
async def test_the_formats_before_are_brought_up_to_date(bench: Workbench, version: int) -> None:
    """Their walks and pages are as they were, and go on."""
    saved = await bench.commit(bench.take(), bench.part(), at=at(1))
    formerly(bench, version)
    edge = "e" if version > 3 else None
    for run in (2, 3):
        bench.begin()
        assert bench.take() == replace(saved, run=run, edge=edge, recent=b"")
        assert bench.store.pages(replace(saved, recent=b"")) == [SavedPage(10, 7)]
    bench.begin()
    saved = await bench.commit(bench.take(), bench.part(), at=at(2), cursor=8)
    bench.begin()
    assert bench.store.pages(bench.take()) == [SavedPage(10, 7), SavedPage(10, 8)]


async def test_the_checksums_of_format_5_are_made_anew(bench: Workbench) -> None:
    """Of walks, pages, campaigns and settings; what is damaged stays so."""
    campaign = SavedCampaign(campaign_id="7", detail="{}", detail_at="d")
    bench.store.keep([campaign, replace(campaign, campaign_id="8")])
    saved, part = bench.take(), bench.part()
    for page in range(1, PAGES_IN_PACK + 2):
        saved = await bench.commit(saved, part, at=at(page))
    await bench.commit(bench.take(OTHER), bench.part(OTHER), at=at(1))
    pages, settings = bench.store.pages(saved), bench.store.settings()
    formerly(bench, 5)
    altered(
        bench,
        f"UPDATE walks SET rows = 11 WHERE campaign_id = '{OTHER.campaign_id}'",
        "UPDATE campaigns SET detail = '[]' WHERE campaign_id = '8'",
    )
    for run in (2, 3):
        bench.begin()
        assert bench.take() == replace(saved, run=run)
        assert bench.store.pages(saved) == pages
        assert bench.store.settings() == {**settings, "run": str(run)}
        assert bench.store.campaign("7") == campaign
        assert bench.store.campaign("8") == SavedCampaign(campaign_id="8")
        assert bench.take(OTHER).state == "damaged"


@pytest.mark.parametrize("version", [3, 4])
async def test_what_was_damaged_before_is_damaged_in_the_new_format(
    bench: Workbench, version: int
) -> None:
    """Only what is sound gets a new checksum."""
    saved = await bench.commit(bench.take(), bench.part(), at=at(1))
    await bench.commit(bench.take(OTHER), bench.part(OTHER), at=at(1))
    formerly(bench, version)
    altered(
        bench,
        f"UPDATE walks SET rows = 11 WHERE campaign_id = '{OTHER.campaign_id}'",
        "UPDATE pages SET cursor = 6",
    )
    bench.begin()
    found = bench.take()
    assert found.position == saved.position
    with pytest.raises(Damaged):
        bench.store.pages(found)
    assert bench.take(OTHER).state == "damaged"


async def test_what_the_api_says_of_a_campaign_is_kept(bench: Workbench) -> None:
    """As it was given, by a next run too; a damaged row is as good as none."""
    campaign = SavedCampaign(
        campaign_id="7", detail="{}", detail_at="d", detail_sends=2, counts="{}"
    )
    bench.store.keep([campaign, SavedCampaign(campaign_id="8", counted_at="c")])
    bench.begin()
    assert bench.store.campaign("7") == campaign
    assert bench.store.campaign("9") == SavedCampaign(campaign_id="9")
    for column in ("detail", "detail_at", "detail_sends", "counts", "counted_at"):
        altered(bench, f"UPDATE campaigns SET {column} = {column} || '1', checksum = checksum")
        bench.begin()
        expected = {"7": campaign, "8": SavedCampaign(campaign_id="8", counted_at="c")}
        changed = [name for name, each in expected.items() if bench.store.campaign(name) != each]
        assert all(
            bench.store.campaign(each) == SavedCampaign(campaign_id=each) for each in changed
        )
        assert changed
        bench.store.keep(expected.values())


def test_a_state_that_is_no_database_is_told(tmp_path: Path) -> None:
    """Garbage in its place is storage trouble that names the file."""
    (tmp_path / "state.sqlite").write_bytes(b"garbage" * 1_000)
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        CheckpointStore(tmp_path / "state.sqlite")
    with pytest.raises(StorageError, match="gone"):
        CheckpointStore(tmp_path / "gone" / "state.sqlite")


# -- state that rots ---------------------------------------------------------------------------


def rotten(value: Any) -> list[Any]:
    """A value with one bit of it flipped, for each of its first bits and its last one."""
    if isinstance(value, int):
        return [value ^ (1 << bit) for bit in (*range(8), 40)]
    data = value.encode() if isinstance(value, str) else value or b"\0"
    found = [bytes([data[0] ^ (1 << bit)]) + data[1:] for bit in range(8)]
    return [*found, data[:-1] + bytes([data[-1] ^ 1])]


@pytest.mark.parametrize("column", ["report", "campaign_id", *STEERING])
async def test_a_flipped_bit_in_a_walk_has_it_start_over(bench: Workbench, column: str) -> None:
    """Whichever field it is in: a walk is as it was saved, or it is new, or it is known to be
    damaged; never anything else."""
    text = {"kind": "k", "findings": "{}", "started_at": "s", "completed_at": "c"}
    saved: Any = {**text, "first_event": "f", "last_event": "l", "restarts": 1, "round": 1}
    walk = replace(bench.take(), **saved, position=at(1, None, 9), digest=b"d")
    await bench.store.complete([replace(walk, round=0)], bench.manifest)
    walk = bench.store.begin_top_up(walk)
    walk = await bench.commit(walk, bench.part(), at=at(1))
    bench.close()
    with closing(sqlite3.connect(bench.layout.database)) as db:
        ((good,),) = db.execute(f"SELECT {column} FROM walks")
    for bad in rotten(good):
        with closing(sqlite3.connect(bench.layout.database)) as db, db:
            changed = "CAST(? AS TEXT)" if isinstance(good, str) else "?"
            db.execute(f"UPDATE walks SET {column} = {changed}", (bad,))
            db.execute("DELETE FROM walks WHERE id != ?", (walk.id,))
        bench.begin()
        found = bench.take()
        assert found.state == ("new" if column in {"report", "campaign_id"} else "damaged")
        assert (found.target, found.position) == (TARGET, Position())
        assert not any(list(bench.store.walks_in(each)) for each in ("complete", "finishing"))
        bench.close()
        with closing(sqlite3.connect(bench.layout.database)) as db, db:
            db.execute("DELETE FROM walks WHERE id != ?", (walk.id,))
            db.execute(f"UPDATE walks SET {column} = ?", (good,))


@pytest.mark.parametrize("flipped", ["page = page | 64", "checksum = 7", "packed = zeroblob(192)"])
async def test_a_flipped_bit_in_the_pages_is_found(bench: Workbench, flipped: str) -> None:
    """So are pages that are missing: loops and overlaps are judged by them."""
    part, saved = bench.part(), bench.take()
    for page in range(1, 2 * PAGES_IN_PACK + 2):
        saved = await bench.commit(saved, part, at=at(page), cursor=page)
    assert [page.cursor for page in bench.store.pages(saved)] == [*range(1, 2 * PAGES_IN_PACK + 2)]
    altered(bench, f"UPDATE pages SET {flipped} WHERE page = {PAGES_IN_PACK}")
    bench.begin()
    with pytest.raises(Damaged):
        bench.store.pages(saved)
    altered(bench, f"DELETE FROM pages WHERE page != {2 * PAGES_IN_PACK}")
    bench.begin()
    with pytest.raises(Damaged):
        bench.store.pages(saved)


@pytest.mark.parametrize("pages", range(1, 2 * PAGES_IN_PACK + 2))
async def test_every_page_of_a_walk_is_found_by_the_next_run(bench: Workbench, pages: int) -> None:
    """However many there are; they are forgotten when the walk is finished."""
    part, saved = bench.part(), bench.take()
    for page in range(1, pages + 1):
        saved = await bench.commit(saved, part, at=at(page), cursor=page)
    bench.begin()
    saved = bench.take()
    assert bench.store.pages(saved) == [SavedPage(10, page) for page in range(1, pages + 1)]
    await bench.store.finishing([saved])
    await bench.store.complete([saved], bench.manifest)
    bench.begin()
    saved = bench.take()
    assert (saved.recent, bench.store.pages(replace(saved, position=Position()))) == (b"", [])


@pytest.mark.parametrize("name", ["run", "round", "report", "manifest"])
async def test_a_damaged_setting_is_refused(bench: Workbench, name: str) -> None:
    """With a sentence that says what to do."""
    await bench.store.complete([], bench.manifest)
    bench.begin(tops_up=True)
    altered(bench, f"UPDATE settings SET value = value || '0' WHERE name = '{name}'")
    with pytest.raises(StorageError, match=f"setting '{name}' is damaged.*`fresh`"):
        bench.begin()


# -- durability --------------------------------------------------------------------------------


def unsavable(saved: SavedWalk) -> SavedWalk:
    """The walk with a value that the state refuses."""
    nothing: Any = None
    return replace(saved, restarts=nothing)


async def test_a_failed_change_changes_nothing(bench: Workbench) -> None:
    """The transaction is taken back, the error names the file, and no later one may refer to what
    it had written: the store takes nothing more until it is opened again."""
    part = bench.part()
    saved = await bench.commit(bench.take(), part, at=at(1))
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        await bench.commit(unsavable(saved), part, at=at(2, "y"))
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        await bench.commit(saved, part, at=at(2, "z"))
    bench.begin()
    assert bench.take().position == at(1)
    saved = await bench.commit(saved, bench.part(), at=at(2, "z"), cursor=3)
    assert [page.cursor for page in bench.store.pages(saved)] == [1, 3]


async def test_no_checkpoint_is_ahead_of_its_data(bench: Workbench) -> None:
    """At the API's pace every commit syncs the part it refers to, before it is durable itself."""
    saved, part = bench.take(), bench.part()
    await turn()
    with disk_calls([]) as calls:
        bench.note_commits(calls)
        for number in range(1, 4):
            part.append(b"rows\n")
            await bench.commit(saved, part, at=at(number))
            assert calls == ["fdatasync 7.ndjson.part", "COMMIT"] * number


@pytest.mark.parametrize(("durable", "mode"), [(True, 2), (False, 1)])
async def test_a_run_has_one_durability(
    tmp_path: Path, clock: FakeClock, *, durable: bool, mode: int
) -> None:
    """SQLite syncs each commit, or when it empties its log; at the end all is synced."""
    bench = Workbench(tmp_path, clock, durable=durable)
    assert bench.store._group.read("PRAGMA synchronous") == [(mode,)]
    with disk_calls([]) as calls:
        await bench.commit(bench.take(), bench.part(), at=at(1))
    assert calls == ["fdatasync 7.ndjson.part"] * durable
    bench.store.sync()
    assert bench.store._group.read("PRAGMA synchronous") == [(2,)]
    bench.close()


async def save_many(bench: Workbench, commits: int) -> AsyncIterator[int]:
    """Commit often, for fifty walks at a time; give the size of the write-ahead log."""
    walks = [bench.take(Target("opens", f"9{number}")) for number in range(50)]
    part = bench.part()
    for number in range(1, commits + 1):
        position = at(number, "x" * 200)
        await asyncio.gather(*(bench.commit(walk, part, at=position) for walk in walks))
        yield Path(f"{bench.store.path}-wal").stat().st_size


@pytest.mark.parametrize("durable", [True, False])
async def test_the_log_has_a_bound(root: Path, clock: FakeClock, *, durable: bool) -> None:
    """It is taken into the database, and begun anew."""
    bench = Workbench(root / "out", clock, durable=durable)
    sizes = [size async for size in save_many(bench, 200)]
    assert 4_000_000 < sizes[-1] < 8_000_000
    assert bench.store.path.stat().st_size > 40_000
    bench.close()


async def test_a_disk_that_cannot_sync_saves_no_checkpoint(bench: Workbench) -> None:
    """The commit fails with it, the position stays as it was, the sync is not tried again."""
    saved, part = bench.take(), bench.part()
    await turn()
    part.append(b"rows\n")
    with no_sync() as tried:
        with pytest.raises(StorageError, match="Input/output error"):
            await bench.commit(saved, part, at=at(1))
        with pytest.raises(StorageError, match="Input/output error"):
            bench.store.sync()
        part.sync()
    assert len(tried) == 1
    bench.begin()
    assert bench.take().position == Position()


# -- together ----------------------------------------------------------------------------------


async def some_walks(bench: Workbench, count: int = 3) -> list[SavedWalk]:
    """So many walks, taken in a turn that is over."""
    walks = [bench.take(Target("opens", str(number))) for number in range(count)]
    await turn()
    return walks


def positions(bench: Workbench, count: int = 3) -> list[Position]:
    """Where the next run finds those walks."""
    bench.begin()
    return [bench.take(Target("opens", str(number))).position for number in range(count)]


async def test_pages_of_one_turn_are_saved_by_one_transaction(bench: Workbench) -> None:
    """However many walks they are of; what comes after the commit has the next one."""
    commits, part = bench.note_commits([]), bench.part()
    walks = [bench.take(Target("opens", str(number))) for number in range(10)]
    await turn()
    assert len(commits) == 1
    for number in range(1, 4):
        await asyncio.gather(*(bench.commit(walk, part, at=at(number)) for walk in walks))
        assert len(commits) == 1 + number
        assert [bench.pages_of(walk) for walk in walks] == [number] * 10


async def test_what_comes_a_turn_later_is_in_the_same_transaction(bench: Workbench) -> None:
    """Up to the commit; what comes after it is in the next one."""
    walks, part = await some_walks(bench), bench.part()
    commits = bench.note_commits([])
    saving = []
    for walk in walks:
        saving.append(asyncio.create_task(bench.commit(walk, part, at=at(1))))
        await asyncio.sleep(0)
    await asyncio.gather(*saving)
    assert (len(walks), len(commits)) == (TURNS, 1)
    await bench.commit(walks[0], part, at=at(2))
    assert len(commits) == 2


async def test_what_is_not_committed_yet_is_known_to_the_store_alone(bench: Workbench) -> None:
    """It reads what was changed; another process reads it when it is committed."""
    walk, *_ = await some_walks(bench)
    saving = asyncio.create_task(bench.commit(walk, bench.part(), at=at(1)))
    await turn()  # the task has had its turn; the commit comes after it
    assert bench.store.peek(walk.target).position == at(1)
    assert bench.pages_of(walk) == 0
    await saving
    assert bench.pages_of(walk) == 1


@pytest.mark.parametrize("soon", ["at once", "closed"])
async def test_the_turn_need_not_be_waited_for(bench: Workbench, soon: str) -> None:
    """What is to be saved soon is saved by `save`, and when the store is closed."""
    walk = bench.take()
    if soon == "at once":
        bench.store.save()
        assert bench.pages_of(walk) == 0  # it is there
    bench.begin()
    assert bench.take().id == walk.id


async def test_a_commit_that_fails_fails_every_walk_that_waits(bench: Workbench) -> None:
    """Each gets the reason, and the position of none moves."""
    walks, part = await some_walks(bench), bench.part()
    part.append(b"rows\n")
    with no_sync():
        ends = await asyncio.gather(
            *(bench.commit(walk, part, at=at(1)) for walk in walks), return_exceptions=True
        )
    assert [type(end) for end in ends] == [StorageError] * 3
    assert all("Input/output error" in str(end) for end in ends)
    assert [bench.pages_of(walk) for walk in walks] == [0] * 3
    assert positions(bench) == [Position()] * 3


async def test_a_change_that_fails_takes_back_those_of_its_turn(bench: Workbench) -> None:
    """A walk that came before it waits in vain, one that comes after it is refused."""
    walks, part = await some_walks(bench), bench.part()
    await bench.commit(walks[1], part, at=at(1))
    walks[1] = unsavable(walks[1])
    saving = [bench.commit(walk, part, at=at(1, "y")) for walk in walks]
    ends = await asyncio.gather(*saving, return_exceptions=True)
    assert [type(end) for end in ends] == [StorageError] * 3
    assert len({str(end) for end in ends}) == 1
    assert positions(bench) == [Position(), at(1), Position()]


async def test_callbacks_are_called_when_their_turn_is_committed(bench: Workbench) -> None:
    """Once, and not before all is saved that was changed in that turn."""
    (mine, other, _), part = await some_walks(bench), bench.part()
    found: list[tuple[int, int]] = []
    saving = asyncio.create_task(bench.commit(other, part, at=at(1)))
    bench.store.call_after_commit(
        lambda: found.append((bench.pages_of(mine), bench.pages_of(other)))
    )
    assert found == []
    await bench.commit(mine, part, at=at(1))
    await saving
    await bench.commit(mine, part, at=at(2))
    assert found == [(1, 1)]


async def test_a_task_that_waits_for_a_commit_goes_on_before_what_the_callbacks_schedule(
    bench: Workbench,
) -> None:
    """Which walk asks next is decided when all of them are there to be chosen from."""
    walks, part, order = await some_walks(bench), bench.part(), list[str]()
    loop = asyncio.get_running_loop()

    async def walk(saved: SavedWalk) -> None:
        bench.store.call_after_commit(lambda: loop.call_soon(order.append, "next") and None)
        await bench.commit(saved, part, at=at(1))
        order.append("saved")

    await asyncio.gather(*map(walk, walks))
    await turn()
    assert order == ["saved"] * 3 + ["next"] * 3


async def test_callbacks_are_called_when_the_commit_failed(bench: Workbench) -> None:
    """Nothing is held back for what will never be saved."""
    (walk, *_), part = await some_walks(bench), bench.part()
    part.append(b"rows\n")
    found: list[int] = []
    bench.store.call_after_commit(lambda: found.append(bench.pages_of(walk)))
    with no_sync(), pytest.raises(StorageError):
        await bench.commit(walk, part, at=at(1))
    await turn()
    assert found == [0]


async def test_callbacks_are_called_where_nothing_changed(bench: Workbench) -> None:
    """After their turn, without a transaction."""
    commits, after_commit = bench.note_commits([]), asyncio.Event()
    bench.store.call_after_commit(after_commit.set)
    assert not after_commit.is_set()
    await turn()
    await turn()
    assert after_commit.is_set()
    assert commits == []


async def test_a_task_that_is_cancelled_while_it_waits_is_saved_all_the_same(
    bench: Workbench,
) -> None:
    """With the others, by that commit."""
    walks, part = await some_walks(bench), bench.part()
    saving = [asyncio.create_task(bench.commit(walk, part, at=at(1))) for walk in walks]
    await turn()
    saving[1].cancel()
    assert [bench.pages_of(walk) for walk in walks] == [0] * 3
    await turn()
    assert [bench.pages_of(walk) for walk in walks] == [1] * 3
    ends = await asyncio.gather(*saving, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [False, True, False]
    assert positions(bench) == [at(1)] * 3


async def test_a_failure_that_no_task_waited_for_is_told_at_the_end(bench: Workbench) -> None:
    """The run that makes everything durable learns that a commit failed."""
    bench.take()
    bench.store._group._check = lambda: (_ for _ in ()).throw(StorageError("gone"))
    await turn()
    with pytest.raises(StorageError, match="gone"):
        bench.store.sync()
