"""Rows as they are: what does each kind of row and of campaign cost, beside the bare loop?

Without a pace, 32 at once, every guarantee on, 4,000 pages: opens with no blank in any row; v3 rows
with names, escapes and letters that are not ASCII; bounces with messages; indented answers; gzip;
and thousands of campaigns of one page. Each is a contender pair of one run, and every file is
compared with what was served: harvester's to the byte, the bare loop's by value, for orjson spells
rows anew.
"""

import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

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
from benchmarks.rows import MIXES
from benchmarks.server import Server
from benchmarks.workload import Workload

TARGET, CAMPAIGNS_TARGET = 0.9, 1.5
FLOOR, OURS = "bare loop", "harvester"


def measure(options: Options) -> list[Figure]:
    """The table's lines, the mix with the worst ratio of CPU first."""
    pages, longest = options.of(4_000, 400), options.of(300, 40)
    found = []
    for name, mix in MIXES.items():
        load = Workload(100, pages, longest, mix=name)
        found.append(_pair(options, mix.about, load, TARGET))
    found.append(_pair(options, "v2 opens, gzip", Workload(100, pages, longest), TARGET, "--gzip"))
    many = options.of(2_000, 300)
    about = f"{many:,} campaigns of one page"
    found.append(_pair(options, about, Workload(many, many, 1), CAMPAIGNS_TARGET))
    found.sort(key=_worst_ratio, reverse=True)
    return [figure for figures in found for figure in figures]


def _worst_ratio(figures: list[Figure]) -> float:
    return max(figure.ratio or 0.0 for figure in figures if figure.target is not None)


def _pair(options: Options, about: str, load: Workload, target: float, *flags: str) -> list[Figure]:
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        server = stack.enter_context(Server(load, *flags))
        common = ["--base", server.url, "--ids", write_ids(folder, load.ids)]
        runs = interleaved(
            {
                FLOOR: partial(_floor, load, folder, common),
                OURS: partial(_ours, load, folder, common),
            },
            options.runs,
        )
    figures = []
    for what, get, unit in (
        ("CPU a page", lambda run: run.cpu / load.pages * 1e3, "ms"),
        ("wall", lambda run: run.wall, "s"),
        ("CPU, start-up included", lambda run: run.cpu + run.startup_cpu, "s"),
    ):
        for name, own in runs.items():
            ratio = times(own, runs[FLOOR], get)
            bound = target if name == OURS else None
            figures.append(Figure(f"{about}: {what}", name, middle(own, get), unit, ratio, bound))
    return figures


def _floor(load: Workload, folder: Path, common: list[str], number: int) -> Run:
    out = folder / "floor"
    kind = ["--api", load.kind.api, "--report", load.kind.report]
    run = run_contender("benchmarks.floor", *common, *kind, "--out", str(out))
    load.verify_values(out)
    shutil.rmtree(out)
    return run


def _ours(load: Workload, folder: Path, common: list[str], number: int) -> Run:
    out = folder / "harvester"
    # The loop asks for no counts: the same requests are compared.
    settings = arguments_for(out, api=load.kind.api, report=load.kind.report, counts=False)
    run = run_contender("benchmarks.ours", *common, *settings)
    load.verify(out / load.kind.report)
    load.verify_manifest(out / "manifest.ndjson")
    shutil.rmtree(out)
    shutil.rmtree(folder / "state")
    return run
