"""`plan --ask`: what a run will send, known before it sends it."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from harvester.disk.saved_walk import SavedWalk
from harvester.forecast import ask, estimate
from harvester.model import Target
from harvester.run import harvest
from harvester.sandbox import CountSettings


@pytest.mark.parametrize("resends", [0, 4, 24])
async def test_the_requests_of_a_run_are_known_before(
    serve: Callable[..., Any], resends: int
) -> None:
    """Within 3 %; and the run asks for nothing again that the plan asked for."""
    account = await serve(campaigns=24, pages=72, rows_per_page=5, resends=resends)
    estimate = await ask(account.ids, account.config())
    asked = account.sandbox.requests
    assert asked <= 1 + 24 + 5 + 2  # counts, details, those of activities, looks at sends
    report = await account.run()
    assert not estimate.at_least
    assert estimate.requests == pytest.approx(report.requests.sent, rel=0.03)
    details = account.asked("campaign")
    assert len(account.asked("stats")) == 1
    assert set(details.values()) == {1}
    account.assert_whole(account.config())


async def test_without_counts_what_is_empty_is_asked(serve: Callable[..., Any]) -> None:
    """It is foretold as well."""
    account = await serve()
    config = account.config(counts=False, report="forwards")
    estimate = await ask(account.ids, config)
    report = await account.run(counts=False, report="forwards")
    assert abs(estimate.requests - report.requests.sent) <= 3


@pytest.mark.parametrize("api", ["v2", "v3"])
async def test_links_cost_what_the_run_sends_for_them(
    serve: Callable[..., Any], api: Literal["v2", "v3"]
) -> None:
    """In v2 they stand in the detail, which the plan has asked for."""
    account = await serve(unsent=0)
    settings, world = account.sandbox.settings, account.sandbox.world
    ids = world.campaign_ids if api == "v2" else world.v3_campaign_ids
    config = replace(account.config(links=True), api=api, api_key=settings.api_key)
    estimate = await ask(ids, config)
    report = await harvest(ids, config)
    assert report.exit_code == 0
    # v2 counts contacts, who may have opened more than once.
    assert estimate.at_least == (api == "v2")
    assert estimate.requests <= report.requests.sent
    assert estimate.requests == pytest.approx(report.requests.sent, rel=0.1 if api == "v2" else 0)


async def test_what_is_done_costs_nothing_more(serve: Callable[..., Any]) -> None:
    """After a whole run nothing is left, after half of one the rest is."""
    account = await serve()
    await account.run(max_requests=60)
    estimate = await ask(account.ids, account.config())
    report = await account.run()
    assert abs(estimate.requests - report.requests.sent) <= 3
    sent = account.sandbox.requests
    assert await ask(account.ids, account.config()) == estimate.__class__(0, False)
    assert account.sandbox.requests == sent


async def test_without_counts_it_is_a_lower_bound(serve: Callable[..., Any]) -> None:
    """Whatever keeps them away."""
    account = await serve(pinned={("stats", None): "error404"})
    estimate = await ask(account.ids, account.config())
    assert estimate.at_least
    report = await account.run()
    assert estimate.requests <= report.requests.sent


async def test_counts_that_are_wrong_do_not_stop_a_plan(serve: Callable[..., Any]) -> None:
    """It is then as wrong as they are."""
    account = await serve(counts=CountSettings(numbers="wrong"))
    assert (await ask(account.ids, account.config())).requests > 0


# -- by a sample ---------------------------------------------------------------------------------


@dataclass
class Campaign:
    """Its `pages` by the counts, and by its detail as well."""

    by_counts: list[int]
    by_detail: list[int]
    detailed: bool = False
    counts = True
    activities = ()


class Population:
    """Many campaigns of six reports of some pages, `share` of them with a resend."""

    def __init__(self, seed: int, campaigns: int, pages: float, share: float) -> None:
        chance = random.Random(seed)
        self.known: dict[str, Campaign] = {}
        for number in range(campaigns):
            size = pages * chance.paretovariate(1.3) / 4
            counts = [int(size * part) + 1 for part in (1, 1, 0.2, 0.04, 0.03, 0)]
            resent = chance.random() < share
            detail = [each + (chance.random() < 0.6) for each in counts] if resent else counts
            self.known[f"{seed}-{number}"] = Campaign(counts, detail)
        self.lookup, self.asked, self.believed = self, 0, True
        self.api, self.reports = self, dict.fromkeys("012345", self)
        self.paged = True

    def kept(self, campaign_id: str) -> Campaign:
        """What is known of a campaign."""
        return self.known[campaign_id]

    def asks_detail(self, campaign: Campaign, walks: Iterable[SavedWalk]) -> bool:
        """Whether its detail is to be asked for."""
        return not campaign.detailed

    def to_make(self, campaign_id: str) -> Iterator[SavedWalk]:
        """Its walks."""
        for report in range(6):
            yield SavedWalk(id=0, target=Target(str(report), campaign_id))

    def requests_of(self, campaign: Campaign, walk: SavedWalk) -> int:
        """What a walk takes, as far as it is known."""
        known = campaign.by_detail if campaign.detailed else campaign.by_counts
        return known[int(walk.target.report)]

    async def details(self, group: Iterable[str]) -> int:
        """Ask for details."""
        for each in group:
            self.known[each].detailed, self.asked = True, self.asked + 1
        return 0


@pytest.mark.parametrize("pages", [0.8, 3.0, 8.0])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.14, 0.5])
async def test_a_sample_of_details_shows_what_all_take(pages: float, share: float) -> None:
    """Small, middle and large campaigns, heavy tail included: within 3 %, by some details."""
    for seed in range(4):
        many: Any = Population(seed, 700, pages, share)
        found = await estimate(many, many.known)
        took = sum(sum(each.by_detail) for each in many.known.values()) + 700 - many.asked
        assert found.requests == pytest.approx(took, rel=0.03)
        assert many.asked <= 240
    if not share:
        assert many.asked == 60


# -- while it runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize(
    ("campaigns", "pages", "seed"),
    [(30, 1.1, 1), (30, 1.1, 2), (16, 3, 1), (16, 3, 2), (8, 8, 3), (6, 20, 4)],
)
async def test_the_requests_left_are_right_from_a_twentieth_of_a_run_on(
    serve: Callable[..., Any], campaigns: int, pages: float, seed: int, links: bool
) -> None:
    """Within 15 % of what is left, on accounts of small, middle and large campaigns, and where a
    few have most pages; without a plan before, with links and without."""
    resends = campaigns // 5
    account = await serve(
        campaigns=campaigns,
        pages=round((campaigns + resends) * pages),
        rows_per_page=5,
        resends=resends,
        seed=seed,
    )
    await account.assert_left_is_right(few=10, concurrency=2, links=links)
