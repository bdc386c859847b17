"""Files made durable together, in a thread: who comes while all threads are busy shares the next.

The way to a thread and back costs more than most syncs, and a sync may take any time: so neither
is spent by every campaign on its own, nor on the event loop.
"""

import asyncio

import anyio

from harvester.disk.part import PartFile
from harvester.errors import StorageError

_THREADS = 4  # more make the disk no faster, and cost the event loop its turns


class GroupSync:
    """Syncs part files for many walks at once."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._turns = asyncio.Semaphore(threads)
        self._next = _Batch()

    async def sync(self, part: PartFile) -> None:
        """Return when all that was written to `part` is durable. Raise `StorageError` if not."""
        mine = self._next
        mine.parts.add(part)
        try:
            async with self._turns:
                if self._next is mine:
                    self._next = _Batch()
                await mine.sync()
        finally:
            mine.parts.discard(part)


class _Batch:
    """Parts that wait for one sync; the first whose turn it is sees to it for all."""

    def __init__(self) -> None:
        self.parts: set[PartFile] = set()
        self._turn = asyncio.Lock()
        self._synced = False
        self._broken: str | None = None

    async def sync(self) -> None:
        async with self._turn:
            if self._broken is not None:  # never tried again: the kernel may have dropped the data
                raise StorageError(self._broken)
            if not self._synced:
                await self._sync()
                self._synced = True

    async def _sync(self) -> None:
        files: list[PartFile] = []
        try:
            # Descriptors of their own: a walk that is cancelled closes its file meanwhile.
            files.extend(part.duplicate() for part in self.parts)
            await anyio.to_thread.run_sync(_sync, files)
        except StorageError as broken:
            self._broken = str(broken)
            raise
        finally:
            while files:
                files.pop().close()


def _sync(files: list[PartFile]) -> None:
    """Sync and close; what is taken off the list is nobody else's to close."""
    while files:
        file = files.pop()
        try:
            file.sync()
        finally:
            file.close()
