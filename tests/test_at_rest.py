"""Reports at rest: twins at the edges of pages are settled by one look."""

import json
import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from fakes import NOON, PATH, TARGET, FakeClock, T
from workbench import Workbench

from harvester.campaign.harvest import CampaignHarvester
from harvester.errors import StopRun
from harvester.model import Request

LIMIT = 10
OLD = NOON - timedelta(days=60)


def event(minute: int, contact: int) -> bytes:
    """A row of v2; two of one minute and contact are twins."""
    at = (OLD + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(
        {"campaign_id": "7", "contact_id": str(contact), "open_date": at},
        separators=(",", ":"),
    ).encode()


class Report:
    """A report whose cursors count rows. `arrivals` come before the request of their number;
    `stop_at` is the number of the request at which the run is stopped instead."""

    def __init__(self, rows: Sequence[bytes], arrivals: dict[int, list[bytes]] | None = None):
        self.rows = list(rows)
        self.arrivals = arrivals or {}
        self.asked: list[int] = []
        self.stop_at = 0

    async def fetch(self, request: Request[T]) -> T:
        """The page at the cursor, as the report is now."""
        if len(self.asked) + 1 == self.stop_at:
            raise StopRun("signal", "stopped")
        self.rows[:0] = self.arrivals.get(len(self.asked) + 1, ())
        query = parse_qs(request.link.partition("?")[2])
        start = place(query["next"][0]) if "next" in query else 0
        self.asked.append(start)
        end = start + LIMIT
        more = {"next_link": f"{PATH}?next={cursor(end)}"} if end < len(self.rows) else {}
        meta = json.dumps({"pagination": more}).encode()
        rows = b",".join(self.rows[start:end])
        return request.read(b'{"meta":%b,"results":[%b]}' % (meta, rows))


def cursor(start: int) -> str:
    """The place of a page, as it is recorded."""
    return urlsafe_b64encode(f"startAt={start}&limit={LIMIT}".encode()).decode().rstrip("=")


def place(given: str) -> int:
    """The place of a cursor."""
    return int(parse_qs(urlsafe_b64decode(given + "===").decode())["startAt"][0])


@pytest.fixture
def bench(tmp_path: Path, clock: FakeClock) -> Iterator[Workbench]:
    """A directory."""
    bench = Workbench(tmp_path / "out", clock, durable=False)
    yield bench
    bench.close()


async def harvest(bench: Workbench, report: Any) -> bytes | None:
    """The finished file; None if the walk did not come to its end."""
    context = bench.context(report, page_size=LIMIT)
    try:
        harvester = CampaignHarvester(context, bench.publisher, bench.lookup(report))
        await harvester.harvest(bench.take())
    except StopRun:
        return None
    return bench.final.read_bytes() if bench.final.exists() else None


def text(rows: Sequence[bytes]) -> bytes:
    """The file of these rows."""
    return b"".join(row + b"\n" for row in rows)


TWINS = [event(-((number + 1) // 2), 5) for number in range(95)]
"""Ten pages; two equal rows stand at each of their edges."""
PAGES = list(range(0, 95, LIMIT))
NEW = [event(1, 8)]


async def test_one_look_at_the_head_settles_all_edges(bench: Workbench) -> None:
    """It is the last request."""
    report = Report(TWINS)
    assert await harvest(bench, report) == text(TWINS)
    assert report.asked == [*PAGES, 0]


@pytest.mark.parametrize("rows", [TWINS[:10], [event(-each, each) for each in range(95)]])
async def test_nothing_is_looked_at_where_no_edge_needs_it(
    bench: Workbench, rows: list[bytes]
) -> None:
    """One page, or pages without twins at their edges."""
    report = Report(rows)
    assert await harvest(bench, report) == text(rows)
    assert report.asked == PAGES[: -(-len(rows) // LIMIT)]


@pytest.mark.parametrize("stop_at", range(1, len(PAGES) + 2))
async def test_a_run_that_goes_on_looks_once(bench: Workbench, stop_at: int) -> None:
    """Wherever it was stopped; what is not settled yet is part of the state."""
    report = Report(TWINS)
    report.stop_at = stop_at
    assert await harvest(bench, report) is None
    bench.begin()
    report.stop_at = 0
    assert await harvest(bench, report) == text(TWINS)
    # The last page is not saved before the look: it is the page in flight.
    again = [PAGES[-1]] if stop_at == len(PAGES) + 1 else []
    assert report.asked == [*PAGES, *again, 0]


@pytest.mark.parametrize("at", range(2, len(PAGES) + 2))
async def test_an_event_that_comes_has_the_walk_start_over(bench: Workbench, at: int) -> None:
    """At whatever time; each event is there once. Where no edge shows it, the head does."""
    report = Report(TWINS, {at: NEW})
    assert await harvest(bench, report) in (text(TWINS), text([*NEW, *TWINS]))
    assert len(report.asked) > len(PAGES) + 1


async def test_an_event_that_comes_while_no_run_is_there_is_seen(bench: Workbench) -> None:
    """The head is held against what it was at the begin of the walk."""
    report = Report(TWINS)
    report.stop_at = 5
    assert await harvest(bench, report) is None
    report.rows[:0] = [TWINS[0]]  # a twin of the newest
    report.stop_at = 0
    bench.begin()
    assert await harvest(bench, report) == text([TWINS[0], *TWINS])


@pytest.mark.parametrize(
    "rows",
    [
        [event(0, 5)] * 10 + TWINS[10:],  # another one would not show
        [event(int(timedelta(days=58) / timedelta(minutes=1)), 5), *TWINS[1:]],
    ],
)
async def test_a_head_that_proves_nothing_leaves_each_edge_to_its_own_look(
    bench: Workbench, rows: list[bytes]
) -> None:
    """All its rows are equal; or events came lately, so that more may come."""
    report = Report(rows)
    assert await harvest(bench, report) == text(rows)
    assert len(report.asked) > len(PAGES) + 2


@pytest.mark.parametrize("at", [None, 40, 57])
async def test_a_long_walk_looks_at_its_head_early(bench: Workbench, at: int | None) -> None:
    """What a late event can cost is bounded: from there on each edge has its own look."""
    rows = [event(-(each // 6), 1) for each in range(600)]
    report = Report(rows, {at: NEW} if at else None)
    assert await harvest(bench, report) in (text(rows), text([*NEW, *rows]))
    heads = [number for number, start in enumerate(report.asked) if start == 0]
    assert heads[:2] == [0, 51]
    assert (10 * LIMIT in report.asked[52:]) is (at == 40)  # begun again


@pytest.mark.parametrize("block", range(4))
async def test_whatever_comes_each_event_is_there_once(bench: Workbench, block: int) -> None:
    """Reports with many twins, by seed, and events at any time, also twins of the newest."""
    for seed in range(block * 20, block * 20 + 20):
        chance = random.Random(seed)
        each = [event(-chance.randrange(1, 25), chance.randrange(2)) for _ in range(60)]
        before = sorted(each, key=lambda row: str(json.loads(row)["open_date"]), reverse=True)
        new = [before[0], event(0, 0), event(1, 1)]
        arrivals = {
            chance.randrange(2, 9): [new[chance.randrange(3)]]
            for _ in range(chance.choice((1, 1, 2)))
        }
        report = Report(before, arrivals)
        bench.begin()
        found = await harvest(bench, report)
        cuts = range(len(report.rows) - len(before) + 1)
        assert found is None or found in [text(report.rows[cut:]) for cut in cuts], seed
        bench.final.unlink(missing_ok=True)
        bench.store.restart(bench.store.peek(TARGET))
