"""The wire, our reader, a hash and a write a page: what no promise on top of them can be below.

harvester's own fetcher, page reader and part file, and nothing else of it: no checkpoint, no
ledger, no permit, no retry, no report, and nothing is synced. A contender, not a tool.
"""

import asyncio
from functools import partial
from pathlib import Path

from benchmarks.measure import Stopwatch, contender_arguments
from harvester.api.v2 import V2
from harvester.disk.part import PartFile
from harvester.model import Request, Target
from harvester.request.credentials import Credentials, FixedToken
from harvester.request.http import HttpSender, open_session


async def harvest(base: str, ids: list[str], out: Path, concurrency: int) -> int:
    """Harvest every campaign; give the rows."""
    api, todo, rows = V2(base), iter(ids), 0
    session = open_session(connections=concurrency, timeout=60.0)
    credentials = Credentials("key", FixedToken("token"))
    await credentials.open()
    sender = HttpSender(session, api, credentials, max_page_bytes=1 << 28)

    async def walker() -> None:
        nonlocal rows
        for campaign in todo:
            target = Target("opens", campaign)
            part = PartFile(out / f"{campaign}.ndjson")
            link: str | None = api.first_link(target, limit=500, since=None)
            while link:
                request = Request(target, link, partial(api.read_page, target, link))
                page = request.read(await sender.send(request))
                part.append(page.ndjson)
                rows += page.rows
                link = page.next
            part.close()

    async with session, asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(walker())
    return rows


def _main() -> None:
    given = contender_arguments(__doc__).parse_args()
    given.out.mkdir(parents=True)
    ids = Path(given.ids).read_text(encoding="ascii").split()
    watch = Stopwatch()
    watch.report(rows=asyncio.run(harvest(given.base, ids, given.out, given.concurrency)))


if __name__ == "__main__":
    _main()
