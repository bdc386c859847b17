"""Version 3 of the simulated API: the tracking reports, byte for byte."""

from collections import Counter
from datetime import datetime
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_client import REPORTS, SMALL, client, loaded, mailings, next_link, raw_rows, tracking

from harvester.sandbox import Sandbox, SandboxSettings
from harvester.sandbox.reports import V3_REPORTS


@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
@pytest.mark.parametrize("report", sorted(V3_REPORTS))
def test_naive_walk_finds_every_record(report: str, cursor: str) -> None:
    """Detail, then each activity to its end: what the world says, byte for byte."""
    ready = client(cursor=cursor)
    for campaign in ready.service.world.v3_campaign_ids:
        found = []
        for activity in ready.json(f"/v3/emails/{campaign}")["campaign_activities"]:
            if activity["role"] != "permalink":
                found += ready.walk(tracking(activity["campaign_activity_id"], report))
        assert found == list(ready.service.world.records(report, campaign))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    campaigns=st.integers(1, 6),
    more_pages=st.integers(0, 12),
    rows_per_page=st.integers(1, 30),
    resends=st.integers(0, 3),
    limit=st.integers(1, 40),
    cursor=st.sampled_from(["offset", "timestamp"]),
    irregular=st.booleans(),
    report=st.sampled_from(sorted(V3_REPORTS)),
    late=st.integers(0, 45),
)
def test_any_account_is_walked_whole(limit: int, report: str, late: int, **asked: Any) -> None:
    """Whatever its size, the page size and the cursors, also with events that came later."""
    pages = asked["campaigns"] + asked["resends"] + asked.pop("more_pages")
    ready = client(pages=pages, unsent=1, **asked)
    world = ready.service.world
    world.send(world.v3_unsent_ids[0])
    activity = world.resend(world.v3_campaign_ids[-1])
    for events in ("opens", "sends", "bounces"):
        world.add_events(events, activity, late)
    found = [
        row
        for campaign in world.v3_campaign_ids
        for each in mailings(world, campaign)
        for row in ready.walk(tracking(each, report, f"limit={limit}"))
    ]
    expected = [row for each in world.v3_campaign_ids for row in world.records(report, each)]
    assert found == expected
    loaded(found)


def test_storm_of_faults_heals_to_every_record() -> None:
    """A client that tries again until a page is good finds what there is."""
    kinds = ("error500", "throttle", "html", "empty", "twice", "flood", "forbidden", "auth")
    ready = client(faults=dict.fromkeys(kinds, 0.1), heal_after=3)
    world = ready.service.world
    for campaign in world.v3_campaign_ids:
        rows = []
        for activity in mailings(world, campaign):
            target = tracking(activity, "opens")
            while target:
                reply = ready.ask(target)
                if reply.hit.fault is None:
                    rows += raw_rows(reply.answer.body)
                    target = next_link(orjson.loads(reply.answer.body))
        assert rows == list(world.records("opens", campaign))
    assert {reply.hit.fault for reply in ready.replies} == {*kinds, None}


async def test_the_same_over_http() -> None:
    """Both versions on one port, and the world's truth in both."""
    async with Sandbox(SandboxSettings(**SMALL)) as sandbox, aiohttp.ClientSession() as session:
        world = sandbox.world
        token = {"Authorization": "Bearer sandbox-token"}
        activity = mailings(world, world.v3_campaign_ids[0])[0]
        for target, expected in (
            (tracking(activity, "optouts", ""), world.records("unsubscribes", activity)),
            (
                f"/v2/emailmarketing/campaigns/{world.v2_id(activity)}/tracking/unsubscribes"
                "?api_key=sandbox-key",
                world.records("unsubscribes", world.v2_id(activity)),
            ),
        ):
            async with session.get(sandbox.base_url + target, headers=token) as answer:
                assert answer.status == 200
                body = await answer.read()
            assert b",".join(expected) in body
        assert [hit.report for hit in sandbox.log] == ["optouts", "unsubscribes"]


@pytest.mark.parametrize("report", sorted(V3_REPORTS))
def test_rows_are_json_of_the_documented_shape(report: str) -> None:
    """One line of JSON each, the required fields, whole minutes, newest first."""
    world = client(pages=120, rows_per_page=100).service.world
    seen: set[str] = set()
    for campaign in world.v3_campaign_ids:
        for activity in mailings(world, campaign):
            records = list(world.records(report, activity))
            assert not any(b"\n" in record for record in records)
            rows = loaded(records)
            times = [row["created_time"] for row in rows]
            assert times == sorted(times, reverse=True)
            assert all(time.endswith(":00.000Z") for time in times)
            assert {row["campaign_activity_id"] for row in rows} <= {activity}
            assert {row["tracking_activity_type"] for row in rows} <= {
                V3_REPORTS[report].activity_type
            }
            for row in rows:
                assert row["email_address"]
                seen |= row.keys()
    assert seen >= {"contact_id", "first_name", "last_name", "deleted_at"}
    own: set[str] = {
        "opens": {"device_type"},
        "clicks": {"url_id", "link_url"},
        "optouts": {"opt_out_reason"},
        "bounces": {"bounce_code", "current_email_address"},
    }.get(report, set())
    assert seen >= own
    assert seen & {"url_id", "bounce_code", "opt_out_reason"} <= own


def test_seconds_can_be_asked_for() -> None:
    """Then the times of v3 are those of v2, to the millisecond."""
    world = client(whole_minutes=False).service.world
    (activity, *_) = mailings(world, world.v3_campaign_ids[0])
    times = [row["created_time"] for row in loaded(world.records("opens", activity))]
    v2 = loaded(world.records("opens", world.v2_id(activity)))
    assert times == [row["open_date"] for row in v2]
    assert any(not time.endswith("00.000Z") for time in times)


def test_equal_rows_happen_where_rows_may_repeat() -> None:
    """Two opens may be equal to the byte; no contact is sent a mailing twice."""
    world = client(campaigns=40, pages=300).service.world
    twins = {
        report: max(
            (Counter(world.records(report, c)).most_common(1) or [("", 0)])[0][1]
            for c in world.v3_campaign_ids
        )
        for report in ("opens", "sends", "unique_opens", "bounces")
    }
    assert twins == {"opens": 2, "sends": 1, "unique_opens": 1, "bounces": 1}


@pytest.mark.parametrize("arrivals", [0, 1, 2, 7, 40])
def test_derived_reports_follow_from_the_others(arrivals: int) -> None:
    """unique_opens: the last open of each contact. didnotopens: sent, not opened, not bounced."""
    world = client(pages=200).service.world
    for campaign in world.v3_campaign_ids:
        for activity in mailings(world, campaign):
            for report in ("opens", "sends", "bounces"):
                world.add_events(report, activity, arrivals)
            rows = {
                report: loaded(world.records(report, activity))
                for report in ("opens", "sends", "bounces", "unique_opens", "did_not_open")
            }
            last: dict[str, Any] = {}
            for row in rows["opens"]:
                last.setdefault(row["contact_id"], row)
            assert rows["unique_opens"] == list(last.values())
            people = {name: {row["contact_id"] for row in found} for name, found in rows.items()}
            silent = people["sends"] - people["opens"] - people["bounces"]
            if len(people["sends"]) > 4 * arrivals:  # else the few who were sent run out
                assert people["did_not_open"] == silent
            assert len(rows["did_not_open"]) == len(people["did_not_open"])


@pytest.mark.parametrize("report", sorted(V3_REPORTS))
def test_an_unsent_activity_has_an_empty_report(report: str) -> None:
    """200 with no rows, not 404: it cannot be told from a sent one that was never opened."""
    ready = client()
    for campaign in ready.service.world.v3_unsent_ids:
        (activity,) = mailings(ready.service.world, campaign)
        answer = ready.ask(tracking(activity, report)).answer
        assert (answer.status, answer.body) == (200, b'{"tracking_activities":[]}')


def test_what_is_not_there_is_not_found() -> None:
    """A permalink has no reports; nor has a campaign; unknown ids and paths are errors too."""
    ready = client()
    world = ready.service.world
    campaign = world.v3_campaign_ids[0]
    (permalink,) = (each for each, role in world.activities(campaign) if role == "permalink")
    (activity, *_) = mailings(world, campaign)
    for target in (
        tracking(permalink, "opens"),
        tracking(campaign, "opens"),
        tracking(world.v2_id(activity), "opens"),
        tracking("0" * 8 + activity[8:], "opens"),
        tracking(activity, "naps"),
        tracking("", "opens"),
        f"{REPORTS}/{permalink}/links",
        f"/v3/emails/{activity}",
        f"/v3/emails/{world.v2_id(activity)}",
        "/v3/emails/",
        "/v3/",
    ):
        (error,) = ready.json(target, 404)
        assert error["error_key"] == "not_found", target


@pytest.mark.parametrize(
    ("last_page", "tail"),
    [
        ("absent", b"]}"),
        ("null", b'],"_links":null}'),
        ("next_null", b'],"_links":{"next":null}}'),
        ("href_null", b'],"_links":{"next":{"href":null}}}'),
    ],
)
def test_last_page_says_so_in_every_known_way(last_page: str, tail: bytes) -> None:
    """Which one the vendor uses is not known; the link before it is relative and opaque."""
    ready = client(v3_last_page=last_page)
    (activity, *_) = mailings(ready.service.world, ready.service.world.v3_campaign_ids[0])
    first = ready.json(tracking(activity, "opens", "limit=1"))
    assert next_link(first).startswith(f"{REPORTS}/{activity}/tracking/opens?next=")
    rows = ready.service.world.rows("opens", activity)
    whole = ready.ask(tracking(activity, "opens", "limit=500")).answer
    assert rows <= 500
    assert whole.body.endswith(tail)


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "next=garbled", "limit="])
def test_bad_parameters_are_a_bad_request(query: str) -> None:
    """An array with an error_key; what is not known is ignored."""
    ready = client()
    (activity, *_) = mailings(ready.service.world, ready.service.world.v3_campaign_ids[0])
    (error,) = ready.json(tracking(activity, "opens", query), 400)
    assert error["error_key"] == "bad_request"
    assert ready.json(tracking(activity, "opens", "created_since=yesterday&x=1"))


@pytest.mark.parametrize("since", [0, 1, 59_999, 60_000, 60_001])
def test_records_since_go_by_the_time_that_is_shown(since: int) -> None:
    """A row of 12:34:56 shows 12:34:00, and is not on or after 12:34:30."""
    world = client().service.world
    campaign = max(world.v3_campaign_ids, key=lambda each: world.rows("opens", each))
    view = world.view("opens", mailings(world, campaign)[0])
    moment = view.date_ms(len(view) // 2) // 60_000 * 60_000 + since
    shown = [
        record
        for record in world.records("opens", campaign)
        if _ms(orjson.loads(record)["created_time"]) >= moment
    ]
    assert list(world.records("opens", campaign, moment)) == shown


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
