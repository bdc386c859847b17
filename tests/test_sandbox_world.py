"""The simulated account: exact sizes, repeatable rows, and the awkwardness it promises."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

import harvester.sandbox
from harvester.sandbox import SandboxSettings, World
from harvester.sandbox.cursor import Window, cursor_for, decode, encode
from harvester.sandbox.reports import REPORTS

DIGEST = """
import hashlib
from harvester.sandbox import SandboxSettings, World
settings = SandboxSettings(seed=7, campaigns=12, pages=30, rows_per_page=20)
world, digest = World(settings), hashlib.sha256()
for campaign_id in world.campaign_ids:
    for report in ("opens", "clicks", "bounces"):
        for row in world.records(report, campaign_id):
            digest.update(row)
print(digest.hexdigest())
"""


def account(**asked: Any) -> World:
    """The account of these settings."""
    return World(SandboxSettings(**asked))


@pytest.fixture
def world() -> World:
    return account(seed=3, campaigns=60, pages=400, rows_per_page=40)


@pytest.mark.parametrize(
    ("campaigns", "pages", "rows_per_page"),
    [
        (1, 1, 1),
        (1, 9, 500),
        (40, 150, 500),
        (40, 40, 3),
        (300, 3000, 10),
        (7, 4000, 1),
        (99, 100, 2),
    ],
)
def test_total_pages_are_exact(campaigns: int, pages: int, rows_per_page: int) -> None:
    """A full harvest of the opens takes exactly the requests that were asked for."""
    world = account(seed=5, campaigns=campaigns, pages=pages, rows_per_page=rows_per_page)
    assert len(set(world.campaign_ids)) == campaigns
    assert sum(world.pages("opens", c, rows_per_page) for c in world.campaign_ids) == pages


@pytest.mark.parametrize(("campaigns", "pages", "rows"), [(0, 0, 1), (2, 1, 1), (1, 1, 0)])
def test_impossible_sizes_are_refused(campaigns: int, pages: int, rows: int) -> None:
    """An empty campaign costs a page too, so there are never fewer pages than campaigns."""
    with pytest.raises(ValueError, match="page"):
        account(seed=1, campaigns=campaigns, pages=pages, rows_per_page=rows)


def test_sizes_are_heavy_tailed() -> None:
    """Most campaigns take one page, some are empty, some exactly full, and one takes hundreds."""
    world = account(seed=1, campaigns=300, pages=3000, rows_per_page=50)
    pages = Counter(world.pages("opens", c, 50) for c in world.campaign_ids)
    rows = [world.rows("opens", c) for c in world.campaign_ids]
    assert pages[1] > 200
    assert max(pages) > 300
    assert rows.count(0) > 3
    assert any(n and n % 50 == 0 for n in rows)


def test_ids_look_like_the_vendors(world: World) -> None:
    """Ids are strings of 13 digits, none of them twice, sent and unsent together."""
    ids = (*world.campaign_ids, *world.unsent_ids)
    assert all(len(c) == 13 and c.isdigit() for c in ids)
    assert len(set(ids)) == len(ids) == 65


def test_another_process_makes_the_same_rows() -> None:
    """Nothing depends on the process: not on hash randomisation, not on the order of asking."""
    root = str(Path(harvester.sandbox.__file__).parents[2])
    answers = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    world, digest = account(seed=7, campaigns=12, pages=30, rows_per_page=20), hashlib.sha256()
    for campaign_id in world.campaign_ids:
        for report in ("opens", "clicks", "bounces"):
            digest.update(b"".join(world.records(report, campaign_id)))
    assert answers == {digest.hexdigest()}


def test_another_seed_makes_another_account() -> None:
    """The seed decides the ids, the sizes and the rows."""
    one, other = account(seed=1), account(seed=2)
    assert one.campaign_ids != other.campaign_ids
    assert [one.rows("opens", c) for c in one.campaign_ids] != [
        other.rows("opens", c) for c in other.campaign_ids
    ]


@pytest.mark.parametrize("report", sorted(REPORTS))
def test_rows_are_json_of_the_documented_shape(world: World, report: str) -> None:
    """Every row of every report is one line of JSON with the fields all reports share."""
    activity, date = {
        "sends": ("EMAIL_SEND", "send_date"),
        "opens": ("EMAIL_OPEN", "open_date"),
        "clicks": ("EMAIL_CLICK", "click_date"),
        "forwards": ("EMAIL_FORWARD", "forward_date"),
        "bounces": ("EMAIL_BOUNCE", "bounce_date"),
        "unsubscribes": ("EMAIL_UNSUBSCRIBE", "unsubscribe_date"),
    }[report]
    seen = 0
    for campaign_id in world.campaign_ids:
        dates = []
        for record in world.records(report, campaign_id):
            assert b"\n" not in record
            row = orjson.loads(record)
            assert row["activity_type"] == activity
            assert row["campaign_id"] == campaign_id
            assert row["contact_id"].isdigit()
            assert row["email_address"]
            dates.append(row[date])
        assert all(len(d) == 24 and d.endswith("Z") for d in dates)
        assert dates == sorted(dates, reverse=report != "bounces")
        seen += len(dates)
    assert seen > 20


def test_awkward_rows_are_among_them(world: World) -> None:
    """What breaks careless parsers is served raw: it would not survive a JSON library."""
    everything = b"\n".join(r for c in world.campaign_ids for r in world.records("opens", c))
    for piece in (
        rb"\/",
        rb"\"quoted",
        "jürgen".encode(),
        "\u2028".encode(),
        rb"\u2029",
        b"},{",
        b"g" * 300,
        b":123456789012345678901234567890",
        b":1.10",
        rb"\ud83d\ude00",
    ):
        assert piece in everything


def test_integer_ids_can_be_asked_for() -> None:
    """The vendor's fixtures carry campaign_id as an integer at campaign level."""
    world = account(seed=3, campaigns=1, pages=1, rows_per_page=40, integer_ids=True)
    (campaign_id,) = world.campaign_ids
    assert orjson.loads(next(world.records("opens", campaign_id)))["campaign_id"] == int(
        campaign_id
    )


def test_equal_opens_happen(world: World) -> None:
    """Two opens may be equal in every field, for there is no event id; two sends are not."""
    opens = Counter(r for c in world.campaign_ids for r in world.records("opens", c))
    sends = Counter(r for c in world.campaign_ids for r in world.records("sends", c))
    assert max(opens.values()) == 2
    assert max(sends.values()) == 1


def test_summary_counts_distinct_recipients(world: World) -> None:
    """The summary is about people, the reports are about events, and both are exact."""
    for campaign_id in world.campaign_ids:
        summary = world.summary(campaign_id)
        for report in REPORTS:
            people = {orjson.loads(r)["contact_id"] for r in world.records(report, campaign_id)}
            assert summary[report] == len(people), (report, campaign_id)


def test_fresh_summary_knows_what_was_added() -> None:
    """A scheduled summary is from before; with updateSummary it counts all contacts there are."""
    world = account(seed=3, campaigns=1, pages=1, rows_per_page=10)
    (campaign_id,) = world.campaign_ids
    before = world.summary(campaign_id)
    world.add_events("unsubscribes", campaign_id, 3)
    assert world.summary(campaign_id) == before
    fresh = world.summary(campaign_id, fresh=True)
    assert fresh == before | {"unsubscribes": before["unsubscribes"] + 3}


@pytest.mark.parametrize("report", ["opens", "bounces"])
def test_added_events_are_the_newest(world: World, report: str) -> None:
    """New events come before all others, or after them in a report that runs oldest first."""
    campaign_id = max(world.campaign_ids, key=lambda c: world.rows(report, c))
    before = list(world.records(report, campaign_id))
    world.add_events(report, campaign_id, 5)
    after = list(world.records(report, campaign_id))
    assert len(after) == len(before) + 5
    assert (after[:-5] if report == "bounces" else after[5:]) == before


@pytest.mark.parametrize("report", ["opens", "bounces"])
def test_since_is_inclusive(world: World, report: str) -> None:
    """created_since gives the events on or after a moment: those of that very millisecond too."""
    campaign_id = max(world.campaign_ids, key=lambda c: world.rows(report, c))
    view = world.view(report, campaign_id)
    dates = [view.date_ms(place) for place in range(len(view))]
    for moment in (dates[0], dates[len(dates) // 2], dates[-1], dates[0] + 10**9, 0):
        expected = [
            record
            for record, date in zip(world.records(report, campaign_id), dates, strict=True)
            if date >= moment
        ]
        assert list(world.records(report, campaign_id, moment)) == expected


def test_click_counts_agree_with_the_rows(world: World) -> None:
    """Click rows name links by id; the campaign object tells their URLs and how often each was
    clicked.
    """
    campaign_id = max(world.campaign_ids, key=lambda c: world.rows("clicks", c))
    rows = Counter(orjson.loads(r)["link_id"] for r in world.records("clicks", campaign_id))
    detail = orjson.loads(orjson.dumps(world.detail(campaign_id)))
    links = {link["url_uid"]: link["click_count"] for link in detail["click_through_details"]}
    assert Counter(links) == rows
    assert detail["tracking_summary"] == world.summary(campaign_id)


def test_list_filters_by_status_and_hides_the_deleted(world: World) -> None:
    """ALL leaves deleted campaigns out; they are listed only when asked for."""
    assert tuple(world.listing("SENT")) == world.campaign_ids
    deleted = world.listing("DELETED")
    assert deleted
    assert set(world.listing("ALL")) == {*world.campaign_ids, *world.unsent_ids} - {*deleted}


def test_touched_campaign_moves_to_the_head() -> None:
    """An edited campaign is the latest modified one and is listed first, once."""
    world = account(seed=3, campaigns=10, pages=10, rows_per_page=10)
    last = world.listing("SENT")[-1]
    world.touch(last)
    listed = world.listing("SENT")
    assert listed[0] == last
    assert sorted(listed) == sorted(world.campaign_ids)
    assert world.brief(last)["modified_date"] == max(
        world.brief(c)["modified_date"] for c in world.campaign_ids
    )


def test_cursors_are_spelled_as_recorded() -> None:
    """The vendor's own example is `startAt=3&limit=2` in base64url without padding."""
    assert cursor_for(Window(start=3, limit=2), "startAt") == "c3RhcnRBdD0zJmxpbWl0PTI"
    assert decode("c3RhcnRBdD0zJmxpbWl0PTI") == Window(start=3, limit=2)
    stamped = Window(limit=3, since_ms=17, beyond_ms=1354817210430)
    assert decode(cursor_for(stamped, "next")) == stamped
    assert decode(cursor_for(stamped, "next", keep_since=False)).since_ms is None


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%2F",
        "c3RhcnRBdD0zJmxpbWl0PTI=",
        "ünicode",
        encode("limit=0"),
        encode("a=1&limit=2"),
    ],
)
def test_garbled_cursor_is_not_decoded(cursor: str) -> None:
    """A cursor that was changed on the way, if only by its padding, is none of ours."""
    with pytest.raises(ValueError, match=r"\w"):
        decode(cursor)
