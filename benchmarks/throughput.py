"""Without a pace: what does a page cost, beside the bare loop that guarantees nothing?

200 campaigns, 4,000 pages of 500 opens, heavy tail, 32 at once. harvester with its default
durability: checkpoints, ledger, strict reader, hashes, reports; and, to see where an aim can lie,
its wire, reader, hash and write alone (`bound.py`). Every file of every run is compared with what
was served.
"""

import shutil
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    Figure,
    Options,
    Run,
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

CPU_TARGET, WALL_TARGET = 0.9, 0.9
FLOOR, OURS = "bare loop", "harvester"
BOUND = "its wire, reader, hash and write"


def workload(options: Options) -> Workload:
    """The account."""
    return Workload(200, options.of(4_000, 1_200), options.of(300, 100))


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    load = workload(options)
    with scratch() as folder, Server(load) as server:
        ids = write_ids(folder, load.ids)
        common = ["--base", server.url, "--ids", ids]

        def plain(module: str) -> tuple[Run, dict[str, Any]]:
            out = folder / "plain"
            return _judged(server, load, out, module, *common, "--out", str(out))

        def ours() -> tuple[Run, dict[str, Any]]:
            out = folder / "harvester"
            arguments = [*common, *arguments_for(out)]
            found = _judged(server, load, out / "opens", "benchmarks.ours", *arguments)
            load.verify_manifest(out / "manifest.ndjson")
            shutil.rmtree(out)
            shutil.rmtree(folder / "state")
            return found

        runs = interleaved(
            {
                FLOOR: lambda number: plain("benchmarks.floor"),
                BOUND: lambda number: plain("benchmarks.bound"),
                OURS: lambda number: ours(),
            },
            options.runs,
        )
    return _figures(runs, load.pages)


def _judged(
    server: Server, load: Workload, files: Path, module: str, *arguments: str
) -> tuple[Run, dict[str, Any]]:
    """Run, look at what the server took, and at every byte that was written."""
    server.reset()
    run = run_contender(module, *arguments)
    stats = server.stats()
    load.verify(files)
    shutil.rmtree(files)
    return run, stats


def _figures(runs: dict[str, list[tuple[Run, dict[str, Any]]]], pages: int) -> list[Figure]:
    floors = runs[FLOOR]
    figures = []
    for what, get, unit, target in (
        ("CPU a page", lambda found: found[0].cpu / pages * 1e3, "ms", CPU_TARGET),
        ("wall", lambda found: found[0].wall, "s", WALL_TARGET),
    ):
        for name, own in runs.items():
            ratio = times(own, floors, get)
            bound = target if name == OURS else None
            figures.append(Figure(what, name, middle(own, get), unit, ratio, bound))
    for name, own in runs.items():
        share = middle(own, lambda found: found[1]["cpu"] / found[0].wall)
        figures.append(Figure("server's share of a core", name, share * 100, "%"))
    for name, own in runs.items():
        start = middle(own, lambda found: found[0].startup_cpu)
        figures.append(Figure("start-up CPU, not counted above", name, start, "s"))
    return figures
