"""Saving a page: what does each durability cost, beside a plain write?

`PartFile.append` and `CheckpointStore.commit` for pages of 500 rows, round-robin over 32 walks as
a run makes them: every commit on the disk (durable: at any pace an API allows), and left to SQLite.
It is a disk that is measured here: expect other figures elsewhere.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from benchmarks.measure import Figure, Options, interleaved, middle, scratch, times
from benchmarks.workload import Workload
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.part import PartFile
from harvester.model import Page, Target
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
        "left to SQLite": lambda number: _saved(ndjson, many, durable=False),
        "durable": lambda number: _saved(ndjson, few, durable=True),
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


def _saved(ndjson: bytes, pages: int, *, durable: bool) -> float:
    """Seconds a page."""
    with scratch() as folder, ExitStack() as stack:
        store = CheckpointStore(folder / "state.sqlite", durable=durable)
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
    saved = store.take(Target("opens", str(number)))
    assert saved is not None  # noqa: S101
    for number in range(pages):
        link = f"/v2/emailmarketing/campaigns/{number}/tracking/opens?next={number}"
        page = Page(ndjson, 500, link, cursor=cursor_digest(link))
        at = saved.position.after(page, part.append(ndjson))
        saved = replace(
            saved, state="partial", position=at, digest=part.digest(), started_at=_STARTED
        )
        await store.commit(saved, page, part)
