"""From the last page to the final name and the manifest's line, done once or done again."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock, Seen

from harvester.campaign.publish import Publisher
from harvester.disk.checkpoint import CheckpointStore, SavedWalk
from harvester.disk.layout import Layout
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import Damaged
from harvester.events import CampaignCompleted, WalkRestarted
from harvester.model import Position, Target

TARGET = Target("opens", "7")
DATA = b'{"n":1}\n{"n":2}\n'


class Bench:
    """A directory with one walk whose last page has come."""

    def __init__(self, root: Path, clock: FakeClock, seen: Seen) -> None:
        self.layout = Layout(root)
        self.layout.state.mkdir(parents=True)
        (root / "opens").mkdir()
        self.clock = clock
        self.seen = seen
        self.store = CheckpointStore(self.layout.database)
        self.store.begin_run({"report": "opens"})
        self.manifest = NdjsonLog(self.layout.manifest)
        self.final, self.part = self.layout.final(TARGET), self.layout.part(TARGET)

    @property
    def publisher(self) -> Publisher:
        """The one to be tried."""
        return Publisher(
            self.store,
            self.layout,
            self.manifest,
            run_id="r",
            clock=self.clock,  # type: ignore[arg-type]
            emit=self.seen,
        )

    async def finishing(self, data: bytes = DATA, findings: str | None = None) -> SavedWalk:
        """The state says that every row stands in the part file."""
        self.part.write_bytes(data)
        record = self.store.take(TARGET)
        assert record is not None
        await self.store.finishing(
            replace(
                record,
                position=Position(None, 2, data.count(b"\n"), len(data)),
                digest=hashlib.sha256(data).digest(),
                started_at="2026-03-01T11:00:00Z",
                completed_at="2026-03-01T12:00:00Z",
                findings=findings,
            )
        )
        (found,) = self.store.finishing_walks()
        return found

    def told(self) -> list[dict[str, Any]]:
        """The manifest."""
        return [json.loads(line) for line in self.layout.manifest.read_bytes().splitlines()]

    async def states(self) -> dict[str, int]:
        """What the state says to anybody who asks when this turn of the loop is over."""
        await asyncio.sleep(0)
        with closing(CheckpointStore(self.layout.database)) as other:
            other.run = self.store.run
            return other.counts()


@pytest.fixture
def bench(tmp_path: Path, clock: FakeClock, seen: Seen) -> Iterator[Bench]:
    """A bench."""
    bench = Bench(tmp_path / "out", clock, seen)
    with closing(bench.store), closing(bench.manifest):
        yield bench


async def test_a_finished_walk_gets_its_name_and_its_line(bench: Bench) -> None:
    """The part is renamed, the manifest says what is in it, the state calls it complete."""
    bench.publisher.publish(await bench.finishing())
    assert bench.final.read_bytes() == DATA
    assert not bench.part.exists()
    (line,) = bench.told()
    assert line == {
        "report": "opens",
        "campaign_id": "7",
        "file": "opens/7.ndjson",
        "rows": 2,
        "pages": 2,
        "bytes": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "started_at": "2026-03-01T11:00:00Z",
        "completed_at": "2026-03-01T12:00:00Z",
        "run_id": "r",
    }
    assert await bench.states() == {"complete": 1}
    (event,) = bench.seen.of(CampaignCompleted)
    assert (event.file, event.rows, event.reconciled) == ("opens/7.ndjson", 2, None)


async def test_findings_stand_in_the_line(bench: Bench) -> None:
    """As they were saved."""
    found = '{"summary":{"opens":3},"distinct_contacts":2,"reconciled":false}'
    bench.publisher.publish(await bench.finishing(findings=found))
    (line,) = bench.told()
    assert (line["summary"], line["reconciled"]) == ({"opens": 3}, False)
    assert [event.reconciled for event in bench.seen.of(CampaignCompleted)] == [False]


@pytest.mark.parametrize("stage", ["before the name", "after the name"])
async def test_what_a_kill_interrupted_is_finished(bench: Bench, stage: str) -> None:
    """Whether the final name stood already or not: one file, one line."""
    await bench.finishing()
    if stage == "after the name":
        bench.part.rename(bench.final)
    bench.publisher.republish()
    assert bench.final.read_bytes() == DATA
    assert len(bench.told()) == 1
    assert await bench.states() == {"complete": 1}
    bench.publisher.republish()
    assert len(bench.told()) == 1


@pytest.mark.parametrize("stage", ["part", "final"])
@pytest.mark.parametrize("harm", ["gone", "short", "changed"])
async def test_what_a_power_cut_damaged_is_begun_anew(bench: Bench, stage: str, harm: str) -> None:
    """No final name stands for it, and the manifest has no line."""
    await bench.finishing()
    path = bench.part
    if stage == "final":
        path = bench.part.rename(bench.final)
    match harm:
        case "gone":
            path.unlink()
        case "short":
            path.write_bytes(DATA[:-1])
        case "changed":
            path.write_bytes(DATA.replace(b"1", b"\0"))
    bench.publisher.republish()
    assert not bench.final.exists()
    assert bench.told() == []
    assert await bench.states() == {"pending": 1}
    (event,) = bench.seen.of(WalkRestarted)
    assert (event.target, event.cause) == (TARGET, "damaged_file")


@pytest.mark.parametrize("left", [b"", b'{"torn', b"[]\n{}\nno line of ours\n"])
async def test_lines_that_the_manifest_lost_are_written_again(bench: Bench, left: bytes) -> None:
    """From what the state knows, once; it acknowledges them as it did before."""
    found = '{"summary":null,"distinct_contacts":2,"reconciled":null}'
    bench.publisher.publish(await bench.finishing(findings=found))
    (line,) = bench.told()
    bench.store.save()
    bench.manifest.close()
    bench.layout.manifest.write_bytes(left)
    for _ in range(2):
        bench.manifest = NdjsonLog(bench.layout.manifest, keep=bench.store.manifest_bytes())
        bench.publisher.republish()
        bench.store.save()
        *_, last = bench.layout.manifest.read_bytes().splitlines()
        assert json.loads(last) == line
        assert bench.layout.manifest.read_bytes().count(b"campaign_id") == 1
        assert bench.store.manifest_bytes() == bench.manifest.size
    assert len(bench.seen.of(CampaignCompleted)) == 1


async def test_lines_that_the_manifest_has_are_not_written_again(bench: Bench) -> None:
    """A file that grew has two, and only the later one is lost."""
    bench.publisher.publish(await grown(bench))
    bench.store.save()
    whole = bench.layout.manifest.read_bytes()
    bench.manifest.close()
    bench.layout.manifest.write_bytes(whole[: whole.index(b"\n") + 9])
    bench.manifest = NdjsonLog(bench.layout.manifest, keep=bench.store.manifest_bytes())
    bench.publisher.republish()
    assert bench.layout.manifest.read_bytes() == whole


async def test_a_part_of_another_length_is_damaged(bench: Bench) -> None:
    """It never gets the final name."""
    record = await bench.finishing()
    bench.part.write_bytes(DATA + b"{")
    with pytest.raises(Damaged):
        bench.publisher.publish(record)
    assert not bench.final.exists()


async def grown(bench: Bench) -> SavedWalk:
    """A finished file, and beside it the longer one that is to take its place."""
    bench.publisher.publish(await bench.finishing())
    bench.store.begin_run({"report": "opens"})
    record = bench.store.take(TARGET)
    assert record is not None
    record = bench.store.begin_top_up(record)
    data = DATA + b'{"n":3}\n'
    bench.layout.grown(TARGET).write_bytes(data)
    bench.part.write_bytes(b'{"n":3}\n')
    await bench.store.finishing(
        replace(
            record,
            position=Position(None, 3, 3, len(data)),
            digest=hashlib.sha256(data).digest(),
            completed_at="2026-03-01T13:00:00Z",
        )
    )
    (found,) = bench.store.finishing_walks()
    return found


async def test_a_grown_file_takes_the_place_of_the_finished_one(bench: Bench) -> None:
    """In one step; the part with the new rows is not needed any more."""
    bench.publisher.publish(await grown(bench))
    assert bench.final.read_bytes() == DATA + b'{"n":3}\n'
    assert not bench.part.exists()
    assert not bench.layout.grown(TARGET).exists()
    assert [line["rows"] for line in bench.told()] == [2, 3]
    assert await bench.states() == {"complete": 1}
    record = bench.store.take(TARGET)
    assert record is None or record.base is None


@pytest.mark.parametrize("harm", ["gone", "short", "changed"])
async def test_a_grown_file_that_is_damaged_leaves_the_finished_one(
    bench: Bench, harm: str
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
    bench.publisher.republish()
    assert bench.final.read_bytes() == DATA
    assert len(bench.told()) == 1
    assert await bench.states() == {"partial": 1}
