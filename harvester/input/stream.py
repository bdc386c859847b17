"""Ids read ahead of their walks in blocks: each block is made ready before its ids are given."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Generic, TypeVar

import anyio
from msgspec import Struct

T = TypeVar("T")


class BlockStream(Struct, Generic[T], eq=False, dict=True):
    """Gives the items of a source, in the parts that `ready` makes of each block of at most `most`.

    A block is made ready while the part before it is in use. Of an asynchronous source it is what
    has come meanwhile.
    """

    source: AsyncIterator[T] | Iterator[T]
    most: int
    ready: Callable[[list[T]], AsyncGenerator[Sequence[T], None]]

    def __post_init__(self) -> None:
        # In both, an empty part says that there is no more.
        self._items: asyncio.Queue[Sequence[T]] = asyncio.Queue(self.most)
        self._parts: asyncio.Queue[Sequence[T]] = asyncio.Queue()

    async def run(self) -> None:
        """Read to the end. Raise what the source raises."""
        async with anyio.create_task_group() as group:
            if isinstance(self.source, AsyncIterator):
                group.start_soon(self._read_ahead, self.source)
            while block := await self._block():
                async with aclosing(self.ready(block)) as parts:
                    async for part in parts:
                        if part:
                            self._parts.put_nowait(part)
                            await self._parts.join()  # it is taken
            self._parts.put_nowait(())

    async def _read_ahead(self, source: AsyncIterator[T]) -> None:
        async for item in source:
            await self._items.put((item,))
        await self._items.put(())

    async def _block(self) -> list[T]:
        if isinstance(self.source, Iterator):
            return list(islice(self.source, self.most))
        block: list[T] = []
        while not block or (len(block) < self.most and not self._items.empty()):
            if not (item := await self._items.get()):
                self._items.put_nowait(())
                break
            block += item
        return block

    async def __aiter__(self) -> AsyncIterator[T]:
        while part := await self._parts.get():
            self._parts.task_done()
            for item in part:
                yield item
