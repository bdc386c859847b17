"""Memory: does it stay flat, with pages and with campaigns?

The peak resident set of a fresh process each: one campaign of 2,000 pages and one of 500, 32
walkers on big pages, 100,000 campaigns of one small page, through the command line as a user
would. One run each, two at a time: a peak does not depend on what else the machine does. The
harvest of 100,000 goes to memory (/dev/shm) where there is room, for the disk is not the question.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measure import Figure, Options, Run, run_contender, scratch, write_ids
from benchmarks.ours import arguments_for
from benchmarks.server import Server
from benchmarks.workload import Workload

WALKERS_TARGET, CAMPAIGNS_TARGET = 60.0, 150.0
FLOOR, OURS = "bare loop", "harvester run"
_ROOM = 2 << 30


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    long, short = options.of(2_000, 400), options.of(500, 100)
    many = options.of(100_000, 5_000)
    loads = (
        (f"{many:,} campaigns of a page", Workload(many, many, 1, rows=3), CAMPAIGNS_TARGET),
        (f"one campaign of {short:,} pages", Workload(1, short, short), WALKERS_TARGET),
        (f"one campaign of {long:,} pages", Workload(1, long, long), WALKERS_TARGET),
        ("32 walkers", Workload(64, options.of(1_000, 400), 60), WALKERS_TARGET),
    )
    figures = []
    with ThreadPoolExecutor(2) as pool:  # the longest begins
        found = pool.map(_both, (load for _, load, _ in loads))
    for (what, _, target), (floor, ours) in zip(loads, found, strict=True):
        what = f"peak memory, {what}"
        note = f"{ours.peak_mb / floor.peak_mb:.2f} x the bare loop"
        figures += [
            Figure(what, FLOOR, floor.peak_mb, "MB"),
            Figure(what, OURS, ours.peak_mb, "MB", target=target, note=note),
        ]
    return figures


def _both(load: Workload) -> tuple[Run, Run]:
    with scratch(_place(load)) as folder, Server(load) as server:
        common = ["--base", server.url, "--ids", write_ids(folder, load.ids)]
        out = folder / "out"
        floor = run_contender("benchmarks.floor", *common, "--out", str(out))
        load.verify(out)
        shutil.rmtree(out)
        arguments = arguments_for(out, cli=True, daily_quota=0)
        ours = run_contender("benchmarks.ours", *common, *arguments)
        load.verify(out / "opens")
        load.verify_manifest(out / "manifest.ndjson")
    return floor, ours


def _place(load: Workload) -> str | None:
    shared = Path("/dev/shm")  # noqa: S108
    if load.campaigns < 1_000 or not shared.is_dir():
        return None
    room = os.statvfs(shared)
    return str(shared) if room.f_bavail * room.f_frsize > _ROOM else None
