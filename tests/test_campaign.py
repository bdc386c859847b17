"""One campaign, from where it was left to its finished file."""

import gzip
import hashlib
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from fakes import NOON, PATH, TARGET, FakeClock, NoRoom, Seen, page
from msgspec.structs import replace
from workbench import Workbench, disk_calls, no_sync

from harvester import events
from harvester.api.base import Detail
from harvester.api.counts import CampaignCounts
from harvester.campaign.publish import Publisher
from harvester.campaign.walk import smaller
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import PartFile
from harvester.disk.saved_walk import PAGES_IN_PACK, SavedWalk
from harvester.errors import (
    CampaignError,
    CursorDropped,
    Deferred,
    PoisonPage,
    StopRun,
    StorageError,
)
from harvester.model import Page, Position

FIRST = f"{PATH}?limit=500"


def link(cursor: str) -> str:
    """The link of a cursor."""
    return f"{PATH}?next={cursor}"


def rows(*pages: int) -> bytes:
    """The bytes of pages of so many rows."""
    return b"".join(page(count).ndjson for count in pages)


# -- to the end --------------------------------------------------------------------------------


async def test_a_campaign_becomes_a_file(bench: Workbench) -> None:
    """Its rows, its manifest line, its events; the part is gone, the state is complete."""
    fetcher = await bench.harvest(page(3, "a"), page(2, "b"), page(1))
    assert fetcher.links == [FIRST, link("a"), link("b")]
    content = rows(3, 2, 1)
    assert bench.final.read_bytes() == content
    assert not bench.part_path.exists()
    (line,) = bench.lines()
    digest = hashlib.sha256(content).hexdigest()
    assert {name: line[name] for name in ("report", "campaign_id", "file", "rows", "pages")} == {
        "report": "opens", "campaign_id": "7", "file": "opens/7.ndjson", "rows": 6, "pages": 3,
    }  # fmt: skip
    assert (line["bytes"], line["sha256"]) == (len(content), digest)
    assert line["started_at"] == line["completed_at"] == "2026-03-01T12:00:00.000Z"
    assert bench.state() == "complete"


async def test_every_step_is_told(bench: Workbench) -> None:
    """Started, each page, completed; the numbers add up."""
    await bench.harvest(page(3, "a"), page(0, "b"), page(1))
    assert bench.seen.of(events.CampaignStarted) == [events.CampaignStarted(TARGET, 0, 0)]
    committed = bench.seen.of(events.PageCommitted)
    assert [(e.page, e.rows, e.last) for e in committed] == [
        (1, 3, False),
        (2, 0, False),
        (3, 1, True),
    ]
    (done,) = bench.seen.of(events.CampaignCompleted)
    assert (done.pages, done.rows, done.bytes) == (3, 4, sum(e.bytes for e in committed))
    assert bench.final.stat().st_size == done.bytes


@pytest.mark.parametrize("codec", [None, "gzip", "zstd"])
async def test_an_empty_campaign_is_a_finished_file(
    tmp_path: Path, clock: FakeClock, seen: Seen, codec: str | None
) -> None:
    """Readable in its format, with a manifest line of no rows."""
    bench = Workbench(tmp_path / "out", clock, seen, codec=codec)
    await bench.harvest(page(0, "a"), page(0))
    with bench.codec.open(bench.final) as file:
        assert file.read() == b""
    assert [line["rows"] for line in bench.lines()] == [0]
    bench.close()


async def test_a_compressed_campaign_reads_like_a_plain_one(
    tmp_path: Path, clock: FakeClock, seen: Seen
) -> None:
    """A member a page; manifest and digest are of the file as it is."""
    bench = Workbench(tmp_path / "out", clock, seen, codec="gzip")
    await bench.harvest(page(3, "a"), page(0, "b"), page(2))
    assert gzip.decompress(bench.final.read_bytes()) == rows(3, 2)
    (line,) = bench.lines()
    assert line["bytes"] == bench.final.stat().st_size
    assert line["sha256"] == hashlib.sha256(bench.final.read_bytes()).hexdigest()
    bench.close()


async def test_limit_and_since_are_asked_with_the_first_page(bench: Workbench) -> None:
    """And with no other."""
    since = datetime(2026, 1, 31, tzinfo=UTC)
    fetcher = await bench.harvest(page(1, "a"), page(1), page_size=100, since=since)
    assert fetcher.links == [
        f"{PATH}?limit=100&created_since=2026-01-31T00%3A00%3A00Z",
        link("a"),
    ]


# -- from where it was left --------------------------------------------------------------------


async def left(bench: Workbench, *script: Any) -> None:
    """A run that is ordered to stop after the pages of the script."""
    with pytest.raises(StopRun):
        await bench.harvest(*script, StopRun("SIGTERM", "stop"))


async def test_an_order_to_stop_leaves_a_good_part(bench: Workbench) -> None:
    """The position stands, no final name, and the order goes on its way."""
    await left(bench, page(3, "a"), page(2, "b"))
    assert bench.part_path.read_bytes() == rows(3, 2)
    assert not bench.final.exists()
    assert bench.seen.of(events.CampaignInterrupted) == [events.CampaignInterrupted(TARGET, 2, 5)]
    assert bench.state() == "partial"


async def test_the_next_run_goes_on_from_there(bench: Workbench) -> None:
    """It asks the saved link first; the file is that of an undisturbed run."""
    await left(bench, page(3, "a"), page(2, "b"))
    with bench.part_path.open("ab") as file:
        file.write(b"torn rows of a page that was not commit")
    bench.begin()
    fetcher = await bench.harvest(page(1))
    assert fetcher.links == [link("b")]
    assert fetcher.calls[0].page == 3
    assert bench.final.read_bytes() == rows(3, 2, 1)
    assert bench.seen.of(events.CampaignStarted)[-1] == events.CampaignStarted(TARGET, 2, 5)
    assert [(line["rows"], line["pages"]) for line in bench.lines()] == [(6, 3)]


async def test_a_run_killed_before_its_first_page_starts_over(bench: Workbench) -> None:
    """Rows that no checkpoint covers are thrown away."""
    bench.part_path.write_bytes(b"rows of no page")
    await bench.harvest(page(1))
    assert bench.final.read_bytes() == rows(1)


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 10_000, None])
async def test_a_damaged_part_is_fetched_anew(bench: Workbench, damage: bytes | None) -> None:
    """Shorter or other than its checkpoint, or gone: the walk starts over and says why."""
    await left(bench, page(3, "a"))
    if damage is None:
        bench.part_path.unlink()
    else:
        bench.part_path.write_bytes(damage)
    bench.begin()
    fetcher = await bench.harvest(page(3, "a"), page(1))
    assert fetcher.links == [FIRST, link("a")]
    assert bench.final.read_bytes() == rows(3, 1)
    (restart,) = bench.seen.of(events.WalkRestarted)
    assert (restart.cause, restart.status) == ("damaged_part", None)


async def test_a_cancel_saves_the_position(bench: Workbench) -> None:
    """The page under way is lost, what was committed is not; the next run goes on."""
    with anyio.CancelScope() as scope:
        await bench.harvest(page(3, "a"), lambda call: scope.cancel() or page(2, "b"), page(1))
    assert scope.cancelled_caught
    assert bench.seen.of(events.CampaignInterrupted) == [events.CampaignInterrupted(TARGET, 2, 5)]
    bench.begin()
    assert (await bench.harvest(page(1))).links == [link("b")]
    assert bench.final.read_bytes() == rows(3, 2, 1)


# -- other ends --------------------------------------------------------------------------------


async def test_a_failed_campaign_is_told_and_kept(bench: Workbench) -> None:
    """With everything the report wants; its rows so far stay a part, never a finished file."""
    error = CampaignError("rejected", "HTTP 406", status=406, error_key="key")
    error.attempts = 3
    await bench.harvest(page(3, "a"), error)
    assert bench.seen.of(events.CampaignFailed) == [
        events.CampaignFailed(
            target=TARGET,
            kind="rejected",
            status=406,
            error_key="key",
            message="HTTP 406",
            attempts=3,
            pages=1,
            rows=3,
        )
    ]
    assert (bench.part_path.read_bytes(), bench.final.exists()) == (rows(3), False)
    assert bench.lines() == []
    assert bench.state() == "failed"


async def test_a_failed_campaign_is_continued(bench: Workbench) -> None:
    """The next try asks the page that failed."""
    await bench.harvest(page(3, "a"), CampaignError("server_error", "x"))
    bench.begin()
    fetcher = await bench.harvest(page(1))
    assert fetcher.links == [link("a")]
    assert bench.final.read_bytes() == rows(3, 1)
    assert bench.state() == "complete"


async def test_a_loop_across_runs_is_a_loop(bench: Workbench) -> None:
    """The cursors of earlier runs are known to the next."""
    await left(bench, page(1, "a"), page(1, "b"))
    bench.begin()
    await bench.harvest(page(1, "a"))
    assert [e.kind for e in bench.seen.of(events.CampaignFailed)] == ["looping_cursor"]
    assert not bench.final.exists()


async def test_a_campaign_set_aside_is_not_failed(bench: Workbench) -> None:
    """It is kept for a later run, which goes on where it is."""
    until = NOON + timedelta(hours=1)
    aside = Deferred("wait", resume_at=until, status=503)
    aside.attempts = 2
    await bench.harvest(page(3, "a"), aside)
    assert bench.seen.of(events.CampaignDeferred) == [
        events.CampaignDeferred(
            target=TARGET,
            message="wait",
            status=503,
            attempts=2,
            pages=1,
            rows=3,
            resume_at=until,
        )
    ]
    assert not bench.seen.of(events.CampaignFailed)
    assert bench.state() == "partial"


@pytest.mark.parametrize(
    "bug", [KeyError("x"), RecursionError(), MemoryError(), ExceptionGroup("x", [ValueError()])]
)
async def test_a_bug_fails_one_campaign(bench: Workbench, bug: Exception) -> None:
    """Whatever it is: the others go on, and the error names its class, file and line, no more."""
    await bench.harvest(page(3, "a"), bug)
    (failure,) = bench.seen.of(events.CampaignFailed)
    where = failure.message.removeprefix(f"a bug: {type(bug).__name__} at fakes.py:")
    assert (failure.kind, where.isdigit()) == ("unexpected", True)


async def test_a_full_disk_is_no_campaigns_failure(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops the run; what was saved before stands."""

    def full(self: PartFile, data: bytes) -> int:
        raise StorageError("cannot use x: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "append", full)
        with pytest.raises(StorageError):
            await bench.harvest(page(3, "a"))
    assert not bench.seen.of(events.CampaignFailed)
    assert len(bench.seen.of(events.CampaignInterrupted)) == 1
    assert bench.state() == "new"


@pytest.mark.parametrize("where", ["temporary", "records"])
async def test_a_disk_that_fails_the_comparison_is_no_campaigns_failure(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Neither a full temporary folder nor records that cannot be read again are a bug."""
    counts = CampaignCounts(campaign_id=TARGET.campaign_id, recipients={"opens": 3})
    counted = Detail(counts=counts)

    def broken(_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        if where == "records":
            patch.setattr("harvester.campaign.reconcile.distinct_contacts", broken)
        else:
            NoRoom.placed(patch, "FROM items")
        with pytest.raises(StorageError):
            await bench.harvest(page(3), counted, summary=True)
    assert not bench.seen.of(events.CampaignFailed)
    bench.begin()
    await bench.harvest(counted, summary=True)
    assert [line["rows"] for line in bench.lines()] == [3]


async def test_a_part_that_cannot_be_synced_is_closed_and_left(bench: Workbench) -> None:
    """At a fast pace a part is synced when it is closed; where that fails the run stops, the
    descriptor is given back, and the sync is not tried again."""
    bench.durable = False
    bench.begin()
    with no_sync() as tried, pytest.raises(StorageError):
        await bench.harvest(page(3, "a"), CampaignError("rejected", "HTTP 406"))
    (part,) = tried
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(part)
    assert bench.state() == "partial"


@pytest.mark.parametrize("obstacle", ["link", "broken link", "directory", "fifo"])
async def test_what_is_no_regular_file_is_not_written_to(
    bench: Workbench, tmp_path: Path, obstacle: str
) -> None:
    """In the place of a part it fails that campaign, with its own kind."""
    (tmp_path / "precious").write_bytes(b"precious")
    match obstacle:
        case "link":
            bench.part_path.symlink_to(tmp_path / "precious")
        case "broken link":
            bench.part_path.symlink_to(tmp_path / "nothing")
        case "directory":
            bench.part_path.mkdir()
        case "fifo":
            os.mkfifo(bench.part_path)
    await bench.harvest()
    (failed,) = bench.seen.of(events.CampaignFailed)
    assert (failed.kind, str(bench.part_path) in failed.message) == ("obstructed", True)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


async def test_a_run_whose_directory_was_replaced_opens_no_part(bench: Workbench) -> None:
    """It stops: the files at that path are those of another run."""
    bench.layout.lock.rename(bench.layout.lock.with_name("old"))
    bench.layout.lock.touch()
    bench.part_path.write_bytes(b"of another run")
    with pytest.raises(StorageError, match="was moved, removed or replaced"):
        await bench.harvest(page(1))
    assert bench.part_path.read_bytes() == b"of another run"


async def test_a_page_is_not_saved_in_a_directory_that_was_replaced(bench: Workbench) -> None:
    """The commit looks first; the part that was opened is this run's own."""

    def replaced(call: object) -> Page:
        bench.layout.root.rename(bench.layout.root.with_name("moved"))
        return page(1, "a")

    with pytest.raises(StorageError, match="was moved, removed or replaced"):
        await bench.harvest(replaced)
    assert not bench.layout.root.exists()
    assert not bench.seen.of(events.PageCommitted)


async def test_a_walk_keeps_the_time_when_it_began(bench: Workbench) -> None:
    """Over a resume; one that starts over has a new one."""
    await left(bench, page(3, "a"))
    bench.clock.advance(3_600)
    bench.begin()
    await bench.harvest(page(1))
    (line,) = bench.lines()
    assert (line["started_at"][11:16], line["completed_at"][11:16]) == ("12:00", "13:00")


# -- first and last event ----------------------------------------------------------------------


def opens(*minutes: int, following: str | None = None) -> Page:
    """A page of opens at these minutes."""
    rows = [b'{"open_date":"2026-01-01T00:%02d:00.000Z"}\n' % minute for minute in minutes]
    return Page(b"".join(rows), len(rows), following and link(following))


async def test_the_manifest_has_the_first_and_the_last_event(bench: Workbench) -> None:
    """Whichever way the pages are sorted, also over a resume and empty pages."""
    await left(bench, opens(30, 20, following="a"), opens(following="b"))
    bench.begin()
    await bench.harvest(opens(5, 9, following="c"), opens(8))
    (line,) = bench.lines()
    edges = ("2026-01-01T00:05:00.000Z", "2026-01-01T00:30:00.000Z")
    assert (line["first_event"], line["last_event"]) == edges


async def test_events_of_a_walk_that_started_over_are_forgotten(bench: Workbench) -> None:
    """Only what is in the file counts; an empty file has none."""
    await bench.harvest(opens(59, following="a"), CursorDropped("gone", status=410), opens(7))
    (line,) = bench.lines()
    assert line["first_event"] == line["last_event"] == "2026-01-01T00:07:00.000Z"


# -- a dropped cursor --------------------------------------------------------------------------


async def test_a_dropped_cursor_restarts_the_walk_once(bench: Workbench) -> None:
    """From the first page, with an empty part; cursors of before may come again."""
    dropped = CursorDropped("gone", status=410)
    fetcher = await bench.harvest(page(3, "a"), dropped, page(4, "a"), page(2))
    assert fetcher.links == [FIRST, link("a"), FIRST, link("a")]
    assert bench.final.read_bytes() == rows(4, 2)
    (restart,) = bench.seen.of(events.WalkRestarted)
    assert (restart.page, restart.cause, restart.status) == (2, "cursor_dropped", 410)


async def test_a_second_dropped_cursor_fails_the_campaign(bench: Workbench) -> None:
    """In this run; the next try is a walk from the first page."""
    dropped = CursorDropped("gone", status=410)
    await bench.harvest(page(3, "a"), dropped, page(4, "b"), dropped)
    assert [e.kind for e in bench.seen.of(events.CampaignFailed)] == ["cursor_dropped"]
    bench.begin()
    fetcher = await bench.harvest(page(1, "a"), dropped, page(1))
    assert fetcher.links == [FIRST, link("a"), FIRST]
    assert bench.final.read_bytes() == rows(1)


async def test_restarts_are_counted_across_runs(bench: Workbench) -> None:
    """A walk that was restarted, and left, has had its one restart."""
    dropped = CursorDropped("gone", status=410)
    await left(bench, page(3, "a"), dropped, page(4, "b"))
    bench.begin()
    await bench.harvest(dropped)
    assert [e.kind for e in bench.seen.of(events.CampaignFailed)] == ["cursor_dropped"]


# -- a poison page -----------------------------------------------------------------------------


def first(limit: int) -> str:
    """The first link of a walk in such pages."""
    return f"{PATH}?limit={limit}"


@pytest.mark.parametrize(
    ("limit", "least", "then"),
    [
        (500, None, None), (500, 1, 100), (100, 1, 20), (20, 1, 4), (4, 1, 1), (1, 1, None),
        (500, 500, None), (500, 300, 300), (300, 300, None), (7, 300, None),
    ],
)  # fmt: skip
def test_pages_shrink_to_a_fifth_and_to_the_least(
    limit: int, least: int | None, then: int | None
) -> None:
    """Never below what is allowed, and not at all if nothing is."""
    assert smaller(limit, least) == then


async def test_a_poison_page_has_the_walk_start_over_in_smaller_pages(bench: Workbench) -> None:
    """As often as it takes; what came in larger ones is thrown away, the file is whole."""
    poison = PoisonPage("server_error", "HTTP 500", status=500)
    script = [page(500, "a"), poison, page(100, "b"), poison, page(20, "c"), page(9)]
    fetcher = await bench.harvest(*script, min_page_size=20)
    assert fetcher.links == [first(500), link("a"), first(100), link("b"), first(20), link("c")]
    assert bench.final.read_bytes() == rows(20, 9)
    assert [(e.page, e.cause, e.status) for e in bench.seen.of(events.WalkRestarted)] == [
        (2, "poison_page", 500)
    ] * 2


@pytest.mark.parametrize(("least", "walks"), [(None, 1), (500, 1), (100, 2)])
async def test_a_poison_page_fails_the_campaign_when_nothing_is_smaller(
    bench: Workbench, least: int | None, walks: int
) -> None:
    """By default at once, as every failure of a page does."""
    poison = PoisonPage("server_error", "HTTP 500", status=500)
    fetcher = await bench.harvest(*[page(5, "a"), poison] * walks, min_page_size=least)
    assert len(fetcher.links) == 2 * walks
    (failed,) = bench.seen.of(events.CampaignFailed)
    assert (failed.kind, failed.pages) == ("server_error", 1)
    assert not bench.final.exists()


async def test_a_later_run_begins_where_the_pages_had_shrunk_to(bench: Workbench) -> None:
    """It goes on at its small cursor; what fails even so is not walked again in larger pages."""
    poison = PoisonPage("server_error", "HTTP 500", status=500)
    await bench.harvest(page(500, "a"), poison, page(100, "b"), poison, min_page_size=100)
    bench.begin()
    fetcher = await bench.harvest(poison, min_page_size=100)
    assert fetcher.links == [link("b")]
    bench.begin()
    fetcher = await bench.harvest(poison, page(20, "c"), page(1), min_page_size=20)
    assert fetcher.links == [link("b"), first(20), link("c")]
    assert bench.final.read_bytes() == rows(20, 1)


async def test_a_dropped_cursor_keeps_the_small_pages(bench: Workbench) -> None:
    """Its one restart is in pages that came through."""
    poison = PoisonPage("timeout", "no answer")
    dropped = CursorDropped("gone", status=410)
    fetcher = await bench.harvest(poison, page(9, "a"), dropped, page(9), min_page_size=1)
    assert fetcher.links == [first(500), first(100), link("a"), first(100)]


# -- between the last page and the manifest ----------------------------------------------------


async def finishing(bench: Workbench) -> SavedWalk:
    """A run that is killed when everything is saved but the final name."""
    with pytest.MonkeyPatch.context() as patch:

        async def killed(self: Publisher, saved: SavedWalk, part: PartFile) -> None:
            await bench.store.finishing([saved])
            raise StopRun("killed", "here")

        patch.setattr(Publisher, "publish", killed)
        with pytest.raises(StopRun):
            await bench.harvest(page(3, "a"), page(1))
    bench.begin()
    (saved,) = bench.store.walks_in("finishing")
    return saved


async def test_a_finished_part_gets_its_name_without_a_request(bench: Workbench) -> None:
    """The next run publishes it before it asks anything."""
    await finishing(bench)
    await bench.publisher.republish()
    assert bench.final.read_bytes() == rows(3, 1)
    assert len(bench.lines()) == 1
    assert bench.state() == "complete"


async def test_a_part_that_an_earlier_run_left_is_synced_before_it_gets_its_name(
    bench: Workbench,
) -> None:
    """Its last page was saved, and a kill came before it was synced: also where commits do not
    sync, it is not assumed that another run did."""
    bench.durable = False
    bench.begin()
    part = bench.part()
    await bench.commit(bench.take(), part, at=Position(None, 1, 2, part.append(rows(2))))
    bench.begin()
    with disk_calls([]) as calls:
        assert (await bench.harvest()).calls == []
    named = calls.index("rename 7.ndjson")
    assert "fdatasync 7.ndjson.part" in calls[:named]
    assert bench.final.read_bytes() == rows(2)


@pytest.mark.parametrize("cut", ["name", "line", "state"])
async def test_publishing_can_be_cut_off_anywhere(bench: Workbench, cut: str) -> None:
    """A kill after the rename, or after the manifest's line: one file, one line."""
    await finishing(bench)
    with pytest.MonkeyPatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise StopRun("killed", "here")

        kind: Any = CheckpointStore if cut == "state" else NdjsonLog
        name = {"name": "append", "line": "sync", "state": "complete"}[cut]
        patch.setattr(kind, name, killed)
        with pytest.raises(StopRun):
            await bench.publisher.republish()
    assert bench.final.read_bytes() == rows(3, 1)
    bench.begin()
    await bench.publisher.republish()
    assert bench.final.read_bytes() == rows(3, 1)
    assert len(bench.lines()) == 1


@pytest.mark.parametrize("damage", ["gone", "shorter", "longer"])
async def test_a_finished_part_that_was_damaged_is_fetched_anew(
    bench: Workbench, damage: str
) -> None:
    """It never gets the final name; the walk begins again and says why."""
    await finishing(bench)
    content = bench.part_path.read_bytes()
    bench.part_path.unlink()
    if damage != "gone":
        bench.part_path.write_bytes(content[:-1] if damage == "shorter" else content + b"x")
    await bench.publisher.republish()
    assert not bench.final.exists()
    assert [e.cause for e in bench.seen.of(events.WalkRestarted)] == ["damaged_file"]
    fetcher = await bench.harvest(page(3, "a"), page(1))
    assert fetcher.links == [FIRST, link("a")]
    assert bench.final.read_bytes() == rows(3, 1)


async def test_a_failed_walk_that_had_everything_is_only_published(bench: Workbench) -> None:
    """A position after the last page has nothing left to ask."""
    saved, part = await bench.ended(rows(2))
    saved = replace(saved, position=Position(None, 1, 2, part.offset))
    await bench.store.finishing([saved])
    bench.store.fail(saved, "unexpected")
    bench.begin()
    assert (await bench.harvest()).calls == []
    assert bench.final.read_bytes() == rows(2)


async def test_a_walk_whose_pages_are_damaged_in_the_state_starts_over(bench: Workbench) -> None:
    """A loop could not be known from progress; the reports say so."""
    await left(bench, *(page(1, f"a{number}") for number in range(PAGES_IN_PACK)))
    bench.close()
    with sqlite3.connect(bench.layout.database) as db:
        db.execute("UPDATE pages SET packed = zeroblob(length(packed))")
    db.close()
    bench.begin()
    fetcher = await bench.harvest(page(1))
    assert fetcher.links == [FIRST]
    assert [e.cause for e in bench.seen.of(events.WalkRestarted)] == ["damaged_part"]


async def test_a_new_try_after_a_failure_may_start_over_again(bench: Workbench) -> None:
    """The one restart is of each try: a failure ends it."""
    dropped = CursorDropped("gone", status=410)
    await bench.harvest(page(3, "a"), dropped, page(4, "b"), CampaignError("rejected", "x"))
    bench.begin()
    fetcher = await bench.harvest(dropped, page(1))
    assert fetcher.links == [link("b"), FIRST]
    assert bench.final.read_bytes() == rows(1)
