"""Many keys in one process: how many does one core carry at the API's pace?

Each key harvests with its own directory and day's count, 3.3 requests a second, pages of 500 rows,
an API that is 50 ms away; durable commits, as always at this pace. Twice as many keys each time,
until the pace slips: from the moment when every key has its first page the requests of each key
are counted, over the requests that its pace allows. Run as a program it is such a process.
"""

import argparse
import asyncio
import time
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import (
    Figure,
    Options,
    Run,
    Stopwatch,
    contender_arguments,
    run_contender,
    scratch,
    write_ids,
)
from benchmarks.server import Server
from benchmarks.workload import Workload
from harvester import HarvestConfig, harvest
from harvester.events import PageCommitted
from harvester.runtime import raise_open_files

LATENCY = 0.05
SLIPS = 0.98
"""Of the pace that was asked for."""
OURS = "harvester"


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    # More pages than any key can ask for meanwhile.
    load = Workload(10, 400, 80)
    figures, smallest = [], None
    for keys in (2, 8) if options.quick else (1, 25, 50, 100, 200, 400, 800):
        with scratch() as folder, Server(load, "--latency", str(LATENCY)) as server:
            server.reset()
            run = run_contender(
                "benchmarks.many_keys",
                *("--base", server.url, "--ids", write_ids(folder, load.ids)),
                *("--out", str(folder / "out"), "--keys", str(keys)),
                *("--seconds", str(options.of(15, 4))),
            )
        smallest = smallest or (keys, run)
        figures += _figures(keys, run, smallest)
        if run.said["slowest"] < SLIPS:
            break
    return figures


def _figures(keys: int, run: Run, smallest: tuple[int, Run]) -> list[Figure]:
    what, said = f"{keys} keys in one process", run.said
    fewer, base = smallest
    found = [
        Figure(f"{what}: pace of the slowest key", OURS, said["slowest"] * 100, "%"),
        Figure(f"{what}: pace of the median key", OURS, said["median"] * 100, "%"),
        Figure(f"{what}: share of a core", OURS, said["core"] * 100, "%"),
    ]
    if keys > fewer:
        each = (run.peak_mb - base.peak_mb) / (keys - fewer)
        found.append(Figure(f"{what}: memory of a key", OURS, each, "MB"))
    return found


async def _harvest_all(given: argparse.Namespace, ids: list[str]) -> dict[str, Any]:
    """Harvest with every key at once; what came in the time after all had begun."""
    pages: Counter[int] = Counter()
    begun = asyncio.Event()

    def observe(key: int, event: object) -> None:
        if isinstance(event, PageCommitted):
            pages[key] += 1
            if len(pages) == given.keys:
                begun.set()

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(harvest(ids, config, observe=partial(observe, key)))
            for key, config in enumerate(_configs(given))
        ]
        await begun.wait()
        await asyncio.sleep(1)  # the files of all are open, the last ones are at their pace
        pages.clear()
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(given.seconds)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        rate = HarvestConfig().rate * took
        # A page is in flight at either end.
        paces = [min(1.0, (pages[key] + 1) / rate) for key in range(given.keys)]
        for task in tasks:
            task.cancel()
    return {"slowest": min(paces), "median": median(paces), "core": cpu / took}


def _configs(given: argparse.Namespace) -> list[HarvestConfig]:
    return [
        HarvestConfig(
            api_key=f"key-{key}",
            access_token="token",  # noqa: S106
            base_url=given.base,
            output=given.out / str(key),
            state_dir=given.out / "state",
            concurrency=2,
        )
        for key in range(given.keys)
    ]


def _main() -> None:
    parser = contender_arguments(__doc__)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    raise_open_files(100 + 40 * given.keys)
    ids = Path(given.ids).read_text(encoding="ascii").split()
    watch = Stopwatch()
    watch.report(**asyncio.run(_harvest_all(given, ids)))


if __name__ == "__main__":
    _main()
