"""The peers, where they are installed: CPU and wall on a tenth of the work, beside the bare loop.

httpx, requests in threads, Scrapy and dlt, each as its documentation shows it, none with the
checks and checkpoints of a harvest. What is not installed is left out, with a note.

    python -m pip install httpx requests scrapy dlt
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    Figure,
    Options,
    Run,
    Stopwatch,
    contender_arguments,
    installed,
    interleaved,
    middle,
    run_contender,
    scratch,
    times,
    write_ids,
)
from benchmarks.ours import arguments_for
from benchmarks.server import Server
from benchmarks.workload import Workload

_PEERS = {
    "requests": "requests in threads",
    "httpx": "httpx",
    "scrapy": "Scrapy",
    "dlt": "dlt RESTClient",
}
FLOOR, OURS = "bare loop", "harvester"
_AUTH = {"Authorization": "Bearer token"}


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    load = Workload(20, options.of(400, 120), options.of(60, 20))
    with scratch() as folder, Server(load) as server:
        common = ["--base", server.url, "--ids", write_ids(folder, load.ids)]

        def one(module: str, *flags: str) -> Run:
            out = folder / "out"
            run = run_contender(module, *common, *(flags or ["--out", str(out)]))
            load.verify(out / "opens" if flags and module == "benchmarks.ours" else out)
            shutil.rmtree(folder / "state", ignore_errors=True)
            shutil.rmtree(out)
            return run

        out = str(folder / "out")
        runs: dict[str, Callable[[int], Any]] = {
            FLOOR: lambda number: one("benchmarks.floor"),
            OURS: lambda number: one("benchmarks.ours", *arguments_for(folder / "out")),
        }
        missing = []
        for package, name in _PEERS.items():
            if installed(package) is None:
                missing.append(package)
                continue
            runs[f"{name} {installed(package)}"] = lambda number, package=package: one(
                "benchmarks.contenders", "--out", out, "--peer", package
            )
        if missing:
            print(f"contenders: not installed, left out: {', '.join(missing)}", file=sys.stderr)
        if len(missing) == len(_PEERS):
            return []
        found = interleaved(runs, min(options.runs, 3))
    return [
        Figure(
            what,
            name,
            middle(own, get) * factor,
            unit,
            times(own, found[FLOOR], get),
        )
        for what, get, unit, factor in (
            ("CPU a page, start-up left out", lambda run: run.cpu, "ms", 1e3 / load.pages),
            ("start-up and work, CPU", lambda run: run.cpu + run.startup_cpu, "s", 1.0),
            ("wall", lambda run: run.wall, "s", 1.0),
        )
        for name, own in found.items()
    ]


def _first(base: str, campaign: str) -> str:
    return f"{base}/v2/emailmarketing/campaigns/{campaign}/tracking/opens?limit=500&api_key=key"


def _next(base: str, page: Any) -> str | None:
    link = page["meta"]["pagination"].get("next_link")
    return f"{base}{link}&api_key=key" if link else None


def _line(record: object) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"


def _requests(base: str, ids: list[str], out: Path, concurrency: int) -> None:
    import threading

    import requests

    local = threading.local()

    def walk(campaign: str) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.headers.update(_AUTH)
        url: str | None = _first(base, campaign)
        with (out / f"{campaign}.ndjson").open("w", encoding="utf-8") as file:
            while url:
                response = local.session.get(url, timeout=60)
                response.raise_for_status()
                page = response.json()
                file.writelines(_line(record) for record in page["results"])
                url = _next(base, page)

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(walk, ids))


def _httpx(base: str, ids: list[str], out: Path, concurrency: int) -> None:
    import httpx

    async def walk(client: httpx.AsyncClient, permit: asyncio.Semaphore, campaign: str) -> None:
        url: str | None = _first(base, campaign)
        async with permit:
            with (out / f"{campaign}.ndjson").open("w", encoding="utf-8") as file:
                while url:
                    response = await client.get(url)
                    response.raise_for_status()
                    page = response.json()
                    file.writelines(_line(record) for record in page["results"])
                    url = _next(base, page)

    async def everything() -> None:
        permit = asyncio.Semaphore(concurrency)
        async with httpx.AsyncClient(headers=_AUTH, timeout=60) as client:
            await asyncio.gather(*(walk(client, permit, campaign) for campaign in ids))

    asyncio.run(everything())


def _scrapy(base: str, ids: list[str], out: Path, concurrency: int) -> None:
    import scrapy
    from scrapy.crawler import CrawlerProcess

    class Opens(scrapy.Spider):
        name = "opens"

        async def start(self) -> Any:
            for campaign in ids:
                yield scrapy.Request(
                    _first(base, campaign), headers=_AUTH, cb_kwargs={"campaign": campaign}
                )

        def parse(self, response: Any, campaign: str) -> Iterator[Any]:
            page = json.loads(response.body)
            yield from page["results"]
            if url := _next(base, page):
                yield scrapy.Request(url, headers=_AUTH, cb_kwargs={"campaign": campaign})

    class Files:
        def open_spider(self) -> None:
            self.files: dict[str, Any] = {}

        def process_item(self, item: Any) -> Any:
            campaign = item["campaign_id"]
            if campaign not in self.files:
                self.files[campaign] = (out / f"{campaign}.ndjson").open("w", encoding="utf-8")
            self.files[campaign].write(_line(item))
            return item

        def close_spider(self) -> None:
            for file in self.files.values():
                file.close()

    process = CrawlerProcess(
        {
            "CONCURRENT_REQUESTS": concurrency,
            "CONCURRENT_REQUESTS_PER_DOMAIN": concurrency,
            "DOWNLOAD_DELAY": 0,
            "LOG_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "ITEM_PIPELINES": {Files: 1},
        }
    )
    process.crawl(Opens)
    process.start()


def _dlt(base: str, ids: list[str], out: Path, concurrency: int) -> None:
    from dlt.sources.helpers.rest_client import RESTClient
    from dlt.sources.helpers.rest_client.paginators import JSONLinkPaginator

    def walk(campaign: str) -> None:
        client = RESTClient(
            base_url=base,
            headers=_AUTH,
            paginator=JSONLinkPaginator(next_url_path="meta.pagination.next_link"),
            data_selector="results",
        )
        path = f"/v2/emailmarketing/campaigns/{campaign}/tracking/opens"
        params = {"limit": 500, "api_key": "key"}
        with (out / f"{campaign}.ndjson").open("w", encoding="utf-8") as file:
            for page in client.paginate(path, params=params):
                file.writelines(_line(record) for record in page)

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(walk, ids))


def _main() -> None:
    parser = contender_arguments(__doc__)
    parser.add_argument("--peer", choices=list(_PEERS), required=True)
    given = parser.parse_args()
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    given.out.mkdir(parents=True)
    ids = Path(given.ids).read_text(encoding="ascii").split()
    __import__("dlt.sources.helpers.rest_client" if given.peer == "dlt" else given.peer)
    watch = Stopwatch()
    run = {"requests": _requests, "httpx": _httpx, "scrapy": _scrapy, "dlt": _dlt}[given.peer]
    run(given.base, ids, given.out, given.concurrency)
    watch.report()


if __name__ == "__main__":
    _main()
