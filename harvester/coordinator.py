"""N walkers over a lazy source of campaigns, isolated from each other, stopped in order."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

import anyio

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
        # Never longer than there are free workers; None says to one of them that there is no
        # more. A memory stream does the same at several times the cost of each campaign.
        free, ready = asyncio.Semaphore(0), asyncio.Queue[T | None]()
        begun = 0  # workers: as many as there are items at once, a few campaigns need no more

        async def one_is_free() -> None:
            nonlocal begun
            if free.locked() and begun < self._workers:
                group.start_soon(self._worker, free, ready)
                begun += 1
            await free.acquire()

        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as self._feeding:
                await self._feed(items, one_is_free, ready)
            for _ in range(begun):
                ready.put_nowait(None)

    async def _feed(
        self,
        items: AsyncIterable[T],
        one_is_free: Callable[[], Awaitable[None]],
        ready: asyncio.Queue[T | None],
    ) -> None:
        await one_is_free()
        async for item in items:
            if self._stop.requested:
                return
            ready.put_nowait(item)
            await asyncio.sleep(0)  # so that the first request is out before the last file is open
            await one_is_free()

    async def _worker(self, free: asyncio.Semaphore, ready: asyncio.Queue[T | None]) -> None:
        while not self._stop.requested:
            free.release()
            item = await ready.get()
            if item is None or self._stop.requested:
                return
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
