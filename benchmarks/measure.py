"""Running contenders as processes of their own, and what comes of the figures."""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("aiohttp", "anyio", "aiolimiter", "msgspec", "orjson", "yarl", "multidict")
_TIMEOUT = 240.0  # s: no contender may take longer


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    runs: int = 5
    quick: bool = False

    def of(self, full: int, quick: int) -> int:
        """A size: the full one or the quick one."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """One line of the table: a median, what it is over the floor's, and what it should be.

    `target` is a bound of `ratio` if there is a ratio, else of `value`.
    """

    what: str
    contender: str
    value: float
    unit: str
    ratio: float | None = None
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        if self.target is None:
            return None
        return (self.value if self.ratio is None else self.ratio) <= self.target

    def plain(self) -> dict[str, Any]:
        """The figure for `--json`."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Run:
    """What one contender's process took: work alone (`wall`, `cpu`), and all of it.

    `startup_cpu` is what the interpreter and the imports took before the work; `peak_mb` is the
    largest resident set.
    """

    wall: float
    cpu: float
    startup_cpu: float
    peak_mb: float
    started: float
    said: dict[str, Any]


class ContenderFailed(Exception):
    """A contender ended badly: there is nothing to compare."""


def run_contender(
    module: str, *arguments: str, python: str = sys.executable, env: dict[str, str] | None = None
) -> Run:
    """Run `python -m module` to its end; its last line of output is what `report` wrote."""
    started = time.monotonic()
    process = subprocess.Popen(
        [python, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
    )
    timer = threading.Timer(_TIMEOUT, process.kill)
    timer.start()
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    complaints: list[bytes] = []
    listener = threading.Thread(target=lambda: complaints.append(process.stderr.read()))
    listener.start()
    output = process.stdout.read()
    listener.join()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or not output.strip():
        text = b"".join(complaints).decode(errors="replace").strip().splitlines()[-3:]
        raise ContenderFailed(f"{module} ended with {process.returncode}: {' | '.join(text)}")
    said = json.loads(output.splitlines()[-1])
    whole = usage.ru_utime + usage.ru_stime
    return Run(
        wall=said["wall"],
        cpu=said["cpu"],
        startup_cpu=whole - said["cpu"],
        peak_mb=said["peak_mb"],
        started=started,
        said=said,
    )


def cpu_until(happened: Callable[[], bool], module: str, *arguments: str) -> float:
    """Kill `python -m module` once `happened()`; give the CPU it took until then (s)."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
    )
    deadline = time.monotonic() + _TIMEOUT
    while not happened():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise ContenderFailed(f"{module}: it did not happen")
        time.sleep(0.01)
    process.kill()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = -9
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """Inside a contender: begins after the imports, and `report`s when the work is done."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def report(self, **facts: object) -> None:
        """Tell the benchmark, on standard output."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak_mb(), **facts}))


def peak_mb() -> float:
    """The largest resident set of this process (MB).

    Where there is VmHWM it is taken: `ru_maxrss` outlives an exec, so it would tell the size of
    the process that started us if that is larger.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1024)


def interleaved(contenders: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, list[Any]]:
    """Run every contender once a round, so that a busy minute of the machine meets them all.

    The order is reversed each time, so that no contender always follows the same one.
    """
    found: dict[str, list[Any]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders.items())
        for name, run in order if number % 2 == 0 else reversed(order):
            found[name].append(run(number))
    return found


def middle(runs: Sequence[Any], get: Callable[[Any], float]) -> float:
    """The median of a figure."""
    return median(get(run) for run in runs)


def times(runs: Sequence[Any], floors: Sequence[Any], get: Callable[[Any], float]) -> float:
    """The median of a figure over the floor's figure of the same round."""
    return median(get(run) / get(floor) for run, floor in zip(runs, floors, strict=True))


@contextmanager
def scratch(parent: str | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="harvester-benchmark-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_ids(folder: Path, ids: Sequence[str]) -> str:
    """The ids as a file, one a line."""
    path = folder / "ids.txt"
    path.write_text("".join(f"{name}\n" for name in ids), encoding="ascii")
    return str(path)


def contender_arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line that all contenders share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=32)
    return parser


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: installed(name) for name in ("harvester", *PACKAGES)},
    }


def installed(package: str) -> str | None:
    """The version of a package; None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
