"""N walkers over a bounded stream of campaigns, isolated from each other, stopped in order."""

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Generic, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from harvester.errors import StopRun
from harvester.stop import StopSignal

T = TypeVar("T")


class Coordinator(Generic[T]):
    """Runs `work` on every item of a stream, `workers` at once.

    The stream has no buffer: an item is read when a worker is free for it, so a hundred thousand
    of them cost what `workers` cost. A `StopRun` out of any worker, or from outside through the
    signal, ends the run: no item is begun any more, what is in flight may end, at most for the
    signal's grace.
    """

    def __init__(self, work: Callable[[T], Awaitable[None]], *, workers: int, stop: StopSignal):
        self._work = work
        self._workers = workers
        self._stop = stop

    async def run(self, items: AsyncIterable[T]) -> None:
        """Return when all items are done, or the run was stopped."""
        feeding = anyio.CancelScope()
        async with anyio.create_task_group() as watch:
            watch.start_soon(self._obey, feeding, watch.cancel_scope)
            send, receive = anyio.create_memory_object_stream[T](0)
            async with anyio.create_task_group() as group, receive, send:
                for _ in range(self._workers):
                    group.start_soon(self._worker, receive.clone())
                with feeding:
                    await self._feed(items, send)
            watch.cancel_scope.cancel()

    async def _feed(self, items: AsyncIterable[T], send: MemoryObjectSendStream[T]) -> None:
        async for item in items:
            if self._stop.requested:
                return
            try:
                await send.send(item)
            except anyio.BrokenResourceError:  # every worker has stopped
                return

    async def _worker(self, receive: MemoryObjectReceiveStream[T]) -> None:
        async with receive:
            async for item in receive:
                if self._stop.requested:
                    return
                try:
                    await self._work(item)
                except StopRun as order:
                    self._stop.request(order)
                    return

    async def _obey(self, feeding: anyio.CancelScope, everything: anyio.CancelScope) -> None:
        """On the order to stop: read no more items, then let the work end, or end it."""
        await self._stop.wait()
        feeding.cancel()
        if self._stop.grace is not None:
            await anyio.sleep(self._stop.grace)
            everything.cancel()
