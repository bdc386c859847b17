"""Ids read ahead of their walks in blocks: each block is made ready before its ids are given."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")
_BLOCK_WAIT = 0.5  # s: how long a walk that has nothing to do waits for more ids of a slow source


@dataclass(eq=False, repr=False)
class BlockStream(Generic[T]):
    """Gives the items of a source, in the parts that `ready` makes of each block of at most `most`.

    One part waits to be taken, and the items of one block are read meanwhile. A block is cut short
    where an asynchronous source is slow and its items are waited for.
    """

    source: AsyncIterator[T] | Iterator[T]
    most: int
    ready: Callable[[list[T]], AsyncGenerator[Sequence[T], None]]

    def __post_init__(self) -> None:
        self._items: asyncio.Queue[T | None] = asyncio.Queue(self.most)  # None says: no more
        self._parts: asyncio.Queue[Sequence[T]] = asyncio.Queue(1)  # an empty one says so
        self._is_waited_for = False

    async def run(self) -> None:
        """Read to the end. Raise what the source raises."""
        async with anyio.create_task_group() as group:
            if isinstance(self.source, AsyncIterator):
                group.start_soon(self._read_ahead, self.source)
            while block := await self._block():
                async with aclosing(self.ready(block)) as parts:
                    async for part in parts:
                        if part:
                            await self._parts.put(part)
            await self._parts.put(())

    async def _read_ahead(self, source: AsyncIterator[T]) -> None:
        async for item in source:
            await self._items.put(item)
        await self._items.put(None)

    async def _block(self) -> list[T]:
        if isinstance(self.source, Iterator):
            return list(islice(self.source, self.most))
        block: list[T] = []
        while len(block) < self.most:
            with anyio.move_on_after(_BLOCK_WAIT if block else None):
                if (item := await self._items.get()) is None:
                    self._items.put_nowait(None)
                    break
                block.append(item)
                continue
            if self._is_waited_for:
                break
        return block

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            self._is_waited_for = True
            part = await self._parts.get()
            self._is_waited_for = False
            if not part:
                return
            for item in part:
                yield item
