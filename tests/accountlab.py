"""A v3 account in the sandbox, harvested whole, and the requests that its runs say are left."""

from collections import Counter
from pathlib import Path
from typing import Any

from harvester.config import HarvestConfig
from harvester.events import Event, RequestSent
from harvester.reporting.counters import Counters
from harvester.reporting.progress import Progress
from harvester.reporting.summary import HarvestReport
from harvester.run import harvest
from harvester.sandbox import Sandbox

ACCOUNT: dict[str, Any] = {
    "campaigns": 8,
    "pages": 24,
    "rows_per_page": 10,
    "unsent": 1,
    "resends": 3,
}


class Account:
    """A v3 account in the sandbox, and a directory to harvest it into."""

    def __init__(self, sandbox: Sandbox, home: Path) -> None:
        self.sandbox, self.home = sandbox, home
        self.ids = list(sandbox.world.v3_campaign_ids)

    def config(self, **more: Any) -> HarvestConfig:
        """A harvest of all reports, without a pace."""
        settings = {"report": "all", "rate": 0, "retries": 1, "output": self.home / "out"} | more
        return HarvestConfig(
            api="v3",
            base_url=self.sandbox.base_url,
            state_dir=self.home / "state",
            client_id=self.sandbox.settings.client_id,
            access_token=self.sandbox.settings.access_token,
            page_size=self.sandbox.settings.rows_per_page,
            **settings,
        )

    async def run(self, ids: Any = None, **more: Any) -> HarvestReport:
        """One run."""
        return await harvest(self.ids if ids is None else ids, self.config(**more))

    def asked(self, report: str) -> Counter[str]:
        """How often a kind of request was made, by campaign."""
        log = self.sandbox.log
        return Counter(each.campaign_id for each in log if each.report == report)

    def assert_whole(self, config: HarvestConfig) -> None:
        """Every file has what the API has."""
        for report in config.reports:
            for campaign_id in self.ids:
                path = self.home / "out" / report / f"{campaign_id}.ndjson"
                rows = list(self.sandbox.world.records(report, campaign_id))
                assert path.read_bytes().splitlines() == rows, path

    async def assert_left_is_right(self, *, few: int, concurrency: int, **more: Any) -> None:
        """From a twentieth of a run on what is said to be left is right within 15 %, as long as it
        is more than `few` requests."""
        counters = Counters()
        progress = Progress(counters)
        seen: list[tuple[int, int, bool]] = []

        def observe(event: Event) -> None:
            counters(event)
            progress(event)
            if isinstance(event, RequestSent):
                figures = progress.figures()
                seen.append((counters.sent, figures.requests_left or 0, figures.at_least))

        config = self.config(concurrency=concurrency, **more)
        report = await harvest(self.ids, config, observe=observe)
        assert report.exit_code == 0
        for number, left, at_least in seen:
            rest = report.requests.sent - number
            if number >= report.requests.sent * 0.05 and rest > few:
                assert not at_least
                # What is sent and not saved yet is among what is left.
                assert abs(left - rest) <= 0.15 * rest + concurrency + 1, number
