"""Requests over the least possible: what a harvest costs of the day's quota.

Three accounts in the sandbox (small, middle, large campaigns; one in seven with a resend), with the
opens alone and with all reports, in both versions: a first harvest, and a top-up when nothing
came. The least possible in v3 is a detail for each campaign and the pages that have rows. In v2 it
is for each campaign the lesser of the same, and of a page at least for each report. Pages have 50
rows here, and the campaigns a tenth of their size, so the requests are those of real ones.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, Options, scratch
from benchmarks.workload import WrongOutput
from harvester.config import HarvestConfig
from harvester.run import harvest
from harvester.sandbox import Sandbox, SandboxSettings
from harvester.sandbox.world import World

ROWS = 50
TARGET = 1.03
_ACCOUNTS = {"small": 1.1, "middle": 3.0, "large": 8.0}  # pages of opens for a mailing
_QUOTA = 10_000


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    campaigns = options.of(140, 35)
    return [
        figure
        for name, pages in _ACCOUNTS.items()
        for api in ("v2", "v3")
        for report in ("opens", "all")
        for figure in asyncio.run(_account(name, campaigns, pages, api, report))
    ]


async def _account(
    name: str, campaigns: int, pages: float, api: str, report: str
) -> Sequence[Figure]:
    resends = campaigns // 7
    settings = SandboxSettings(
        campaigns=campaigns,
        resends=resends,
        pages=round((campaigns + resends) * pages),
        rows_per_page=ROWS,
        unsent=0,
        keep_log=False,
    )
    async with Sandbox(settings) as sandbox:
        with scratch() as home:
            config = _config(sandbox, home, api, report)
            world = sandbox.world
            ids = world.v3_campaign_ids if api == "v3" else world.campaign_ids
            sent = await _sent(ids, config)
            least = _least(world, ids, config)
            days = 10_000 / campaigns * sent / _QUOTA
            what = f"{name} account, {api}, {report}"
            note = f"{days:.1f} days for 10,000 campaigns"
            ratio = sent / least
            first = Figure(what, "first harvest", sent, "", ratio=ratio, note=note, target=TARGET)
            again = await _sent(ids, _config(sandbox, home, api, report, since="last"))
            each = f"{again / len(ids):.2f} for each campaign"
            return [first, Figure(what, "unchanged top-up", again, "", note=each)]


def _config(sandbox: Sandbox, home: Path, api: str, report: str, **more: Any) -> HarvestConfig:
    settings = sandbox.settings
    return HarvestConfig(
        api=api,
        base_url=sandbox.base_url,
        report=report,
        api_key=settings.api_key,
        access_token=settings.access_token,
        output=home / "out",
        state_dir=home / "state",
        page_size=ROWS,
        rate=0,
        daily_quota=0,
        **more,
    )


async def _sent(ids: Sequence[str], config: HarvestConfig) -> int:
    report = await harvest(ids, config)
    if report.exit_code:
        raise WrongOutput(f"the harvest ended with {report.exit_code}: {report.message}")
    return report.requests.sent


def _least(world: World, ids: Sequence[str], config: HarvestConfig) -> int:
    if config.api == "v3":
        return world.least_requests(config.reports, ROWS)
    least = 0
    for each in ids:
        pages = [-(-world.rows(report, each) // ROWS) for report in config.reports]
        least += min(1 + sum(pages), sum(max(1, number) for number in pages))
    return least
