"""Saving a page: what does each durability cost, beside a plain write?

`PartFile.append` and `CheckpointStore.commit` for pages of 500 rows, round-robin over 32 walks as
a run makes them: every commit on the disk (`sync_every` 0: the default at any pace an API
allows), grouped ten times a second, and never forced. It is a disk that is
measured here: expect other figures elsewhere.
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack, closing
from inspect import isawaitable
from typing import Any

from benchmarks.measure import Figure, Options, interleaved, middle, scratch, times
from benchmarks.workload import Workload
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.part import PartFile
from harvester.model import Page, Position, Target
from harvester.request.pagination import cursor_digest

_WALKS = 32
_STARTED = "2026-01-31T00:00:00.000Z"
FLOOR = "a plain write"


def measure(options: Options) -> list[Figure]:
    """The table's lines."""
    ndjson = Workload(1, 2, 2).lines(0, 1)
    few, many = options.of(200, 100), options.of(1_500, 500)
    contenders: dict[str, Callable[[int], float]] = {
        FLOOR: lambda number: _plain(ndjson, many),
        "sync_every=inf": lambda number: _saved(ndjson, many, math.inf),
        "sync_every=0.1": lambda number: _saved(ndjson, many, 0.1),
        "sync_every=0": lambda number: _saved(ndjson, few, 0.0),
    }
    runs = interleaved(contenders, options.runs)
    figures = []
    for name, own in runs.items():
        each = middle(own, float)
        ratio = times(own, runs[FLOOR], float)
        note = f"{1 / each:,.0f} pages/s"
        figures.append(Figure("commit a page", name, each * 1e6, "us", ratio, note=note))
    return figures


def _plain(ndjson: bytes, pages: int) -> float:
    with scratch() as folder, ExitStack() as stack:
        files = [
            stack.enter_context((folder / str(number)).open("wb", buffering=0))
            for number in range(_WALKS)
        ]
        began = time.perf_counter()
        for number in range(pages):
            files[number % _WALKS].write(ndjson)
        return (time.perf_counter() - began) / pages


def _saved(ndjson: bytes, pages: int, sync_every: float) -> float:
    """Seconds a page."""
    with scratch() as folder, ExitStack() as stack:
        store = CheckpointStore(folder / "state.sqlite", sync_every=sync_every)
        stack.enter_context(closing(store))
        store.begin_run({})
        each = -(-pages // _WALKS)
        walks = []
        for number in range(_WALKS):
            part = PartFile(folder / f"{number}.ndjson.part")
            stack.enter_context(closing(part))
            walks.append(_walk(store, number, part, ndjson, each))
        began = time.perf_counter()
        asyncio.run(_together(walks))
        return (time.perf_counter() - began) / (each * _WALKS)


async def _together(walks: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for walk in walks:
            group.create_task(walk)


async def _walk(
    store: CheckpointStore, number: int, part: PartFile, ndjson: bytes, pages: int
) -> None:
    record = store.take(Target("opens", str(number)))
    assert record is not None  # noqa: S101
    position = Position()
    for page in range(pages):
        link = f"/v2/emailmarketing/campaigns/{number}/tracking/opens?next={page}"
        position = position.after(Page(ndjson, 500, link), part.append(ndjson))
        saved = store.commit(
            record.walk, position, 500, cursor_digest(link), part, started_at=_STARTED
        )
        if isawaitable(saved):
            await saved
        else:
            await asyncio.sleep(0)  # the next walk's turn
