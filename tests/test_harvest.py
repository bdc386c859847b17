"""A whole run against the sandbox: files, reports and the end, however it came."""

import asyncio
import errno
import json
import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crashlab import config_of
from fakes import NOON, FakeClock, Seen

from harvester import client as stack
from harvester import events
from harvester.config import HarvestConfig
from harvester.disk.compress import CODECS
from harvester.disk.inspect import verify
from harvester.disk.layout import Layout
from harvester.disk.part import PartFile
from harvester.disk.saved_walk import STEERING
from harvester.errors import ConfigError, HarvestError, StopRun, StorageError
from harvester.events import Event
from harvester.reporting.summary import HarvestReport
from harvester.request.retry_policy import RetryPolicy
from harvester.run import Harvester, harvest
from harvester.sandbox import Sandbox, SandboxSettings

SMALL: dict[str, Any] = {"campaigns": 6, "pages": 18, "rows_per_page": 5, "unsent": 2}


class Field:
    """A sandbox and a directory to harvest it into. `pages`, `requests`: those of a good
    run."""

    def __init__(self, sandbox: Sandbox, folder: Path, api: str = "v2") -> None:
        self.sandbox, self.folder, self.api = sandbox, folder, api
        self.root = folder / "out"
        world, limit = sandbox.world, sandbox.settings.rows_per_page
        self.ids = list(world.campaign_ids if api == "v2" else world.v3_campaign_ids)
        self.absent = "7" if api == "v2" else "00000000-0000-4000-8000-000000000007"
        self.pages = sum(world.pages("opens", each, limit) for each in self.ids)
        # v3 asks for each campaign itself.
        self.requests = self.pages + (len(self.ids) if api == "v3" else 0)

    def config(self, **settings: Any) -> HarvestConfig:
        """Settings for this sandbox, without a pace."""
        given: dict[str, Any] = {
            "output": self.root,
            "api": self.api,
            "counts": self.api == "v2",  # of v3 they would answer for some reports
            "concurrency": 3,
            **settings,
        }
        return config_of(self.sandbox, self.folder, **given)

    async def run(self, ids: Any = None, *, observe: Any = None, **settings: Any) -> HarvestReport:
        """One run; the invariants of every report are checked."""
        before = self.sandbox.requests
        report = await harvest(
            self.ids if ids is None else ids, self.config(**settings), observe=observe
        )
        campaigns, requests = report.campaigns, report.requests
        assert campaigns.total == (
            campaigns.complete + campaigns.failed + campaigns.partial + campaigns.pending
        )
        assert requests.sent == self.sandbox.requests - before
        assert self.summary()["run_id"] == report.run_id
        assert self.summary()["exit_code"] == report.exit_code
        retried = [line for line in self.lines("retries") if line["run_id"] == report.run_id]
        assert len(retried) == requests.retried
        return report

    def summary(self) -> dict[str, Any]:
        """summary.json."""
        found: dict[str, Any] = json.loads((self.root / "summary.json").read_bytes())
        return found

    def lines(self, name: str) -> list[dict[str, Any]]:
        """An NDJSON file."""
        text = (self.root / f"{name}.ndjson").read_bytes()
        return [json.loads(line) for line in text.split(b"\n")[:-1]]

    def content(self, campaign_id: str) -> bytes:
        """The finished file that a perfect client would write."""
        rows = self.sandbox.world.records("opens", campaign_id)
        return b"".join(row + b"\n" for row in rows)

    def check(self, *ids: str) -> None:
        """These campaigns are finished, and are just what the world has."""
        for campaign_id in ids or self.ids:
            found = (self.root / "opens" / f"{campaign_id}.ndjson").read_bytes()
            assert found == self.content(campaign_id)
        listed = [line["campaign_id"] for line in self.lines("manifest")]
        assert sorted(listed) == sorted(ids or self.ids)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between attempts are tested elsewhere, on a virtual clock."""
    monkeypatch.setattr(stack, "RetryPolicy", partial(RetryPolicy, first=0.001, refused=0.001))


@pytest.fixture
async def field(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Field]:
    """A small sandbox, with the settings of the test's parameter."""
    settings = SMALL | getattr(request, "param", {})
    api = settings.pop("api", "v2")
    async with Sandbox(SandboxSettings(**settings)) as sandbox:
        yield Field(sandbox, tmp_path, api)


def sandbox_with(**settings: Any) -> pytest.MarkDecorator:
    """Run the test against a sandbox of these settings."""
    return pytest.mark.parametrize("field", [settings], indirect=True, ids=["sandbox"])


def both_versions(**settings: Any) -> pytest.MarkDecorator:
    """Run the test against both versions; in v3 two campaigns were sent again."""
    v3 = {"api": "v3", "campaigns": 6, "resends": 2} | settings
    return pytest.mark.parametrize("field", [settings, v3], indirect=True, ids=["v2", "v3"])


# -- a run that goes well ----------------------------------------------------------------------


@both_versions()
async def test_every_event_is_harvested_once(field: Field) -> None:
    """Every campaign's file holds exactly its records; the report adds up."""
    report = await field.run()
    field.check()
    assert (report.exit_code, report.reason, report.resume_at) == (0, "complete", None)
    assert (report.campaigns.total, report.campaigns.complete) == (6, 6)
    assert report.requests.sent == report.requests.ok == field.requests
    assert report.pages == field.pages
    assert report.rows == sum(line["rows"] for line in field.lines("manifest"))
    assert report.bytes == sum(path.stat().st_size for path in (field.root / "opens").iterdir())
    assert report.quota.used_today == field.requests
    assert field.lines("errors") == field.lines("retries") == []
    assert not list(field.root.rglob("*.part"))


async def test_the_same_run_again_asks_nothing(field: Field) -> None:
    """What is complete is passed over, and said so."""
    await field.run()
    seen = Seen()
    report = await field.run(observe=seen)
    assert (report.exit_code, report.requests.sent, report.pages) == (0, 0, 0)
    assert (report.campaigns.complete, report.campaigns.total) == (6, 6)
    assert [e.state for e in seen.of(events.CampaignSkipped)] == ["complete"] * 6
    field.check()


@pytest.mark.parametrize("concurrency", [1, 2, 16])
@sandbox_with(irregular=True, last_page="null")
async def test_the_number_of_workers_changes_no_byte(field: Field, concurrency: int) -> None:
    """Files are the same however many campaigns are walked at once."""
    await field.run(concurrency=concurrency)
    field.check()


@pytest.mark.parametrize("kind", ["list", "tuple", "iterator", "generator", "async"])
async def test_ids_come_from_any_iterable(field: Field, kind: str) -> None:
    """Collections, iterators and async iterables."""

    def generated() -> Iterator[str]:
        yield from field.ids

    async def awaited() -> AsyncIterator[str]:
        for campaign_id in field.ids:
            await asyncio.sleep(0)
            yield campaign_id

    sources: dict[str, Any] = {
        "list": field.ids,
        "tuple": tuple(field.ids),
        "iterator": iter(field.ids),
        "generator": generated(),
        "async": awaited(),
    }
    report = await field.run(sources[kind])
    assert (report.exit_code, report.campaigns.total) == (0, 6)
    field.check()


async def test_no_ids_are_a_complete_run(field: Field) -> None:
    """Nothing to do is done."""
    report = await field.run([])
    assert (report.exit_code, report.campaigns.total, report.requests.sent) == (0, 0, 0)


async def test_a_repeated_id_is_taken_once(field: Field) -> None:
    """With a note; it is one campaign in the report."""
    seen = Seen()
    report = await field.run([*field.ids, field.ids[0], field.ids[0]], observe=seen)
    assert (report.campaigns.total, report.pages) == (6, 18)
    assert [e.campaign_id for e in seen.of(events.IdRepeated)] == [field.ids[0]] * 2
    field.check()


async def test_an_observer_sees_the_run(field: Field) -> None:
    """From its start to its finish, with every page and campaign in between."""
    seen = Seen()
    report = await field.run(observe=seen)
    counts = Counter(type(event).__name__ for event in seen.events)
    assert counts["PageCommitted"] == counts["RequestSent"] == counts["RequestSucceeded"] == 18
    assert counts["CampaignStarted"] == counts["CampaignCompleted"] == 6
    (started,) = seen.of(events.RunStarted)
    assert (started.total, started.output, started.used_today) == (6, str(field.root), 0)
    assert seen.events[0] == started
    assert seen.events[-1] == events.RunFinished(0, "complete")
    assert sum(e.rows for e in seen.of(events.PageCommitted)) == report.rows


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
async def test_a_compressed_harvest_holds_the_same(field: Field, codec: str) -> None:
    """The records are those of the world."""
    await field.run(compress=codec)
    for campaign_id in field.ids:
        path = field.root / "opens" / f"{campaign_id}.ndjson{CODECS[codec].suffix}"
        with CODECS[codec].open(path) as file:
            assert file.read() == field.content(campaign_id)


async def test_since_is_asked_for(field: Field) -> None:
    """Every first page, and only a first page, carries it."""
    await field.run(since="2015-06-01")
    firsts = [hit.query for hit in field.sandbox.log if hit.cursor is None]
    assert firsts
    assert all("created_since=2015-06-01T00%3A00%3A00Z" in query for query in firsts)


# -- failures ----------------------------------------------------------------------------------


@both_versions()
async def test_a_missing_campaign_fails_alone(field: Field) -> None:
    """It is reported with its reason, has no file, and every other one is complete."""
    report = await field.run([field.absent, *field.ids])
    assert (report.exit_code, report.reason) == (3, "failures")
    assert (report.campaigns.failed, report.campaigns.complete) == (1, 6)
    (line,) = field.lines("errors")
    assert (line["campaign_id"], line["kind"], line["status"]) == (field.absent, "not_found", 404)
    assert not (field.root / "opens" / f"{field.absent}.ndjson").exists()
    field.check()


@both_versions()
async def test_what_was_refused_for_good_is_not_asked_again(field: Field) -> None:
    """Unless it is asked for: the failure still counts in the report."""
    await field.run([field.absent, *field.ids])
    seen = Seen()
    report = await field.run([field.absent, *field.ids], observe=seen)
    assert (report.exit_code, report.requests.sent, report.campaigns.failed) == (3, 0, 1)
    skipped = [e for e in seen.of(events.CampaignSkipped) if e.state == "failed"]
    assert [(e.target.campaign_id, e.kind) for e in skipped] == [(field.absent, "not_found")]
    again = await field.run([field.absent, *field.ids], retry_failed=True)
    assert (again.exit_code, again.requests.sent, again.campaigns.failed) == (3, 1, 1)
    assert len(field.lines("errors")) == 2


@both_versions(faults={"error500": 0.3, "html": 0.2, "reset": 0.2}, heal_after=1)
async def test_faults_that_heal_leave_no_trace_in_the_files(field: Field) -> None:
    """Every repeated request is in the retry report, and in no file."""
    report = await field.run()
    assert report.exit_code == 0
    assert report.requests.retried > 0
    assert report.requests.ok == field.requests
    field.check()


@sandbox_with(pinned={(None, 2): "html"})
async def test_a_campaign_that_stays_broken_is_continued_by_the_next_run(field: Field) -> None:
    """It failed, it is not refused for good: the same command tries it again where it was."""
    one = max(field.ids, key=lambda name: len(field.content(name)))
    report = await field.run([one], retries=1)
    assert (report.exit_code, report.campaigns.failed, report.pages) == (3, 1, 1)
    again = await field.run([one], retries=0)
    assert (again.requests.sent, again.campaigns.failed) == (1, 1)
    assert [hit.page for hit in field.sandbox.log] == [1, 2, 2, 2]
    assert [line["pages"] for line in field.lines("errors")] == [1, 1]


@pytest.mark.parametrize(
    ("settings", "reason", "code"),
    [
        ({"api_key": "wrong-key"}, "credentials_refused", 4),
        ({"access_token": "wrong-token"}, "credentials_refused", 4),
    ],
)
async def test_a_refused_secret_stops_everything(
    field: Field, settings: dict[str, Any], reason: str, code: int
) -> None:
    """At once, with nothing finished; the next run with the right one has all to do."""
    report = await field.run(**settings, concurrency=1)
    assert (report.exit_code, report.reason) == (code, reason)
    assert report.requests.sent <= 6
    assert (report.campaigns.complete, report.campaigns.total) == (0, 6)
    assert (await field.run()).exit_code == 0
    field.check()


@both_versions()
async def test_a_renewed_token_goes_on(field: Field, tmp_path: Path) -> None:
    """A token file that holds another token by then is read once more."""
    right = field.sandbox.settings.access_token
    (tmp_path / "token").write_text(right)
    report = await field.run(access_token="old-token", access_token_file=tmp_path / "token")
    assert (report.exit_code, report.campaigns.complete) == (0, 6)
    assert 1 <= report.requests.retried <= 6
    field.check()


# -- stopped and continued ---------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 5, 17])
@both_versions()
async def test_a_run_of_so_many_requests_is_continued(field: Field, limit: int) -> None:
    """Runs of `max_requests` add up to one harvest, with no request twice."""
    runs = 0
    while (report := await field.run(max_requests=limit)).exit_code == 75:
        assert report.reason == "max_requests"
        assert report.requests.sent == limit
        assert report.campaigns.total == 6
        assert field.summary()["resume_at"] is not None
        runs += 1
    assert (report.exit_code, runs) == (0, -(-field.requests // limit) - 1)
    assert field.sandbox.requests == field.requests
    field.check()


@both_versions()
async def test_a_spent_day_stops_until_the_reset(field: Field) -> None:
    """Not one request past the quota, in this run or the next of the day."""
    report = await field.run(daily_quota=7)
    assert (report.exit_code, report.reason, report.requests.sent) == (75, "quota_spent", 7)
    assert report.resume_at == report.quota.resets_at
    assert report.quota.used_today == 7
    again = await field.run(daily_quota=7)
    assert (again.exit_code, again.requests.sent) == (75, 0)
    assert field.sandbox.requests == 7
    assert (await field.run(daily_quota=100)).exit_code == 0
    assert field.sandbox.requests == field.requests
    field.check()


@both_versions(quota=7)
async def test_the_apis_word_that_the_day_is_spent_is_believed(field: Field) -> None:
    """With one worker it costs one request to learn it."""
    report = await field.run(concurrency=1)
    assert (report.exit_code, report.reason) == (75, "quota_spent")
    assert report.requests.sent == 8


async def test_a_day_that_ends_is_waited_for(field: Field) -> None:
    """With `wait_for_quota` the run goes on after midnight, by the wall clock."""

    clock: Any = FakeClock(datetime(2026, 3, 1, 23, tzinfo=UTC))
    paused: list[events.Paused] = []

    def observe(event: Event) -> None:
        if isinstance(event, events.Paused):
            paused.append(event)
            clock.advance(3_600)

    config = field.config(daily_quota=15, wait_for_quota=True)
    report = await Harvester(config, observe=observe, clock=clock).run(field.ids)
    assert (report.exit_code, report.quota.used_today) == (0, 3)
    assert [(e.reason, e.seconds) for e in paused] == [("quota_spent", 3_600.0)]
    field.check()


@pytest.mark.parametrize("after", [0, 1, 9])
@both_versions()
async def test_a_stop_saves_everything_and_the_same_call_goes_on(field: Field, after: int) -> None:
    """`stop` ends the run in order with its reason; no page is asked for twice."""

    def observe(event: Event) -> None:
        if isinstance(event, events.PageCommitted) and len(field.sandbox.log) > after:
            harvester.stop("SIGTERM", "stop")

    harvester = Harvester(field.config(), observe=observe)
    report = await harvester.run(field.ids)
    assert (report.exit_code, report.reason, report.message) == (143, "SIGTERM", "stop")
    assert report.campaigns.total == 6
    assert (await field.run()).exit_code == 0
    assert field.sandbox.requests == field.requests
    field.check()


async def test_a_stop_before_the_run_sends_nothing(field: Field) -> None:
    """`stop` may be called at any time."""
    harvester = Harvester(field.config())
    harvester.stop("SIGINT", "stop")
    report = await harvester.run(field.ids)
    assert (report.exit_code, report.requests.sent, report.campaigns.total) == (130, 0, 6)


async def test_a_stop_among_finished_campaigns_forgets_none(field: Field) -> None:
    """Ids that were not begun are counted, also the one that was just being read."""
    await field.run()

    def observe(event: Event) -> None:
        if isinstance(event, events.CampaignSkipped):
            harvester.stop("SIGTERM", "stop")

    harvester = Harvester(field.config(), observe=observe)
    report = await harvester.run(field.ids)
    assert (report.exit_code, report.campaigns.total, report.campaigns.complete) == (143, 6, 6)


async def test_a_reason_of_ones_own_still_ends_in_a_report(field: Field) -> None:
    """A run that is stopped from Python may have a reason of the caller's."""
    harvester = Harvester(field.config())
    harvester.stop("enough", "seen enough")
    report = await harvester.run(field.ids)
    assert (report.reason, report.exit_code != 0) == ("enough", True)


@both_versions()
async def test_a_cancel_saves_everything(field: Field) -> None:
    """The task ends cancelled, the summary is written, and the same call goes on."""
    task: asyncio.Task[Any]

    def observe(event: Event) -> None:
        if isinstance(event, events.PageCommitted) and len(field.sandbox.log) > 6:
            task.cancel()

    task = asyncio.create_task(harvest(field.ids, field.config(), observe=observe))
    with pytest.raises(asyncio.CancelledError):
        await task
    summary = field.summary()
    assert (summary["exit_code"], summary["reason"]) == (130, "cancelled")
    assert summary["campaigns"]["total"] == 6
    before = field.sandbox.requests
    assert (await field.run()).exit_code == 0
    assert field.sandbox.requests <= field.requests + 3
    assert before < field.requests
    field.check()


@sandbox_with(pinned={(None, None): "timeout"})
async def test_a_run_has_a_longest_duration(field: Field) -> None:
    """The order is given when the time is over, and the run can go on."""
    report = await field.run(max_duration=0.05, timeout=0.2, retries=0)
    assert (report.exit_code, report.reason) == (75, "max_duration")
    assert "`max_duration` 0.05" in (report.message or "")


async def test_a_run_that_ends_while_it_waits_for_the_quota_goes_on_at_the_reset(
    field: Field,
) -> None:
    """Its duration is over, the day is not."""
    report = await field.run(daily_quota=3, wait_for_quota=True, max_duration=0.3)
    assert (report.exit_code, report.reason) == (75, "max_duration")
    assert report.resume_at == report.quota.resets_at


@pytest.mark.parametrize("content", [None, b"garbage"])
async def test_a_count_that_cannot_be_kept_is_refused(field: Field, content: bytes | None) -> None:
    """Before anything is sent or written; the message names the setting."""
    if content is None:
        (field.folder / "state").write_bytes(b"a file")
    else:
        await field.run(max_requests=1)
        (count,) = (field.folder / "state").glob("*.json")
        count.write_bytes(content)
    before = field.sandbox.requests
    with pytest.raises(ConfigError, match="`state_dir`"):
        await harvest(field.ids, field.config())
    assert field.sandbox.requests == before


@pytest.mark.parametrize("kind", [events.RunStarted, events.PageCommitted, events.RunFinished])
async def test_an_observer_that_raises_harms_nothing(field: Field, kind: type[Event]) -> None:
    """Not even the campaign: it gets no more events, and the report says where it failed."""
    got: list[Event] = []

    def observe(event: Event) -> None:
        got.append(event)
        if isinstance(event, kind):
            raise KeyError("sandbox-token")

    report = await field.run(observe=observe)
    assert (report.exit_code, report.campaigns.failed) == (0, 0)
    assert type(got[-1]) is kind
    assert len([event for event in got if isinstance(event, kind)]) == 1
    if kind is not events.RunFinished:
        said = report.message or ""
        assert re.fullmatch(
            r"an observer raised KeyError at test_harvest\.py:\d+: it got no more events", said
        )
        assert field.summary()["message"] == said
    field.check()


async def test_an_observer_is_no_coroutine_function(field: Field) -> None:
    """Its events would be lost."""

    async def observe(event: Event) -> None:
        raise AssertionError(event)

    with pytest.raises(ConfigError, match="observe"):
        await harvest(field.ids, field.config(), observe=observe)  # type: ignore[arg-type]


# -- repair ------------------------------------------------------------------------------------


async def test_a_finished_file_that_is_gone_is_harvested_again(field: Field) -> None:
    """Without being asked, and it alone."""
    await field.run()
    path = field.root / "opens" / f"{field.ids[0]}.ndjson"
    content = path.read_bytes()
    path.unlink()
    seen = Seen()
    assert (await field.run(observe=seen)).exit_code == 0
    assert path.read_bytes() == content
    assert {e.target.campaign_id for e in seen.of(events.RequestSent)} == {field.ids[0]}
    assert [e.cause for e in seen.of(events.WalkRestarted)] == ["damaged_file"]
    assert (await field.run()).requests.sent == 0


@pytest.mark.parametrize("damage", ["shorter", "other"])
async def test_a_finished_file_that_is_not_whole_is_harvested_again(
    field: Field, damage: str
) -> None:
    """If asked for, and it alone; without being asked what is done stays done."""
    await field.run()
    path = field.root / "opens" / f"{field.ids[0]}.ndjson"
    content = path.read_bytes()
    path.write_bytes(content[:-1] if damage == "shorter" else content.swapcase())
    assert (await field.run()).requests.sent == 0
    report = await field.run(repair=True)
    assert (report.exit_code, report.campaigns.complete) == (0, len(field.ids))
    assert path.read_bytes() == content
    assert list(verify(Layout(field.root))) == []
    assert (await field.run(repair=True)).requests.sent == 0


# -- what is refused ---------------------------------------------------------------------------


async def test_changed_settings_are_refused(field: Field) -> None:
    """One directory is one harvest; the error says what changed, and nothing is sent."""
    await field.run()
    before = field.sandbox.requests
    with pytest.raises(ConfigError, match="`page_size` was '5' and is '4'"):
        await field.run(page_size=4)
    assert field.sandbox.requests == before
    report = await field.run(page_size=4, fresh=True)
    assert report.exit_code == 0
    field.check()


async def test_fresh_says_what_it_removes(field: Field) -> None:
    """Before the run starts."""
    await field.run()
    seen = Seen()
    await field.run(fresh=True, observe=seen)
    (removed,) = seen.of(events.FilesRemoved)
    assert removed.files == 6 + 5
    assert seen.events.index(removed) == 0
    field.check()


async def test_a_part_that_an_empty_top_up_left_is_removed(field: Field) -> None:
    """A kill, or a power cut, just before its name was taken away: the state says complete."""
    first, second = field.ids[:2]
    await field.run([first])
    await field.run([first], since="last")
    await field.run(since="last", max_requests=3)
    parts = {path.name for path in field.root.glob("opens/*.part")}
    assert second not in parts
    stray = field.root / "opens" / f"{first}.ndjson.part"
    stray.write_bytes(b"{}\n")
    await field.run([first], since="last", max_requests=1)
    assert {path.name for path in field.root.glob("opens/*.part")} == parts


@pytest.mark.parametrize("bad", ["../7", "", "7 ", "x", "\u0667"])
async def test_a_bad_id_in_a_list_costs_nothing(field: Field, bad: str) -> None:
    """It is refused before the directory is made."""
    with pytest.raises(ConfigError, match="not a campaign id"):
        await harvest([*field.ids, bad], field.config())
    assert (field.sandbox.requests, field.root.exists()) == (0, False)


async def test_a_bad_id_in_a_stream_stops_the_run(field: Field) -> None:
    """It is raised when everything is saved; what went well before it stands."""
    with pytest.raises(ConfigError, match="not a campaign id"):
        await harvest(iter([*field.ids, "../7", "8"]), field.config())
    assert (field.summary()["exit_code"], field.summary()["reason"]) == (2, "bad_input")
    assert (await field.run()).exit_code == 0
    assert field.sandbox.requests == 18
    field.check()


async def test_a_single_id_is_not_a_list_of_digits(field: Field) -> None:
    """A string is an iterable of strings, and never what was meant."""
    with pytest.raises(ConfigError):
        await harvest(field.ids[0], field.config())
    assert field.sandbox.requests == 0


@pytest.mark.parametrize("lazily", [False, True])
async def test_an_id_that_is_no_text_is_refused_like_any_other(field: Field, lazily: bool) -> None:
    """Bytes are no id: an error, not a traceback. (A whole number is taken as its digits.)"""
    ids: Any = [field.ids[0].encode()]
    with pytest.raises(ConfigError, match="not a campaign id"):
        await harvest(iter(ids) if lazily else ids, field.config())


async def test_ids_that_fail_still_leave_a_summary(field: Field) -> None:
    """The error of the source of the ids comes out as it is, after everything was saved."""

    def broken() -> Iterator[str]:
        yield from field.ids[:2]
        raise LookupError("bad source")

    seen = Seen()
    with pytest.raises(LookupError, match="bad source"):
        await harvest(broken(), field.config(), observe=seen)
    assert field.summary()["exit_code"] == 1
    assert seen.of(events.RunFinished)


async def test_missing_secrets_cost_nothing(field: Field) -> None:
    """No directory is made for a run that cannot send."""
    with pytest.raises(ConfigError, match="no API key"):
        await harvest(field.ids, field.config(api="v2", api_key=None))
    assert not field.root.exists()


async def test_a_directory_in_use_is_refused(field: Field) -> None:
    """A second run learns which process holds it; the first is not disturbed."""

    refused: list[str] = []

    async def second() -> None:
        with pytest.raises(StopRun, match="another run works in") as caught:
            await harvest(field.ids, field.config())
        refused.append(str(caught.value))

    tasks: list[asyncio.Task[None]] = []

    def observe(event: Event) -> None:
        if isinstance(event, events.PageCommitted) and not tasks:
            tasks.append(asyncio.create_task(second()))

    report = await field.run(observe=observe)
    await tasks[0]
    assert (report.exit_code, len(refused)) == (0, 1)
    field.check()


# -- the directory under a run -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "moved"])
async def test_a_directory_made_anew_under_a_run_belongs_to_the_new_one(
    field: Field, how: str
) -> None:
    """The forgotten run stops with one sentence, and no byte of it stands in the other's files."""
    tasks: list[asyncio.Task[HarvestReport]] = []
    pages = 0
    # A removal takes a while: it begins before there is anything to be named.
    at = {"moved": 5, "removed": 1}[how]

    def observe(event: Event) -> None:
        nonlocal pages
        pages += isinstance(event, events.PageCommitted)
        if pages == at and not tasks:
            if how == "moved":
                field.root.rename(field.folder / "moved")
            else:
                shutil.rmtree(field.root)
            tasks.append(asyncio.create_task(harvest(field.ids, field.config())))

    old = await harvest(field.ids, field.config(), observe=observe)
    new = await tasks[0]
    assert (old.exit_code, old.reason) == (1, "directory_lost")
    assert "was moved, removed or replaced" in (old.message or "")
    assert (new.exit_code, field.summary()["run_id"]) == (0, new.run_id)
    assert [line["run_id"] for line in field.lines("runs")] == [new.run_id]
    field.check()
    assert list(verify(Layout(field.root))) == []


async def test_a_run_whose_directory_was_replaced_leaves_no_summary_in_it(field: Field) -> None:
    """Nor anything else: what stands at its path may be another run's."""

    def observe(event: Event) -> None:
        if isinstance(event, events.PageCommitted) and not (field.folder / "moved").exists():
            field.root.rename(field.folder / "moved")
            (field.root / ".harvester").mkdir(parents=True)
            (field.root / ".harvester" / "lock").touch()

    report = await harvest(field.ids, field.config(), observe=observe)
    assert (report.exit_code, report.reason) == (1, "directory_lost")
    assert [path.name for path in field.root.rglob("*")] == [".harvester", "lock"]


@pytest.mark.parametrize("early", ["finals", "state", "log"])
@pytest.mark.parametrize(("first", "second"), [(2, 3), (2, 9), (4, 17), (8, 12), (11, 18)])
async def test_a_copy_made_under_a_run_is_right_or_refused(
    field: Field, early: str, first: int, second: int
) -> None:
    """Whichever of its files are of an earlier moment than the others."""
    copy, pages = field.folder / "copy", 0

    def take(*, state: bool, log: bool, finals: bool) -> None:
        for path in [path for path in field.root.rglob("*") if path.is_file()]:
            kind = ("log" if "-wal" in path.name else "state") if ".harv" in str(path) else "finals"
            if {"state": state, "log": log, "finals": finals}[kind]:
                to = copy / path.relative_to(field.root)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(path.read_bytes())

    def observe(event: Event) -> None:
        nonlocal pages
        pages += isinstance(event, events.PageCommitted)
        if isinstance(event, events.PageCommitted) and pages in {first, second}:
            names = ("state", "log", "finals")
            take(**{name: (name == early) == (pages == first) for name in names})

    await field.run(observe=observe)
    field.root = copy
    try:
        report = await harvest(field.ids, field.config())
    except (ConfigError, StorageError):
        return
    assert report.exit_code == 0
    for campaign_id in field.ids:
        found = (copy / "opens" / f"{campaign_id}.ndjson").read_bytes()
        assert found == field.content(campaign_id)
    assert list(verify(Layout(copy))) == []


@pytest.mark.parametrize("column", [*STEERING, "report", "campaign_id", "checksum"])
@both_versions()
async def test_a_flipped_bit_in_the_state_is_never_followed(field: Field, column: str) -> None:
    """In whatever field of each walk, complete, under way or new: every file ends right."""
    await field.run(max_requests=9)
    with closing(sqlite3.connect(field.root / ".harvester" / "state.sqlite")) as db, db:
        for walk, value in db.execute(f"SELECT id, {column} FROM walks").fetchall():
            if isinstance(value, int):
                flipped: Any = value ^ 1
            else:
                data = value.encode() if isinstance(value, str) else value or b"\0"
                flipped = bytes([data[0] ^ 1]) + data[1:]
                flipped = flipped.decode() if isinstance(value, str) else flipped
            db.execute(f"UPDATE walks SET {column} = ? WHERE id = ?", (flipped, walk))
    report = await harvest(field.ids, field.config())
    assert (report.exit_code, report.campaigns.complete) == (0, 6)
    for campaign_id in field.ids:
        path = field.root / "opens" / f"{campaign_id}.ndjson"
        assert path.read_bytes() == field.content(campaign_id)
    assert list((field.root / "opens").glob("*.part")) == []


async def test_obstructed_campaigns_fail_alone(field: Field) -> None:
    """A directory at a final name, a part that is a link: the run goes on, and each start too."""
    folder, precious = field.root / "opens", field.folder / "precious"
    await field.run(field.ids[:1])
    precious.write_bytes(b"precious")
    (folder / f"{field.ids[1]}.ndjson").mkdir()
    (folder / f"{field.ids[2]}.ndjson.part").symlink_to(precious)
    for _ in range(2):
        report = await field.run()
        assert (report.exit_code, report.campaigns.failed, report.campaigns.complete) == (3, 2, 4)
    kinds = Counter((line["campaign_id"], line["kind"]) for line in field.lines("errors"))
    assert kinds == {(each, "obstructed"): 2 for each in field.ids[1:3]}
    assert precious.read_bytes() == b"precious"
    (folder / f"{field.ids[1]}.ndjson").rmdir()
    (folder / f"{field.ids[2]}.ndjson.part").unlink()
    assert (await field.run()).exit_code == 0
    field.check()


async def test_every_run_has_a_line(field: Field) -> None:
    """The same as summary.json."""
    reports = [await field.run(max_requests=7), await field.run()]
    assert [line["run_id"] for line in field.lines("runs")] == [each.run_id for each in reports]
    assert field.lines("runs")[-1] == field.summary()


# -- the disk ----------------------------------------------------------------------------------


async def test_a_full_disk_stops_the_run_and_the_next_goes_on(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says so; what was saved stands, and the same call ends the harvest."""
    real, count = PartFile.append, 0

    def append(self: PartFile, data: bytes) -> int:
        nonlocal count
        count += 1
        if count > 7:
            raise StorageError("cannot use x: No space left on device")
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "append", append)
        report = await field.run()
    assert (report.exit_code, report.reason) == (1, "storage")
    assert "No space left" in (report.message or "")
    assert (await field.run()).exit_code == 0
    field.check()


@pytest.mark.parametrize("signal", [None, "SIGTERM"])
async def test_after_a_failed_commit_the_report_still_counts_what_was_saved(
    field: Field, monkeypatch: pytest.MonkeyPatch, signal: str | None
) -> None:
    """The state takes no more changes, but it can be read, and the summary can be written; a
    reason that the run had before stays its reason."""
    real, seen = os.fdatasync, Seen()
    harvester = Harvester(field.config(concurrency=1), observe=seen)

    def refused(file: int) -> None:
        name = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
        if name.endswith(".part") and len(seen.of(events.CampaignCompleted)) == 2:
            if signal is not None:
                harvester.stop(signal, "stopped")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(HarvestConfig, "durable", True)
        patch.setattr(os, "fdatasync", refused)
        report = await harvester.run(field.ids)
    assert (report.exit_code, report.reason) == ((143, signal) if signal else (1, "storage"))
    assert (report.campaigns.complete, report.campaigns.failed) == (2, 0)
    assert report.campaigns.total > 2
    assert report.rows == sum(event.rows for event in seen.of(events.PageCommitted)) > 0
    summary = field.summary()
    assert (summary["run_id"], summary["exit_code"]) == (report.run_id, report.exit_code)
    assert summary["campaigns"]["complete"] == 2
    assert (await field.run()).exit_code == 0
    field.check()


async def test_a_summary_that_cannot_be_written_is_told(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's report is given all the same, with the storage trouble as its reason."""

    def full(*_: object) -> None:
        raise StorageError("cannot use summary.json: No space left on device")

    monkeypatch.setattr("harvester.reporting.run_end.replace_file", full)
    report = await harvest(field.ids, field.config())
    assert (report.exit_code, report.reason) == (1, "storage")
    assert report.campaigns.complete == len(field.ids)


async def test_a_state_that_is_no_database_is_told(field: Field) -> None:
    """Before anything is sent, as an error of ours."""
    (field.root / ".harvester").mkdir(parents=True)
    (field.root / ".harvester" / "state.sqlite").write_bytes(b"garbage" * 1_000)
    with pytest.raises(HarvestError, match=r"state\.sqlite"):
        await harvest(field.ids, field.config())
    assert field.sandbox.requests == 0


# -- secrets -----------------------------------------------------------------------------------


@both_versions(faults={"error500": 0.3, "html": 0.2, "redirect": 0.1}, heal_after=2)
async def test_no_file_of_a_run_holds_a_secret(field: Field) -> None:
    """Nothing under the output or the state folder, by name or by content."""
    await field.run([field.absent, *field.ids])
    secrets = [
        field.sandbox.settings.api_key.encode(),
        field.sandbox.settings.access_token.encode(),
    ]
    for path in field.folder.rglob("*"):
        for secret in secrets:
            assert secret.decode() not in path.name
            assert not path.is_file() or secret not in path.read_bytes()


async def test_moments_are_those_of_the_clock(field: Field) -> None:
    """Start, end and reset come from the clock that the run was given."""
    clock: Any = FakeClock()
    report = await Harvester(field.config(), clock=clock).run(field.ids)
    assert (report.started_at, report.finished_at, report.elapsed_s) == (NOON, NOON, 0.0)
    assert report.quota.resets_at == datetime(2026, 3, 2, tzinfo=UTC)
    assert report.run_id.startswith("20260301T120000Z-")
