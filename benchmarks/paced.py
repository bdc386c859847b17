"""Under a pace: how much longer than requests x spacing, and does the server ever refuse?

A rate of 40/s against three readings of "40 a second" (a bucket, fixed windows, a sliding log),
and the default pace against the API's 4 a second, all by the server's own watch: from the first
arrival to one spacing after the last. Pacing is waiting, so the three judges are asked side by
side, and three rounds are nine courses. The bare loop has aiolimiter, as one first writes it and
as one writes it later.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    Figure,
    Options,
    interleaved,
    middle,
    run_contender,
    scratch,
    write_ids,
)
from benchmarks.ours import arguments_for
from benchmarks.server import Server
from benchmarks.workload import Workload
from harvester import HarvestConfig

FAST, FAST_TARGET, DEFAULT_TARGET = 40, 1.08, 1.02
API_RATE = 4
JUDGES = ("bucket", "window", "sliding")
NAIVE, EVEN, OURS = (
    "bare loop, AsyncLimiter(40, 1)",
    "bare loop, AsyncLimiter(1, .025)",
    "harvester",
)


@dataclass(frozen=True)
class Course:
    """What a judge saw of one run."""

    over: float
    refused: int


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    return [*_fast(options), *_many(options), *_default(options)]


def _fast(options: Options) -> list[Figure]:
    """A giant of 30 pages among campaigns of one page."""
    pages = options.of(120, 80)
    load = Workload(pages - 29, pages, 30, rows=20)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(scratch()))
        servers = _servers(stack, load, FAST)

        def course(judge: str, name: str, make: Callable[[Path], list[str]]) -> Course:
            return _course(servers[judge], folder / f"{judge}-{name}", load, FAST, make)

        def contender(name: str, make: Callable[[Path], list[str]]) -> Callable[[int], Any]:
            def all_judges(number: int) -> dict[str, Course]:
                with ThreadPoolExecutor(len(JUDGES)) as pool:
                    found = pool.map(lambda judge: course(judge, name, make), JUDGES)
                    return dict(zip(JUDGES, found, strict=True))

            return all_judges

        runs = interleaved(
            {
                NAIVE: contender("naive", lambda out: _floor(out, FAST, 1.0)),
                EVEN: contender("even", lambda out: _floor(out, 1, 1 / FAST)),
                OURS: contender("ours", lambda out: _ours(out, rate=FAST)),
            },
            min(options.runs, 3),  # each of them three judges
        )
    figures = []
    for judge in JUDGES:
        courses = {name: [run[judge] for run in own] for name, own in runs.items()}
        figures += _figures(f"{FAST}/s, {judge}", courses, FAST_TARGET)
    return figures


def _many(options: Options) -> list[Figure]:
    """Thousands of campaigns with a page each, as fast as they are over soon: any refusal?"""
    rate = 400
    count = options.of(2_000, 800)
    load = Workload(count + 1, count + 100, 100, rows=5)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(scratch()))
        server = stack.enter_context(_judging(load, "sliding", rate))
        course = _course(server, folder / "many", load, rate, lambda out: _ours(out, rate=rate))
    return _figures(f"{rate}/s, {count:,} campaigns, sliding", {OURS: [course]}, None)


def _default(options: Options) -> list[Figure]:
    """The default pace, against the limit that the API tells."""
    load = Workload(options.of(16, 8), options.of(24, 12), options.of(9, 5), rows=20)
    rate = HarvestConfig().rate
    with ExitStack() as stack:
        folder = Path(stack.enter_context(scratch()))
        servers = _servers(stack, load, API_RATE)
        with ThreadPoolExecutor(len(JUDGES)) as pool:
            found = pool.map(
                lambda judge: _course(
                    servers[judge], folder / judge, load, rate, lambda out: _ours(out, rate=rate)
                ),
                JUDGES,
            )
            courses = dict(zip(JUDGES, found, strict=True))
    figures = []
    for judge, course in courses.items():
        what = f"default pace, {judge} of {API_RATE}/s"
        figures += _figures(what, {OURS: [course]}, DEFAULT_TARGET)
    return figures


def _servers(stack: ExitStack, load: Workload, rate: float) -> dict[str, Server]:
    return {judge: stack.enter_context(_judging(load, judge, rate)) for judge in JUDGES}


def _judging(load: Workload, judge: str, rate: float) -> Server:
    return Server(load, "--judge", judge, "--judge-rate", str(rate))


def _floor(out: Path, count: float, period: float) -> list[str]:
    return ["benchmarks.floor", "--out", str(out / "files"), "--limiter", str(count), str(period)]


def _ours(out: Path, **settings: object) -> list[str]:
    return ["benchmarks.ours", *arguments_for(out / "files", **settings)]


def _course(
    server: Server, out: Path, load: Workload, rate: float, make: Callable[[Path], list[str]]
) -> Course:
    out.mkdir(parents=True)
    module, *arguments = make(out)
    server.reset()
    run_contender(module, "--base", server.url, "--ids", write_ids(out, load.ids), *arguments)
    stats = server.stats()
    files = out / "files"
    load.verify(files / "opens" if (files / "opens").is_dir() else files)
    shutil.rmtree(out)
    return Course((stats["last"] - stats["first"] + 1 / rate) * rate / load.pages, stats["refused"])


def _figures(what: str, courses: dict[str, list[Course]], target: float | None) -> list[Figure]:
    """Makespans, with the most refusals of any run beside them, and ours of all runs."""
    figures = [
        Figure(
            f"makespan over the ideal, {what}",
            name,
            middle(own, lambda course: course.over),
            "x",
            target=target if name == OURS else None,
            note=f"refused: {max(course.refused for course in own)}",
        )
        for name, own in courses.items()
    ]
    refused = sum(course.refused for course in courses[OURS])
    return [*figures, Figure(f"refusals in all runs, {what}", OURS, refused, "", target=0)]
