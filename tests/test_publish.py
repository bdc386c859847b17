"""From the last page to the final name and the manifest's line, done once or done again."""

import asyncio
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from fakes import TARGET, FakeClock
from msgspec.structs import replace
from workbench import Workbench, disk_calls, no_sync

from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import PartFile
from harvester.disk.saved_walk import SavedWalk
from harvester.errors import CampaignError, StorageError
from harvester.events import CampaignCompleted, WalkRestarted
from harvester.model import Position, Target

DATA = b'{"n":1}\n{"n":2}\n'


async def finishing(bench: Workbench, data: bytes = DATA, **fields: Any) -> SavedWalk:
    """The state says that every row stands in the part file; then the run is killed."""
    saved, _ = await bench.ended(data, started_at="start", **fields)
    await bench.store.finishing([saved])
    bench.begin()
    (found,) = bench.store.walks_in("finishing")
    return found


def states(bench: Workbench) -> dict[str, int]:
    """The walks by their state, as another process reads them."""
    with bench.killed() as other:
        other.take(TARGET)
        return other.counts()


# -- one file ----------------------------------------------------------------------------------


async def test_a_finished_walk_gets_its_name_and_its_line(bench: Workbench) -> None:
    """The part is renamed, the manifest says what is in it, the state calls it complete."""
    moments = {"first_event": "2026-01-01T00:00:00.000Z", "last_event": "2026-01-02T00:00:00.000Z"}
    await bench.publisher.publish(*await bench.ended(DATA, started_at="start", **moments))
    assert bench.final.read_bytes() == DATA
    assert not bench.part_path.exists()
    assert bench.lines() == [
        {
            "report": "opens",
            "campaign_id": "7",
            "file": "opens/7.ndjson",
            "rows": 2,
            "pages": 2,
            "bytes": len(DATA),
            "sha256": hashlib.sha256(DATA).hexdigest(),
            **moments,
            "started_at": "start",
            "completed_at": "end",
            "run_id": "run",
        }
    ]
    assert states(bench) == {"complete": 1}
    (event,) = bench.seen.of(CampaignCompleted)
    assert (event.file, event.rows, event.reconciled) == ("opens/7.ndjson", 2, None)


async def test_findings_stand_in_the_line(bench: Workbench) -> None:
    """As they were saved."""
    found = '{"summary":{"opens":3},"distinct_contacts":2,"reconciled":false}'
    await bench.publisher.publish(*await bench.ended(DATA, findings=found))
    (line,) = bench.lines()
    assert (line["summary"], line["reconciled"]) == ({"opens": 3}, False)
    assert [event.reconciled for event in bench.seen.of(CampaignCompleted)] == [False]


@pytest.mark.parametrize("durable", [True, False])
async def test_nothing_is_named_or_called_complete_before_it_is_synced(
    bench: Workbench, *, durable: bool
) -> None:
    """At any pace: the rows before the name, name and line before the state that refers to them."""
    bench.durable = durable
    bench.begin()
    saved, part = await bench.ended(DATA)
    with disk_calls([]) as calls:
        bench.note_commits(calls)
        await bench.publisher.publish(saved, part)
    synced = ["fsync opens", "fdatasync manifest.ndjson"]
    assert calls == ["fdatasync 7.ndjson.part", "COMMIT", "rename 7.ndjson", *synced, "COMMIT"]


# -- many files --------------------------------------------------------------------------------


class SlowDisk:
    """Holds the sync of the first part until it is released; counts the batches."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.synced: list[str] = []
        self.going_on, self.begun = threading.Event(), asyncio.Event()
        self._loop, self._sync = asyncio.get_running_loop(), PartFile.sync

    def sync(self, part: PartFile) -> None:
        """In the place of the part's own."""
        self.threads.add(threading.get_ident())
        self.synced.append(part.path.name)
        self._loop.call_soon_threadsafe(self.begun.set)
        self.going_on.wait()
        self._sync(part)


async def ended_walks(bench: Workbench, count: int) -> list[tuple[SavedWalk, PartFile]]:
    """So many walks at their end."""
    return [await bench.ended(DATA, Target("opens", str(number))) for number in range(count)]


async def test_walks_that_come_while_others_are_published_are_the_next_batch(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are: one thread, two transactions, one sync of the manifest for all."""
    walks, disk = await ended_walks(bench, 20), SlowDisk()
    monkeypatch.setattr(PartFile, "sync", lambda part: disk.sync(part))
    with disk_calls([]) as calls:
        bench.note_commits(calls)
        tasks = [asyncio.create_task(bench.publisher.publish(*walks[0]))]
        await disk.begun.wait()
        tasks += [asyncio.create_task(bench.publisher.publish(*walk)) for walk in walks[1:]]
        await asyncio.sleep(0)
        disk.going_on.set()
        await asyncio.gather(*tasks)
    assert threading.get_ident() not in disk.threads
    assert (calls.count("COMMIT"), calls.count("fdatasync manifest.ndjson")) == (4, 2)
    assert [line["campaign_id"] for line in bench.lines()] == [str(each) for each in range(20)]
    assert len(bench.seen.of(CampaignCompleted)) == 20


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
async def test_a_disk_that_refuses_once_publishes_nothing_more(bench: Workbench, call: str) -> None:
    """A part, or the folder, that cannot be synced: all of its batch fail, none is called
    complete, and what could not be synced is not tried again."""
    bench.durable = False
    bench.begin()
    walks = await ended_walks(bench, 4)
    with no_sync(call) as tried:
        ends = await asyncio.gather(
            *(bench.publisher.publish(*walk) for walk in walks[:3]), return_exceptions=True
        )
        with pytest.raises(StorageError, match="Input/output error"):
            await bench.publisher.publish(*walks[3])
    assert [type(end) for end in ends] == [StorageError] * 3
    assert len(tried) == len(set(tried))
    bench.begin()
    assert list(bench.store.walks_in("complete")) == bench.lines() == []
    assert bench.seen.of(CampaignCompleted) == []


async def test_a_cancel_waits_for_what_is_being_published(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be called back, and its file must not be closed under it: the batch ends
    well, and so does the one that waits."""
    walks, disk = await ended_walks(bench, 3), SlowDisk()
    monkeypatch.setattr(PartFile, "sync", lambda part: disk.sync(part))
    after: list[str] = []

    async def worker(walk: tuple[SavedWalk, PartFile]) -> None:
        await bench.publisher.publish(*walk)
        await anyio.lowlevel.checkpoint()
        after.append("went on")

    async with anyio.create_task_group() as group:
        for walk in walks:
            group.start_soon(worker, walk)
        await disk.begun.wait()
        group.cancel_scope.cancel()
        disk.going_on.set()
    assert after == []
    assert len(bench.lines()) == len(bench.seen.of(CampaignCompleted)) == 3


@pytest.mark.parametrize("harm", ["gone", "another", "link", "directory"])
async def test_what_cannot_be_named_fails_alone(bench: Workbench, harm: str) -> None:
    """Its part is not the one that was written, or a directory has its final name: the other files
    of the batch are published."""
    walks = await ended_walks(bench, 3)
    part, final = walks[1][1].path, bench.layout.final(walks[1][0].target)
    match harm:
        case "gone":
            part.unlink()
        case "another":
            part.rename(part.with_name("x"))
            part.write_bytes(DATA)
        case "link":
            part.rename(part.with_name("x"))
            part.symlink_to("x")
        case "directory":
            final.mkdir()
    ends = await asyncio.gather(
        *(bench.publisher.publish(*walk) for walk in walks), return_exceptions=True
    )
    assert [isinstance(end, CampaignError) for end in ends] == [False, True, False]
    kind = "obstructed" if harm == "directory" else "damaged_file"
    assert getattr(ends[1], "kind", None) == kind
    assert not final.is_file()
    assert {line["campaign_id"] for line in bench.lines()} == {"0", "2"}
    assert states(bench) == {"pending": 1}


@pytest.mark.parametrize("late", [False, True])
async def test_a_directory_that_is_not_ours_any_more_is_left_alone(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    """Moved away, and its place taken by a copy, also at the last moment: nothing in it is named,
    listed or removed."""
    saved, part = await bench.ended(DATA)
    root, finishing = bench.layout.root, CheckpointStore.finishing

    def replace_directory() -> None:
        root.rename(root.with_name("moved"))
        shutil.copytree(root.with_name("moved"), root)

    async def and_then(store: CheckpointStore, walks: Sequence[SavedWalk]) -> None:
        await finishing(store, walks)
        replace_directory()

    if late:
        monkeypatch.setattr(CheckpointStore, "finishing", and_then)
    else:
        replace_directory()
    with pytest.raises(StorageError, match="was moved, removed or replaced"):
        await bench.publisher.publish(saved, part)
    assert bench.part_path.read_bytes() == DATA
    assert not bench.final.exists()
    assert bench.layout.manifest.read_bytes() == b""


# -- what a kill has left ----------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["before the name", "after the name", "after the line"])
async def test_what_a_kill_interrupted_is_finished(bench: Workbench, stage: str) -> None:
    """Whether the final name stood already or not: one file, one line; started when it was."""
    await finishing(bench)
    if stage != "before the name":
        bench.part_path.rename(bench.final)
    if stage == "after the line":
        bench.manifest.append({"not": "acknowledged"})
        bench.begin()
    for _ in range(2):
        await bench.publisher.republish()
        assert bench.final.read_bytes() == DATA
        assert [(each["started_at"], each["run_id"]) for each in bench.lines()] == [
            ("start", "run")
        ]
    assert states(bench) == {"complete": 1}


@pytest.mark.parametrize("durable", [True, False])
async def test_what_a_kill_left_is_synced_before_it_gets_its_name(
    root: Path, clock: FakeClock, *, durable: bool
) -> None:
    """The last page was saved, the walk was finishing, and the kill came before the sync."""
    bench = Workbench(root, clock, durable=durable)
    saved, part = await bench.ended(DATA)
    await bench.store.commit(replace(saved, state="finishing"), part)
    bench.begin()
    with disk_calls([]) as calls:
        await bench.publisher.republish()
    assert "fdatasync 7.ndjson.part" in calls[: calls.index("rename 7.ndjson")]
    assert bench.final.read_bytes() == DATA
    bench.close()


async def test_what_a_kill_left_is_not_finished_in_a_directory_that_is_not_ours(
    bench: Workbench,
) -> None:
    """A copy took its place since the run began."""
    await finishing(bench)
    moved = bench.layout.root.rename(bench.layout.root.with_name("moved"))
    shutil.copytree(moved, bench.layout.root)
    with pytest.raises(StorageError, match="was moved, removed or replaced"):
        await bench.publisher.republish()
    assert (bench.part_path.exists(), bench.final.exists()) == (True, False)


@pytest.mark.parametrize("stage", ["part", "final"])
@pytest.mark.parametrize("harm", ["gone", "short", "longer", "changed"])
async def test_what_a_power_cut_damaged_is_begun_anew(
    bench: Workbench, stage: str, harm: str
) -> None:
    """No final name stands for it, the manifest has no line, and this run takes it."""
    await finishing(bench)
    path = bench.part_path
    if stage == "final":
        path = bench.part_path.rename(bench.final)
    match harm:
        case "gone":
            path.unlink()
        case "short":
            path.write_bytes(DATA[:-1])
        case "longer":
            path.write_bytes(DATA + b"{")
        case "changed":
            path.write_bytes(DATA.replace(b"1", b"\0"))
    await bench.publisher.republish()
    assert not bench.final.exists()
    assert bench.lines() == []
    (event,) = bench.seen.of(WalkRestarted)
    assert (event.target, event.cause) == (TARGET, "damaged_file")
    assert bench.take().position == Position()


async def test_a_directory_at_the_final_name_is_left_to_its_campaign(bench: Workbench) -> None:
    """A later run does not end for it."""
    await finishing(bench)
    bench.final.mkdir()
    await bench.publisher.republish()
    assert (bench.part_path.read_bytes(), bench.lines()) == (DATA, [])
    await bench.harvest()
    bench.begin()
    assert (bench.take().kind, bench.final.is_dir()) == ("obstructed", True)
    bench.final.rmdir()
    bench.begin()
    await bench.harvest()
    assert bench.final.read_bytes() == DATA


@pytest.mark.parametrize("left", [b"", b'{"torn', b"[]\n{}\nno line of ours\n"])
async def test_lines_that_the_manifest_lost_are_written_again(
    bench: Workbench, left: bytes
) -> None:
    """From what the state knows, once; it acknowledges them as it did before."""
    found = '{"summary":null,"distinct_contacts":2,"reconciled":null}'
    await bench.publisher.publish(*await bench.ended(DATA, findings=found))
    (line,) = bench.lines()
    bench.close()
    bench.layout.manifest.write_bytes(left)
    for _ in range(2):
        bench.begin()
        await bench.publisher.republish()
        *_, last = bench.layout.manifest.read_bytes().splitlines()
        assert json.loads(last) == line
        assert bench.layout.manifest.read_bytes().count(b"campaign_id") == 1
        assert bench.store.manifest_bytes() == bench.manifest.size
    assert len(bench.seen.of(CampaignCompleted)) == 1


async def grown(bench: Workbench) -> SavedWalk:
    """A finished file, and beside it the longer one that is to take its place."""
    await bench.publisher.publish(*await bench.ended(DATA))
    bench.begin(tops_up=True)
    saved = bench.store.begin_top_up(bench.take())
    data = DATA + b'{"n":3}\n'
    bench.layout.grown(TARGET).write_bytes(data)
    bench.part_path.write_bytes(b'{"n":3}\n')
    digest = hashlib.sha256(data).digest()
    at = Position(None, 3, 3, len(data))
    await bench.store.finishing([replace(saved, position=at, digest=digest)])
    bench.begin(tops_up=True)
    (found,) = bench.store.walks_in("finishing")
    return found


async def test_lines_that_the_manifest_has_are_not_written_again(bench: Workbench) -> None:
    """A file that grew has two, and only the later one is lost."""
    await grown(bench)
    await bench.publisher.republish()
    whole = bench.layout.manifest.read_bytes()
    bench.close()
    bench.layout.manifest.write_bytes(whole[: whole.index(b"\n") + 9])
    bench.begin()
    await bench.publisher.republish()
    assert bench.layout.manifest.read_bytes() == whole


async def test_a_grown_file_takes_the_place_of_the_finished_one(bench: Workbench) -> None:
    """In one step; the part with the new rows is not needed any more."""
    await grown(bench)
    await bench.publisher.republish()
    assert bench.final.read_bytes() == DATA + b'{"n":3}\n'
    assert not bench.part_path.exists()
    assert not bench.layout.grown(TARGET).exists()
    assert [line["rows"] for line in bench.lines()] == [2, 3]
    saved = bench.take()
    assert (saved.state, saved.base, saved.round) == ("complete", None, 1)


@pytest.mark.parametrize("harm", ["gone", "short", "changed"])
async def test_a_grown_file_that_is_damaged_leaves_the_finished_one(
    bench: Workbench, harm: str
) -> None:
    """The top-up is begun anew; what was finished stays finished."""
    await grown(bench)
    path = bench.layout.grown(TARGET)
    match harm:
        case "gone":
            path.unlink()
        case "short":
            path.write_bytes(DATA)
        case "changed":
            path.write_bytes(DATA + b'{"n":0}\n')
    await bench.publisher.republish()
    assert bench.final.read_bytes() == DATA
    assert len(bench.lines()) == 1
    saved = bench.take()
    assert (saved.position, saved.base is None) == (Position(), False)


async def test_a_copy_whose_state_and_manifest_are_of_different_moments_is_listed_again(
    bench: Workbench, tmp_path: Path
) -> None:
    """Copied while a run works, the state may acknowledge less of the manifest than it lists."""
    await bench.publisher.publish(*await bench.ended(DATA))
    await bench.store.complete([], NdjsonLog(tmp_path / "empty"))
    bench.close()
    copy = bench.layout.database.with_name("copy")
    copy.write_bytes(bench.layout.database.read_bytes())
    os.replace(copy, bench.layout.database)  # noqa: PTH105
    bench.begin()
    assert bench.store.copied
    assert bench.lines() == []
    await bench.publisher.republish()
    assert [line["campaign_id"] for line in bench.lines()] == ["7"]
    bench.begin()
    assert not bench.store.copied
