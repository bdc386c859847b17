"""Part files that many walks want durable at once: synced together, told together, never twice."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from harvester.disk.group_sync import GroupSync
from harvester.disk.part import PartFile
from harvester.errors import StorageError


class Disk:
    """A disk that may be slow with a file, or refuse it; keeps what it was asked to sync."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.group = GroupSync(threads=1)
        self.parts: dict[str, PartFile] = {}
        self.calls: list[int] = []  # the files of each call of a thread
        self.asked: list[str] = []  # the names of the files, as their sync began
        self.threads: set[int] = set()
        self.refused: set[str] = set()  # once: a second try succeeds, as the kernel has it
        self._slow: dict[str, threading.Event] = {}
        self._begun: dict[str, asyncio.Event] = {}
        self._real_sync, self._real_run = os.fdatasync, anyio.to_thread.run_sync

    def part(self, name: str) -> PartFile:
        """A new part file with a row in it."""
        self.parts[name] = PartFile(self.folder / name)
        self.parts[name].append(b"row\n")
        return self.parts[name]

    def close(self, *names: str) -> None:
        """Close these parts, as walks do that are over."""
        for name in names:
            self.parts.pop(name).close()

    def syncing(self, *names: str) -> list[asyncio.Task[None]]:
        """Walks that want a new part synced, each in its own task."""
        return [asyncio.create_task(self.group.sync(self.part(name))) for name in names]

    def slow(self, *names: str) -> None:
        """A sync of these files does not end until `go_on`."""
        for name in names:
            self._slow[name], self._begun[name] = threading.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def begun(self, name: str) -> None:
        """Return when a slow file's sync is under way."""
        await self._begun[name].wait()

    def go_on(self, *names: str) -> None:
        """End the sync of slow files."""
        for name in names:
            self._slow[name].set()

    def end(self) -> None:
        """Hold nobody up any more, and give the files back."""
        self.go_on(*self._slow)
        self.close(*self.parts)

    def fdatasync(self, file: int) -> None:
        """In the place of the kernel's."""
        name = os.readlink(f"/proc/self/fd/{file}").rpartition("/")[2]  # noqa: PTH115
        self.asked.append(name)
        self.threads.add(threading.get_ident())
        if name in self._slow:
            self._loop.call_soon_threadsafe(self._begun[name].set)
            self._slow[name].wait()
        if name in self.refused:
            self.refused.discard(name)
            raise OSError(5, "Input/output error")
        self._real_sync(file)

    async def run_sync(self, work: Any, files: list[PartFile]) -> None:
        """In the place of anyio's."""
        self.calls.append(len(files))
        await self._real_run(work, files)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk that is watched."""
    disk = Disk(tmp_path)
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    monkeypatch.setattr(anyio.to_thread, "run_sync", disk.run_sync)
    yield disk
    disk.end()


async def turn() -> None:
    """Let every task that is ready have its turn."""
    await asyncio.sleep(0)


# -- together ----------------------------------------------------------------------------------


async def test_a_part_is_synced_in_a_thread(disk: Disk) -> None:
    """The event loop does not wait for the disk."""
    await asyncio.gather(*disk.syncing("a"))
    assert disk.asked == ["a"]
    assert threading.get_ident() not in disk.threads


async def test_parts_that_come_at_once_share_one_call(disk: Disk) -> None:
    """Whoever finds a thread free waits for no company, all that come behind go together."""
    names = [str(number) for number in range(50)]
    await asyncio.gather(*disk.syncing(*names))
    assert disk.calls == [1, 49]
    disk.calls.clear()
    disk.group = GroupSync()
    await asyncio.gather(*disk.syncing(*names))
    assert disk.calls == [1, 1, 1, 1, 46]
    assert sorted(disk.asked) == sorted(names * 2)


async def test_a_part_that_comes_while_a_batch_is_under_way_is_in_the_next(disk: Disk) -> None:
    """The sync that has begun may have missed it."""
    disk.slow("a")
    (first,) = disk.syncing("a")
    await disk.begun("a")
    batch = disk.syncing("b", "c")
    await turn()
    batch += disk.syncing("d")
    await turn()
    assert disk.calls == [1]
    disk.go_on("a")
    await first
    assert disk.calls == [1, 3]
    last = disk.syncing("e")
    await asyncio.gather(*batch, *last)
    assert disk.calls == [1, 3, 1]
    assert (disk.asked[0], sorted(disk.asked[1:4]), disk.asked[4:]) == ("a", [*"bcd"], ["e"])


async def test_nobody_goes_on_before_its_batch_is_synced(disk: Disk) -> None:
    """Neither who sees to it nor who waits for it."""
    disk.slow("a", "b", "c")
    (first,) = disk.syncing("a")
    await disk.begun("a")
    batch = disk.syncing("b", "c")
    disk.go_on("a")
    await first
    disk.go_on("b")
    await disk.begun("c")
    assert [task.done() for task in batch] == [False, False]
    disk.go_on("c")
    await asyncio.gather(*batch)
    assert sorted(disk.asked) == ["a", "b", "c"]


async def test_a_part_that_grew_is_synced_again(disk: Disk) -> None:
    """What was synced before says nothing of what was written since."""
    part = disk.part("a")
    for _ in range(2):
        await disk.group.sync(part)
        part.append(b"row\n")
    assert disk.asked == ["a", "a"]


# -- failure -----------------------------------------------------------------------------------


async def test_a_sync_that_fails_is_told_to_its_whole_batch(disk: Disk) -> None:
    """And tried by none of them again: that could succeed without having saved anything."""
    disk.slow("a")
    (first,) = disk.syncing("a")
    await disk.begun("a")
    disk.refused = {"b", "c", "d"}
    batch = disk.syncing("b", "c", "d")
    disk.go_on("a")
    await first
    ends = await asyncio.gather(*batch, return_exceptions=True)
    assert [type(end) for end in ends] == [StorageError] * 3
    assert {str(end) for end in ends} == {
        f"cannot use {disk.folder / disk.asked[1]}: Input/output error"
    }
    assert disk.calls == [1, 3]
    assert len(disk.asked) == 2


async def test_a_sync_that_fails_is_told_to_no_other_batch(disk: Disk) -> None:
    """Those that come later are synced by their own."""
    disk.slow("a")
    disk.refused = {"a"}
    (first,) = disk.syncing("a")
    await disk.begun("a")
    batch = disk.syncing("b", "c")
    disk.go_on("a")
    with pytest.raises(StorageError, match="Input/output error"):
        await first
    await asyncio.gather(*batch)
    assert disk.calls == [1, 2]
    assert sorted(disk.asked) == ["a", "b", "c"]


# -- cancellation ------------------------------------------------------------------------------


async def test_whoever_is_cancelled_while_it_waits_may_close_its_part(disk: Disk) -> None:
    """The others of its batch are synced without it, also if it was the first of them."""
    disk.slow("a")
    (first,) = disk.syncing("a")
    await disk.begun("a")
    gone, *others = disk.syncing("b", "c", "d")
    await turn()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    disk.close("b")
    disk.go_on("a")
    await asyncio.gather(first, *others)
    assert disk.calls == [1, 2]
    assert sorted(disk.asked) == ["a", "c", "d"]


async def test_a_part_may_be_closed_while_its_batch_is_under_way(disk: Disk) -> None:
    """Its sync goes on all the same, and harms nobody else's."""
    disk.slow("a", "b", "c")
    (first,) = disk.syncing("a")
    await disk.begun("a")
    other, gone = disk.syncing("b", "c")
    disk.go_on("a")
    await first
    assert disk.calls == [1, 2]
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    disk.close("c")
    disk.go_on("b", "c")
    await other
    assert disk.calls == [1, 2]
    assert sorted(disk.asked) == ["a", "b", "c"]


async def test_whoever_is_cancelled_before_its_batch_begins_leaves_it_to_the_next(
    disk: Disk,
) -> None:
    """Who waits for it sees to the batch then, without the part that was closed."""
    disk.slow("a")
    (first,) = disk.syncing("a")
    await disk.begun("a")
    gone, *others = disk.syncing("b", "c", "d")
    disk.go_on("a")
    await first
    assert (disk.calls, disk.asked) == ([1, 3], ["a"])  # no thread has it yet
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    disk.close("b")
    await asyncio.gather(*others)
    assert disk.calls == [1, 3, 2]
    assert sorted(disk.asked) == ["a", "c", "d"]


async def test_whoever_is_cancelled_while_its_batch_is_under_way_sees_it_to_its_end(
    disk: Disk,
) -> None:
    """A thread cannot be called back; what it has synced is not synced again."""
    disk.slow("a", "b")
    scope = anyio.CancelScope()

    async def leave() -> None:
        with scope:
            await disk.group.sync(disk.part("b"))
            await anyio.sleep_forever()

    (first,) = disk.syncing("a")
    await disk.begun("a")
    leaving = asyncio.create_task(leave())
    await turn()
    others = disk.syncing("c", "d")
    disk.go_on("a")
    await disk.begun("b")
    scope.cancel()
    await turn()
    assert not leaving.done()
    disk.go_on("b")
    await asyncio.gather(first, leaving, *others)
    assert scope.cancelled_caught
    assert disk.calls == [1, 3]
    assert sorted(disk.asked) == ["a", "b", "c", "d"]


# -- descriptors -------------------------------------------------------------------------------


def descriptors() -> int:
    """How many files this process has open."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("how", ["synced", "refused", "cancelled"])
async def test_no_descriptor_is_left_open(disk: Disk, how: str) -> None:
    """However the batches end, all that is open then are the parts themselves."""
    before = descriptors()
    disk.slow("a")
    walks = disk.syncing("a", *"bcdefgh")
    await disk.begun("a")
    if how == "refused":
        disk.refused = {*"abcdefgh"}
    if how == "cancelled":
        for walk in walks[1::2]:
            walk.cancel()
    disk.go_on("a")
    ends = await asyncio.gather(*walks, return_exceptions=True)
    kinds = {"synced": None, "refused": StorageError, "cancelled": asyncio.CancelledError}
    ended = [None if end is None else type(end) for end in ends]
    assert ended.count(kinds[how]) == (4 if how == "cancelled" else 8)
    assert descriptors() == before + len(walks)
    disk.close(*disk.parts)
    assert descriptors() == before
