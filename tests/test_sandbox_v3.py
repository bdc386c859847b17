"""Version 3 of the simulated API: what it serves, and that it is the same account as v2's."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.sandbox import CountSettings, Reply, Request, Sandbox, SandboxSettings, Service
from harvester.sandbox.ids import Ids
from harvester.sandbox.reports import V3_REPORTS

SMALL: dict[str, Any] = {"campaigns": 9, "pages": 40, "rows_per_page": 10, "resends": 4}
DAY = 86_400.0
NOW = 20_000 * DAY
REPORTS = "/v3/reports/email_reports"
STATS = "/v3/reports/stats/email_campaigns"


@dataclass
class Client:
    """A client of a service without sockets. It believes everything."""

    service: Service
    token: str = "sandbox-token"
    now: float = 0.0
    wall: float = NOW
    replies: list[Reply] = field(default_factory=list)

    def ask(self, target: str, **headers: str) -> Reply:
        """One request."""
        given = {"authorization": f"Bearer {self.token}", **headers}
        request = Request(target=target, headers=given, now=self.now, wall=self.wall)
        self.replies.append(self.service.handle(request))
        return self.replies[-1]

    def json(self, target: str, status: int = 200) -> Any:
        """The document of an answer with that status."""
        answer = self.ask(target).answer
        assert answer.status == status, answer.body.plain
        return orjson.loads(answer.body.plain)

    def walk(self, target: str) -> list[bytes]:
        """Every row from a first target to the end, as raw JSON."""
        rows = []
        while target:
            body = self.ask(target).answer.body.plain
            rows += raw_rows(body)
            target = next_link(orjson.loads(body))
        return rows


def client(**asked: Any) -> Client:
    """A small account at a fixed time."""
    ready = Client(Service(SandboxSettings(**{**SMALL, "wall": lambda: ready.wall, **asked})))
    return ready


def raw_rows(body: bytes) -> list[bytes]:
    """The rows cut out of a page without being parsed: each starts with its contact."""
    start = body.index(b"[") + 1
    end = body.rindex(b'],"_links"') if body.endswith(b'"}}}') else body.rindex(b"]")
    pieces = body[start:end].split(b',{"contact_id"')
    return [
        piece if n == 0 else b'{"contact_id"' + piece for n, piece in enumerate(pieces) if piece
    ]


def next_link(page: Any) -> str:
    return ((page.get("_links") or {}).get("next") or {}).get("href") or ""


def tracking(activity: str, report: str, query: str = "limit=10") -> str:
    return f"{REPORTS}/{activity}/tracking/{report}?{query}"


def mailings(world: Any, campaign: str) -> list[str]:
    """The activities of a campaign that have reports."""
    return [each for each, role in world.activities(campaign) if role != "permalink"]


def loaded(rows: Any) -> list[dict[str, Any]]:
    return [orjson.loads(row) for row in rows]


# -- tracking reports ---------------------------------------------------------------------------


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


@settings(max_examples=150, deadline=None)
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
                if reply.fault is None:
                    rows += raw_rows(reply.answer.body.plain)
                    target = next_link(orjson.loads(reply.answer.body.plain))
        assert rows == list(world.records("opens", campaign))
    assert {reply.fault for reply in ready.replies} == {*kinds, None}


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
        assert (answer.status, answer.body.plain) == (200, b'{"tracking_activities":[]}')


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
    assert whole.body.plain.endswith(tail)


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


# -- campaigns ----------------------------------------------------------------------------------


def test_list_is_paged_and_says_when_it_ends() -> None:
    """The last updated first, seven documented fields, no activities, no `_links` at the end."""
    ready = client(campaigns=61, pages=70)
    first = ready.json("/v3/emails")
    rest = ready.json(next_link(first))
    assert len(first["campaigns"]) == 50
    assert "_links" not in rest
    every = [*first["campaigns"], *rest["campaigns"]]
    world = ready.service.world
    ids = [each["campaign_id"] for each in every]
    assert sorted(ids) == sorted([*world.v3_campaign_ids, *world.v3_unsent_ids])
    updated = [each["updated_at"] for each in every]
    assert updated == sorted(updated, reverse=True)
    assert {tuple(sorted(each)) for each in every} == {
        (
            "campaign_id",
            "created_at",
            "current_status",
            "name",
            "type",
            "type_code",
            "updated_at",
        )
    }
    assert [
        row["campaign_id"] for row in ready.json("/v3/emails?limit=500&x=1")["campaigns"]
    ] == ids


def test_list_is_filtered_on_every_page() -> None:
    """By updated_at, from after_date to before_date; the filters are kept in the cursor."""
    ready = client(campaigns=30, pages=40)
    every = ready.json("/v3/emails?limit=500")["campaigns"]
    after, before = every[20]["updated_at"], every[5]["updated_at"]
    page = ready.json(f"/v3/emails?limit=7&after_date={after}&before_date={before}")
    found = page["campaigns"]
    while link := next_link(page):
        page = ready.json(link)
        found += page["campaigns"]
    assert found == every[5:21]


def test_states_are_spelled_in_two_ways() -> None:
    """In the list "Done", in the detail "DONE"; every state is there."""
    ready = client(unsent=10)
    listed = ready.json("/v3/emails?limit=500")["campaigns"]
    states = {each["campaign_id"]: each["current_status"] for each in listed}
    assert set(states.values()) == {
        *("Done", "Draft", "Scheduled", "Executing", "Removed", "Error"),
    }
    for campaign, state in states.items():
        detail = ready.json(f"/v3/emails/{campaign.upper()}")
        assert detail["current_status"] == state.upper()
        roles = Counter(each["role"] for each in detail["campaign_activities"])
        assert (roles["primary_email"], roles["permalink"]) == (1, 1)
        assert state == "Done" or "resend" not in roles


def test_v2_ids_lead_to_v3_ids() -> None:
    """Of an email and of a resend; unknown ones are left out; at most fifty, at least one."""
    ready = client()
    world = ready.service.world
    ids = [*world.campaign_ids, *world.unsent_ids, "1234567890123", "x"]
    path = "/v3/emails/campaign_id_xrefs?v2_email_campaign_ids="
    xrefs = ready.json(path + ",".join(ids))["xrefs"]
    assert [each["v2_email_campaign_id"] for each in xrefs] == ids[:-2]
    assert len({each["campaign_id"] for each in xrefs}) == 9 + 5
    for each in xrefs:
        assert world.v2_id(each["campaign_activity_id"]) == each["v2_email_campaign_id"]
        assert world.v3_id(each["v2_email_campaign_id"]) == each["campaign_id"]
    ready.json(path, 400)
    ready.json(path + ",".join(["1234567890123"] * 51), 400)


def test_both_versions_tell_of_the_same_events() -> None:
    """The same addresses at the same minutes, in each mailing."""
    world = client().service.world
    names = {"opens": "open_date", "bounces": "bounce_date", "unsubscribes": "unsubscribe_date"}
    for campaign in world.v3_campaign_ids:
        for activity in mailings(world, campaign):
            for report, date in names.items():
                v3 = loaded(world.records(report, activity))
                v2 = loaded(world.records(report, world.v2_id(activity)))
                assert Counter((row["email_address"], row["created_time"][:16]) for row in v3) == (
                    Counter((row["email_address"], row[date][:16]) for row in v2)
                )
    assert len(world.campaign_ids) == 9 + 4
    assert sum(world.pages("opens", each, 10) for each in world.campaign_ids) == 40


def test_ids_are_read_back() -> None:
    """A UUID knows its number and its kind; none is met twice; other text has no number."""
    ids = Ids(7)
    numbers = [*range(2_000), 10**6, 2**40]
    for kind in ("campaign", "activity", "contact"):
        found = [ids.uuid(kind, number) for number in numbers]
        assert [ids.number(kind, each) for each in found] == numbers
        assert len(set(found)) == len(found)
        assert ids.number("permalink", found[0]) is None
    assert [ids.v2_number(ids.v2(number)) for number in range(2_000)] == list(range(2_000))
    other = Ids(8).uuid("campaign", 3)
    assert [ids.number("campaign", text) for text in ("", "x", "1" * 36, other)] == [None] * 4
    assert [ids.v2_number(text) for text in ("", "-1", "²", "1", "9" * 40)] == [None] * 5


# -- counts -------------------------------------------------------------------------------------


def stats_by_rows(world: Any, activities: list[str]) -> dict[str, int]:
    """The numbers as they follow from the rows."""
    counts: Counter[str] = Counter()
    for activity in activities:
        for name in ("sends", "opens", "clicks", "forwards", "optouts", "bounces"):
            rows = loaded(world.records(name, activity))
            counts[f"em_{name}"] += len({row["contact_id"] for row in rows})
            if name in ("opens", "clicks"):
                counts[f"em_{name}_all"] += len(rows)
        counts["em_not_opened"] += world.rows("did_not_open", activity)
    return {**counts, "em_abuse": 0}


def test_stats_agree_with_the_rows() -> None:
    """Recipients, but for the totals of opens and clicks; of campaigns and of activities."""
    ready = client()
    world = ready.service.world
    world.add_events("opens", world.v3_campaign_ids[2], 17)
    ids = [*world.v3_campaign_ids, *world.v3_unsent_ids]
    answer = ready.json(f"{STATS}/{','.join(ids)}")
    assert answer["errors"] == []
    assert [each["campaign_id"] for each in answer["results"]] == ids
    for each in answer["results"]:
        activities = mailings(world, each["campaign_id"])
        assert each["stats"] == stats_by_rows(world, activities)
        found = ready.json(f"/v3/reports/stats/email_campaign_activities/{','.join(activities)}")
        assert [one["stats"] for one in found["results"]] == [
            stats_by_rows(world, [activity]) for activity in activities
        ]


def test_one_bad_campaign_hides_the_others() -> None:
    """404 for all, malformed or unknown; too many are a bad request."""
    ready = client(counts=CountSettings(most_ids=3))
    world = ready.service.world
    good = list(world.v3_campaign_ids[:3])
    assert len(ready.json(f"{STATS}/{','.join(good)}")["results"]) == 3
    for bad in ("", "x", "1" * 36, mailings(world, good[0])[0], world.campaign_ids[0]):
        assert ready.json(f"{STATS}/{','.join([*good[:2], bad])}", 404)["error_key"] == "not_found"
    ready.json(f"{STATS}/{','.join(world.v3_campaign_ids[:4])}", 400)


def test_an_unknown_activity_is_an_error_of_its_own() -> None:
    """It stands in `errors`; a malformed one is a 404 for all; ten are the most."""
    ready = client()
    world, path = ready.service.world, "/v3/reports/stats/email_campaign_activities/"
    good = [mailings(world, each)[0] for each in world.v3_campaign_ids]
    unknown = world.v3_campaign_ids[0]
    answer = ready.json(path + ",".join([*good[:9], unknown]))
    assert [each["campaign_activity_id"] for each in answer["results"]] == good[:9]
    assert [each["campaign_activity_id"] for each in answer["errors"]] == [unknown]
    ready.json(path + f"{good[0]},x", 404)
    ready.json(path + ",".join([*good[:9], unknown, mailings(world, unknown)[-1]]), 400)


def test_counts_may_be_missing() -> None:
    """Some are told of in `errors`, some are left out without a word; the rest is there."""
    missing = frozenset(SandboxSettings(**SMALL).world().v3_campaign_ids[2:6])
    ready = client(counts=CountSettings(missing=missing))
    ids = ready.service.world.v3_campaign_ids
    answer = ready.json(f"{STATS}/{','.join(ids)}")
    assert {each["campaign_id"] for each in answer["results"]} == set(ids) - missing
    assert {each["campaign_id"] for each in answer["errors"]} == {ids[3], ids[5]}


def test_counts_may_be_old() -> None:
    """What came in since the refresh is not counted: events, resends, campaigns sent later."""
    ready = client(counts=CountSettings(age=7 * DAY))
    world = ready.service.world
    campaign, unsent = world.v3_campaign_ids[0], world.v3_unsent_ids[0]
    before = stats_by_rows(world, mailings(world, campaign))
    world.add_events("opens", campaign, 5)
    world.resend(campaign)
    world.resend(campaign)
    world.send(unsent)
    after = stats_by_rows(world, mailings(world, campaign))
    ready.wall += DAY
    old, none = ready.json(f"{STATS}/{campaign},{unsent}")["results"]
    assert old["stats"] == before
    assert set(none["stats"].values()) == {0}
    assert old["last_refresh_time"] == "2024-09-28T00:00:00.000Z"
    ready.wall += 6 * DAY  # now the refresh is of the moment of the changes: it counts them all
    assert ready.json(f"{STATS}/{campaign}")["results"][0]["stats"] == after


@pytest.mark.parametrize("spelling", ["plain", "strings", "dotted"])
def test_counts_are_spelled_in_several_ways(spelling: Any) -> None:
    """As numbers, as strings, or with a dot in the names of the totals."""
    ready = client(counts=CountSettings(spelling=spelling))
    world = ready.service.world
    campaign = world.v3_campaign_ids[0]
    stats = ready.json(f"{STATS}/{campaign}")["results"][0]["stats"]
    total = world.rows("opens", campaign)
    name = "em_opens.all" if spelling == "dotted" else "em_opens_all"
    assert stats[name] == (str(total) if spelling == "strings" else total)
    assert "em_opens" in stats


@pytest.mark.parametrize("numbers", ["wrong", "zero"])
def test_counts_may_lie(numbers: Any) -> None:
    """`wrong` numbers are no zeros where something is; `zero` hides everything."""
    ready = client(counts=CountSettings(numbers=numbers))
    world = ready.service.world
    results = ready.json(f"{STATS}/{','.join(world.v3_campaign_ids)}")["results"]
    lies = 0
    for each in results:
        truth = stats_by_rows(world, mailings(world, each["campaign_id"]))
        assert each["stats"].keys() == truth.keys()
        for name, said in each["stats"].items():
            assert numbers == "wrong" or said == 0
            assert numbers == "zero" or said > 0 or truth[name] == 0
            lies += said != truth[name]
    assert lies > len(results)


@pytest.mark.parametrize("wrong", [{"numbers": "x"}, {"spelling": "x"}, {"age": -1.0}])
def test_impossible_counts_are_refused(wrong: dict[str, Any]) -> None:
    """Before anything is served."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CountSettings(**wrong)


def test_v2_counts_lie_too() -> None:
    """In a campaign's detail and in its summary, in the same way."""
    ready = client(counts=CountSettings(numbers="zero", spelling="strings"))
    campaign = ready.service.world.campaign_ids[0]
    path = f"/v2/emailmarketing/campaigns/{campaign}"
    detail = ready.json(f"{path}?api_key=sandbox-key")
    summary = ready.json(f"{path}/tracking/reports/summary?api_key=sandbox-key")
    assert detail["tracking_summary"] == summary
    assert set(summary.values()) == {"0"}


def test_doctored_campaign_has_an_open_too_many() -> None:
    """The total of one campaign does not agree with its rows."""
    campaign = SandboxSettings(**SMALL).world().v3_campaign_ids[1]
    ready = client(doctored=[campaign])
    stats = ready.json(f"{STATS}/{campaign}")["results"][0]["stats"]
    assert stats["em_opens_all"] == ready.service.world.rows("opens", campaign) + 1


def test_summaries_tell_of_the_last_campaigns() -> None:
    """Newest first, unique counts, without a time; not of all campaigns."""
    ready = client(counts=CountSettings(most_summaries=7))
    page = ready.json("/v3/reports/summary_reports/email_campaign_summaries?limit=4")
    rows = page["bulk_email_campaign_summaries"]
    page = ready.json(next_link(page))
    rows += page["bulk_email_campaign_summaries"]
    assert "_links" not in page
    dates = [row["last_sent_date"] for row in rows]
    assert len(rows) == 7
    assert dates == sorted(dates, reverse=True)
    world = ready.service.world
    for row in rows:
        truth = stats_by_rows(world, mailings(world, row["campaign_id"]))
        assert row["unique_counts"] == {
            name.removeprefix("em_"): n for name, n in truth.items() if not name.endswith("_all")
        }


def test_links_tell_unique_clicks() -> None:
    """The links that click rows name, each with its contacts; unclicked ones on demand."""
    ready = client(pages=120)
    world = ready.service.world
    for campaign in world.v3_campaign_ids:
        for activity in mailings(world, campaign):
            rows = loaded(world.records("clicks", activity))
            clicked = {(row["url_id"], row["link_url"], row["contact_id"]) for row in rows}
            expected = Counter((url_id, url) for url_id, url, _ in clicked)
            path = f"{REPORTS}/{activity}/links"
            found = ready.json(path)["link_click_counts"]
            assert {
                (each["url_id"], each["link_url"]): each["unique_clicks"] for each in found
            } == expected
            assert len(ready.json(f"{path}?no_clicks=true")["link_click_counts"]) == 4


# -- what changes -------------------------------------------------------------------------------


def test_resend_is_an_activity_and_a_v2_campaign() -> None:
    """It comes after the others in the detail, has rows at once, and moves updated_at."""
    ready = client()
    world = ready.service.world
    campaign = world.v3_campaign_ids[5]
    before = ready.json(f"/v3/emails/{campaign}")
    activity = world.resend(campaign)
    after = ready.json(f"/v3/emails/{campaign}")
    known = [each["campaign_activity_id"] for each in before["campaign_activities"]]
    new = [a for a in after["campaign_activities"] if a["campaign_activity_id"] not in known]
    assert new == [{"campaign_activity_id": activity, "role": "resend"}]
    assert after["updated_at"] == "2024-10-04T00:00:00.000Z" > before["updated_at"]
    both = mailings(world, campaign)
    counted = ready.json(f"{STATS}/{campaign}")["results"][0]["stats"]
    assert counted == stats_by_rows(world, both)
    assert len(both) == len(known)
    assert ready.json("/v3/emails?limit=1")["campaigns"][0]["campaign_id"] == campaign
    assert world.rows("opens", activity) > 0
    assert list(world.records("opens", campaign))[-1] == list(world.records("opens", activity))[-1]
    assert world.listing("SENT")[0] == world.v2_id(activity) == world.campaign_ids[-1]
    assert all(row["created_time"] < after["updated_at"] for row in loaded(
        world.records("opens", activity)
    ))  # fmt: skip


def test_unsent_campaign_is_sent_later() -> None:
    """Its state, its time and its reports change; it cannot be sent twice, nor resent before."""
    ready = client()
    world = ready.service.world
    campaign = world.v3_unsent_ids[1]
    (activity,) = mailings(world, campaign)
    with pytest.raises(ValueError, match="sent"):
        world.resend(campaign)
    assert ready.json(f"/v3/emails/{campaign}")["current_status"] == "SCHEDULED"
    assert world.rows("sends", activity) == 0
    world.send(campaign)
    assert ready.json(f"/v3/emails/{campaign}")["current_status"] == "DONE"
    assert ready.walk(tracking(activity, "sends")) == list(world.records("sends", campaign))
    assert world.rows("sends", campaign) > 0
    assert campaign in world.v3_campaign_ids
    assert world.status(world.v2_id(campaign)) == "SENT"
    with pytest.raises(ValueError, match="sent"):
        world.send(campaign)


def test_rows_of_an_earlier_moment_can_be_asked_for() -> None:
    """A judge compares a file with the account as it was when the file was finished."""
    ready = client()
    world = ready.service.world
    campaign, unsent = world.v3_campaign_ids[0], world.v3_unsent_ids[0]
    before = {name: list(world.records(name, campaign)) for name in ("opens", "unique_opens")}
    noon = ready.wall = NOW + DAY / 2
    world.add_events("opens", campaign, 4)
    ready.wall += 1
    resend = world.resend(campaign)
    world.send(unsent)
    for name, rows in before.items():
        assert list(world.records(name, campaign, at=noon - 1)) == rows
    now = list(world.records("opens", campaign))
    then = list(world.records("opens", campaign, at=noon))
    assert then[4:] == [*before["opens"]]
    assert now == [*then, *world.records("opens", resend)]
    assert list(world.records("sends", unsent, at=noon)) == []
    email = world.v2_id(campaign)
    assert len(list(world.records("opens", email, at=noon - 1))) == world.rows("opens", email) - 4


def test_deleted_contact_is_marked_in_old_rows() -> None:
    """In every report at once, a page that was asked for before too; nothing else changes."""
    ready = client()
    world = ready.service.world
    (activity, *_) = mailings(world, world.v3_campaign_ids[0])
    before = ready.walk(tracking(activity, "opens"))
    row = next(each for each in loaded(before) if "deleted_at" not in each)
    world.delete_contact(row["contact_id"])
    after = ready.walk(tracking(activity, "opens"))
    for old, new in zip(loaded(before), loaded(after), strict=True):
        assert new.pop("deleted_at", None) == (
            "2024-10-04T00:00:00.000Z"
            if new["contact_id"] == row["contact_id"]
            else old.pop("deleted_at", None)
        )
        assert new == old
    with pytest.raises(KeyError):
        world.delete_contact(activity)


@pytest.mark.parametrize("report", ["opens", "unique_opens", "didnotopens", "optouts"])
def test_arrivals_shift_an_offset_walk(report: str) -> None:
    """Events that come in between two pages push known rows onto the next page."""
    ready = client(arrivals=1, pages=60)
    world = ready.service.world
    activity = max(
        (each for c in world.v3_campaign_ids for each in mailings(world, c)),
        key=lambda each: world.rows(report, each),
    )
    rows = ready.walk(tracking(activity, report, "limit=2"))
    assert rows[2] == rows[1]
    assert len(set(rows)) < len(rows)


def test_time_cursors_do_not_shift() -> None:
    """A cursor that names a moment goes on after it, whatever comes in."""
    ready = client(arrivals=3, cursor="timestamp")
    world = ready.service.world
    activity = mailings(world, world.v3_campaign_ids[0])[0]
    before = list(world.records("opens", activity))
    assert ready.walk(tracking(activity, "opens")) == before
    assert world.rows("opens", activity) > len(before)


# -- limits and faults --------------------------------------------------------------------------


def test_limits_are_told_by_bare_objects() -> None:
    """429 throttled, 429 quota_exceeded, and the 401 that was recorded, of 59 bytes."""
    ready = client(rate_limit=2, quota=4, retry_after="1")
    assert [ready.ask("/v3/emails").answer.status for _ in range(3)] == [200, 200, 429]
    reply = ready.replies[-1]
    assert orjson.loads(reply.answer.body.plain)["error_key"] == "throttled"
    assert reply.answer.headers["Retry-After"] == "1"
    assert reply.hit.throttled
    ready.now = 5.0
    ready.json("/v3/emails")
    assert ready.json("/v3/emails", 429)["error_key"] == "quota_exceeded"
    ready.wall += DAY
    ready.json("/v3/emails")
    ready.token = "wrong"
    answer = ready.ask("/v3/emails").answer
    assert (answer.status, len(answer.body.plain)) == (401, 59)
    assert answer.headers["WWW-Authenticate"] == "Bearer realm=api.cc.email"


@pytest.mark.parametrize(("client_id", "status"), [("sandbox-key", 403), ("another-app", 200)])
def test_an_app_has_one_quota_in_both_versions(client_id: str, status: int) -> None:
    """Where v2's key and v3's client id are one app, what one version spends the other lacks."""
    ready = client(quota=1, client_id=client_id)
    ready.json("/v3/emails")
    v2 = ready.ask("/v2/emailmarketing/campaigns?api_key=sandbox-key")
    assert v2.answer.status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"accept": "text/html"}, 406), ({"authorization": "Basic x"}, 401), ({}, 200)],
)
def test_headers_are_checked(headers: dict[str, str], status: int) -> None:
    """The token by its scheme, and the Accept header."""
    ready = client()
    assert ready.ask("/v3/emails", **headers).answer.status == status
    assert ready.replies[0].hit.authorized is (status != 401)


@pytest.mark.parametrize(
    ("name", "struck"),
    [
        ("stats", "stats"),
        ("campaign", "campaign"),
        ("clicks", "clicks"),
        ("campaigns", "campaigns"),
    ],
)
def test_one_kind_of_request_may_fail_alone(name: str, struck: str) -> None:
    """A pin may name a report of the log."""
    ready = client(pinned={(name, None): "forbidden"})
    world = ready.service.world
    campaign = world.v3_campaign_ids[0]
    (activity, *_) = mailings(world, campaign)
    for target in (
        f"{STATS}/{campaign}",
        f"/v3/emails/{campaign}",
        "/v3/emails",
        tracking(activity, "clicks"),
        tracking(activity, "opens"),
    ):
        ready.ask(target)
    refused = [reply.hit.report for reply in ready.replies if reply.answer.status == 403]
    assert refused == [struck]


@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
@pytest.mark.parametrize("kind", ["endless_same", "endless_empty"])
@pytest.mark.parametrize("page", [1, 2])
def test_endless_pages_have_new_cursors(kind: str, page: int, cursor: str) -> None:
    """Never the same cursor twice, for ever the same page or none; the page number stays."""
    ready = client(pinned={(None, page): kind}, cursor=cursor)
    world = ready.service.world
    activity = max(
        (each for c in world.v3_campaign_ids for each in mailings(world, c)),
        key=lambda each: world.rows("opens", each),
    )
    target, links, bodies = tracking(activity, "opens"), [], []
    for _ in range(12):
        answer = ready.ask(target).answer
        assert answer.status == 200
        target = next_link(orjson.loads(answer.body.plain))
        links.append(target)
        bodies.append(raw_rows(answer.body.plain))
    assert len(set(links)) == 12
    rows = bodies[page:]
    assert all(each == rows[0] for each in rows)
    assert bool(rows[0]) is (kind == "endless_same")
    assert {reply.hit.page for reply in ready.replies[page:]} == {page}


def test_flood_has_far_more_rows_than_asked() -> None:
    """Ten times the limit, also where the page itself is short."""
    ready = client(pinned={(None, None): "flood"})
    (activity, *_) = mailings(ready.service.world, ready.service.world.v3_campaign_ids[0])
    page = ready.json(tracking(activity, "forwards", "limit=100"))
    assert len(page["tracking_activities"]) >= 1_000


# -- the log and the judge's help ---------------------------------------------------------------


def test_log_tells_campaign_activity_and_page() -> None:
    """A request for an activity is logged with its campaign; no secret stands in it."""
    ready = client()
    world = ready.service.world
    campaign = world.v3_campaign_ids[0]
    (activity, *_) = mailings(world, campaign)
    ready.walk(tracking(activity, "opens", "limit=10&access_token=leak&api_key=leak"))
    ready.ask(f"{STATS}/{campaign}")
    first, second, *_, last = ready.service.log.hits
    assert (first.report, first.campaign_id, first.activity_id) == ("opens", campaign, activity)
    assert (first.page, second.page, first.query) == (1, 2, "limit=10")
    assert (first.api_key, second.api_key) == (True, False)
    assert (last.report, last.activity_id) == ("stats", campaign)
    assert "leak" not in repr(ready.service.log.hits)


@pytest.mark.parametrize("limit", [3, 10, 500])
def test_least_requests_are_details_and_pages_with_rows(limit: int) -> None:
    """As a client that knew everything would count them."""
    ready = client()
    world = ready.service.world
    reports = ["opens", "unsubscribes", "bounces"]
    for campaign in world.v3_campaign_ids:
        ready.ask(f"/v3/emails/{campaign}")
        for activity in mailings(world, campaign):
            for report, path in zip(reports, ["opens", "optouts", "bounces"], strict=True):
                if world.rows(report, activity):
                    ready.walk(tracking(activity, path, f"limit={limit}"))
    assert world.least_requests(reports, limit) == len(ready.replies)


def test_a_delivery_is_known_without_a_socket() -> None:
    """How an answer arrives is a value: its wait, its length, its end."""
    ready = client(pinned={(None, None): ["cut", "reset", "stall", "timeout", "slow"]}, latency=0.5)
    found = [ready.ask("/v3/emails", **{"accept-encoding": "gzip"}).delivery for _ in range(6)]
    assert [each.end for each in found] == ["closed", "reset", "good", "silent", "good", "good"]
    assert [each.wait for each in found] == [0.5, 0.5, 5.5, 0.5, 0.5, 0.5]
    assert len(found[0].body) == found[0].length // 2
    assert found[4].pieces * found[4].pause == pytest.approx(2.0)
    assert {each.headers["Content-Encoding"] for each in found} == {"gzip"}
    assert [reply.hit.status for reply in ready.replies] == [200, 0, 200, 0, 200, 200]
