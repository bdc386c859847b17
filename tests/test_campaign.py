"""One campaign, from where it was left to its finished file."""

import gzip
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from fakes import NOON, PATH, TARGET, FakeClock, FakeFetcher, Seen, page

from harvester import events
from harvester.api.v2 import V2
from harvester.campaign.harvest import CampaignHarvester
from harvester.campaign.publish import Publisher
from harvester.campaign.walk import WalkOptions, smaller
from harvester.disk.checkpoint import CheckpointStore, SavedWalk
from harvester.disk.compress import CODECS
from harvester.disk.disk_set import DiskSet
from harvester.disk.layout import Layout
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import PartFile
from harvester.errors import (
    CampaignError,
    CursorDropped,
    Deferred,
    PoisonPage,
    StopRun,
    StorageError,
)
from harvester.model import Position

FIRST = f"{PATH}?limit=500"


def link(cursor: str) -> str:
    """The link of a cursor."""
    return f"{PATH}?next={cursor}"


class House:
    """An output directory with everything a campaign's harvester needs, one run at a time."""

    def __init__(self, root: Path, clock: FakeClock, seen: Seen, codec: str | None = None) -> None:
        self.clock, self.seen, self.codec = clock, seen, CODECS[codec]
        self.layout = Layout(root, self.codec.suffix)
        self.layout.state.mkdir(parents=True)
        (root / "opens").mkdir()
        self.opened: list[CheckpointStore | NdjsonLog] = []
        self.begin()

    def begin(self, sync_every: float = 0.0) -> None:
        """A new run: everything is opened again."""
        self.close()
        self.store = CheckpointStore(self.layout.database, sync_every=sync_every, clock=self.clock)
        self.store.begin_run({})
        self.manifest = NdjsonLog(self.layout.manifest, keep=self.store.manifest_bytes())
        self.publisher = Publisher(
            self.store, self.layout, self.manifest, run_id="run", clock=self.clock, emit=self.seen
        )
        self.opened = [self.store, self.manifest]

    def close(self) -> None:
        """Give the files back."""
        for file in self.opened:
            file.close()
        self.opened = []

    def record(self) -> SavedWalk:
        """The walk as this run takes it."""
        record = self.store.take(TARGET)
        assert record is not None
        return record

    async def harvest(self, *script: Any, **asked: Any) -> FakeFetcher:
        """Harvest the campaign against a script, in the present run."""
        fetcher = FakeFetcher(script, delay=0)
        settings = {"limit": 500, "since": None, "max_pages": 100} | asked
        harvester = CampaignHarvester(
            fetcher,
            V2(),
            WalkOptions(**settings),
            store=self.store,
            layout=self.layout,
            publisher=self.publisher,
            codec=self.codec,
            clock=self.clock,
            emit=self.seen,
        )
        await harvester.harvest(self.record())
        return fetcher

    @property
    def final(self) -> Path:
        """The finished file."""
        return self.layout.final(TARGET)

    @property
    def part(self) -> Path:
        """The unfinished file."""
        return self.layout.part(TARGET)

    def lines(self) -> list[dict[str, Any]]:
        """The manifest."""
        return [json.loads(line) for line in self.layout.manifest.read_bytes().splitlines()]

    def state(self) -> str:
        """The walk's state, as a next run finds it."""
        self.begin()
        return self.record().state


@pytest.fixture
def house(tmp_path: Path, clock: FakeClock, seen: Seen) -> Iterator[House]:
    """A house in a new directory."""
    house = House(tmp_path / "out", clock, seen)
    yield house
    house.close()


def rows(*pages: int) -> bytes:
    """The bytes of pages of so many rows."""
    return b"".join(page(count).ndjson for count in pages)


# -- to the end --------------------------------------------------------------------------------


async def test_a_campaign_becomes_a_file(house: House) -> None:
    """Its rows, its manifest line, its events; the part is gone, the state is complete."""
    fetcher = await house.harvest(page(3, "a"), page(2, "b"), page(1))
    assert fetcher.links == [FIRST, link("a"), link("b")]
    content = rows(3, 2, 1)
    assert house.final.read_bytes() == content
    assert not house.part.exists()
    (line,) = house.lines()
    digest = hashlib.sha256(content).hexdigest()
    assert {name: line[name] for name in ("report", "campaign_id", "file", "rows", "pages")} == {
        "report": "opens", "campaign_id": "7", "file": "opens/7.ndjson", "rows": 6, "pages": 3,
    }  # fmt: skip
    assert (line["bytes"], line["sha256"]) == (len(content), digest)
    assert line["started_at"] == line["completed_at"] == "2026-03-01T12:00:00.000Z"
    assert house.state() == "complete"


async def test_every_step_is_told(house: House) -> None:
    """Started, each page, completed; the numbers add up."""
    await house.harvest(page(3, "a"), page(0, "b"), page(1))
    assert house.seen.of(events.CampaignStarted) == [events.CampaignStarted(TARGET, 0, 0)]
    committed = house.seen.of(events.PageCommitted)
    assert [(e.page, e.rows, e.last) for e in committed] == [
        (1, 3, False),
        (2, 0, False),
        (3, 1, True),
    ]
    (done,) = house.seen.of(events.CampaignCompleted)
    assert (done.pages, done.rows, done.bytes) == (3, 4, sum(e.bytes for e in committed))
    assert house.final.stat().st_size == done.bytes


@pytest.mark.parametrize("codec", [None, "gzip", "zstd"])
async def test_an_empty_campaign_is_a_finished_file(
    tmp_path: Path, clock: FakeClock, seen: Seen, codec: str | None
) -> None:
    """Readable in its format, with a manifest line of no rows."""
    house = House(tmp_path / "out", clock, seen, codec)
    await house.harvest(page(0, "a"), page(0))
    with house.codec.open(house.final) as file:
        assert file.read() == b""
    assert [line["rows"] for line in house.lines()] == [0]
    house.close()


async def test_a_compressed_campaign_reads_like_a_plain_one(
    tmp_path: Path, clock: FakeClock, seen: Seen
) -> None:
    """A member a page; manifest and digest speak of the file as it is."""
    house = House(tmp_path / "out", clock, seen, "gzip")
    await house.harvest(page(3, "a"), page(0, "b"), page(2))
    assert gzip.decompress(house.final.read_bytes()) == rows(3, 2)
    (line,) = house.lines()
    assert line["bytes"] == house.final.stat().st_size
    assert line["sha256"] == hashlib.sha256(house.final.read_bytes()).hexdigest()
    house.close()


async def test_limit_and_since_are_asked_with_the_first_page(house: House) -> None:
    """And with no other."""
    since = datetime(2026, 1, 31, tzinfo=UTC)
    fetcher = await house.harvest(page(1, "a"), page(1), limit=100, since=since)
    assert fetcher.links == [
        f"{PATH}?limit=100&created_since=2026-01-31T00%3A00%3A00Z",
        link("a"),
    ]


# -- from where it was left --------------------------------------------------------------------


async def left(house: House, *script: Any) -> None:
    """A run that is ordered to stop after the pages of the script."""
    with pytest.raises(StopRun):
        await house.harvest(*script, StopRun("SIGTERM", "told"))


async def test_an_order_to_stop_leaves_a_good_part(house: House) -> None:
    """The position stands, no final name, and the order goes on its way."""
    await left(house, page(3, "a"), page(2, "b"))
    assert house.part.read_bytes() == rows(3, 2)
    assert not house.final.exists()
    assert house.seen.of(events.CampaignInterrupted) == [events.CampaignInterrupted(TARGET, 2, 5)]
    assert house.state() == "partial"


async def test_the_next_run_goes_on_from_there(house: House) -> None:
    """It asks the saved link first; the file is that of an undisturbed run."""
    await left(house, page(3, "a"), page(2, "b"))
    with house.part.open("ab") as file:
        file.write(b"torn rows of a page that was not commit")
    house.begin()
    fetcher = await house.harvest(page(1))
    assert fetcher.links == [link("b")]
    assert fetcher.calls[0].page == 3
    assert house.final.read_bytes() == rows(3, 2, 1)
    assert house.seen.of(events.CampaignStarted)[-1] == events.CampaignStarted(TARGET, 2, 5)
    assert [(line["rows"], line["pages"]) for line in house.lines()] == [(6, 3)]


async def test_a_run_killed_before_its_first_page_starts_over(house: House) -> None:
    """Rows that no checkpoint speaks of are thrown away."""
    house.part.write_bytes(b"rows of nobody")
    await house.harvest(page(1))
    assert house.final.read_bytes() == rows(1)


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 10_000, None])
async def test_a_damaged_part_is_fetched_anew(house: House, damage: bytes | None) -> None:
    """Shorter or other than its checkpoint, or gone: the walk starts over and says why."""
    await left(house, page(3, "a"))
    if damage is None:
        house.part.unlink()
    else:
        house.part.write_bytes(damage)
    house.begin()
    fetcher = await house.harvest(page(3, "a"), page(1))
    assert fetcher.links == [FIRST, link("a")]
    assert house.final.read_bytes() == rows(3, 1)
    (restart,) = house.seen.of(events.WalkRestarted)
    assert (restart.cause, restart.status) == ("damaged_part", None)


async def test_a_cancel_saves_the_position(house: House) -> None:
    """The page under way is lost, what was committed is not; the next run goes on."""
    with anyio.CancelScope() as scope:
        await house.harvest(page(3, "a"), lambda call: scope.cancel() or page(2, "b"), page(1))
    assert scope.cancelled_caught
    assert house.seen.of(events.CampaignInterrupted) == [events.CampaignInterrupted(TARGET, 2, 5)]
    house.begin()
    assert (await house.harvest(page(1))).links == [link("b")]
    assert house.final.read_bytes() == rows(3, 2, 1)


# -- other ends --------------------------------------------------------------------------------


async def test_a_failed_campaign_is_told_and_kept(house: House) -> None:
    """With everything the report wants; its rows so far stay a part, never a finished file."""
    error = CampaignError("rejected", "HTTP 406", status=406, error_key="key")
    error.attempts = 3
    await house.harvest(page(3, "a"), error)
    assert house.seen.of(events.CampaignFailed) == [
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
    assert (house.part.read_bytes(), house.final.exists()) == (rows(3), False)
    assert house.lines() == []
    assert house.state() == "failed"


async def test_a_failed_campaign_is_continued(house: House) -> None:
    """The next try asks the page that failed."""
    await house.harvest(page(3, "a"), CampaignError("server_error", "x"))
    house.begin()
    fetcher = await house.harvest(page(1))
    assert fetcher.links == [link("a")]
    assert house.final.read_bytes() == rows(3, 1)
    assert house.state() == "complete"


async def test_a_loop_across_runs_is_a_loop(house: House) -> None:
    """The cursors of earlier runs are known to the next."""
    await left(house, page(1, "a"), page(1, "b"))
    house.begin()
    await house.harvest(page(1, "a"))
    assert [e.kind for e in house.seen.of(events.CampaignFailed)] == ["looping_cursor"]
    assert not house.final.exists()


async def test_a_campaign_set_aside_is_not_failed(house: House) -> None:
    """It is kept for a later run, which goes on where it is."""
    until = NOON + timedelta(hours=1)
    aside = Deferred("wait", resume_at=until, status=503)
    aside.attempts = 2
    await house.harvest(page(3, "a"), aside)
    assert house.seen.of(events.CampaignDeferred) == [
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
    assert not house.seen.of(events.CampaignFailed)
    assert house.state() == "partial"


@pytest.mark.parametrize(
    "bug", [KeyError("x"), RecursionError(), MemoryError(), ExceptionGroup("x", [ValueError()])]
)
async def test_a_bug_fails_one_campaign(house: House, bug: Exception) -> None:
    """Whatever it is: the others go on, and the error names its class only."""
    await house.harvest(page(3, "a"), bug)
    (failure,) = house.seen.of(events.CampaignFailed)
    assert (failure.kind, failure.message) == ("unexpected", f"a bug: {type(bug).__name__}")


async def test_a_full_disk_is_no_campaigns_failure(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops the run; what was saved before stands."""

    def full(self: PartFile, data: bytes) -> int:
        raise StorageError("cannot use x: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "append", full)
        with pytest.raises(StorageError):
            await house.harvest(page(3, "a"))
    assert not house.seen.of(events.CampaignFailed)
    assert len(house.seen.of(events.CampaignInterrupted)) == 1
    assert house.state() == "new"


@pytest.mark.parametrize("where", ["temporary", "records"])
async def test_a_disk_that_fails_the_comparison_is_no_campaigns_failure(
    house: House, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Neither a full temporary folder nor records that cannot be read again are a bug."""

    def broken(_: object) -> int:
        raise OSError(5, "Input/output error") if where == "records" else sqlite3.Error("full")

    with monkeypatch.context() as patch:
        if where == "records":
            patch.setattr("harvester.campaign.harvest.distinct_contacts", broken)
        else:
            patch.setattr(DiskSet, "__len__", broken)
        with pytest.raises(StorageError):
            await house.harvest(page(3), {"opens": 3}, summary=True)
    assert not house.seen.of(events.CampaignFailed)
    house.begin()
    await house.harvest({"opens": 0}, summary=True)
    assert [line["rows"] for line in house.lines()] == [3]


async def test_a_part_that_cannot_be_synced_is_closed_and_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptor is given back, and no later commit syncs the part once more."""
    house.begin(sync_every=1e9)
    tried: list[PartFile] = []

    def broken(part: PartFile) -> None:
        tried.append(part)
        raise StorageError("cannot use x: Input/output error")

    monkeypatch.setattr(PartFile, "sync", broken)
    with pytest.raises(StorageError):
        await house.harvest(page(3, "a"), CampaignError("rejected", "HTTP 406"))
    house.store.sync()
    (part,) = tried
    with pytest.raises(OSError, match="Bad file descriptor"):
        part.close()


# -- a dropped cursor --------------------------------------------------------------------------


async def test_a_dropped_cursor_restarts_the_walk_once(house: House) -> None:
    """From the first page, with an empty part; cursors of before may come again."""
    dropped = CursorDropped("gone", status=410)
    fetcher = await house.harvest(page(3, "a"), dropped, page(4, "a"), page(2))
    assert fetcher.links == [FIRST, link("a"), FIRST, link("a")]
    assert house.final.read_bytes() == rows(4, 2)
    (restart,) = house.seen.of(events.WalkRestarted)
    assert (restart.page, restart.cause, restart.status) == (2, "cursor_dropped", 410)


async def test_a_second_dropped_cursor_fails_the_campaign(house: House) -> None:
    """In this run; the next try is a walk from the first page."""
    dropped = CursorDropped("gone", status=410)
    await house.harvest(page(3, "a"), dropped, page(4, "b"), dropped)
    assert [e.kind for e in house.seen.of(events.CampaignFailed)] == ["cursor_dropped"]
    house.begin()
    fetcher = await house.harvest(page(1, "a"), dropped, page(1))
    assert fetcher.links == [FIRST, link("a"), FIRST]
    assert house.final.read_bytes() == rows(1)


async def test_restarts_are_counted_across_runs(house: House) -> None:
    """A walk that was restarted, and left, has had its one restart."""
    dropped = CursorDropped("gone", status=410)
    await left(house, page(3, "a"), dropped, page(4, "b"))
    house.begin()
    await house.harvest(dropped)
    assert [e.kind for e in house.seen.of(events.CampaignFailed)] == ["cursor_dropped"]


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


async def test_a_poison_page_has_the_walk_start_over_in_smaller_pages(house: House) -> None:
    """As often as it takes; what came in larger ones is thrown away, the file is whole."""
    poison = PoisonPage("server_error", "HTTP 500", status=500)
    script = [page(500, "a"), poison, page(100, "b"), poison, page(20, "c"), page(9)]
    fetcher = await house.harvest(*script, least=20)
    assert fetcher.links == [first(500), link("a"), first(100), link("b"), first(20), link("c")]
    assert house.final.read_bytes() == rows(20, 9)
    assert [(e.page, e.cause, e.status) for e in house.seen.of(events.WalkRestarted)] == [
        (2, "poison_page", 500)
    ] * 2


@pytest.mark.parametrize(("least", "walks"), [(None, 1), (500, 1), (100, 2)])
async def test_a_poison_page_fails_the_campaign_when_nothing_is_smaller(
    house: House, least: int | None, walks: int
) -> None:
    """By default at once, as every failure of a page does."""
    poison = PoisonPage("server_error", "HTTP 500", status=500)
    fetcher = await house.harvest(*[page(5, "a"), poison] * walks, least=least)
    assert len(fetcher.links) == 2 * walks
    (failed,) = house.seen.of(events.CampaignFailed)
    assert (failed.kind, failed.pages) == ("server_error", 1)
    assert not house.final.exists()


async def test_a_later_run_begins_where_the_pages_had_shrunk_to(house: House) -> None:
    """It goes on at its small cursor; what fails even so is not walked again in larger pages."""
    poison = PoisonPage("server_error", "HTTP 500", status=500)
    await house.harvest(page(500, "a"), poison, page(100, "b"), poison, least=100)
    house.begin()
    fetcher = await house.harvest(poison, least=100)
    assert fetcher.links == [link("b")]
    house.begin()
    fetcher = await house.harvest(poison, page(20, "c"), page(1), least=20)
    assert fetcher.links == [link("b"), first(20), link("c")]
    assert house.final.read_bytes() == rows(20, 1)


async def test_a_dropped_cursor_keeps_the_small_pages(house: House) -> None:
    """Its one restart is in pages that came through."""
    poison = PoisonPage("timeout", "no answer")
    dropped = CursorDropped("gone", status=410)
    fetcher = await house.harvest(poison, page(9, "a"), dropped, page(9), least=1)
    assert fetcher.links == [first(500), first(100), link("a"), first(100)]


# -- between the last page and the manifest ----------------------------------------------------


async def finishing(house: House) -> SavedWalk:
    """A run that is killed when everything is saved but the final name."""
    with pytest.MonkeyPatch.context() as patch:

        def killed(self: Publisher, record: SavedWalk) -> None:
            raise StopRun("killed", "here")

        patch.setattr(Publisher, "publish", killed)
        with pytest.raises(StopRun):
            await house.harvest(page(3, "a"), page(1))
    house.begin()
    (record,) = house.store.finishing_walks()
    return record


async def test_a_finished_part_gets_its_name_without_a_request(house: House) -> None:
    """The next run publishes it before it asks anything."""
    await finishing(house)
    house.publisher.republish()
    assert house.final.read_bytes() == rows(3, 1)
    assert len(house.lines()) == 1
    assert house.state() == "complete"


async def test_a_part_that_an_earlier_run_left_is_synced_before_it_gets_its_name(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last page was saved, and a kill came before it was synced: also where commits do not
    sync, nobody believes that somebody else did."""
    house.begin(sync_every=1e9)
    record, part = house.record(), PartFile(house.part)
    position = Position(None, 1, 2, part.append(rows(2)))
    await house.store.commit(record.walk, position, 2, None, part, started_at="then")
    house.store.discard_pending_sync(part)
    part.close()
    house.begin(sync_every=1e9)
    synced: list[tuple[str, bool]] = []
    real = os.fdatasync

    def fdatasync(file: int) -> None:
        name = os.readlink(f"/proc/self/fd/{file}").rpartition("/")[2]  # noqa: PTH115
        synced.append((name, house.final.exists()))
        real(file)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    assert (await house.harvest()).calls == []
    assert synced[0] == (house.part.name, False)
    assert house.final.read_bytes() == rows(2)


async def test_publishing_again_is_no_harm(house: House) -> None:
    """A kill after the rename, or after the manifest's line: one file, one line."""
    record = await finishing(house)
    for cut in ("rename", "manifest"):
        with pytest.MonkeyPatch.context() as patch:

            def killed(*_: object, **__: object) -> None:
                raise StopRun("killed", "here")

            kind, name = (NdjsonLog, "append") if cut == "rename" else (CheckpointStore, "complete")
            patch.setattr(kind, name, killed)
            with pytest.raises(StopRun):
                house.publisher.publish(record)
        house.begin()
    house.publisher.republish()
    assert house.final.read_bytes() == rows(3, 1)
    assert len(house.lines()) == 1


@pytest.mark.parametrize("damage", ["gone", "shorter", "longer"])
async def test_a_finished_part_that_was_damaged_is_fetched_anew(house: House, damage: str) -> None:
    """It never gets the final name; the walk begins again and says why."""
    await finishing(house)
    content = house.part.read_bytes()
    house.part.unlink()
    if damage != "gone":
        house.part.write_bytes(content[:-1] if damage == "shorter" else content + b"x")
    house.publisher.republish()
    assert not house.final.exists()
    assert [e.cause for e in house.seen.of(events.WalkRestarted)] == ["damaged_file"]
    fetcher = await house.harvest(page(3, "a"), page(1))
    assert fetcher.links == [FIRST, link("a")]
    assert house.final.read_bytes() == rows(3, 1)


async def test_a_failed_walk_that_had_everything_is_only_published(house: House) -> None:
    """A position after the last page has nothing left to ask."""
    record = house.record()
    part = PartFile(house.part)
    position = Position(None, 1, 2, part.append(rows(2)))
    await house.store.finishing(replace(record, position=position, digest=part.digest()))
    part.close()
    house.store.fail(record.walk, "unexpected")
    house.begin()
    assert (await house.harvest()).calls == []
    assert house.final.read_bytes() == rows(2)
