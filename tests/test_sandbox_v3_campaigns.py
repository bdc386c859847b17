"""Version 3 of the simulated API: campaigns, and that v2 has the same ones; counts."""

from collections import Counter
from typing import Any

import pytest
from sandbox_client import (
    DAY,
    REPORTS,
    SMALL,
    STATS,
    client,
    loaded,
    mailings,
    next_link,
    stats_by_rows,
)

from harvester.sandbox import CountSettings, SandboxSettings, World
from harvester.sandbox.ids import Ids

# -- campaigns -----------------------------------------------------------------------------------


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
    """By updated_at, from after_date on; the filter is kept in the cursor."""
    ready = client(campaigns=30, pages=40)
    every = ready.json("/v3/emails?limit=500")["campaigns"]
    page = ready.json(f"/v3/emails?limit=7&after_date={every[20]['updated_at']}")
    found = page["campaigns"]
    while link := next_link(page):
        page = ready.json(link)
        found += page["campaigns"]
    assert found == every[:21]


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


# -- counts --------------------------------------------------------------------------------------


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
    missing = frozenset(World(SandboxSettings(**SMALL)).v3_campaign_ids[2:6])
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
    campaign = World(SandboxSettings(**SMALL)).v3_campaign_ids[1]
    ready = client(doctored=[campaign])
    stats = ready.json(f"{STATS}/{campaign}")["results"][0]["stats"]
    assert stats["em_opens_all"] == ready.service.world.rows("opens", campaign) + 1


def test_links_tell_unique_clicks() -> None:
    """The links that click rows name, each with its contacts."""
    ready = client(pages=120)
    world = ready.service.world
    for campaign in world.v3_campaign_ids:
        for activity in mailings(world, campaign):
            rows = loaded(world.records("clicks", activity))
            clicked = {(row["url_id"], row["link_url"], row["contact_id"]) for row in rows}
            expected = Counter((url_id, url) for url_id, url, _ in clicked)
            found = ready.json(f"{REPORTS}/{activity}/links")["link_click_counts"]
            assert {
                (each["url_id"], each["link_url"]): each["unique_clicks"] for each in found
            } == expected
