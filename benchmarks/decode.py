"""From a body to the bytes of a file: what does the strict, exact reader cost?

`read_page` checks UTF-8, shape, ids and next link, and keeps every row as the bytes it came in;
orjson and json make objects of them and write those again, which is neither checked nor exact.
Pages as they are: opens without a blank, with one in a twelfth of the rows, indented, with an
address beyond ASCII, with a lone surrogate; bounces with messages; rows of v3 with names.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from benchmarks.measure import Figure, Options, interleaved, middle, times
from benchmarks.workload import Workload
from harvester.api.base import Api
from harvester.api.v2 import V2
from harvester.api.v3 import V3
from harvester.model import Target

_BUDGET = 0.15  # s for one run of one contender
_DENSE = (",", ":")
_ACTIVITY = "1d3a7b5e-0c1f-4a52-9a6b-0123456789ab"
_BOUNCE = {
    "activity_type": "EMAIL_BOUNCE",
    "bounce_code": "B",
    "bounce_description": "Non-existent address",
    "bounce_message": '550 5.1.1 <contact@example.com>: rejected: unknown in "virtual" table',
    "email_address": "contact@example.com",
    "bounce_date": "2026-01-31T00:00:00.000Z",
}
FLOOR, STDLIB, OURS = "orjson, loads and dumps", "json, loads and dumps", "harvester read_page"


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    mixes = _mixes()
    for name, mix in mixes.items():
        page = mix.api.read_page(mix.target, mix.link, mix.body)
        rows = json.loads(mix.body)[mix.rows]
        assert page.records() == rows, name  # noqa: S101
    # Once a block of this size was freed, glibc keeps those of a page's size for reuse, as it does
    # in a run; before, each costs its page faults, and the first contender would pay for it.
    bytes(1 << 20)
    return [figure for name, mix in mixes.items() for figure in _compared(options, name, mix)]


@dataclass(frozen=True, kw_only=True)
class _Mix:
    """A page of one kind of rows, and how it is read; `rows` is the member that holds them."""

    api: Api
    target: Target
    link: str
    rows: str
    body: bytes


def _mixes() -> dict[str, _Mix]:
    load = Workload(1, 2, 2)
    compact = load.body(0, 1)
    rows = json.loads(compact)["results"]
    blanks = [{**row, "name": "Ann Lee" if at % 12 == 0 else "Ann"} for at, row in enumerate(rows)]
    bodies = {
        "dense": compact,
        "blanks": compact.replace(_dense(rows), _dense(blanks)),
        "indented": json.dumps(json.loads(compact), indent=2).encode(),
        "not ASCII": compact.replace(b'"email_address":"', '"email_address":"zoë.'.encode(), 1),
        "lone surrogate": compact.replace(b'"email_address":"', b'"email_address":"\\ud800', 1),
    }
    opens = Target("opens", load.ids[0])
    mixes = {
        name: _Mix(api=V2(), target=opens, link="", rows="results", body=body)
        for name, body in bodies.items()
    }
    bounces = [{**_BOUNCE, "campaign_id": load.ids[0], "contact_id": str(at)} for at in range(500)]
    mixes["bounces"] = _Mix(
        api=V2(),
        target=Target("bounces", load.ids[0]),
        link="",
        rows="results",
        body=b'{"meta":{"pagination":{}},"results":%s}' % _dense(bounces),
    )
    mixes["v3"] = _Mix(
        api=V3(),
        target=Target("opens", _ACTIVITY),
        link=f"/v3/reports/email_reports/{_ACTIVITY}/tracking/opens?limit=500#500",
        rows="tracking_activities",
        body=b'{"tracking_activities":%s}' % _dense([_open(at) for at in range(500)]),
    )
    return mixes


def _open(number: int) -> dict[str, object]:
    """A row of v3: now and then a blank, an escape, a big integer, or no name at all."""
    row: dict[str, object] = {
        "contact_id": f"{number:08d}-0c1f-4a52-9a6b-0123456789ab",
        "campaign_activity_id": _ACTIVITY,
        "tracking_activity_type": "em_opens",
        "email_address": f"contact{number}@example.com",
    }
    if number % 9:
        row["first_name"] = ("Ann", "Mary Ann", "Zoë", 'Bob "B"')[number % 4]
        row["last_name"] = ("Lee", "de la Cruz", "O'Brien")[number % 3]
    if number % 50 == 0:
        row["sequence"] = 2**64 + number
    return {**row, "created_time": "2026-01-31T00:00:00.000Z", "device_type": "mobile"}


def _dense(rows: object) -> bytes:
    return json.dumps(rows, separators=_DENSE).encode()


def _compared(options: Options, name: str, mix: _Mix) -> list[Figure]:
    body = mix.body
    rows = len(json.loads(body)[mix.rows])
    contenders = {
        STDLIB: lambda: _json(body, mix.rows),
        OURS: lambda: mix.api.read_page(mix.target, mix.link, body),
    }
    if name != "lone surrogate":  # which orjson refuses
        contenders[FLOOR] = lambda: _orjson(body, mix.rows)
    runs = interleaved(
        {who: lambda number, work=work: _timed(work) for who, work in contenders.items()},
        options.runs,
    )
    figures = []
    for who, own in runs.items():
        each = middle(own, float)
        ratio = times(own, runs.get(FLOOR, runs[STDLIB]), float)
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


def _orjson(body: bytes, member: str) -> bytes:
    rows = orjson.loads(body)[member]
    return b"".join([orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows])


def _json(body: bytes, member: str) -> bytes:
    rows = json.loads(body)[member]
    return "".join([json.dumps(row, separators=(",", ":")) + "\n" for row in rows]).encode()
