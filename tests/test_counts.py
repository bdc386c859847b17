"""The API's counts: asked for in bulk ahead of the walks, believed where that is safe."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from accountlab import ACCOUNT, Account

from harvester.api.base import Detail
from harvester.api.counts import V3_COUNTS, CampaignCounts
from harvester.config import HarvestConfig
from harvester.disk.inspect import verify
from harvester.disk.layout import Layout
from harvester.errors import Unreadable
from harvester.input.known import KnownCampaign, known
from harvester.run import harvest
from harvester.runtime import stamp
from harvester.sandbox import CountSettings, SandboxSettings, World

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ONE = "00000000-0000-4000-8000-000000000001"


# -- the answer --------------------------------------------------------------------------------


def stats(**members: object) -> bytes:
    """An answer with one campaign."""
    entry = {
        "campaign_id": ONE.upper(),
        "stats": members,
        "last_refresh_time": "2026-03-01T12:00:00Z",
    }
    return json.dumps({"results": [entry], "errors": []}).encode()


@pytest.mark.parametrize(
    "members",
    [
        {"em_sends": 9, "em_opens": 2, "em_opens_all": 5},
        {"em_sends": "9", "em_opens": "2", "em_opens.all": "5"},
        {"em_sends": 9, "em_opens": 2, "em_opens_all": None, "em_opens.all": 5, "other": [1]},
    ],
)
def test_counts_are_read_in_each_spelling(members: dict[str, Any]) -> None:
    """Numbers or text, a dot or an underscore, with members that are not known."""
    found = V3_COUNTS.read(stats(**members))[ONE]
    assert (found.sends, found.least_rows("opens"), found.mark("opens")) == (9, 5, "2/5")
    assert found.recipients["unique_opens"] == 2
    assert found.refreshed_at == NOON


@pytest.mark.parametrize("odd", [-1, 1.5, "many", None, True, [], {}, 10**30])
def test_a_count_that_is_no_number_is_passed_over(odd: object) -> None:
    """The others stand."""
    found = V3_COUNTS.read(stats(em_sends=9, em_bounces=odd))[ONE]
    assert (found.sends, found.least_rows("bounces"), found.mark("bounces")) == (9, None, None)


@pytest.mark.parametrize("odd", [7, {}, {"campaign_id": 7, "stats": {}}, {"campaign_id": ONE}])
def test_an_entry_that_is_none_is_passed_over(odd: object) -> None:
    """It is one of many."""
    good = json.loads(stats(em_sends=1))["results"]
    body = json.dumps({"results": [odd, *good]}).encode()
    assert list(V3_COUNTS.read(body)) == [ONE]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"results":7}', b'{"results":[]'])
def test_another_answer_is_unreadable(body: bytes) -> None:
    """It is tried again, and then done without."""
    with pytest.raises(Unreadable):
        V3_COUNTS.read(body)


@pytest.mark.parametrize("text", ['"yesterday"', "7", "null", '"2026-99-01"'])
def test_an_odd_refresh_time_is_none(text: str) -> None:
    """Then nothing is concluded from the counts."""
    body = stats(em_sends=1).replace(b'"2026-03-01T12:00:00Z"', text.encode())
    assert V3_COUNTS.read(body)[ONE].refreshed_at is None


# -- what may be concluded ---------------------------------------------------------------------


def campaign(
    *,
    recipients: dict[str, int],
    counted: timedelta = HOUR,
    refreshed: timedelta | None = HOUR,
    updated: timedelta | None = 30 * DAY,
) -> KnownCampaign:
    """A campaign with such counts; the times are ages at noon."""
    counts = CampaignCounts(
        campaign_id=ONE,
        recipients=recipients,
        refreshed_at=None if refreshed is None else NOON - refreshed,
    )
    detail = Detail(activities=("a",), updated_at=None if updated is None else NOON - updated)
    empty = KnownCampaign(campaign_id=ONE)
    found = empty.with_counts(counts, NOON - counted).with_detail(detail, NOON)
    assert known(found.saved) == found
    return found


NONE = {"sends": 9, "bounces": 0}


@pytest.mark.parametrize(
    ("found", "empty"),
    [
        (campaign(recipients=NONE), True),
        (campaign(recipients={"sends": 9, "bounces": 1}), False),
        (campaign(recipients={"sends": 9}), False),
        (campaign(recipients={"bounces": 0}), False),
        (campaign(recipients={"sends": 0, "bounces": 0}), False),
        (campaign(recipients=NONE, counted=25 * HOUR), False),
        (campaign(recipients=NONE, refreshed=None), False),
        (campaign(recipients=NONE, updated=None), False),
        (campaign(recipients=NONE, updated=24 * HOUR), False),
        (campaign(recipients=NONE, updated=25 * HOUR), True),
        (campaign(recipients=NONE, refreshed=29 * DAY), True),
        (campaign(recipients=NONE, refreshed=30 * DAY), False),
    ],
)
def test_a_report_is_known_to_be_empty(found: KnownCampaign, empty: bool) -> None:
    """By a count of 0 of a sent campaign, asked for lately, and taken a day after it changed."""
    assert found.is_empty("bounces", NOON) is empty


@pytest.mark.parametrize(
    ("walked", "recipients", "refreshed", "unmoved"),
    [
        (2 * HOUR, NONE, HOUR, True),
        (2 * HOUR, {"sends": 9, "bounces": 1}, HOUR, False),
        (2 * HOUR, {"sends": 9}, HOUR, False),
        (HOUR, NONE, 2 * HOUR, False),
        (2 * DAY, NONE, 25 * HOUR, False),
        (2 * DAY, NONE, None, False),
    ],
)
def test_a_report_is_known_to_be_unmoved(
    walked: timedelta, recipients: dict[str, int], refreshed: timedelta | None, unmoved: bool
) -> None:
    """By the same count as at its walk, refreshed after it and lately."""
    mark = campaign(recipients=NONE, counted=walked).mark("bounces", NOON - walked)
    found = campaign(recipients=recipients, refreshed=refreshed)
    assert found.is_unmoved("bounces", mark, NOON) is unmoved
    assert not found.is_unmoved("bounces", None, NOON)


@pytest.mark.parametrize(
    ("since", "asked", "sends", "refreshed", "current"),
    [
        (2 * HOUR, HOUR, 9, HOUR, True),
        (HOUR, 5 * DAY, 9, HOUR, True),  # the sends have not moved
        (2 * HOUR, HOUR, 10, HOUR, False),  # a resend
        (HOUR, 2 * HOUR, 9, 2 * DAY, False),  # these counts are too old to show a resend
        (2 * HOUR, HOUR, 9, 2 * DAY, True),
        (2 * DAY, 25 * HOUR, 9, 2 * DAY, False),
    ],
)
def test_a_detail_is_current(
    since: timedelta, asked: timedelta, sends: int, refreshed: timedelta, current: bool
) -> None:
    """If it is no older than the run wants, or for as long as the sends do not move."""
    found = campaign(recipients={"sends": 9}, counted=asked)
    found = found.with_detail(Detail(activities=("a",)), NOON - asked)
    later = CampaignCounts(
        campaign_id=ONE, recipients={"sends": sends}, refreshed_at=NOON - refreshed
    )
    found = found.with_counts(later, NOON)
    assert found.detail_is_current(stamp(NOON - since), NOON) is current


# -- whole harvests ----------------------------------------------------------------------------


async def test_an_empty_report_is_not_asked_for(serve: Callable[..., Any]) -> None:
    """Its file is there and empty, and the manifest says why; `verify` is content."""
    account = await serve()
    report = await account.run()
    assert report.exit_code == 0
    account.assert_whole(account.config())
    lines = map(json.loads, (account.home / "out" / "manifest.ndjson").read_bytes().splitlines())
    unasked = [line for line in lines if line.get("asked") is False]
    assert unasked
    asked = {(hit.report, hit.campaign_id) for hit in account.sandbox.log}
    for line in unasked:
        assert (line["rows"], line["pages"], line["bytes"]) == (0, 0, 0)
        assert datetime.fromisoformat(line["counted_at"]).tzinfo == UTC
        name = "optouts" if line["report"] == "unsubscribes" else line["report"]
        assert (name, line["campaign_id"]) not in asked
    assert list(verify(Layout(account.home / "out"))) == []
    least = account.sandbox.world.least_requests(account.config().reports, 10)
    assert report.requests.sent <= 1.1 * least  # resends whose own report is empty


async def test_everything_is_asked_for_if_wanted(serve: Callable[..., Any]) -> None:
    """With `--no-counts`."""
    account = await serve()
    report = await account.run(counts=False)
    assert report.exit_code == 0
    account.assert_whole(account.config())
    assert not account.asked("stats")
    world = account.sandbox.world
    pages = sum(
        world.pages(name, each, 10) for name in account.config().reports for each in account.ids
    )
    assert report.requests.sent == pages + len(account.ids)


ODD: list[Any] = [
    {"counts": CountSettings(numbers="zero")},
    {"counts": CountSettings(numbers="wrong")},
    {"counts": CountSettings(age=7 * 86_400.0)},
    {"counts": CountSettings(spelling="strings", age=7 * 86_400.0)},
    {"counts": CountSettings(spelling="dotted")},
    {"counts": CountSettings(most_ids=3)},
    *({"pinned": {("stats", None): kind}} for kind in ("html", "error404", "error500", "cut")),
    *(
        pytest.param({"pinned": {("stats", None): kind}}, marks=pytest.mark.long)
        for kind in (
            *("empty", "error400", "throttle", "throttle429", "forbidden", "auth", "redirect"),
            *("reset", "wrong_shape", "error_in_200"),
        )
    ),
]


@pytest.mark.parametrize("odd", ODD)
async def test_every_row_comes_whatever_the_counts_are(
    serve: Callable[..., Any], odd: dict[str, Any]
) -> None:
    """They may lie, be a week old, or not be there at all."""
    account = await serve(**odd)
    report = await account.run()
    assert report.exit_code == 0
    account.assert_whole(account.config())


async def test_campaigns_without_counts_are_asked_for(serve: Callable[..., Any]) -> None:
    """Some are missing from the answer, others stand among its errors."""
    account = await serve()
    missing = frozenset(account.ids[:4])
    object.__setattr__(account.sandbox.settings.counts, "missing", missing)
    report = await account.run()
    assert report.exit_code == 0
    account.assert_whole(account.config())


async def test_one_wrong_id_spoils_no_block(serve: Callable[..., Any]) -> None:
    """Halves are asked for until the others have their counts."""
    account = await serve()
    gone = "00000000-0000-4000-8000-000000000000"
    report = await account.run([*account.ids[:3], gone, *account.ids[3:]])
    assert (report.exit_code, report.campaigns.failed) == (3, 1)
    account.assert_whole(account.config())
    asked = [hit for hit in account.sandbox.log if hit.report == "stats"]
    assert 1 < len(asked) <= 8
    named = [each for hit in asked if hit.status == 200 for each in hit.activity_id.split(",")]
    assert sorted(named) == sorted(account.ids)


@pytest.mark.parametrize("step", [1, 3])
async def test_counts_that_were_saved_are_not_asked_for_again(
    serve: Callable[..., Any], step: int
) -> None:
    """Nor anything else, wherever a run was cut off."""
    account = await serve()
    account.ids = account.ids[:3]
    for _ in range(500):
        report = await account.run(max_requests=step, concurrency=2)
        if report.exit_code == 0:
            break
    account.assert_whole(account.config())
    hits = [(hit.path, hit.query) for hit in account.sandbox.log]
    assert len(hits) == len(set(hits))


async def test_few_reports_that_are_seldom_empty_are_asked_for_at_once(
    serve: Callable[..., Any],
) -> None:
    """Counts would cost more requests than they save."""
    account = await serve()
    await account.run(report="opens")
    assert not account.asked("stats")


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_the_requests_left_are_right_early_in_a_run(
    serve: Callable[..., Any], concurrency: int
) -> None:
    """Within 15 % from a twentieth of the run on, with a few campaigns that have most pages."""
    account = await serve(campaigns=40, pages=200, rows_per_page=10, resends=4)
    reports = "opens,clicks,bounces"
    await account.assert_left_is_right(few=19, concurrency=concurrency, report=reports)


@pytest.mark.parametrize("counts", [True, False])
async def test_files_are_held_against_the_counts(serve: Callable[..., Any], counts: bool) -> None:
    """Rows against totals, distinct contacts against recipients; a difference fails nothing."""
    wrong = World(SandboxSettings(**ACCOUNT)).v3_campaign_ids[2]
    account = await serve(doctored=(wrong,))
    report = await account.run(summary=True, report="opens,clicks,bounces", counts=counts)
    assert report.exit_code == 0
    lines = map(json.loads, (account.home / "out" / "manifest.ndjson").read_bytes().splitlines())
    found = {
        (line["report"], line["campaign_id"]): line["reconciled"]
        for line in lines
        if line.get("asked", True)
    }
    assert [target for target, agrees in found.items() if not agrees] == [("opens", wrong)]


# -- v2: one detail instead of the links, the summary and the empty reports ---------------------


def v2(account: Account, **more: Any) -> HarvestConfig:
    """A harvest of the same account by v2."""
    settings = {"report": "all", "rate": 0, "retries": 1, "output": account.home / "out"} | more
    return HarvestConfig(
        api="v2",
        base_url=account.sandbox.base_url,
        state_dir=account.home / "state",
        api_key=account.sandbox.settings.api_key,
        access_token=account.sandbox.settings.access_token,
        page_size=account.sandbox.settings.rows_per_page,
        **settings,
    )


async def test_one_detail_of_v2_serves_links_summary_and_empty_reports(
    serve: Callable[..., Any],
) -> None:
    """At most 0.85 of the requests that it took without; the files are the same."""
    account = await serve(campaigns=10, pages=20, rows_per_page=50, unsent=0, resends=0)
    ids = list(account.sandbox.world.campaign_ids)
    config = v2(account, links=True, summary=True)
    report = await harvest(ids, config)
    assert report.exit_code == 0
    count = account.sandbox.world.pages
    before = sum(count(name, each, 50) for name in config.reports for each in ids) + 2 * len(ids)
    assert report.requests.sent <= 0.85 * before
    assert not account.asked("summary")
    assert account.asked("campaign") == dict.fromkeys(ids, 1)
    for name in config.reports:
        for each in ids:
            file = account.home / "out" / name / f"{each}.ndjson"
            assert file.read_bytes().splitlines() == list(account.sandbox.world.records(name, each))
    lines = map(json.loads, (account.home / "out" / "manifest.ndjson").read_bytes().splitlines())
    assert {line.get("reconciled", True) for line in lines} == {True}
    assert list(verify(Layout(account.home / "out"))) == []
    other = v2(account, links=True, counts=False, report="opens", output=account.home / "other")
    assert (await harvest(ids, other)).exit_code == 0
    for each in ids:
        links = [account.home / where / "links" / f"{each}.ndjson" for where in ("out", "other")]
        assert links[0].read_bytes() == links[1].read_bytes() != b""


async def test_for_opens_alone_v2_asks_for_nothing_before(serve: Callable[..., Any]) -> None:
    """A detail would cost more than it saves."""
    account = await serve(unsent=0)
    report = await harvest(account.sandbox.world.campaign_ids, v2(account, report="opens,clicks"))
    assert report.exit_code == 0
    assert not account.asked("campaign")


async def test_a_campaign_of_v2_without_a_detail_has_its_reports(
    serve: Callable[..., Any],
) -> None:
    """The detail of a deleted one is a 404, and its reports may be there all the same."""
    account = await serve(pinned={("campaign", None): "error404"}, unsent=0, resends=0)
    ids = list(account.sandbox.world.campaign_ids)
    report = await harvest(ids, v2(account))
    assert report.exit_code == 0
    assert account.asked("campaign") == dict.fromkeys(ids, 1)
    for each in ids:
        file = account.home / "out" / "opens" / f"{each}.ndjson"
        assert file.read_bytes().splitlines() == list(account.sandbox.world.records("opens", each))
