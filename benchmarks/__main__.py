"""Every benchmark, one table: `python -m benchmarks [--quick] [--only NAME] [--busy] [--json]`."""

import argparse
import compileall
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.measure import ROOT, ContenderFailed, Figure, Options, machine
from benchmarks.workload import WrongOutput

_ALL = (
    "startup",
    "decode",
    "commit",
    "throughput",
    "mixes",
    "gzip_cost",
    "latency",
    "paced",
    "requests",
    "memory",
    "many_keys",
    "contenders",
)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less work, two rounds: a look only")
    parser.add_argument("--rounds", type=int, help="how often each contender runs  [5]")
    parser.add_argument("--only", action="append", choices=_ALL, metavar="NAME", help=str(_ALL))
    parser.add_argument("--busy", action="store_true", help="with one core kept busy meanwhile")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args()
    options = Options(given.rounds or (2 if given.quick else 5), given.quick)
    about = {**machine(), "rounds": options.runs, "quick": given.quick, "busy_core": given.busy}
    for package in ("harvester", "benchmarks"):  # as an installation does
        compileall.compile_dir(ROOT / package, quiet=1)
    began = time.monotonic()
    found: dict[str, list[Figure]] = {}
    failed = False
    with _busy_core() if given.busy else _nothing():
        for name in given.only or _ALL:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                found[name] = importlib.import_module(f"benchmarks.{name}").measure(options)
            except (ContenderFailed, WrongOutput) as wrong:
                failed = True
                print(f"{name}: {wrong}", file=sys.stderr)
    about["took_s"] = round(time.monotonic() - began, 1)
    if given.json:
        figures = {name: [figure.plain() for figure in own] for name, own in found.items()}
        print(json.dumps({"machine": about, "figures": figures}, indent=2))
    else:
        _print(about, found)
    return int(failed)


def _print(about: dict[str, Any], found: dict[str, list[Figure]]) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in about.pop("versions").items())
    print(f"{about.pop('cpu')}, {about.pop('cores')} cores, {about.pop('system')}")
    print(f"{about.pop('python')}, {versions}")
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for name, figures in found.items():
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n{name}: {str(module.__doc__).partition(chr(10))[0]}")
        print(f"  {'':52} {'':32} {'median':>14} {'x floor':>8}  target")
        before = ""
        for figure in figures:
            what = figure.what if figure.what != before else ""
            before = figure.what
            print(f"  {what:52} {figure.contender:32} {_cells(figure)}".rstrip())


def _cells(figure: Figure) -> str:
    digits = (
        0 if figure.unit in {"", "%"} or figure.value >= 1_000 else 3 - len(str(int(figure.value)))
    )
    value = f"{figure.value:,.{max(0, digits)}f} {figure.unit}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    target = ""
    if figure.target is not None:
        target = f"{'met' if figure.met else 'MISSED'} (at most {figure.target:g})"
    return f"{value:>14} {ratio:>8}  {'  '.join(part for part in (target, figure.note) if part)}"


@contextmanager
def _busy_core() -> Iterator[None]:
    """Something else to do for one core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], cwd=ROOT)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


if __name__ == "__main__":
    sys.exit(_main())
