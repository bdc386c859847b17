"""The whole family of reports: six at a time, topped up, cross-checked, and found by themselves.

What a harvest must come to is asked of the sandbox's world. A top-up is compared as a multiset: it
adds what is new at the end of a file, in no promised order.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from crashlab import ROWS, Home, Lab, Served, environment, ids_of, lab, settings_of, small
from shell import (
    SIX,
    assert_harvested,
    command,
    content,
    finals,
    harvester,
    lines,
    quick_disk,
    rows,
    summary_of,
    surroundings,
)

from harvester.client import campaigns
from harvester.config import HarvestConfig
from harvester.disk.compress import CODECS
from harvester.disk.inspect import classify, verify
from harvester.disk.layout import Layout
from harvester.errors import ConfigError
from harvester.events import CampaignCompleted, Event, PageCommitted
from harvester.reporting.summary import HarvestReport
from harvester.run import harvest
from harvester.sandbox import Sandbox, SandboxSettings

PAGE = 4
KILLED = -signal.SIGKILL


def settings(home: Path, sandbox: Sandbox, **more: Any) -> dict[str, Any]:
    """A harvest of the sandbox, as fast as it likes."""
    return settings_of(sandbox, home, **{"page_size": PAGE, "daily_quota": 0, **more})


def world(**more: Any) -> Sandbox:
    """Few campaigns, of which one is long."""
    asked = {"campaigns": 4, "pages": 12, "rows_per_page": PAGE, "unsent": 0, **more}
    return Sandbox(SandboxSettings(**asked))


# -- six reports ---------------------------------------------------------------------------------

CHILD = """
import asyncio, json, os, signal, sys
from harvester.config import HarvestConfig
from harvester.events import PageCommitted
from harvester.run import harvest

order, committed = json.loads(sys.argv[1]), 0

def observe(event):
    global committed
    if isinstance(event, PageCommitted):
        committed += 1
        if committed == order["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

report = asyncio.run(harvest(order["ids"], HarvestConfig(**order["config"]), observe=observe))
sys.exit(report.exit_code)
"""


def in_a_child(ids: list[str], config: dict[str, Any], *, kill_at: int = 0) -> int:
    """Harvest in a process of its own, which dies at the commit of its n-th page; how it ended."""
    order = json.dumps({"ids": ids, "config": config, "kill_at": kill_at})
    arguments = [sys.executable, "-W", "error", "-c", CHILD, order]
    return subprocess.run(arguments, env=environment(), check=False, timeout=100).returncode


def test_a_hundred_campaigns_in_six_reports_survive_being_killed(tmp_path: Path) -> None:
    """100 campaigns and six reports, killed twice on the way, end complete, in order, and with at
    most one page fetched again for each walk that was under way."""
    with (
        quick_disk(tmp_path) as home,
        Served(world(campaigns=100, pages=150)) as served,
    ):
        sandbox, walks_open = served.sandbox, 4 * 4
        ids = list(sandbox.world.campaign_ids)
        config = settings(home, sandbox, report="all", concurrency=4)
        for kill_at in (233, 210):
            assert in_a_child(ids, config, kill_at=kill_at) == KILLED
        for name in finals(home / "out"):
            report, _, file = name.partition("/")
            assert (home / "out" / name).read_bytes() == content(
                sandbox, report, file.removesuffix(".ndjson")
            )
        assert in_a_child(ids, config) == 0
        assert_harvested(home / "out", sandbox, ids, SIX)
        rows = [sandbox.world.rows(report, each) for report in SIX for each in ids]
        least = len(ids) + sum(-(-each // PAGE) for each in rows)  # the details, pages with rows
        assert least <= len(served.hits()) <= least + 2 * walks_open
        assert summary_of(home / "out")["campaigns"]["complete"] == 100
        assert list(verify(Layout(home / "out"))) == []


async def test_each_report_and_campaign_is_a_walk_of_its_own(tmp_path: Path) -> None:
    """A campaign is asked for the reports that were named, in a folder for each, and for no
    other."""
    async with world() as sandbox:
        ids = sandbox.world.campaign_ids
        asked = settings(tmp_path, sandbox, report="bounces,opens")
        report = await harvest(ids, HarvestConfig(**asked))
        assert (report.exit_code, report.campaigns.total) == (0, 4)
        assert_harvested(tmp_path / "out", sandbox, ids, ("opens", "bounces"))
        assert {hit.report for hit in sandbox.log} == {"opens", "bounces"}


# -- pages as the vendor sends them --------------------------------------------------------------

VENDORS = {
    "opens": [
        b'{"activity_type":"EMAIL_OPEN","campaign_id":1100394165290,"contact_id":"51",'
        b'"email_address":"abc@example.com","open_date":"2012-12-06T18:07:43.420Z"}',
        b'{"activity_type":"EMAIL_OPEN","contact_id":"52","open_date":"2012-12-06T18:06:35.661Z"}',
    ],
    "clicks": [
        b'{"activity_type":"EMAIL_CLICK","campaign_id":1100394165290,"contact_id":"51",'
        b'"email_address":"abc@example.com","link_id":0,"click_date":"2012-12-06T18:07:48.229Z"}',
        b'{"activity_type":"EMAIL_CLICK","campaign_id":"1100394165290","contact_id":"51",'
        b'"email_address":"abc@example.com","link_id":"1","click_date":"2012-12-06T18:07:43.420Z",'
        b'"link_uri":"http:\\/\\/www.example.com\\/"}',
    ],
    "sends": [
        b'{"activity_type":"EMAIL_SEND","campaign_id":1100394165290,"contact_id":"63",'
        b'"email_address":"def@example.com","send_date":"2012-12-06T18:06:50.453Z"}',
        b'{"activity_type":"EMAIL_SEND","campaign_id":1100394165290,"contact_id":"62",'
        b'"email_address":"ghi@example.com","send_date":"2012-12-06T18:06:50.430Z"}',
    ],
    "bounces": [
        b'{"activity_type":"EMAIL_BOUNCE","bounce_code":"B","bounce_description":"Non-existent '
        b'address","bounce_message":"","bounce_date":"2009-11-25T00:00:00.000Z",'
        b'"campaign_id":1100394165290,"contact_id":"44","email_address":"jkl@example.com"}',
        b'{"activity_type":"EMAIL_BOUNCE","bounce_code":"Z","bounce_date":'
        b'"2009-12-02T00:00:00.000Z","campaign_id":1100394165290,"contact_id":"45"}',
    ],
    "forwards": [
        b'{"activity_type":"EMAIL_FORWARD","campaign_id":1100394165290,"contact_id":"51",'
        b'"email_address":"abc@example.com","forward_date":"2012-12-06T18:07:00.000Z"}',
    ],
    "unsubscribes": [
        b'{"activity_type":"EMAIL_UNSUBSCRIBE","campaign_id":1100394165290,"contact_id":"58",'
        b'"email_address":"mno@example.com","unsubscribe_date":"2012-12-06T18:09:00.000Z",'
        b'"unsubscribe_source":"ACTION_BY_CONTACT","unsubscribe_reason":""}',
        b'{"activity_type":"EMAIL_UNSUBSCRIBE","contact_id":"59",'
        b'"unsubscribe_date":"2012-12-06T18:08:00.000Z","unsubscribe_source":"ACTION_BY_OWNER"}',
    ],
}


@asynccontextmanager
async def vendor(pages: dict[str, list[bytes]]) -> AsyncIterator[str]:
    """A server that has one page of each report; its origin."""

    async def answer(request: web.Request) -> web.Response:
        results = b",".join(pages[request.match_info["report"]])
        body = b'{"meta":{"pagination":{}},"results":[' + results + b"]}"
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v2/emailmarketing/campaigns/1100394165290/tracking/{report}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_recorded_pages_of_each_kind_pass_unaltered(tmp_path: Path) -> None:
    """Integer campaign ids, absent optional fields, bounces oldest first, link ids that are 0 or
    "1", escaped slashes: whatever the vendor sends is what stands in the file."""
    async with vendor(VENDORS) as origin:
        asked = settings(tmp_path, world(), base_url=origin, report="all")
        report = await harvest(["1100394165290"], HarvestConfig(**asked))
    assert report.exit_code == 0
    for name, expected in VENDORS.items():
        found = (tmp_path / "out" / name / "1100394165290.ndjson").read_bytes()
        assert found == b"".join(row + b"\n" for row in expected), name


async def test_rows_of_another_campaign_or_report_are_refused(tmp_path: Path) -> None:
    """A page whose rows name another campaign, or another kind of event, is no page of ours."""
    wrong = {
        **VENDORS,
        "opens": [VENDORS["opens"][0].replace(b"1100394165290", b"1100394165291")],
        "clicks": VENDORS["opens"],
    }
    async with vendor(wrong) as origin:
        asked = settings(tmp_path, world(), base_url=origin, report="opens,clicks", retries=0)
        report = await harvest(["1100394165290"], HarvestConfig(**asked))
    assert report.exit_code == 3
    assert finals(tmp_path / "out") == set()
    errors = lines(tmp_path / "out/errors.ndjson")
    assert {(line["report"], line["kind"]) for line in errors} == {
        ("opens", "unreadable"),
        ("clicks", "unreadable"),
    }


# -- top-ups -------------------------------------------------------------------------------------


class Account:
    """A sandbox and a harvest of it that is topped up."""

    def __init__(self, home: Path, sandbox: Sandbox, **config: Any) -> None:
        self.home = home
        self.sandbox = sandbox
        self.config = settings(home, sandbox, **config)
        self.ids = list(sandbox.world.campaign_ids)
        self.reports = HarvestConfig(**self.config).reports
        self.codec = CODECS[self.config.get("compress")]

    @property
    def out(self) -> Path:
        """`--output`."""
        return self.home / "out"

    async def harvest(
        self, observe: Callable[[Event], None] = lambda event: None, **more: Any
    ) -> HarvestReport:
        """One run to its good end."""
        config = HarvestConfig(**{**self.config, **more})
        report = await harvest(self.ids, config, observe=observe)
        assert (report.exit_code, report.campaigns.complete) == (0, len(self.ids))
        return report

    def file(self, report: str, campaign_id: str) -> Path:
        """A finished file."""
        return self.out / report / f"{campaign_id}.ndjson{self.codec.suffix}"

    def read(self, report: str, campaign_id: str) -> bytes:
        """What is in it."""
        with self.codec.open(self.file(report, campaign_id)) as file:
            return file.read()

    def add(self, count: int, report: str = "opens", *, to: str | None = None) -> None:
        """Events happen."""
        for each in [to] if to else self.ids:
            self.sandbox.world.add_events(report, each, count)

    def assert_equals_a_late_harvest(self) -> None:
        """Every file holds what the world knows now, each event as often, and the manifest's last
        line of each is true."""
        for report in self.reports:
            for each in self.ids:
                found, expected = self.read(report, each), content(self.sandbox, report, each)
                assert rows(found) - rows(expected) == Counter(), (report, each)
                assert rows(expected) - rows(found) == Counter(), (report, each)
        assert list(verify(Layout(self.out))) == []
        assert list(self.out.glob("*/*.part")) == []


async def test_three_top_ups_equal_one_late_harvest(tmp_path: Path) -> None:
    """Events that come between the runs are added, each once: after three top-ups every file of
    six reports holds what a harvest made at the end holds."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox, report="all")
        await account.harvest()
        for count in (1, PAGE, 3 * PAGE + 1):
            for report in SIX:
                account.add(count, report)
            await account.harvest(since="last")
            account.assert_equals_a_late_harvest()
        late = Account(tmp_path / "late", sandbox, report="all")
        await late.harvest()
        for report in SIX:
            for each in account.ids:
                assert rows(account.read(report, each)) == rows(late.read(report, each))


@pytest.mark.parametrize(
    ("compress", "cursor", "keeps_since"),
    [
        (None, "offset", True),
        (None, "offset", False),
        (None, "timestamp", True),
        (None, "timestamp", False),
        ("gzip", "offset", True),
        ("zstd", "offset", True),
    ],
)
async def test_events_that_come_during_a_top_up_are_not_lost_and_not_twice(
    tmp_path: Path, compress: str | None, cursor: Any, *, keeps_since: bool
) -> None:
    """Three top-ups, each with events that come in after every page, and a last one in peace: equal
    to a late harvest, whatever the cursors are, and however the files are compressed."""
    asked = {"cursor": cursor, "cursor_keeps_since": keeps_since, "campaigns": 2, "pages": 6}
    with quick_disk(tmp_path) as home:
        async with world(**asked) as sandbox:
            account = Account(home, sandbox, report="opens,bounces", compress=compress)

            def observe(event: Event) -> None:
                if isinstance(event, PageCommitted) and not event.last:
                    target = event.target
                    sandbox.world.add_events(target.report, target.campaign_id, 1 + event.page % 2)

            await account.harvest()
            for _ in range(3):
                for report in account.reports:
                    account.add(2 * PAGE + 1, report)
                await account.harvest(observe, since="last")
            await account.harvest(since="last")
            account.assert_equals_a_late_harvest()


async def test_equal_events_in_one_millisecond_are_two(tmp_path: Path) -> None:
    """Two opens with equal fields are both kept: in one walk, and also where one of them is the
    latest event that is stored and the other comes later."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox)
        first = account.ids[0]
        await account.harvest()
        account.add(1, to=first)
        await account.harvest(since="last")
        newest = next(sandbox.world.records("opens", first))
        assert rows(account.read("opens", first))[newest] == 1
        account.add(1, to=first)
        one, other, *_ = sandbox.world.records("opens", first)
        assert one == other == newest
        await account.harvest(since="last")
        assert rows(account.read("opens", first))[newest] == 2
        await account.harvest(since="last")
        account.assert_equals_a_late_harvest()


@pytest.mark.parametrize("late", [0, 1])
async def test_twins_on_both_sides_of_a_page_end_are_two(tmp_path: Path, late: int) -> None:
    """Two equal events of which one ends a page and the other begins the next are both added, also
    if another event comes in while the last page is read."""
    async with world(campaigns=1, pages=3) as sandbox:
        account = Account(tmp_path, sandbox)
        (only,) = account.ids
        await account.harvest()
        # The first two to come are equal; PAGE - 1 newer ones put a page's end between them.
        account.add(PAGE + 1)
        *_, one, other = list(sandbox.world.records("opens", only))[: PAGE + 1]
        assert one == other
        still_to_come = [late]

        def observe(event: Event) -> None:
            if isinstance(event, PageCommitted) and event.last and still_to_come:
                sandbox.world.add_events("opens", only, still_to_come.pop())

        await account.harvest(observe, since="last")
        await account.harvest(since="last")
        account.assert_equals_a_late_harvest()


async def test_without_news_nothing_is_touched(tmp_path: Path) -> None:
    """A top-up that finds nothing new leaves the file (inode and time) and the manifest as they
    were, and costs one request."""
    async with world(campaigns=3, pages=3) as sandbox:
        account = Account(tmp_path, sandbox, report="opens,sends")
        await account.harvest()
        files = [account.file(report, each) for report in account.reports for each in account.ids]
        manifest = account.out / "manifest.ndjson"
        before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files]
        said, asked = manifest.read_bytes(), sandbox.requests
        report = await account.harvest(since="last")
        assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files] == before
        assert manifest.read_bytes() == said
        assert sandbox.requests == asked + len(files)
        assert report.campaigns.total == 3
        account.assert_equals_a_late_harvest()


async def test_a_file_that_grew_has_one_line_in_the_manifest(tmp_path: Path) -> None:
    """The line is of the file as it is, and the old rows are still the head of the file."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox)
        await account.harvest()
        grown = account.ids[1]
        before = account.read("opens", grown)
        account.add(3, to=grown)
        await account.harvest(since="last")
        manifest = lines(account.out / "manifest.ndjson")
        listed = Counter(line["campaign_id"] for line in manifest)
        assert listed == dict.fromkeys(account.ids, 1)
        assert manifest[-1]["rows"] == sandbox.world.rows("opens", grown)
        assert account.read("opens", grown).startswith(before)


async def test_a_top_up_asks_only_for_what_may_be_new(tmp_path: Path) -> None:
    """The first request of a top-up says `created_since`, and a campaign with one page of news
    costs one request."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox)
        await account.harvest()
        account.add(1)
        before = len(sandbox.log)
        await account.harvest(since="last")
        asked = sandbox.log[before:]
        assert all("created_since=" in hit.query for hit in asked)
        assert len(asked) == len(account.ids)


@pytest.mark.parametrize("news", [0, 2])
async def test_a_top_up_that_was_stopped_goes_on_where_it_was(tmp_path: Path, news: int) -> None:
    """The same command comes to the end of the campaigns, asking for none again; what `plan`
    counts beforehand is what is left. The top-up after that begins anew."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox)
        await account.harvest()
        if news:
            account.add(news)
        top_up = {**account.config, "since": "last"}
        before = len(sandbox.log)
        for done in range(len(account.ids)):
            layout = Layout(account.out)
            left = classify(layout, account.ids, ["opens"], for_good=None, top_up=True).walks
            assert left == len(account.ids) - done
            report = await harvest(account.ids, HarvestConfig(**top_up, max_requests=1))
        assert report.exit_code in {0, 75}
        assert len(sandbox.log) - before == len(account.ids)
        account.assert_equals_a_late_harvest()
        await account.harvest(since="last")  # ends the round, if the last run could not
        account.add(1)
        await account.harvest(since="last")
        account.assert_equals_a_late_harvest()


@pytest.mark.parametrize("since", ["2030-01-01", "2012-01-01"])
async def test_a_directory_begun_by_a_top_up_has_no_other_beginning(
    tmp_path: Path, since: str
) -> None:
    """It asked for everything: a later run that asks from a day on would mix two harvests."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox)
        await harvest(account.ids, HarvestConfig(**account.config, since="last", max_requests=3))
        with pytest.raises(ConfigError, match="`since` was 'not given'"):
            await harvest(account.ids, HarvestConfig(**account.config, since=since))
        await account.harvest()
        account.assert_equals_a_late_harvest()


async def test_a_campaign_without_events_is_topped_up_too(tmp_path: Path) -> None:
    """An empty file grows when the first events come."""
    async with world(unsent=1) as sandbox:
        account = Account(tmp_path, sandbox)
        (empty,) = account.ids = list(sandbox.world.unsent_ids)
        await account.harvest()
        assert account.read("opens", empty) == b""
        account.add(2 * PAGE)
        await account.harvest(since="last")
        account.assert_equals_a_late_harvest()


async def test_a_finished_file_that_was_changed_is_not_topped_up(tmp_path: Path) -> None:
    """Nothing is added to a file that is not what was finished: that campaign fails, the others
    grow. One that is gone is harvested again."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox)
        await account.harvest()
        changed, gone, *_ = account.ids
        with account.file("opens", changed).open("ab") as file:
            file.write(b'{"mine":1}\n')
        account.file("opens", gone).unlink()
        account.add(2)
        config = HarvestConfig(**{**account.config, "since": "last"})
        report = await harvest(account.ids, config)
        assert (report.exit_code, report.campaigns.failed) == (3, 1)
        errors = lines(account.out / "errors.ndjson")
        assert {line["campaign_id"]: line["kind"] for line in errors} == {changed: "damaged_file"}
        assert account.read("opens", changed).endswith(b'{"mine":1}\n')
        account.ids.remove(changed)
        for each in account.ids:
            assert rows(account.read("opens", each)) == rows(content(sandbox, "opens", each))


@pytest.mark.parametrize("kill_at", [1, 3])
@pytest.mark.parametrize("flood", [0, 1, PAGE, 3 * PAGE + 2])
def test_a_top_up_that_is_killed_and_repeated_adds_every_event_once(
    tmp_path: Path, flood: int, kill_at: int
) -> None:
    """Killed at the commit of a page, then repeated after `flood` further events have come in for
    each campaign, also more than a page of them: equal to a late harvest."""
    with Served(world(campaigns=2, pages=5)) as served:
        account = Account(tmp_path, served.sandbox, concurrency=1)
        asyncio.run(account.harvest())
        account.add(3 * PAGE)
        top_up = {**account.config, "since": "last"}
        assert in_a_child(account.ids, top_up, kill_at=kill_at) == KILLED
        account.add(flood)
        for _ in range(2):
            asyncio.run(account.harvest(since="last"))
        account.assert_equals_a_late_harvest()


@pytest.fixture(scope="module")
def bench() -> Iterator[Lab]:
    """A small world, and a child that harvests it in forks which can be made to die."""
    with lab(small()) as one:
        yield one


@pytest.mark.parametrize(("compress", "step"), [(None, 7), ("gzip", 23)])
def test_a_top_up_can_be_killed_at_any_change_of_the_disk(
    bench: Lab, tmp_path: Path, compress: str | None, step: int
) -> None:
    """Before whichever call it dies: the finished files are the old or the new ones, never anything
    between, and the same command ends with all events, each once."""
    world, options = bench.served.sandbox.world, ["--compress", compress] if compress else []
    codec = CODECS[compress]
    with quick_disk(tmp_path) as quick:
        base, ids = Home(quick / "base"), ids_of(bench.served.sandbox)
        assert bench.run(base, "-j", "1", *options).code == 0
        for number, each in enumerate(ids):
            world.add_events("opens", each, number * ROWS + 1)
        expected = {each: rows(content(bench.served.sandbox, "opens", each)) for each in ids}

        def found(home: Home, campaign_id: str) -> Counter[bytes]:
            path = home.out / "opens" / f"{campaign_id}.ndjson{codec.suffix}"
            with codec.open(path) as file:
                return rows(file.read())

        before = {each: found(base, each) for each in ids}
        top_up, point, deaths = [*options, "--since", "last", "-j", "1"], 1, 0
        while True:
            home = base.copy(quick / str(point))
            ended = bench.run(home, *top_up, kill_at=point)
            if not ended.killed:
                assert ended.code == 0, ended.stderr
                break
            deaths += 1
            for each in ids:
                assert found(home, each) in (before[each], expected[each])
            again = bench.run(home, *top_up)
            assert again.code == 0, again.stderr
            assert {each: found(home, each) for each in ids} == expected, point
            assert list(verify(Layout(home.out, codec.suffix))) == []
            assert list(home.out.glob("opens/*.part")) == []
            home.remove()
            point += step
        print(f"{deaths} deaths")
        assert deaths * step > 60


# -- the API's own counts ------------------------------------------------------------------------


async def test_a_doctored_summary_is_noticed(tmp_path: Path) -> None:
    """Where the API counts one open more than there are contacts, the manifest says so; where it
    counts right, it says that too. It is a finding, not a failure."""
    doctored = world().world.campaign_ids[1]
    async with world(doctored=[doctored]) as sandbox:
        found: dict[str, bool | None] = {}

        def observe(event: Event) -> None:
            if isinstance(event, CampaignCompleted):
                found[event.target.campaign_id] = event.reconciled

        account = Account(tmp_path, sandbox, summary=True)
        report = await account.harvest(observe)
        assert report.exit_code == 0
        assert found == {each: each != doctored for each in account.ids}
        for line in lines(account.out / "manifest.ndjson"):
            said = sandbox.world.summary(line["campaign_id"], fresh=True)
            wrong = line["campaign_id"] == doctored
            assert line["reconciled"] == (not wrong)
            assert line["distinct_contacts"] == said["opens"]
            assert line["summary"]["opens"] == said["opens"] + wrong


def test_a_difference_is_told_in_the_closing_table(tmp_path: Path) -> None:
    """With `--summary` the end says where the counts differ."""
    doctored = world().world.campaign_ids[1]
    with Served(world(doctored=[doctored])) as served:
        done = run(tmp_path, served.sandbox, "--summary", *served.sandbox.world.campaign_ids)
    assert done.code == 0, done.stderr
    table = done.stderr[done.stderr.index("campaigns  ") :]
    assert "summary" in table
    assert doctored in table


async def test_a_campaign_costs_one_summary_request_however_many_reports(tmp_path: Path) -> None:
    """The summary has the counts of all reports: it is asked for once a campaign."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox, report="all", summary=True)
        await account.harvest()
        asked = Counter(
            hit.campaign_id for hit in sandbox.log if hit.report in {"summary", "campaign"}
        )
        told = [
            line["reconciled"] for line in lines(account.out / "manifest.ndjson") if line["pages"]
        ]
        assert told
        assert all(told)
        assert asked == dict.fromkeys(account.ids, 1)


async def test_a_top_up_is_reconciled_anew(tmp_path: Path) -> None:
    """A file that grew is held against the counts of that time."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox, report="sends", summary=True)
        await account.harvest()
        account.add(3, "sends")
        await account.harvest(since="last")
        last = {line["campaign_id"]: line for line in lines(account.out / "manifest.ndjson")}
        for each in account.ids:
            count = sandbox.world.rows("sends", each)
            assert last[each]["distinct_contacts"] == last[each]["summary"]["sends"] == count
            assert last[each]["reconciled"] is True


async def test_a_summary_that_cannot_be_had_is_no_failure(tmp_path: Path) -> None:
    """The events are all there; the manifest says that the comparison is missing."""
    async with vendor(VENDORS) as origin:
        asked = settings(tmp_path, world(), base_url=origin, summary=True)
        report = await harvest(["1100394165290"], HarvestConfig(**asked))
    assert report.exit_code == 0
    (line,) = lines(tmp_path / "out/manifest.ndjson")
    assert (line["rows"], line["summary"], line["reconciled"]) == (2, None, None)


# -- links ---------------------------------------------------------------------------------------


async def test_links_of_a_campaign_go_to_a_file_of_their_own(tmp_path: Path) -> None:
    """With `links`, the URLs behind the click rows' link ids stand in links/<id>.ndjson."""
    async with world() as sandbox:
        account = Account(tmp_path, sandbox, report="clicks", links=True)
        await account.harvest()
        for each in account.ids:
            links: Any = sandbox.world.detail(each)["click_through_details"]
            found = lines(account.out / "links" / f"{each}.ndjson")
            assert found == [{**link, "campaign_id": each} for link in links]
            clicked = {row["link_id"] for row in lines(account.file("clicks", each))}
            assert clicked <= {link["url_uid"] for link in links}
        manifest = lines(account.out / "manifest.ndjson")
        assert Counter(line["report"] for line in manifest) == {"clicks": 4, "links": 4}


# -- the campaign list ---------------------------------------------------------------------------


def connection(sandbox: Sandbox) -> list[object]:
    """Where the sandbox is."""
    return ["--base-url", sandbox.base_url, "--rate", "0"]


def run(home: Path, sandbox: Sandbox, *more: object) -> Any:
    """`harvester run` into `out`."""
    return harvester(
        home, "run", "-o", "out", "--page-size", PAGE, *connection(sandbox), "--no-progress", *more
    )


@pytest.mark.parametrize("moves", [1, 5, 12])
async def test_a_list_that_reorders_while_it_is_read_gives_each_id_once(
    tmp_path: Path, moves: int
) -> None:
    """Campaigns that jump to the head of the list between two pages push others past the reader:
    none is missed, none comes twice."""
    for seed in range(5):
        async with world(campaigns=230, pages=230, reorder_list=moves, seed=seed) as sandbox:
            config = HarvestConfig(**settings(tmp_path, sandbox))
            found = [each async for each, _ in campaigns(config)]
            assert len(found) == len(set(found))
            assert set(found) == set(sandbox.world.campaign_ids)


def test_every_sent_campaign_is_harvested_in_one_go(tmp_path: Path) -> None:
    """`--all-sent` takes the ids from the API's list, which moves meanwhile; drafts and deleted
    campaigns are not among them."""
    with Served(world(campaigns=120, pages=120, unsent=6, reorder_list=3)) as served:
        done = run(tmp_path, served.sandbox, "--all-sent")
        assert done.code == 0, done.stderr
        assert_harvested(tmp_path / "out", served.sandbox, served.sandbox.world.campaign_ids)


def test_the_list_can_be_narrowed(tmp_path: Path) -> None:
    """`--status` and `--modified-since` are the API's own; ids come one a line."""
    with Served(world(campaigns=70, pages=70, unsent=4)) as served:
        world_, options = served.sandbox.world, connection(served.sandbox)
        sent = harvester(tmp_path, "campaigns", *options)
        assert sent.stdout.split() == world_.listing("SENT")
        draft = harvester(tmp_path, "campaigns", *options, "--status", "draft")
        assert draft.stdout.split() == world_.listing("DRAFT")
        moment = world_.brief(world_.campaign_ids[9])["modified_date"]
        late = harvester(tmp_path, "campaigns", *options, "--modified-since", moment)
        assert late.stdout.split() == list(world_.campaign_ids[:10])
        assert [sent.code, draft.code, late.code] == [0, 0, 0]
        naive = harvester(tmp_path, "campaigns", *options, "--modified-since", "2024-01-01T00:00")
        assert naive.code == 2
        assert "modified-since" in naive.stderr


def test_names_come_as_the_apis_own_records(tmp_path: Path) -> None:
    """`--with-names` prints NDJSON, as the API sent it."""
    with Served(world(campaigns=60, pages=60)) as served:
        done = harvester(tmp_path, "campaigns", "--with-names", *connection(served.sandbox))
        assert done.code == 0, done.stderr
        world_ = served.sandbox.world
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert found == [world_.brief(each) for each in world_.listing("SENT")]
        assert done.stderr == ""


@pytest.mark.parametrize("option", [[], ["--with-names"]])
def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, option: list[str]) -> None:
    """`harvester campaigns | head` ends quietly."""
    with Served(world(campaigns=300, pages=300)) as served:
        process = subprocess.Popen(
            command("campaigns", *option, *connection(served.sandbox)),
            cwd=tmp_path,
            env=surroundings(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            complaint = process.stderr.read()
        assert (process.returncode, complaint) == (0, b"")
