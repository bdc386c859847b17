"""The floor: the loop one writes in an afternoon, to be measured against.

aiohttp, orjson, a semaphore. No checkpoint, no retry, no report, no hash, and a file that a kill
cut short looks like any other. `--permit request` takes the semaphore for each request instead of
for each campaign; `--limiter N PERIOD` paces with aiolimiter, and waits a second when refused.
"""

import asyncio
import contextlib
from pathlib import Path

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
    per_request: bool = False,
    limiter: AsyncLimiter | None = None,
) -> int:
    """Harvest every campaign; give the rows."""
    semaphore = asyncio.Semaphore(concurrency)
    campaign_permit = contextlib.nullcontext() if per_request else semaphore
    request_permit = semaphore if per_request else contextlib.nullcontext()
    pace = limiter or contextlib.nullcontext()

    async def one(session: aiohttp.ClientSession, campaign: str) -> int:
        rows = 0
        link = f"/v2/emailmarketing/campaigns/{campaign}/tracking/opens?limit=500"
        async with campaign_permit:
            with (out / f"{campaign}.ndjson").open("wb") as file:
                while link:
                    url = f"{base}{link}&api_key=key"
                    async with request_permit, pace, session.get(url) as response:
                        if response.status == 403:
                            await asyncio.sleep(1)
                            continue
                        response.raise_for_status()
                        body = await response.read()
                    page = orjson.loads(body)
                    for record in page["results"]:
                        file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
                    rows += len(page["results"])
                    link = page["meta"]["pagination"].get("next_link")
        return rows

    headers = {"Authorization": "Bearer token", "Accept": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        return sum(await asyncio.gather(*(one(session, campaign) for campaign in ids)))


def _main() -> None:
    parser = contender_arguments(__doc__)
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
            per_request=given.permit == "request",
            limiter=limiter,
        )
    )
    watch.report(rows=rows)


if __name__ == "__main__":
    _main()
