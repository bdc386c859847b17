"""A top-up leaves out the reports whose count is what it was."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from fakes import CAMPAIGN_V3, FakeClock, FakeFetcher
from msgspec.structs import replace
from workbench import Workbench

from harvester import events
from harvester.api.base import Detail
from harvester.api.counts import CampaignCounts
from harvester.api.v3 import V3
from harvester.disk.saved_walk import SavedWalk
from harvester.input.known import known
from harvester.input.order import KnownSizes
from harvester.input.queue import WalkQueue
from harvester.model import Position, Target
from harvester.runtime import StopSignal

OPENS, BOUNCES = Target("opens", CAMPAIGN_V3), Target("bounces", CAMPAIGN_V3)


@pytest.fixture
def bench(tmp_path: Path, clock: FakeClock) -> Iterator[Workbench]:
    """A directory whose runs top up."""
    bench = Workbench(tmp_path / "out", clock)
    yield bench
    bench.close()


def count(bench: Workbench, **rows: int) -> None:
    """The API counts so many rows now."""
    now: Any = bench.clock.now()
    recipients = {"sends": 9, "bounces": 1, "opens": 2}
    counts = CampaignCounts(
        campaign_id=CAMPAIGN_V3, recipients=recipients, rows={"opens": 5} | rows, refreshed_at=now
    )
    detail = Detail(activities=("a",), updated_at=now - timedelta(days=9))
    campaign = known(bench.store.campaign(CAMPAIGN_V3)).with_counts(counts, now)
    bench.store.keep([campaign.with_detail(detail, now).saved])
    bench.store.save()


async def harvested(bench: Workbench) -> None:
    """Both reports are finished, by the counts of this moment."""
    count(bench)
    campaign, now = known(bench.store.campaign(CAMPAIGN_V3)), bench.clock.now()
    for target in (OPENS, BOUNCES):
        walk = replace(bench.take(target), position=Position(pages=1, rows=5, offset=50))
        walk = replace(walk, counted=campaign.mark(target.report, now), completed_at="end")
        await bench.store.complete([walk], bench.manifest)


async def to_make(bench: Workbench, *, believed: bool = True) -> list[SavedWalk]:
    """The walks of a top-up."""
    bench.begin(tops_up=True)
    clock: Any = bench.clock
    with closing(KnownSizes()) as sizes:
        queue = WalkQueue(
            ids=[CAMPAIGN_V3],
            api=V3(),
            store=bench.store,
            reports=("opens", "bounces"),
            retry_failed=False,
            top_up=True,
            is_there=lambda saved: True,
            sizes=sizes,
            clock=clock,
            stop=StopSignal(),
            emit=bench.seen,
        )
        both = ("opens", "bounces")
        lookup = bench.lookup(FakeFetcher([]), V3(), reports=both, believed=believed)
        queue.use_counts(lookup, page_size=500)
        async with anyio.create_task_group() as group:
            group.start_soon(queue.look_ahead)
            return [walk async for walk in queue.walks()]


async def test_a_report_whose_count_is_what_it_was_is_left_out(bench: Workbench) -> None:
    """In every round; nothing is asked for it."""
    await harvested(bench)
    for _ in range(2):
        bench.clock.advance(3600)
        count(bench)
        assert await to_make(bench) == []
        bench.store.end_round()
    skipped = bench.seen.of(events.CampaignSkipped)
    assert [each.state for each in skipped] == ["complete"] * 4


async def test_a_report_whose_count_moved_is_topped_up(bench: Workbench) -> None:
    """A contact that opened once more moves the rows alone."""
    await harvested(bench)
    bench.clock.advance(3600)
    count(bench, opens=6)
    assert [walk.target for walk in await to_make(bench)] == [OPENS]


async def test_by_counts_that_are_older_than_the_walk_all_is_topped_up(bench: Workbench) -> None:
    """The API did not refresh its counts since the walk."""
    await harvested(bench)
    bench.clock.advance(3600)
    assert len(await to_make(bench)) == 2


async def test_no_counts_tops_everything_up(bench: Workbench) -> None:
    """The count may be what it was."""
    await harvested(bench)
    bench.clock.advance(3600)
    count(bench)
    assert len(await to_make(bench, believed=False)) == 2
