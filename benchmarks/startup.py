"""Start-up: how long until `harvester --version` has spoken, and until the first request is out?

From the start of the process to its end, or to the arrival of its first request at the server; and
the CPU it took until then, imports included. The run keeps its usual pace, and is durable.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import (
    ROOT,
    Figure,
    Options,
    cpu_until,
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

VERSION_TARGET, CPU_TARGET = 150.0, 1.3
_LONG = 60.0  # s that the server takes to answer, so that nothing comes after the first request
FLOOR, OURS = "bare loop", "harvester run"


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    return [*_version(options), *_first_request(options), *_cpu(options)]


def _command(out: Path) -> list[str]:
    """The command at its own pace, each commit durable, as a person runs it."""
    return arguments_for(out, cli=True, rate=3.3)


def _version(options: Options) -> list[Figure]:
    commands = {
        "python -c pass": ["-c", "pass"],
        "import aiohttp, orjson": ["-c", "import aiohttp, orjson"],
        "harvester --version": ["-m", "harvester", "--version"],
    }
    runs = interleaved(
        {name: lambda number, own=own: _timed(own) for name, own in commands.items()},
        2 * options.runs,
    )
    return [
        Figure(
            "start to end",
            name,
            middle(own, float),
            "ms",
            target=VERSION_TARGET if "version" in name else None,
        )
        for name, own in runs.items()
    ]


def _timed(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def _first_request(options: Options) -> list[Figure]:
    load = Workload(1, 1, 1, rows=3)
    with scratch() as folder, Server(load) as server:
        common = ["--base", server.url, "--ids", write_ids(folder, load.ids)]

        def until_first(module: str, make: Callable[[Path], list[str]]) -> float:
            out = folder / "out"
            server.reset()
            run = run_contender(module, *common, *make(out))
            shutil.rmtree(out)
            first: float = server.stats()["first"]
            return (first - run.started) * 1e3

        def floor(number: int) -> float:
            return until_first("benchmarks.floor", lambda out: ["--out", str(out)])

        def ours(number: int) -> float:
            return until_first("benchmarks.ours", _command)

        runs = interleaved({FLOOR: floor, OURS: ours}, options.runs)
    return [
        Figure(
            "start to first request",
            name,
            middle(own, float),
            "ms",
            times(own, runs[FLOOR], float),
        )
        for name, own in runs.items()
    ]


def _cpu(options: Options) -> list[Figure]:
    load = Workload(1, 1, 1, rows=3)
    with scratch() as folder, Server(load, "--latency", str(_LONG)) as server:
        common = ["--base", server.url, "--ids", write_ids(folder, load.ids)]

        def until_first(module: str, make: Callable[[Path], list[str]]) -> float:
            out = folder / "out"
            server.reset()
            arguments = [*common, *make(out)]
            cpu = cpu_until(lambda: bool(server.stats()["requests"]), module, *arguments)
            shutil.rmtree(out)
            return cpu * 1e3

        runs = interleaved(
            {
                FLOOR: lambda number: until_first(
                    "benchmarks.floor", lambda out: ["--out", str(out)]
                ),
                OURS: lambda number: until_first("benchmarks.ours", _command),
            },
            2 * options.runs,
        )
    return [
        Figure(
            "CPU to the first request",
            name,
            middle(own, float),
            "ms",
            times(own, runs[FLOOR], float),
            CPU_TARGET if name == OURS else None,
        )
        for name, own in runs.items()
    ]
