"""The floor: the loop one writes in an afternoon, to be measured against.

aiohttp, orjson, a semaphore. No checkpoint, no retry, no report, no hash, and a file that a kill
cut short looks like any other. v3 costs it what it costs any client: a detail for each campaign,
then the report of its email. `--permit request` takes the semaphore for each request instead of
for each campaign; `--limiter N PERIOD` paces with aiolimiter, and waits a second when refused.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiolimiter import AsyncLimiter

from benchmarks.measure import Stopwatch, contender_arguments


async def harvest(
    base: str,
    ids: list[str],
    out: Path,
    concurrency: int,
    *,
    api: str = "v2",
    report: str = "opens",
    per_request: bool = False,
    limiter: AsyncLimiter | None = None,
) -> int:
    """Harvest every campaign; give the rows."""
    semaphore = asyncio.Semaphore(concurrency)
    campaign_permit = contextlib.nullcontext() if per_request else semaphore
    request_permit = semaphore if per_request else contextlib.nullcontext()
    pace = limiter or contextlib.nullcontext()

    async def first_link(session: aiohttp.ClientSession, campaign: str) -> str:
        if api == "v2":
            return f"/v2/emailmarketing/campaigns/{campaign}/tracking/{report}?limit=500"
        async with session.get(f"{base}/v3/emails/{campaign}") as response:
            detail = orjson.loads(await response.read())
        (activity,) = (
            each["campaign_activity_id"]
            for each in detail["campaign_activities"]
            if each["role"] == "primary_email"
        )
        return f"/v3/reports/email_reports/{activity}/tracking/{report}?limit=500"

    async def one(session: aiohttp.ClientSession, campaign: str) -> int:
        rows = 0
        async with campaign_permit:
            link = await first_link(session, campaign)
            with (out / f"{campaign}.ndjson").open("wb") as file:
                while link:
                    url = f"{base}{link}&api_key=key" if api == "v2" else f"{base}{link}"
                    async with request_permit, pace, session.get(url) as response:
                        if response.status == 403:
                            await asyncio.sleep(1)
                            continue
                        response.raise_for_status()
                        body = await response.read()
                    page = orjson.loads(body)
                    records = page["results" if api == "v2" else "tracking_activities"]
                    for record in records:
                        file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
                    rows += len(records)
                    link = _next_link(page)
        return rows

    headers = {"Authorization": "Bearer token", "Accept": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        return sum(await asyncio.gather(*(one(session, campaign) for campaign in ids)))


def _next_link(page: Any) -> str | None:
    if "meta" in page:
        found: str | None = page["meta"]["pagination"].get("next_link")
        return found
    return page["_links"]["next"]["href"] if "_links" in page else None


def _main() -> None:
    parser = contender_arguments(__doc__)
    parser.add_argument("--api", choices=["v2", "v3"], default="v2")
    parser.add_argument("--report", default="opens")
    parser.add_argument("--permit", choices=["campaign", "request"], default="campaign")
    parser.add_argument("--limiter", nargs=2, type=float)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    ids = Path(given.ids).read_text(encoding="ascii").split()
    watch = Stopwatch()
    limiter = AsyncLimiter(*given.limiter) if given.limiter else None
    rows = asyncio.run(
        harvest(
            given.base,
            ids,
            given.out,
            given.concurrency,
            api=given.api,
            report=given.report,
            per_request=given.permit == "request",
            limiter=limiter,
        )
    )
    watch.report(rows=rows)


if __name__ == "__main__":
    _main()
