"""Ids from a source that can be read once: a block of them is read ahead and asked about."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")
_BLOCK_WAIT = 0.5  # s: how long a walk that has nothing to do waits for more ids of a slow source


class BlockStream(Generic[T]):
    """Gives the items of a source once `ask` was awaited with their block of at most `most`.

    So many items are read ahead, and so many wait to be taken. A block is cut short where the
    source is slow and its items are waited for.
    """

    def __init__(
        self,
        source: AsyncIterator[T] | Iterator[T],
        most: int,
        ask: Callable[[list[T]], Awaitable[None]],
    ) -> None:
        self._source = source
        self._most = most
        self._ask = ask
        self._write, self._read = anyio.create_memory_object_stream[T](most)
        self._give, self._take = anyio.create_memory_object_stream[T](most)

    async def run(self) -> None:
        """Read to the end. Raise what the source raises."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._ask_about_all)
            with self._write:
                if isinstance(self._source, AsyncIterator):
                    async for item in self._source:
                        await self._put(item)
                else:
                    for item in self._source:
                        await self._put(item)

    async def _put(self, item: T) -> None:
        try:
            self._write.send_nowait(item)
        except anyio.WouldBlock:
            await self._write.send(item)

    async def _ask_about_all(self) -> None:
        with self._read, self._give:
            while block := await self._block():
                await self._ask(block)
                for item in block:
                    await self._give.send(item)

    async def _block(self) -> list[T]:
        block: list[T] = []
        while len(block) < self._most:
            try:
                with anyio.move_on_after(_BLOCK_WAIT if block else None):
                    block.append(await self._read.receive())
                    continue
            except anyio.EndOfStream:
                break
            if self._take.statistics().tasks_waiting_receive:
                break
        return block

    async def __aiter__(self) -> AsyncIterator[T]:
        with self._take:
            async for item in self._take:
                yield item
