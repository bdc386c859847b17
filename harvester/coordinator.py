"""N walkers over a lazy source of campaigns, isolated from each other, stopped in order."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from harvester.errors import StopRun
from harvester.runtime import StopSignal

T = TypeVar("T")


class Coordinator(Generic[T]):
    """Runs `work` on every item of a stream, `workers` at once.

    An item is read when a worker is free for it, so a hundred thousand of them cost what `workers`
    cost. One that `work` gives back is done again after all others. A `StopRun` out of any worker,
    or from outside through the signal, ends the run: no item is begun any more, what is in flight
    may end, at most for the signal's grace.
    """

    def __init__(self, work: Callable[[T], Awaitable[T | None]], *, workers: int, stop: StopSignal):
        self._work = work
        self._workers = workers
        self._stop = stop
        self._again: list[T] = []
        self._feeding = anyio.CancelScope()

    async def run(self, items: AsyncIterable[T]) -> None:
        """Return when all items are done, or the run was stopped."""
        async with anyio.create_task_group() as watch:
            watch.start_soon(self._obey, watch.cancel_scope)
            await self._round(items)
            while self._again and not self._stop.requested:
                again, self._again = self._again, []
                await self._round(_each(again))
            watch.cancel_scope.cancel()

    async def _round(self, items: AsyncIterable[T]) -> None:
        # Never longer than there are free workers; None says that there is no more. A memory
        # stream does the same at several times the cost of each campaign.
        free, ready = asyncio.Semaphore(0), asyncio.Queue[T | None]()
        async with anyio.create_task_group() as group:
            group.start_soon(self._worker, 1, group, free, ready)
            with anyio.CancelScope() as self._feeding:
                await self._feed(items, free, ready)
            ready.put_nowait(None)

    async def _feed(
        self, items: AsyncIterable[T], free: asyncio.Semaphore, ready: asyncio.Queue[T | None]
    ) -> None:
        await free.acquire()
        async for item in items:
            if self._stop.requested:
                return
            ready.put_nowait(item)
            await asyncio.sleep(0)  # so that the first request is out before the last file is open
            await free.acquire()

    async def _worker(
        self,
        number: int,
        group: TaskGroup,
        free: asyncio.Semaphore,
        ready: asyncio.Queue[T | None],
    ) -> None:
        """Work on one item after the other. With its first one a worker begins the next worker: a
        few items need no more than that."""
        begins_next = number < self._workers
        while not self._stop.requested:
            free.release()
            item = await ready.get()
            if item is None or self._stop.requested:
                ready.put_nowait(None)  # for the next worker
                return
            if begins_next:
                group.start_soon(self._worker, number + 1, group, free, ready)
                begins_next = False
            try:
                if (again := await self._work(item)) is not None:
                    self._again.append(again)
            except StopRun as order:
                self._stop.request(order)
                return

    async def _obey(self, everything: anyio.CancelScope) -> None:
        """On the order to stop: read no more items, then let the work end, or end it."""
        await self._stop.wait()
        self._feeding.cancel()
        if self._stop.grace is not None:
            await anyio.sleep(self._stop.grace)
            everything.cancel()


async def _each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
