"""From a body to the bytes of a file: what does the strict, exact reader cost?

`read_page` checks UTF-8, shape, owner and next link, and keeps every row as the bytes it came in;
orjson and json make objects of them and write those again, which is neither checked nor exact.
Compact pages, as the API sends them, indented ones, and one with an address beyond ASCII.
"""

import json
import time
from collections.abc import Callable

import orjson

from benchmarks.measure import Figure, Options, interleaved, middle, times
from benchmarks.workload import Workload
from harvester.api.v2 import V2
from harvester.model import Target

_BUDGET = 0.15  # s for one run of one contender
FLOOR, STDLIB, OURS = "orjson, loads and dumps", "json, loads and dumps", "harvester read_page"


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    load = Workload(1, 2, 2)
    compact = load.body(0, 1)
    indented = json.dumps(json.loads(compact), indent=2).encode()
    beyond = compact.replace(b'"email_address":"', '"email_address":"zoë.'.encode(), 1)
    target = Target("opens", load.ids[0])
    assert V2().read_page(target, "", compact).ndjson == load.lines(0, 1)  # noqa: S101
    assert V2().read_page(target, "", indented).ndjson == load.lines(0, 1)  # noqa: S101
    # Once a block of this size was freed, glibc keeps those of a page's size for reuse, as it does
    # in a run; before, each costs its page faults, and whoever came first would pay for it.
    bytes(1 << 20)
    figures = []
    for name, body in (("compact", compact), ("indented", indented), ("not ASCII", beyond)):
        figures += _compared(options, name, body, target)
    return figures


def _compared(options: Options, name: str, body: bytes, target: Target) -> list[Figure]:
    rows = len(orjson.loads(body)["results"])
    api = V2()
    contenders = {
        FLOOR: lambda: _orjson(body),
        STDLIB: lambda: _json(body),
        OURS: lambda: api.read_page(target, "", body),
    }
    runs = interleaved(
        {who: lambda number, work=work: _timed(work) for who, work in contenders.items()},
        options.runs,
    )
    figures = []
    for who, own in runs.items():
        each = middle(own, float)
        ratio = times(own, runs[FLOOR], float)
        note = f"{rows / each / 1e6:.2f} M rows/s, {len(body) / each / 1e6:.0f} MB/s"
        figures.append(Figure(f"decode, {name} page", who, each * 1e6, "us", ratio, note=note))
    return figures


def _timed(work: Callable[[], object]) -> float:
    """Seconds for one page."""
    for _ in range(20):  # warm up: caches, and the clock of the core
        work()
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < _BUDGET:
        for _ in range(20):
            work()
        done += 20
    return spent / done


def _orjson(body: bytes) -> bytes:
    rows = orjson.loads(body)["results"]
    return b"".join([orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows])


def _json(body: bytes) -> bytes:
    rows = json.loads(body)["results"]
    return "".join([json.dumps(row, separators=(",", ":")) + "\n" for row in rows]).encode()
