"""gzip: what does unpacking cost, and on which line is it worth that?

The same pages plain and packed (by the server, beforehand). `read_body` inflates with zlib, the
end of the stream and its CRC checked. What a line of a given speed needs for a page is reckoned
from the bytes that were on the wire.
"""

import shutil
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

TARGET = 1.3
_LINE = 10e6  # bit/s
PLAIN, PACKED = "plain", "gzip"


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    load = Workload(50, options.of(800, 300), options.of(80, 40))
    with scratch() as folder, Server(load) as plain, Server(load, "--gzip") as packed:

        def one(server: Server, module: str) -> tuple[Run, dict[str, Any]]:
            out = folder / "out"
            flags = ["--base", server.url, "--ids", write_ids(folder, load.ids)]
            ours = module == "benchmarks.ours"
            flags += arguments_for(out) if ours else ["--out", str(out)]
            server.reset()
            run = run_contender(module, *flags)
            load.verify(out / "opens" if ours else out)
            shutil.rmtree(out)
            shutil.rmtree(folder / "state", ignore_errors=True)
            return run, server.stats()

        contenders = {
            (name, answers): lambda number, server=server, module=module: one(server, module)
            for name, module in (
                ("bare loop", "benchmarks.floor"),
                ("harvester", "benchmarks.ours"),
            )
            for answers, server in ((PLAIN, plain), (PACKED, packed))
        }
        runs = interleaved({repr(key): run for key, run in contenders.items()}, options.runs)
    figures, cpu, wire = [], {}, {}
    for name in ("bare loop", "harvester"):
        for answers in (PLAIN, PACKED):
            own, base = runs[repr((name, answers))], runs[repr((name, PLAIN))]
            cpu[answers] = middle(own, lambda found: found[0].cpu / load.pages)
            wire[answers] = middle(own, lambda found: found[1]["bytes"] / load.pages)
            figures.append(
                Figure(
                    "CPU a page, over plain",
                    f"{name}, {answers}",
                    cpu[answers] * 1e3,
                    "ms",
                    times(own, base, lambda found: found[0].cpu),
                    TARGET if (name, answers) == ("harvester", PACKED) else None,
                )
            )
    for answers in (PLAIN, PACKED):
        seconds = wire[answers] * 8 / _LINE
        note = f"{wire[answers] / 1e3:.1f} kB a page"
        figures.append(
            Figure("a page on a 10 Mbit/s line", answers, seconds * 1e3, "ms", note=note)
        )
    extra = cpu[PACKED] - cpu[PLAIN]
    if extra > 0:
        even = (wire[PLAIN] - wire[PACKED]) * 8 / extra / 1e6
        figures.append(Figure("gzip pays on a line slower than", "harvester", even, "Mbit/s"))
    return figures
