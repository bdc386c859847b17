"""What is asked of a campaign is asked once, and kept at each step."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock, T
from workbench import Workbench, turn

from harvester.api.base import Detail
from harvester.api.counts import CampaignCounts
from harvester.api.v3 import V3
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.saved_campaign import SavedCampaign
from harvester.errors import CampaignError
from harvester.input.known import KnownCampaign, known, worth_asking
from harvester.input.lookup import Lookup
from harvester.model import Request, Target

REPORTS = ("opens", "clicks", "bounces", "forwards")
CAMPAIGN = "{:08d}-0000-4000-8000-000000000000".format
ACTIVITY = "{:08d}-0000-4000-8000-{:012d}".format
NAMES = ("em_sends", "em_opens", "em_opens_all", "em_clicks", "em_clicks_all")


class Answers:
    """An account of campaigns with `activities` each, whose small reports are those of the first.

    `sends` is how many it counts, `sent` whether there are sends.
    """

    def __init__(self, clock: FakeClock, *, activities: int = 2, sends: int = 9, sent: bool = True):
        self.clock, self.activities, self.sends, self.sent = clock, activities, sends, sent
        self.asked: list[str] = []

    async def fetch(self, request: Request[T]) -> T:
        """The answer, as an API gives it."""
        self.asked.append(request.link)
        path, _, ids = request.link.partition("?")[0].partition("#")[0].rpartition("/")
        return request.read(json.dumps(self._answer(path, ids)).encode())

    def _answer(self, path: str, ids: str) -> Any:
        if path == "/v3/emails":
            each = [ACTIVITY(int(ids[:8]), number) for number in range(self.activities)]
            return {
                "campaign_id": ids,
                "current_status": "DONE",
                "updated_at": (self.clock.now() - timedelta(days=9)).isoformat(),
                "campaign_activities": [
                    {"campaign_activity_id": one, "role": "primary_email"} for one in each
                ],
            }
        if ids == "sends":
            return {"tracking_activities": [{"contact_id": "1"}] * self.sent}
        field = "campaign_id" if path.endswith("email_campaigns") else "campaign_activity_id"
        return {"results": [self._stats(field, each) for each in ids.split(",")]}

    def _stats(self, field: str, name: str) -> Any:
        some = int(name.endswith("0" * 12) and self.sends > 0)
        small = dict.fromkeys(("em_bounces", "em_forwards"), some)
        return {
            field: name,
            "stats": dict.fromkeys(NAMES, self.sends) | small,
            "last_refresh_time": self.clock.now().isoformat(),
        }


@pytest.fixture
def bench(tmp_path: Path, clock: FakeClock) -> Iterator[Workbench]:
    """A directory."""
    bench = Workbench(tmp_path / "out", clock)
    yield bench
    bench.close()


async def look_up(lookup: Lookup, step: int, campaign_id: str) -> None:
    """One step of what a run asks about a campaign."""
    if step == 0:
        await lookup.counts([campaign_id])
    elif step == 1:
        await lookup.detail(Target("opens", campaign_id))
    else:
        await lookup.activities([campaign_id])
    await turn()


def kept(store: CheckpointStore, campaign_id: str) -> SavedCampaign:
    """What another process would find."""
    return store.campaign(campaign_id)


@pytest.mark.parametrize(("activities", "sends"), [(2, 9), (1, 0)])
async def test_a_kill_after_any_step_costs_no_request(
    bench: Workbench, clock: FakeClock, activities: int, sends: int
) -> None:
    """What was answered is in the state before anything else is asked, and no other run asks it."""
    answers = Answers(clock, activities=activities, sends=sends, sent=False)
    for step in range(3):
        lookup = bench.lookup(answers, V3(), reports=REPORTS)
        await look_up(lookup, step, CAMPAIGN(1))
        with bench.killed() as store:
            assert store.campaign(CAMPAIGN(1)) == bench.store.campaign(CAMPAIGN(1))
        bench.begin()
        again = bench.lookup(answers, V3(), reports=REPORTS)
        before = len(answers.asked)
        for earlier in range(1, step + 1):
            await look_up(again, earlier, CAMPAIGN(1))
        assert len(answers.asked) == before
        assert again.kept(CAMPAIGN(1)).is_counted(clock.now())
    assert len(answers.asked) == len(set(answers.asked)) == 3


@pytest.mark.parametrize(("sent", "empty"), [(False, True), (True, False)])
async def test_a_campaign_without_any_count_is_looked_into(
    bench: Workbench, clock: FakeClock, *, sent: bool, empty: bool
) -> None:
    """Once: if it was not sent all its reports are empty; if it was, no count of it is believed."""
    answers = Answers(clock, activities=1, sends=0, sent=sent)
    lookup = bench.lookup(answers, V3(), reports=REPORTS)
    for step in (0, 1, 1):
        await look_up(lookup, step, CAMPAIGN(1))
    campaign = lookup.kept(CAMPAIGN(1))
    assert [campaign.is_empty(each, clock.now()) for each in REPORTS] == [empty] * 4
    assert campaign.is_counted(clock.now())
    assert len(answers.asked) == 3


async def test_activities_without_rows_are_left_out(bench: Workbench, clock: FakeClock) -> None:
    """A forward and a bounce are of one activity; five campaigns share a request."""
    answers = Answers(clock)
    lookup = bench.lookup(answers, V3(), reports=REPORTS)
    ids = [CAMPAIGN(number) for number in range(5)]
    await lookup.counts(ids)
    for each in ids:
        await lookup.detail(Target("opens", each))
    assert await lookup.activities(ids) == 1
    assert await lookup.activities(ids) == 0
    for number, each in enumerate(ids):
        campaign = lookup.kept(each)
        assert campaign.empty_activities("forwards", clock.now()) == {ACTIVITY(number, 1)}
        assert campaign.empty_activities("opens", clock.now()) == set()
        assert campaign.pages("forwards", 500, clock.now()) == 1
        assert campaign.pages("opens", 5, clock.now()) == 4


async def test_counts_of_activities_that_fail_are_given_up(
    bench: Workbench, clock: FakeClock
) -> None:
    """After two refusals; the campaigns are what they were."""
    answers = Answers(clock)
    lookup = bench.lookup(answers, V3(), reports=REPORTS)
    ids = [CAMPAIGN(number) for number in range(20)]
    await lookup.counts(ids)
    for each in ids:
        await lookup.detail(Target("opens", each))

    async def refuse(request: Request[Any]) -> Any:
        raise CampaignError("not_found", "no", status=404)

    answers.fetch = refuse  # type: ignore[method-assign]
    assert await lookup.activities(ids) == 2
    assert not lookup.kept(ids[0]).empty_activities("forwards", clock.now())


def one(clock: FakeClock, number: int, activities: int, **recipients: int) -> KnownCampaign:
    """A campaign that changed long ago."""
    now: Any = clock.now()
    counts = CampaignCounts(
        campaign_id=CAMPAIGN(number), recipients={"sends": 9, **recipients}, refreshed_at=now
    )
    detail = Detail(
        activities=tuple(ACTIVITY(number, each) for each in range(activities)),
        updated_at=now - timedelta(days=9),
    )
    found = KnownCampaign(campaign_id=CAMPAIGN(number))
    return known(found.with_counts(counts, now).with_detail(detail, now).saved)


@pytest.mark.parametrize(
    ("campaigns", "blocks"),
    [
        ([(2, {"bounces": 1})], 0),  # saves what it costs
        ([(2, {"bounces": 1, "forwards": 2})], 1),
        ([(2, {"bounces": 1})] * 2, 1),
        ([(2, {"bounces": 9, "forwards": 9})] * 5, 0),  # hardly one without any
        ([(1, {"bounces": 1, "forwards": 1})] * 5, 0),
        ([(2, {})] * 5, 0),  # known to be empty as a whole
        ([(2, {"bounces": 1, "forwards": 1})] * 11, 3),  # the last alone saves more than it costs
        ([(3, {"bounces": 1})] * 6, 2),
        ([(11, {"bounces": 1})], 0),  # more than a request may name
    ],
)
def test_counts_of_activities_are_asked_for_where_that_saves_requests(
    clock: FakeClock, campaigns: list[tuple[int, dict[str, int]]], blocks: int
) -> None:
    """By what is to be expected of the campaigns' own counts."""
    each = [one(clock, number, *given[:1], **given[1]) for number, given in enumerate(campaigns)]
    found = list(worth_asking(each, REPORTS, 10, clock.now()))
    assert len(found) == blocks
    for block in found:
        assert sum(len(campaign.detail.activities) for campaign in block if campaign.detail) <= 10
