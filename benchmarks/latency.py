"""50 ms away and 32 walkers: how near does the makespan come to the least there can be?

2,000 pages, the longest campaign 60. No order of requests can beat
max(pages / walkers, longest campaign) x latency. Every round has another order of the ids, for
the luck of one order is not a figure. Sizes are known by `sizes`, the manifest of an earlier run
of the same campaigns. The pages are small: waiting is measured here, not work.
The sizes are Zipf's, capped at the longest: several giants, many dwarfs. Where they fall slowly
from a single giant, no order helps that does not know them (see README.md).
"""

import shutil

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

LATENCY, WALKERS = 0.05, 32
UNKNOWN_TARGET, KNOWN_TARGET = 1.45, 1.10
FLOOR = "bare loop"
OURS, KNOWN = "harvester, sizes unknown", "harvester, sizes known"


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    load = Workload(200, options.of(2_000, 1_000), options.of(60, 30), rows=50)
    bound = max(load.pages / WALKERS, load.longest) * LATENCY
    with scratch() as folder, Server(load, "--latency", str(LATENCY)) as server:
        earlier = folder / "earlier.ndjson"

        def floor(number: int) -> Run:
            out = folder / "floor"
            ids = write_ids(folder, load.shuffled(number))
            arguments = ["--base", server.url, "--ids", ids, "--out", str(out)]
            run = run_contender("benchmarks.floor", *arguments)
            load.verify(out)
            shutil.rmtree(out)
            return run

        def ours(number: int, **settings: object) -> Run:
            out = folder / "harvester"
            ids = write_ids(folder, load.shuffled(number))
            flags = ["--base", server.url, "--ids", ids, *arguments_for(out, **settings)]
            run = run_contender("benchmarks.ours", *flags)
            load.verify(out / "opens")
            (out / "manifest.ndjson").replace(earlier)
            shutil.rmtree(out)
            shutil.rmtree(folder / "state")
            return run

        runs = interleaved(
            {
                FLOOR: floor,
                OURS: ours,
                KNOWN: lambda number: ours(number, sizes=str(earlier)),
            },
            options.runs,
        )
    targets = {OURS: UNKNOWN_TARGET, KNOWN: KNOWN_TARGET}
    return [
        *(
            Figure(
                f"makespan over the bound of {bound:.2f} s",
                name,
                middle(own, lambda run: run.wall) / bound,
                "x",
                target=targets.get(name),
            )
            for name, own in runs.items()
        ),
        *(
            Figure(
                "makespan",
                name,
                middle(own, lambda run: run.wall),
                "s",
                times(own, runs[FLOOR], lambda run: run.wall),
            )
            for name, own in runs.items()
        ),
    ]
