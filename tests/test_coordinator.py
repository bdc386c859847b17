"""Many walkers over one stream: bounded, isolated, stopped in order."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import anyio
import anyio.lowlevel
import pytest
from fakes import LoopClock, virtually

from harvester.coordinator import Coordinator
from harvester.errors import StopRun
from harvester.runtime import StopSignal


class Bench:
    """A coordinator over numbers; keeps what was read, begun and done, and when."""

    def __init__(self, work: Callable[[int], Awaitable[None]], workers: int = 4) -> None:
        self.stop = StopSignal()
        self.read: list[int] = []
        self.begun: list[int] = []
        self.done: list[int] = []
        self.cancelled: list[int] = []
        self.under_way = self.peak = 0
        self.begin = work
        self.coordinator = Coordinator(self.work, workers=workers, stop=self.stop)
        self.clock = LoopClock()

    async def work(self, item: int) -> None:
        """One item's work, counted."""
        self.begun.append(item)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            await self.begin(item)
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(item)
            raise
        finally:
            self.under_way -= 1
        self.done.append(item)

    async def items(self, source: Iterable[int]) -> AsyncIterator[int]:
        """The items, noted as they are read."""
        for item in source:
            self.read.append(item)
            yield item
            await anyio.lowlevel.checkpoint()

    async def run(self, source: Iterable[int]) -> None:
        """Run over a source."""
        await self.coordinator.run(self.items(source))


async def a_second(_: int) -> None:
    """Work that takes a second."""
    await anyio.sleep(1)


def run(main: Callable[[], Awaitable[Bench]]) -> Bench:
    """On a virtual clock; whatever was left open is found now, not in some later test."""
    try:
        return virtually(main)
    finally:
        gc.collect()


@pytest.mark.parametrize(("count", "workers"), [(0, 4), (1, 4), (3, 4), (20, 4), (20, 1), (5, 5)])
def test_every_item_is_done_once(count: int, workers: int) -> None:
    """As many at once as there are workers, and no more."""

    async def main() -> Bench:
        bench = Bench(a_second, workers)
        await bench.run(range(count))
        return bench

    bench = run(main)
    assert sorted(bench.done) == list(range(count))
    assert bench.begun == sorted(bench.begun)
    assert bench.peak == min(count, workers)


@pytest.mark.parametrize(("count", "tasks"), [(0, 1), (1, 2), (9, 10), (50, 50)])
def test_a_few_items_take_few_workers(count: int, tasks: int) -> None:
    """Each worker begins the next one with its first item; the last may wait in vain."""
    seen: list[int] = []

    async def look(_: int) -> None:
        await anyio.sleep(1)
        seen.append(len(asyncio.all_tasks()))

    async def main() -> Bench:
        bench = Bench(look, workers=50)
        await bench.run(range(count))
        return bench

    bench = run(main)
    assert len(bench.done) == count
    others = 2  # this one, and the one that watches for the order to stop
    assert max(seen, default=0) <= tasks + others


def test_a_source_is_read_no_further_than_needed() -> None:
    """Of an endless source: what the workers have, and nothing that would wait for a free one."""

    async def main() -> Bench:
        bench = Bench(a_second, workers=3)

        async def stop_later() -> None:
            await anyio.sleep(5.5)
            bench.stop.request(StopRun("SIGTERM", "stop"))

        async with anyio.create_task_group() as group:
            group.start_soon(stop_later)
            await bench.run(itertools.count())
        return bench

    bench = run(main)
    assert len(bench.done) == 18
    assert bench.read == bench.begun


def test_an_item_is_read_when_a_worker_is_free() -> None:
    """Nothing is read ahead into a buffer while all are busy."""

    async def main() -> Bench:
        bench = Bench(a_second, workers=2)
        async with anyio.create_task_group() as group:
            group.start_soon(bench.run, range(100))
            await anyio.sleep(0.5)
            assert len(bench.read) == 2
            group.cancel_scope.cancel()
        return bench

    assert run(main).done == []


def test_a_stop_out_of_one_worker_lets_the_others_end() -> None:
    """No item is begun any more; what is in flight is paid for and ends."""

    async def work(item: int) -> None:
        await anyio.sleep(1 + item / 10)
        if item == 1:
            raise StopRun("quota_spent", "spent")

    async def main() -> Bench:
        bench = Bench(work, workers=4)
        await bench.run(range(100))
        return bench

    bench = run(main)
    # Item 0 ends first, so its worker may have begun one more before the order.
    assert bench.begun == [0, 1, 2, 3, 4]
    assert sorted(bench.done) == [0, 2, 3, 4]
    assert bench.stop.order is not None
    assert bench.stop.order.reason == "quota_spent"
    assert not bench.cancelled


def test_a_stop_from_outside_lets_the_work_end() -> None:
    """Without a grace the work takes its time."""

    async def main() -> Bench:
        bench = Bench(a_second, workers=2)
        async with anyio.create_task_group() as group:
            group.start_soon(bench.run, itertools.count())
            await anyio.sleep(0.5)
            bench.stop.request(StopRun("max_duration", "over"))
        assert bench.clock.monotonic() == 1.0
        return bench

    bench = run(main)
    assert bench.done == bench.begun == [0, 1]


@pytest.mark.parametrize(("grace", "ends"), [(5.0, 1.0), (0.2, 0.7)])
def test_a_grace_is_the_longest_that_work_may_take(grace: float, ends: float) -> None:
    """What ends within it is done; the rest is cancelled, and the run returns."""

    async def main() -> Bench:
        bench = Bench(a_second, workers=2)
        async with anyio.create_task_group() as group:
            group.start_soon(bench.run, itertools.count())
            await anyio.sleep(0.5)
            bench.stop.request(StopRun("SIGTERM", "stop"), grace=grace)
        assert bench.clock.monotonic() == pytest.approx(ends)
        return bench

    bench = run(main)
    finished, broken = ([0, 1], []) if grace > 1 else ([], [0, 1])
    assert (bench.done, sorted(bench.cancelled)) == (finished, broken)


def test_a_stop_that_came_before_begins_nothing() -> None:
    """The order may be given before the run."""

    async def main() -> Bench:
        bench = Bench(a_second)
        bench.stop.request(StopRun("SIGTERM", "stop"))
        await bench.run(itertools.count())
        return bench

    bench = run(main)
    assert (bench.begun, bench.read) == ([], [])


def test_a_stop_reaches_a_source_that_waits() -> None:
    """Ids that come slowly, or never again, do not keep the run from ending."""

    async def main() -> Bench:
        bench = Bench(a_second)

        async def slow() -> AsyncIterator[int]:
            yield 1
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(bench.coordinator.run, slow())
            await anyio.sleep(10)
            bench.stop.request(StopRun("SIGINT", "stop"))
        return bench

    assert run(main).done == [1]


def test_a_bug_is_not_swallowed() -> None:
    """What is no order to stop comes out, and nothing goes on behind it."""

    async def work(item: int) -> None:
        await anyio.sleep(1)
        if item == 1:
            raise KeyError("bug")

    async def main() -> Bench:
        bench = Bench(work, workers=2)
        with pytest.raises(ExceptionGroup) as caught:
            await bench.run(range(10))
        assert caught.value.subgroup(KeyError) is not None
        return bench

    assert run(main).begun[:2] == [0, 1]


def test_a_source_that_fails_is_not_swallowed() -> None:
    """The error of the source of the items comes out."""

    async def main() -> Bench:
        bench = Bench(a_second)

        async def broken() -> AsyncIterator[int]:
            yield 1
            raise ValueError("bad line")

        with pytest.raises(ExceptionGroup) as caught:
            await bench.coordinator.run(broken())
        assert caught.value.subgroup(ValueError) is not None
        return bench

    run(main)


def test_a_cancel_from_outside_cancels_the_work() -> None:
    """Cancelling the caller reaches every worker, at once."""

    async def main() -> Bench:
        bench = Bench(a_second, workers=3)
        with anyio.move_on_after(0.5) as scope:
            await bench.run(itertools.count())
        assert scope.cancelled_caught
        assert bench.clock.monotonic() == 0.5
        return bench

    assert sorted(run(main).cancelled) == [0, 1, 2]
